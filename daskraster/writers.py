"""This process's open descriptor of a partial file, and the free bytes it may hand out.

Ground floor. See `daskraster.files` for the layout. One `Writer` a file and process, shared by its threads; found by the file's path and
the number of the run, so that a thread left over from a run that was stopped meets the closed writer of its own run, never that of the next.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from daskraster.errors import RasterWriteError
from daskraster.positioned import Buffer, nbytes_of, start_flush, write_all

RESERVED = "reserve-"  # before the number of an extent of the reserve


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A part of a partial file that regions may be handed out from."""

    name: str
    """Before the number of each claimed extent."""
    begin: int
    end: int | None
    """None: as far as the disk goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What a writer needs to know of a partial file."""

    target: Path
    """For messages."""
    path: Path
    run: int
    """Number of the run that writes it, from 0; resumed runs count on."""
    claims: Path
    """Folder of the claimed extents' numbers."""
    extent_nbytes: int | None
    """None: a counter in this process."""
    reserve: Room
    main: Room


class _FreeBytes:
    """What is left of a room; one call at a time, under the writer's lock."""

    def __init__(self, room: Room, rooms: Rooms) -> None:
        self._begin = self._next = room.begin
        self._end = room.end
        self._name = room.name
        self._extent_nbytes = rooms.extent_nbytes
        self._claims = rooms.claims
        self._stop = room.end if rooms.extent_nbytes is None else room.begin
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


class Writer:
    """An open descriptor, lent to threads, and free bytes, handed out once. Get it with `writer_of`."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._changed = threading.Condition()
        self._users = 0
        self._closed = False
        self._stopped = False
        self._reserve = _FreeBytes(rooms.reserve, rooms)
        self._main = _FreeBytes(rooms.main, rooms)
        try:
            self._descriptor = os.open(rooms.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        except FileNotFoundError as error:
            raise RasterWriteError(
                f"the partial output {rooms.path} is not there: the run was stopped, or this machine does not see that disk"
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
                raise RasterWriteError(f"the partial output {self._rooms.path} is closed: the run was stopped")
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
                raise RasterWriteError(f"the partial output {self._rooms.path} takes no more blocks: the run is over")
            rest = list(parts)
            while rest:
                count, offset = self._take([nbytes_of(part) for part in rest], reserved=reserved)
                write_all(descriptor, rest[:count], offset, target=self._rooms.target)
                begin = offset
                for part in rest[:count]:
                    offsets.append(offset)
                    offset += nbytes_of(part)
                start_flush(descriptor, begin, offset - begin, target=self._rooms.target)
                rest = rest[count:]
        return offsets

    def _take(self, sizes: Sequence[int], *, reserved: bool) -> tuple[int, int]:
        with self._changed:
            taken = self._reserve.take(sizes) if reserved else None
            taken = taken or self._main.take(sizes)
        assert taken is not None, "the last part of a file has no end"
        return taken

    def stop(self) -> None:
        """Refuse further appends; return when those under way are through and on the disk."""
        with self._changed:
            self._stopped = True
            self._changed.wait_for(lambda: self._users == 0)
            if self._closed:
                return
        if self._rooms.extent_nbytes is not None:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has what was written, by any process of this machine; harmless when closed.

        Raises
        ------
        RasterWriteError
            The disk refused, or somebody removed the file.
        """
        if self._closed:
            return
        try:
            with self.descriptor() as descriptor:
                if os.fstat(descriptor).st_nlink == 0:
                    raise RasterWriteError(
                        f"cannot write {self._rooms.target}: its partial file {self._rooms.path} was removed meanwhile"
                    )
                _sync_data(descriptor)
        except OSError as error:
            if isinstance(error, RasterWriteError):
                raise
            raise RasterWriteError(f"cannot write {self._rooms.target}: {error.strerror or error}") from error

    def close(self) -> None:
        """Refuse new users, wait for those at work, close."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._users == 0)
        os.close(self._descriptor)


_writers: dict[tuple[Path, int], Writer] = {}
_registry_lock = threading.Lock()


def writer_of(rooms: Rooms) -> Writer:
    """This process's writer of a partial file; those of outputs finished or discarded elsewhere are closed on the way.

    Raises
    ------
    RasterWriteError
        The file is gone, or on a disk this machine does not see.
    """
    key = rooms.path, rooms.run
    with _registry_lock:
        writer = _writers.get(key)
        if writer is None:
            for other in [other for other in _writers if not other[0].exists()]:
                _writers.pop(other).close()
            writer = _writers[key] = Writer(rooms)
        return writer


def close_writers(path: Path, *, forget: bool, run: int | None = None) -> None:
    """Close this process's writers of a partial file, after the writes under way; of one ``run``, or of all.

    ``forget`` them where the file is gone, or their run has not begun; else they stay, closed, so that a late thread of a stopped run meets
    its own.
    """
    with _registry_lock:
        keys = [key for key in _writers if key[0] == path and run in (None, key[1])]
        writers = [_writers.pop(key) if forget else _writers[key] for key in keys]
    for writer in writers:
        writer.close()


_OWN = secrets.token_hex(8)  # a fork has it too, but another number
NAME_PARTS = 4  # of what `process_name` gives: host, number, namespace of numbers, token


def process_name() -> str:
    """This process, among those of all machines that write one file; containers may have equal host names and process numbers."""
    return f"{socket.gethostname()} {os.getpid()} {_pid_namespace()} {_OWN}"


def _pid_namespace() -> str:
    """Within what process numbers mean something: a container may have its own on a machine of one name."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "one"


def told(process: str) -> str:
    """A process (see `process_name`) in a sentence."""
    parts = process.split(" ")
    return f"process {parts[1]} on {parts[0]}" if len(parts) == NAME_PARTS else process


def may_be_alive(process: str) -> bool:
    """Whether a process (see `process_name`) may still be at work.

    Of other machines nothing is known, so theirs may; and so may one whose name is torn, since it was killed while it wrote it, or writes it now.
    """
    parts = process.split(" ")
    if len(parts) != NAME_PARTS or not parts[1].isdecimal():
        return True
    host, number, namespace, own = parts
    if host != socket.gethostname() or namespace != _pid_namespace():
        return True
    if int(number) == os.getpid():
        return own == _OWN  # else that one is dead, and this process was given its number
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def stop_writing(path: Path) -> str:
    """Refuse every further `PartialFile.append` to the partial file ``path`` in this process; return `process_name`.

    Waits for writes under way, and for the disk: another machine sees these bytes for certain only after that. Reading and patching go on:
    the leading process may be the same one.

    Raises
    ------
    RasterWriteError
        The disk refused what was written before.
    """
    for writer in _of_path(path):
        writer.stop()
    return process_name()


def sync_writing(path: Path) -> str:
    """Wait until what this process has written to the partial file ``path`` is on the disk; return `process_name`.

    Raises
    ------
    RasterWriteError
        The disk refused what was written before.
    """
    for writer in _of_path(path):
        writer.sync()
    return process_name()


def _of_path(path: Path) -> list[Writer]:
    with _registry_lock:
        return [writer for key, writer in _writers.items() if key[0] == path]


_sync_data = getattr(os, "fdatasync", os.fsync)


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
