"""A file that appears whole or not at all, filled by positioned writes from many threads and processes.

Ground floor: knows nothing of rasters. GeoTIFF and KEA stand on it, so that neither has its own idea of safety.

Every region of the file is handed out once and never written twice, so no two writers ever meet:

    header | region | region | region | ...            one process: a counter under a lock ("counter")

    header | extent 0      | extent 1      | extent 2   several processes, perhaps on several machines ("extents"):
             process A ....  process B ...   process A  each claims whole aligned extents and fills them from the front

What a file should have near its beginning, though it is not known yet, has room there: ``front`` for the last words of the leading
process, ``reserve`` for parts appended as such; when the reserve is full they go where all others go. ::

    header | front | reserve: region | region | ... | region | region | ...

An extent is claimed by creating an empty file of its number in a folder beside the partial file, with O_EXCL: the one operation
that is atomic on every file system, network disks included, and needs neither a lock nor a server nor a scheduler that
knows about us. The rest of a last extent stays empty until `close_gaps` moves the file's last regions into it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.errors import RasterWriteError
from daskraster.gaps import Gaps
from daskraster.grid import round_up
from daskraster.positioned import Buffer, nbytes_of, read_at, sync_folder, write_all
from daskraster.posting import GREETING, Post, is_shared

PAGE_NBYTES = 4096  # extents begin on pages, so that two machines never write the same one
SIDECARS = (".aux.xml", ".ovr", ".msk")  # what GDAL would read beside a new file of the old name
RESERVED = "reserve-"  # before the number of an extent of the reserve


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialFile:
    """An output under way: a hidden file beside the target, renamed onto it at the end.

    Threads: all methods but `create`, `publish` and `discard` may run at once. Pickling: with extents only; a counter cannot be
    shared between processes, so pickling one raises. After `publish` or `discard` every other call raises.
    """

    target: Path
    """Where the finished file goes, links followed."""
    path: Path
    """The hidden file beside it."""
    start: int
    """First byte after the header."""
    extent_nbytes: int | None
    """Size of an extent; None for a counter in this process."""
    front_nbytes: int = 0
    """Room behind the header that `append` leaves free."""
    reserve_nbytes: int = 0
    """Room behind the front for what is appended with ``reserved``."""
    mode: int = field(default=0o644)
    """Permissions the finished file gets."""
    post: Post | None = None
    """The way to the leading process, for those that do not see this disk; None where all do."""

    @classmethod
    def create(
        cls,
        target: Path,
        header: bytes,
        *,
        extent_nbytes: int | None = None,
        front_nbytes: int = 0,
        reserve_nbytes: int = 0,
    ) -> PartialFile:
        """Write ``header`` into a new hidden file beside ``target``.

        Parameters
        ----------
        target
            Final path; what stands there stays until `publish`.
        header
            First bytes of the file.
        extent_nbytes
            Size of the extents that processes claim, rounded up to pages; None where one process writes.
        front_nbytes, reserve_nbytes
            Room to be left behind the header. What is not used is given back by `close_gaps`.

        Raises
        ------
        RasterWriteError
            The folder is missing, not a folder, or cannot be written to; the target is a folder.
        """
        target = writable_target(target)
        # A file name ends at 255 bytes; a long one is told apart by its random part.
        path = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.part")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise RasterWriteError(f"cannot create a file in {target.parent}: {error.strerror or error}") from error
        try:
            # Created with the umask's permissions to learn them, then private until published.
            mode = (target if target.exists() else path).stat().st_mode & 0o7777
            path.chmod(0o600)
            write_all(descriptor, [header], 0, target=target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        step = 1 if extent_nbytes is None else PAGE_NBYTES
        partial = cls(
            target=target,
            path=path,
            start=round_up(len(header), step),
            extent_nbytes=None if extent_nbytes is None else round_up(extent_nbytes, PAGE_NBYTES),
            front_nbytes=round_up(front_nbytes, step),
            reserve_nbytes=round_up(reserve_nbytes, step),
            mode=mode,
        )
        if extent_nbytes is None:
            return partial
        partial.claims.mkdir(mode=0o700)
        return partial

    @property
    def claims(self) -> Path:
        """Folder of the claimed extents' numbers."""
        return self.path.with_name(self.path.name + ".extents")

    def append(self, parts: Sequence[Buffer], *, reserved: bool = False) -> list[int]:
        """Write each part somewhere after the header and return where each begins, in order.

        Parts go into one run of bytes where they fit, so that a block costs one system call; into the reserve while there is
        room, where they are ``reserved``.

        Raises
        ------
        RasterWriteError
            The disk is full, the partial file is gone (finished, discarded, or on a disk this machine does not see), or the leading
            process, which the parts go to in the last case where there is a post, cannot be reached.
        """
        if self.post is not None and not is_shared(self.path, self.claims, self.post):
            return self.post.deliver(self.path, parts, reserved=reserved)
        return _writer(self).append(parts, reserved=reserved)

    def patch(self, offset: int, content: bytes) -> None:
        """Overwrite bytes at ``offset``: what is only known at the end, in the header."""
        with _writer(self).descriptor() as descriptor:
            write_all(descriptor, [content], offset, target=self.target)

    def append_tail(self, content: bytes, *, align: int = 1) -> int:
        """Write ``content`` behind everything, aligned, and return its offset; after `close_gaps`, in one process only."""
        with _writer(self).descriptor() as descriptor:
            offset = round_up(os.fstat(descriptor).st_size, align)
            write_all(descriptor, [content], offset, target=self.target)
        return offset

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the partial file, as many as there are."""
        with _writer(self).descriptor() as descriptor:
            return read_at(descriptor, nbytes, offset)

    def close_gaps(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], *, finished: frozenset[str] | None = None
    ) -> NDArray[np.int64]:
        """Move the last regions into gaps before them, cut the file behind the last one, return the new offsets.

        Parameters
        ----------
        offsets, sizes
            The regions that count, in any order; regions may be listed more than once. Everything else after ``start`` is free.
        finished
            Names (see `process_name`) of the processes that are known to write no more; None: all of them. The extents of any other
            process stay as they are: a worker that was given up for dead may wake up and write on in its own.

        Notes
        -----
        From now on no extent can be claimed. Only free bytes are written, so a crash in between leaves every region where its receipt
        says. Each gap is filled from the end of the file; slivers smaller than any region stay. Bytes moved <= bytes of the gaps.
        """
        fenced = self._fenced(finished)
        shutil.rmtree(self.claims, ignore_errors=True)
        with _writer(self).descriptor() as descriptor:
            gaps = Gaps(descriptor=descriptor, start=self.start, target=self.target, fenced=fenced)
            result, end = gaps.fill(offsets, sizes)
            if self.front_nbytes and not fenced:
                result, end = gaps.slide(result, sizes, end)
            # What is appended later begins behind the extents that are left alone.
            os.ftruncate(descriptor, max([end, *(begin + size for begin, size in fenced)]))
        return result

    def _fenced(self, finished: frozenset[str] | None) -> list[tuple[int, int]]:
        """Offset and size of the extents of processes that may still write."""
        if finished is None or self.extent_nbytes is None or not self.claims.is_dir():
            return []
        reserve = self.start + self.front_nbytes
        begins = {RESERVED: reserve, "": reserve + self.reserve_nbytes}
        fenced: list[tuple[int, int]] = []
        for claim in self.claims.iterdir():
            if claim.name.startswith(GREETING):
                continue
            room = RESERVED if claim.name.startswith(RESERVED) else ""
            if claim.read_text() not in finished:
                number = int(claim.name.removeprefix(room))
                fenced.append((begins[room] + number * self.extent_nbytes, self.extent_nbytes))
        return fenced

    def publish(self) -> int:
        """Flush, rename onto the target, remove the sidecars of a replaced file; return the size in bytes.

        Raises
        ------
        RasterWriteError
            The last flush or the rename failed; the target is untouched and the partial file removed.
        """
        writer = _writer(self)
        try:
            with writer.descriptor() as descriptor:
                os.fsync(descriptor)
                nbytes = os.fstat(descriptor).st_size
            writer.close()
            self.path.chmod(self.mode)
            self.path.replace(self.target)
        except OSError as error:
            self.discard()
            raise RasterWriteError(f"cannot finish {self.target}: {error.strerror or error}") from error
        self._forget()
        for suffix in SIDECARS:
            self.target.with_name(self.target.name + suffix).unlink(missing_ok=True)
        sync_folder(self.target.parent)
        return nbytes

    def discard(self) -> None:
        """Remove every trace; waits for writes under way in this process. Calling it twice is harmless."""
        with _registry_lock:
            writer = _writers.get(self.path)
        if writer is not None:
            writer.close()
        self.path.unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        with _registry_lock:
            _writers.pop(self.path, None)
        shutil.rmtree(self.claims, ignore_errors=True)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        if self.extent_nbytes is None:
            raise TypeError(
                f"the output {self.target} counts its bytes in one process and cannot be sent to another one"
            )
        return _unpickle, ({field.name: getattr(self, field.name) for field in dataclasses.fields(self)},)


def writable_target(target: Path) -> Path:
    """``target`` with links followed, after a check that a file can be made there.

    Raises
    ------
    RasterWriteError
        The folder is missing or cannot be written to, or ``target`` is a folder.
    """
    target = Path(os.path.realpath(target))
    if target.is_dir():
        raise RasterWriteError(f"cannot write {target}: it is a folder; give the name of a file")
    if not target.parent.is_dir():
        raise RasterWriteError(f"cannot write {target}: the folder {target.parent} does not exist; create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise RasterWriteError(f"cannot write {target}: no permission to create files in {target.parent}")
    return target


def _unpickle(fields: dict[str, Any]) -> PartialFile:
    return PartialFile(**fields)


class _Room:
    """The free bytes of a part of the file; one call at a time, under the writer's lock."""

    def __init__(self, partial: PartialFile, begin: int, end: int | None, name: str) -> None:
        self._begin = self._next = begin
        self._end = end
        self._name = name
        self._extent_nbytes = partial.extent_nbytes
        self._claims = partial.claims
        self._stop = end if partial.extent_nbytes is None else begin
        self._last_extent = -1

    def take(self, sizes: Sequence[int]) -> tuple[int, int] | None:
        """How many of the parts fit into the next run of free bytes, and where it begins; None where not even one does."""
        while self._stop is not None and self._next + sizes[0] > self._stop:
            if not self._claim():
                return None
        offset, count = self._next, 0
        for size in sizes:
            if self._stop is not None and self._next + size > self._stop:
                break
            self._next += size
            count += 1
        return count, offset

    def _claim(self) -> bool:
        """Take the next free extent, if there is one; one that follows on is joined to what is left of the last one."""
        if self._extent_nbytes is None:
            return False
        number = self._last_extent + 1
        while True:
            begin = self._begin + number * self._extent_nbytes
            if self._end is not None and begin + self._extent_nbytes > self._end:
                return False
            if _create_exclusive(self._claims / f"{self._name}{number}", process_name()):
                break
            number += 1
        self._last_extent = number
        if begin != self._stop:
            self._next = begin
        self._stop = begin + self._extent_nbytes
        return True


