"""Positioned reads and writes of whole buffers, and what is told when the disk refuses.

Ground floor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daskraster.errors import RasterWriteError

type Buffer = bytes | bytearray | memoryview | NDArray[np.uint8]

IOV_MAX = 1024  # buffers in one pwritev, POSIX's and Linux's limit
SYNC_FILE_RANGE_WRITE = 2
# Smaller ones go to the disk when the kernel, the journal or the last flush wants it: each would be a request of its own.
EARLY_NBYTES = 1 << 20


def nbytes_of(part: Buffer) -> int:
    """Size of a buffer."""
    return part.nbytes if isinstance(part, np.ndarray | memoryview) else len(part)


def write_all(descriptor: int, parts: Sequence[Buffer], offset: int, *, target: Path) -> None:
    """Write the parts one behind the other at ``offset``; a short write goes on where it stopped, until an error says why.

    Raises
    ------
    RasterWriteError
        The disk refused, in its own words; ``target`` is the file that cannot be.
    """
    try:
        _write_all(descriptor, parts, offset)
    except OSError as error:
        raise RasterWriteError(f"cannot write {target}: {error.strerror or error}") from error


def _write_all(descriptor: int, parts: Sequence[Buffer], offset: int) -> None:
    total = sum(map(nbytes_of, parts))
    written = 0
    if hasattr(os, "pwritev") and len(parts) <= IOV_MAX:
        written = os.pwritev(descriptor, parts, offset)
    if written < total:
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            count = _write_at(descriptor, rest, offset + written)
            written += count
            rest = rest[count:]


if hasattr(os, "pwrite"):

    def _write_at(descriptor: int, content: memoryview, offset: int) -> int:
        return os.pwrite(descriptor, content, offset)

    def read_at(descriptor: int, nbytes: int, offset: int) -> bytes:
        """Bytes at ``offset``, as many as there are."""
        return os.pread(descriptor, nbytes, offset)

else:  # pragma: no cover - platforms without positioned writes: a locked seek, then read or write
    _seek_lock = threading.Lock()

    def _write_at(descriptor: int, content: memoryview, offset: int) -> int:
        with _seek_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, content)

    def read_at(descriptor: int, nbytes: int, offset: int) -> bytes:
        """Bytes at ``offset``, as many as there are."""
        with _seek_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, nbytes)


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Linux's call of that name; None elsewhere. The interpreter does not have it."""
    try:
        found = ctypes.CDLL(None, use_errno=True).sync_file_range
    except (AttributeError, OSError, TypeError):
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call: Callable[[int, int, int, int], int] = found
    return call


_sync_file_range = _find_sync_file_range()


# The call is not known, not allowed or not for this file, or the system is short of something just now: nothing is said of the bytes, which are still to be written.
SAYS_NOTHING = frozenset(
    {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ESPIPE, errno.EPERM, errno.ENOMEM, errno.EINTR, errno.EAGAIN}
)


def start_flush(descriptor: int, offset: int, nbytes: int, *, target: Path) -> None:
    """Let the disk begin with what was just written; nothing waits for it, and nothing is promised.

    The last flush of 134 MB then waits 2 ms instead of 32, of 66 ms for reading, adding, writing and flushing them (42 with this). A system that
    does not know the call leaves all to that flush.

    Raises
    ------
    RasterWriteError
        The disk refused already now. It has to be heard here: Linux keeps for the last flush what fails while the disk is at work, but what a file system
        answers before, as where it finds no room for bytes that it took, it may tell no one else.
    """
    if _sync_file_range is None or nbytes < EARLY_NBYTES:
        return
    if _sync_file_range(descriptor, offset, nbytes, SYNC_FILE_RANGE_WRITE):
        number = ctypes.get_errno()
        if number not in SAYS_NOTHING:
            raise RasterWriteError(f"cannot write {target}: {os.strerror(number)}")


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; where a folder cannot be opened (some network disks) the rename stands anyway."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
