"""How large a worker is, and what follows from that: threads of libraries, caches, what the batch system is asked for, how long it lives.

Plain arithmetic; knows of no cluster.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from daskraster.errors import OptionError
from daskraster.running import allocator

# Each of these starts as many threads as the machine has cores, in every thread of dask at once, unless told otherwise.
THREAD_VARIABLES = (
    "GDAL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
MIN_CACHE_MB, MAX_CACHE_MB = 32, 512
THREAD_NBYTES = 2 << 30
"""Memory of a worker for each of its threads, where nothing else is said."""
MIN_WORKER_NBYTES = 64 << 20  # less than the interpreter with its imports


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShape:
    """One worker process.

    >>> WorkerShape(threads=4, cores=4, memory_nbytes=8 << 30).environment()["GDAL_CACHEMAX"]
    '409'
    """

    threads: int
    """Blocks at work at one time."""
    cores: int
    """Cores it may use; those that dask's threads leave over go to libraries."""
    memory_nbytes: int
    """What the process may use; at 95 % of it, it is stopped."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment that the user wants; counts more than ours."""

    def __post_init__(self) -> None:
        """Refuse sizes that are none.

        Raises
        ------
        OptionError
            Threads, cores or memory are too small.
        """
        if self.threads < 1 or self.cores < self.threads:
            raise OptionError(
                f"a worker needs one thread or more and a core for each, not {self.threads} threads on {self.cores} cores"
            )
        if self.memory_nbytes < MIN_WORKER_NBYTES:
            raise OptionError(f"a worker needs more than 64 MB of memory, not {self.memory_nbytes:,} bytes")

    def environment(self) -> dict[str, str]:
        """Variables that must stand before the worker process starts, since libraries read them when they are loaded."""
        each = str(max(1, self.cores // self.threads))
        # GDAL's own default is 5 % of the machine, in every process of it.
        cache = min(max(self.memory_nbytes // 20 >> 20, MIN_CACHE_MB), MAX_CACHE_MB)
        ours = {**dict.fromkeys(THREAD_VARIABLES, each), "GDAL_CACHEMAX": str(cache), **allocator.VARIABLES}
        return {**ours, **self.variables}

    def job_nbytes(self, factor: float) -> int:
        """Memory to ask the batch system for, whole MB: the interpreter and the nanny that watches the worker need some too.

        Raises
        ------
        OptionError
            ``factor`` is below 1: the batch system would stop the job before dask can do anything about it.
        """
        if not 1 <= factor <= 10:
            raise OptionError(
                f"job_memory_factor={factor} is not between 1 and 10; 1.3 leaves room for nanny and interpreter"
            )
        return math.ceil(self.memory_nbytes * factor / (1 << 20)) << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When a worker leaves by itself: before its job is killed, and not all at the same time.

    >>> Lifetime.within(timedelta(hours=1))
    Lifetime(seconds=3060, stagger_seconds=180)
    """

    seconds: int
    """Mean; the job ends ``stagger_seconds`` earlier or later."""
    stagger_seconds: int

    @classmethod
    def within(cls, walltime: timedelta) -> Lifetime:
        """``0 < seconds - stagger_seconds`` and ``seconds + stagger_seconds < walltime``.

        A tenth of the walltime is left for a start from a slow disk and for the blocks that are at work at the end, at least a minute
        where there is one, at most ten.
        """
        total = walltime.total_seconds()
        margin = min(max(total / 10, min(60, total / 3)), 600)
        stagger = min(total / 20, 300)
        return cls(seconds=int(total - margin - stagger), stagger_seconds=int(stagger))


def parse_walltime(text: str | timedelta) -> timedelta:
    """A walltime as batch systems write it.

    Parameters
    ----------
    text
        ``"HH:MM:SS"``, ``"MM:SS"``, ``"D-HH:MM:SS"``, or a timedelta.

    Raises
    ------
    OptionError
        It is none of these, or shorter than a minute.

    >>> parse_walltime("1-02:00:00")
    datetime.timedelta(days=1, seconds=7200)
    """
    if isinstance(text, timedelta):
        walltime = text
    else:
        found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
        if not found:
            raise OptionError(f"walltime={text!r} is not understood; give 'HH:MM:SS', 'D-HH:MM:SS' or a timedelta")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        walltime = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if walltime < timedelta(minutes=1):
        raise OptionError(f"walltime={text!r} is shorter than a minute")
    return walltime


def format_walltime(walltime: timedelta) -> str:
    """``HH:MM:SS``, which SLURM and PBS both read.

    >>> format_walltime(timedelta(days=1, seconds=5))
    '24:00:05'
    """
    seconds = int(walltime.total_seconds())
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
