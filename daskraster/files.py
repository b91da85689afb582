"""A file that appears whole or not at all, filled by positioned writes from many threads and processes.

Ground floor: knows nothing of rasters. GeoTIFF and KEA stand on it, so that neither has its own idea of safety.

Every region of the file is handed out once and never written twice, so no two writers ever meet:

    header | region | region | region | ...            one process: a counter under a lock ("counter")

    header | extent 0      | extent 1      | extent 2   several processes, perhaps on several machines ("extents"):
             process A ....  process B ...   process A  each claims whole aligned extents and fills them from the front

What a file should have near its beginning, though it is not known yet, has room there: ``front`` for the last words of the leading
process, ``reserve`` for parts appended as such; when the reserve is full they go where all others go. ::

    header | front | reserve: region | region | ... | region | region | ...

A file that a stopped run has left is filled on by the next run: behind all that may have been written before, in extents of its own.

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
from collections.abc import Iterable, Mapping, Sequence
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
from daskraster.writers import (
    RESERVED,
    Room,
    Rooms,
    close_writers,
    may_be_alive,
    process_name,
    stop_writing,
    sync_writing,
    writer_of,
)

__all__ = ["PAGE_NBYTES", "SIDECARS", "PartialFile", "process_name", "stop_writing", "sync_writing", "writable_target"]

PAGE_NBYTES = 4096  # extents begin on pages, so that two machines never write the same one
SIDECARS = (".aux.xml", ".ovr", ".msk")  # what GDAL would read beside a new file of the old name
# Of the target's name in that of the partial file: letters, and bytes, of which a letter may have four. A file name ends at 255 bytes, and behind
# this come random signs, and in turn the names of what lies beside the partial file.
NAME_LENGTH, NAME_NBYTES = 100, 200
SUFFIX = ".part"
TOKEN_NBYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What earlier runs have left of an output."""

    path: Path
    """The partial file."""
    runs: Sequence[Mapping[str, int]]
    """What `PartialFile.geometry` said in each of them."""
    offsets: NDArray[np.int64]
    """Where each region begins that is to be kept."""
    sizes: NDArray[np.int64]
    """How many bytes each of them has."""
    layout: str = ""
    """What the writer of the first run called the layout of the file; those that go on keep to it."""


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
    run: int = 0
    """Number of the run that writes it; resumed runs count on."""
    reserve_from: int = 0
    """What lies before in the reserve belongs to earlier runs."""
    main_from: int = 0
    """What lies before, and behind the reserve, belongs to earlier runs."""
    fenced: tuple[tuple[int, int, str], ...] = ()
    """Offset, size and process of extents that processes of an earlier run may still write."""
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
        # Long names that begin alike are told apart by the random part.
        path = target.with_name(f"{partial_prefix(target)}{secrets.token_hex(TOKEN_NBYTES)}{SUFFIX}")
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

    @classmethod
    def reopen(cls, target: Path, leftover: Leftover, *, extent_nbytes: int | None = None) -> PartialFile:
        """A partial file that earlier runs have left, ready to be filled on; its header is that of the earlier run.

        Parameters
        ----------
        target, extent_nbytes
            As in `create`, for this run.
        leftover
            Of the same target.

        Raises
        ------
        RasterWriteError
            The folder cannot be written to any more.
        """
        runs, path = leftover.runs, leftover.path
        fields: dict[str, Any] = {name: runs[0][name] for name in ("start", "front_nbytes", "reserve_nbytes", "mode")}
        earlier = [cls(target=target, path=path, **_geometry(run)) for run in runs]
        claimed = [extent for run in earlier for extent in run.sealed()]
        begins = np.concatenate([leftover.offsets, np.array([begin for begin, _, _ in claimed], np.int64)])
        ends = begins + np.concatenate([leftover.sizes, np.array([size for _, size, _ in claimed], np.int64)])
        reserve = fields["start"] + fields["front_nbytes"]
        main = reserve + fields["reserve_nbytes"]
        in_reserve = ends[(begins >= reserve) & (begins < main)]
        behind = max(main, path.stat().st_size, int(ends.max(initial=0)))
        partial = cls(
            target=writable_target(target),
            path=path,
            extent_nbytes=None if extent_nbytes is None else round_up(extent_nbytes, PAGE_NBYTES),
            run=max(run.run for run in earlier) + 1,
            reserve_from=min(round_up(int(in_reserve.max(initial=reserve)), PAGE_NBYTES), main),
            main_from=round_up(behind, PAGE_NBYTES),
            fenced=tuple(extent for extent in claimed if may_be_alive(extent[2])),
            **fields,
        )
        if extent_nbytes is not None:
            # There already where a run was stopped, or its disk full, before it was noted down: nobody has written for it.
            partial.claims.mkdir(mode=0o700, exist_ok=True)
        return partial

    @property
    def claims(self) -> Path:
        """Folder of the numbers of the extents that this run has claimed."""
        return self.path.with_name(f"{self.path.name}.extents{f'-{self.run}' if self.run else ''}")

    @property
    def rooms(self) -> Rooms:
        """Where this run may write."""
        reserve = self.start + self.front_nbytes
        main = reserve + self.reserve_nbytes
        return Rooms(
            target=self.target,
            path=self.path,
            run=self.run,
            claims=self.claims,
            extent_nbytes=self.extent_nbytes,
            reserve=Room(name=RESERVED, begin=max(reserve, self.reserve_from), end=main),
            main=Room(name="", begin=max(main, self.main_from), end=None),
        )

    @property
    def geometry(self) -> dict[str, int]:
        """What a later run must know to fill the file on; see `reopen`."""
        names = ("start", "front_nbytes", "reserve_nbytes", "mode", "run", "reserve_from", "main_from")
        return {**{name: getattr(self, name) for name in names}, "extent_nbytes": self.extent_nbytes or 0}

    @property
    def seal(self) -> Path:
        """Where that folder goes when another run goes on: a worker that is left over can then claim nothing in it."""
        return self.claims.with_name(f"{self.claims.name}.sealed")

    def sealed(self) -> list[tuple[int, int, str]]:
        """Offset, size and process of each extent that this run, which is over, has claimed; from now on it can claim no more.

        The next run's extents begin behind these: a block still at work that filled its extent would claim the same bytes.
        """
        if self.claims.is_dir():
            self.claims.rename(self.seal)
        return self._claims_in(self.seal)

    def claimed(self) -> list[tuple[int, int, str]]:
        """Offset, size and process of each extent that this run has claimed."""
        return self._claims_in(self.claims)

    def _claims_in(self, folder: Path) -> list[tuple[int, int, str]]:
        if self.extent_nbytes is None or not folder.is_dir():
            return []
        begins = {room.name: room.begin for room in (self.rooms.reserve, self.rooms.main)}
        found: list[tuple[int, int, str]] = []
        for claim in folder.iterdir():
            if claim.name.startswith(GREETING):
                continue
            room = RESERVED if claim.name.startswith(RESERVED) else ""
            begin = begins[room] + int(claim.name.removeprefix(room)) * self.extent_nbytes
            found.append((begin, self.extent_nbytes, claim.read_text()))
        return found

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
        return writer_of(self.rooms).append(parts, reserved=reserved)

    def patch(self, offset: int, content: bytes) -> None:
        """Overwrite bytes at ``offset``: what is only known at the end, in the header."""
        with writer_of(self.rooms).descriptor() as descriptor:
            write_all(descriptor, [content], offset, target=self.target)

    def rewrite(self, parts: Iterable[Sequence[Buffer]]) -> list[int]:
        """Write all there is behind the header, from its end on, cut the file behind it, and return where each part begins.

        For files of which the leading process alone has every byte. What was there before, of a run that was stopped while it did the same, is gone.

        Raises
        ------
        RasterWriteError
            The disk is full, or the partial file is gone.
        """
        offsets: list[int] = []
        position = self.start
        with writer_of(self.rooms).descriptor() as descriptor:
            for several in parts:
                write_all(descriptor, several, position, target=self.target)
                for part in several:
                    offsets.append(position)
                    position += nbytes_of(part)
            os.ftruncate(descriptor, position)
        return offsets

    def append_tail(self, content: bytes, *, align: int = 1) -> int:
        """Write ``content`` behind everything, aligned, and return its offset; after `close_gaps`, in one process only."""
        with writer_of(self.rooms).descriptor() as descriptor:
            offset = round_up(os.fstat(descriptor).st_size, align)
            write_all(descriptor, [content], offset, target=self.target)
        return offset

    def sync(self) -> None:
        """Wait until the disk has what was written, by whichever process of this machine.

        Raises
        ------
        RasterWriteError
            The disk refused, or somebody removed the file.
        """
        writer_of(self.rooms).sync()

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the partial file, as many as there are."""
        with writer_of(self.rooms).descriptor() as descriptor:
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
        with writer_of(self.rooms).descriptor() as descriptor:
            gaps = Gaps(descriptor=descriptor, start=self.start, target=self.target, fenced=fenced)
            result, end = gaps.fill(offsets, sizes)
            if self.front_nbytes and not fenced:
                result, end = gaps.slide(result, sizes, end)
            # What is appended later begins behind the extents that are left alone.
            os.ftruncate(descriptor, max([end, *(begin + size for begin, size in fenced)]))
        return result

    def _fenced(self, finished: frozenset[str] | None) -> list[tuple[int, int]]:
        """Offset and size of the extents of processes that may still write."""
        # A process of this machine that is dead writes no more; one that does not answer, or of another machine, may.
        own = [] if finished is None else [extent for extent in self.claimed() if may_be_alive(extent[2])]
        return [(begin, size) for begin, size, process in [*self.fenced, *own] if process not in (finished or ())]

    def publish(self) -> int:
        """Flush, rename onto the target, remove the sidecars of a replaced file; return the size in bytes.

        Raises
        ------
        RasterWriteError
            The last flush or the rename failed; the target is untouched and the partial file removed.
        """
        writer = writer_of(self.rooms)
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
            sidecar = self.target.with_name(self.target.name + suffix)
            if os.path.lexists(sidecar):  # not so where its name would be too long
                sidecar.unlink(missing_ok=True)
        sync_folder(self.target.parent)
        return nbytes

    def discard(self) -> None:
        """Remove every trace; waits for writes under way in this process. Calling it twice is harmless."""
        # Step by step, whatever happens in one: a second Ctrl-C may come at any moment.
        with contextlib.ExitStack() as steps:
            steps.callback(self._forget)
            steps.callback(self.path.unlink, missing_ok=True)
            close_writers(self.path, forget=False)

    def release(self) -> None:
        """Close it in this process and leave it where it is, for a later run; waits for writes under way."""
        close_writers(self.path, forget=False)

    def withdraw(self) -> None:
        """Close it in this process as if this run, which goes on with an earlier one, had never begun: nothing was written for it.

        The next run may have its number, and must not meet its closed writer.
        """
        close_writers(self.path, forget=True, run=self.run)
        shutil.rmtree(self.claims, ignore_errors=True)

    def _forget(self) -> None:
        close_writers(self.path, forget=True)
        for run in range(self.run + 1):
            of_run = dataclasses.replace(self, run=run)
            for folder in (of_run.claims, of_run.seal):
                shutil.rmtree(folder, ignore_errors=True)

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


def partial_prefix(target: Path) -> str:
    """How the names of all partial files of a target begin; two targets may share it where their names are very long."""
    name = target.name[:NAME_LENGTH]
    while len(os.fsencode(name)) > NAME_NBYTES:
        name = name[:-1]
    return f".{name}."


def _geometry(run: Mapping[str, int]) -> dict[str, Any]:
    return {**run, "extent_nbytes": run["extent_nbytes"] or None}


def _unpickle(fields: dict[str, Any]) -> PartialFile:
    return PartialFile(**fields)
