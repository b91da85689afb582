"""What becomes of memory that a block's arrays give back: kept for the next arrays, or returned to the system at once.

glibc hands out large arrays as pages of their own at first, and learns: once an array of up to 32 MB has been freed, arrays of that size come from
memory that is kept, up to twice as much of it. dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``, and with any such variable set glibc learns
no more. Every array above 128 KB is then mapped anew and filled with zeros page by page: three new arrays of 1 MB a step take 735 page faults and 1.20 ms instead of
5 and 0.14 ms; of 8 MB 4.1 instead of 1.7 ms, of 33 MB 13.7 instead of 8.5. With what glibc itself would come to, set by hand, it is 0.13, 1.4 and 8.7 ms,
for at most 64 MB that each thread's arena keeps.

What glibc learns is the size of the largest array that was freed: with blocks of 1 MB it keeps 2 MB, and a task holds more. KEA to KEA, 10,000 x 10,000 in such blocks, on
threads, took 243,000 page faults a run and 1.09 s of CPU; taught by one array of 8 MB before, as large as the default blocks, 160 and 0.71 s.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping

import numpy as np

TRIM, MMAP = "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"
DASKS_TRIM = "65536"
"""What dask gives its workers where nobody has said anything else."""
TRIM_NBYTES, MMAP_NBYTES = 64 << 20, 32 << 20
"""What glibc comes to by itself; 32 MB is the most that it takes."""
VARIABLES = {TRIM: str(TRIM_NBYTES), MMAP: str(MMAP_NBYTES)}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_UNLEARNT_MMAP_NBYTES = 128 << 10
_TAUGHT_NBYTES = 8 << 20


def is_as_dask_sets_it(environ: Mapping[str, str]) -> bool:
    """Whether a process with these variables returns memory at once because dask wants it so, and not because a user does."""
    return environ.get(TRIM) == DASKS_TRIM and MMAP not in environ


def keep_freed(environ: Mapping[str, str]) -> Callable[[], None]:
    """Have this process keep what arrays give back; returns what takes that back, and returns the memory.

    Nothing is done where a user has decided, and without glibc.

    Parameters
    ----------
    environ
        Variables that the process was started with.
    """
    libc = _glibc() if is_as_dask_sets_it(environ) else None
    if libc is None:
        return lambda: None
    libc.mallopt(_M_TRIM_THRESHOLD, TRIM_NBYTES)
    libc.mallopt(_M_MMAP_THRESHOLD, MMAP_NBYTES)

    def undo() -> None:
        libc.mallopt(_M_TRIM_THRESHOLD, int(DASKS_TRIM))
        libc.mallopt(_M_MMAP_THRESHOLD, _UNLEARNT_MMAP_NBYTES)
        libc.malloc_trim(0)

    return undo


def teach() -> None:
    """Let glibc learn now what it would learn from the first block of the default size: by an array that is freed and was never touched.

    No memory is taken. Nothing changes where a user (or dask) has set any of glibc's variables, since it learns no more then, and nothing without glibc.
    """
    np.empty(_TAUGHT_NBYTES, np.uint8)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:  # an interpreter that is linked statically
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None