class _Writer:
    """This process's open descriptor of one partial file, and the free bytes it may hand out."""

    def __init__(self, partial: PartialFile) -> None:
        self._partial = partial
        self._changed = threading.Condition()
        self._users = 0
        self._closed = False
        self._stopped = False
        reserve = partial.start + partial.front_nbytes
        self._reserve = _Room(partial, reserve, reserve + partial.reserve_nbytes, RESERVED)
        self._main = _Room(partial, reserve + partial.reserve_nbytes, None, "")
        try:
            self._descriptor = os.open(partial.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        except FileNotFoundError as error:
            raise RasterWriteError(
                f"the partial output {partial.path} is not there: the run was stopped, or this machine does not see that disk"
            ) from error

    @contextlib.contextmanager
    def descriptor(self) -> Iterator[int]:
        """The open descriptor, kept open for as long as the block runs.

        A closed descriptor's number is given to the next file opened: a late thread would write into a stranger's file.

        Raises
        ------
        RasterWriteError
            The run was stopped.
        """
        with self._changed:
            if self._closed:
                raise RasterWriteError(f"the partial output {self._partial.path} is closed: the run was stopped")
            self._users += 1
        try:
            yield self._descriptor
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def append(self, parts: Sequence[Buffer], *, reserved: bool) -> list[int]:
        """See `PartialFile.append`.

        Raises
        ------
        RasterWriteError
            The run is over, or the disk refused.
        """
        offsets: list[int] = []
        with self.descriptor() as descriptor:
            if self._stopped:
                raise RasterWriteError(f"the partial output {self._partial.path} takes no more blocks: the run is over")
            rest = list(parts)
            while rest:
                count, offset = self._take([nbytes_of(part) for part in rest], reserved=reserved)
                write_all(descriptor, rest[:count], offset, target=self._partial.target)
                for part in rest[:count]:
                    offsets.append(offset)
                    offset += nbytes_of(part)
                rest = rest[count:]
        return offsets

    def _take(self, sizes: Sequence[int], *, reserved: bool) -> tuple[int, int]:
        with self._changed:
            taken = self._reserve.take(sizes) if reserved else None
            taken = taken or self._main.take(sizes)
        assert taken is not None, "the last part of a file has no end"
        return taken

    def stop(self) -> None:
        """Refuse further appends; return when those under way are through."""
        with self._changed:
            self._stopped = True
            self._changed.wait_for(lambda: self._users == 0)

    def close(self) -> None:
        """Refuse new users, wait for those at work, close."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._users == 0)
        os.close(self._descriptor)


_writers: dict[Path, _Writer] = {}
_registry_lock = threading.Lock()
_OWN = secrets.token_hex(8)  # a fork has it too, but another number


def _writer(partial: PartialFile) -> _Writer:
    """This process's writer of a partial file; those of outputs finished or discarded elsewhere are closed on the way."""
    with _registry_lock:
        writer = _writers.get(partial.path)
        if writer is None:
            for path in [path for path in _writers if not path.exists()]:
                _writers.pop(path).close()
            writer = _writers[partial.path] = _Writer(partial)
        return writer


def _create_exclusive(path: Path, content: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise RasterWriteError(
            f"cannot claim room in the output by creating {path}: {error.strerror or error}"
        ) from error
    try:
        os.write(descriptor, content.encode())
    finally:
        os.close(descriptor)
    return True


def process_name() -> str:
    """This process, among those of all machines that write one file; containers may have equal host names and process numbers."""
    return f"{socket.gethostname()} {os.getpid()} {_OWN}"


def stop_writing(path: Path) -> str:
    """Refuse every further `PartialFile.append` to the partial file ``path`` in this process; return `process_name`.

    Waits for writes under way. Reading and patching go on: the leading process may be the same one.
    """
    with _registry_lock:
        writer = _writers.get(path)
    if writer is not None:
        writer.stop()
    return process_name()
