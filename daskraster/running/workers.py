"""Where blocks will run: processes, threads, and the memory they may have."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.local
import dask.threaded
import psutil
from dask.system import CPU_COUNT

from daskraster.lazy.schedulers import scheduler_in_use

CONTROL_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """Where blocks will run."""

    processes: int
    threads: int
    """Of each process."""
    base_nbytes: int
    """Memory a process has before the run."""
    limit_nbytes: int
    """Memory a process may have."""


def active_client() -> Any:
    """The active Client, where it is what dask would use; else None."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    client = getattr(scheduler_in_use(), "__self__", None)
    return client if isinstance(client, distributed.Client) else None


def workers() -> Workers:
    """The workers of the scheduler that dask would use now; of a cluster the smallest one counts."""
    client = active_client()
    if client is not None:
        return _of_cluster(client)
    get = scheduler_in_use()
    count = _configured_count()
    if get is dask.local.get_sync:
        count = 1
    threads = count if get is dask.threaded.get else 1
    processes = 1 if get in (dask.threaded.get, dask.local.get_sync) else count
    present = _process_nbytes()
    allowed = _allowed_nbytes(present)
    return Workers(
        processes=processes, threads=threads, base_nbytes=present, limit_nbytes=max(allowed // processes, present)
    )


def _configured_count() -> int:
    pool = dask.config.get("pool", None)
    if pool is not None:
        return pool if isinstance(pool, int) else int(getattr(pool, "_max_workers", CPU_COUNT))
    return int(dask.config.get("num_workers", None) or CPU_COUNT)


def _of_cluster(client: Any) -> Workers:
    known = list(client.scheduler_info(n_workers=-1)["workers"].values())
    present, allowed = _process_nbytes(), _allowed_nbytes(0)
    return Workers(
        processes=max(len(known), 1),
        threads=max((int(worker["nthreads"]) for worker in known), default=1),
        base_nbytes=max((int(worker["metrics"].get("memory", 0)) for worker in known), default=present),
        limit_nbytes=min((int(worker["memory_limit"]) or allowed for worker in known), default=allowed),
    )


def _process_nbytes() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)


def _allowed_nbytes(present: int) -> int:
    """What this process may have: what it has and what the machine has left, or the control group's limit where that is less."""
    allowed = present + int(psutil.virtual_memory().available)
    if CONTROL_GROUP_LIMIT.exists():
        text = CONTROL_GROUP_LIMIT.read_text().strip()
        if text.isdigit():
            allowed = min(allowed, int(text))
    return allowed
