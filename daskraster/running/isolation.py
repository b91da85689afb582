"""Functions that work on files, each call in a process of its own.

Why processes. What such a function prints comes from itself, from libraries in C, and from the programs it starts: to catch it, file
descriptors 1 and 2 must be redirected, and a process has only one pair of them, so with threads in one process every call would catch
what all others print, the progress line too. A lock around each call would make the run serial. Such functions also change the working
folder, set GDAL's options, use what is not safe in threads; the recipe ran them in a `Pool`, one call a process at a time, and so do we.

Why not `multiprocessing`. Its fork copies a process whose threads hold locks; its spawn imports the user's script again, which must be
guarded by ``__name__ == "__main__"``, and does not work from a notebook's cell. A plain interpreter that loads a cloudpickled function does. It
starts once for each thread (0.1 s and what the function imports) and serves that thread's blocks until the end of the run.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskraster.errors import BlockResultError

SCRIPT = Path(__file__).with_name("isolated.py")
RAM_DISK = Path("/dev/shm")
# Of what a function printed, its end: what went wrong stands there.
SHOWN_BYTES = 10_000
# What one block may need besides the two files: files in between.
ROOM_FACTOR = 8
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function to be called on files, for one run. Travels with every task."""

    run: str
    """Names the run; its processes end together."""
    name: str
    """What messages call the function."""
    pickled: bytes
    """Function and keyword arguments."""
    scratch: str | None
    """Folder to work in; None: the RAM disk where there is room, else the folder for temporary files."""


class FilesProcess:
    """A process that calls one function on one file at a time. Used by one thread at a time; not picklable."""

    def __init__(self, call: Call, scratch: str) -> None:
        self._call = call
        self._printed = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - lives as long as the process
        # -P: the script's own folder is no place to import from. A session of its own: Ctrl-C is the leading process's affair.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            start_new_session=True,
        )
        try:
            self.folder = Path(self._asked((list(sys.path), scratch, call.pickled))[1])
            """Private to this process; empty between calls."""
        except BaseException as error:
            if isinstance(error, Exception) and self.printed():
                error.add_note(f"Python said:\n{self.printed()}")
            self.close(now=True)
            raise

    def call(self, path: Path) -> str:
        """The path that the function returned for ``path``, absolute.

        Raises
        ------
        BlockResultError
            It returned no path, or its process ended; what it printed is added as a note.
        Exception
            What the function raised, with its traceback and what it printed as notes.
        """
        # The place to write at is one for both processes.
        os.lseek(self._printed.fileno(), 0, os.SEEK_SET)
        os.ftruncate(self._printed.fileno(), 0)
        try:
            kind, content, text = self._asked(str(path))
            if kind == "returned" and content is not None:
                return str(content)
            if kind == "returned":
                raise BlockResultError(f"{self._call.name} must return the path of the file it wrote, got {text}")
            error = _loaded(content, text)
            error.add_note(f"in the process of {self._call.name}:\n{text.rstrip()}")
            raise error
        except Exception as error:
            printed = self.printed()
            if printed:
                error.add_note(f"{self._call.name} had printed:\n{printed}")
            raise

    def printed(self) -> str:
        """The end of what the last call printed, and of what its programs did."""
        descriptor = self._printed.fileno()
        size = os.fstat(descriptor).st_size
        content = os.pread(descriptor, SHOWN_BYTES, max(size - SHOWN_BYTES, 0))
        return ("[...] " if size > SHOWN_BYTES else "") + content.decode(errors="replace").strip()

    def empty(self) -> None:
        """Remove whatever lies in the folder."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def close(self, *, now: bool) -> None:
        """End the process, with the programs it started if ``now``; its folder goes too. Harmless when repeated."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        if now:
            self._kill()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._printed.close()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def _asked(self, request: Any) -> tuple[Any, ...]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            answer: tuple[Any, ...] = pickle.load(self._process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            status = self._process.wait()
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise BlockResultError(f"the process in which {self._call.name} ran {how}") from error
        return answer

    @property
    def lives(self) -> bool:
        """Whether it can take another request."""
        return self._process.poll() is None


class _Processes:
    """The processes of this one, lent to one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[FilesProcess]] = {}
        self._busy: dict[str, set[FilesProcess]] = {}
        self._closed: set[str] = set()

    @contextlib.contextmanager
    def borrow(self, call: Call, nbytes: int) -> Iterator[FilesProcess]:
        """A process for this call; its folder is empty, and is emptied afterwards."""
        with self._lock:
            self._check_open(call)
            idle = self._idle.get(call.run, [])
            process = idle.pop() if idle else None
        process = process or FilesProcess(call, call.scratch or memory_folder(nbytes))
        with self._lock:
            late = call.run in self._closed
            if not late:
                self._busy.setdefault(call.run, set()).add(process)
        if late:
            process.close(now=True)
            self._check_open(call)
        try:
            yield process
        finally:
            process.empty()
            self._give_back(call.run, process)

    def close(self, run: str) -> None:
        """End all processes of a run, those that still work too."""
        with self._lock:
            self._closed.add(run)
            idle, busy = self._idle.pop(run, []), self._busy.pop(run, set())
        for process in idle:
            process.close(now=False)
        for process in busy:
            process.close(now=True)

    def _check_open(self, call: Call) -> None:
        if call.run in self._closed:
            raise BlockResultError(f"the run of {call.name} is over")

    def _give_back(self, run: str, process: FilesProcess) -> None:
        with self._lock:
            self._busy.get(run, set()).discard(process)
            keep = process.lives and run not in self._closed
            if keep:
                self._idle.setdefault(run, []).append(process)
        if not keep:
            process.close(now=True)


processes = _Processes()


def close_run(run: str) -> None:
    """End this process's part of a run."""
    processes.close(run)


def memory_folder(nbytes: int) -> str:
    """Where small files cost no disk: the RAM disk where there is one with room for such blocks on every core, else the folder for temporary files.

    Parameters
    ----------
    nbytes
        Of a block's file.
    """
    wanted = ROOM_FACTOR * nbytes * (os.cpu_count() or 1)
    if RAM_DISK.is_dir() and os.access(RAM_DISK, os.W_OK | os.X_OK) and shutil.disk_usage(RAM_DISK).free > wanted:
        return str(RAM_DISK)
    return tempfile.gettempdir()


def _loaded(content: bytes | None, text: str) -> Exception:
    """What the function raised; of an error that does not travel, its last line."""
    if content is not None:
        try:
            error = pickle.loads(content)
        except Exception:  # noqa: BLE001 - its class does not load here; the text below says all
            error = None
        if isinstance(error, Exception):
            return error
    return BlockResultError(f"the function raised {text.strip().splitlines()[-1]}")
