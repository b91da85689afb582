"""The circumstances of a run: when, where, with what."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import dask.local
import dask.threaded
import numpy as np

from daskraster.formats.versions import library_versions
from daskraster.lazy.schedulers import scheduler_in_use
from daskraster.options import WriteOptions
from daskraster.running.memorypeak import peak_nbytes
from daskraster.running.news import Listening
from daskraster.running.workers import active_client, workers
from daskraster.spans import Timeline

ISO = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Of one run, and of one of its outputs."""

    begun: str
    """ISO 8601, UTC."""
    ended: str
    """As ``begun``."""
    host: str
    """Name of the machine that led the run; with ``compute=False`` of that of its last task."""
    engine: str
    """synchronous, threads, processes, cluster, or the name of another scheduler."""
    processes: int
    """That ran blocks, as they were when the run began; with ``compute=False`` those that did."""
    threads: int
    """Of each of them."""
    versions: Mapping[str, str]
    """Of Python, GDAL, HDF5 and the packages that handle pixels."""
    retries: int = 0
    """Tasks of the run that raised and were tried again; 0 with ``compute=False``, where nobody counts them."""
    worker_peak_nbytes: int | None = None
    """Largest memory that any other process which ran blocks has had since it started; None on threads, and where the platform does not tell."""
    wait_seconds: float | None = None
    """What is left of the threads' time when all stages of all outputs are taken off: tasks, neighbours, start and end of the run. None with
    ``compute=False``: other work may have run meanwhile."""
    printed: str = field(default="", repr=False)
    """What Python code printed in all blocks; empty with ``progress=False`` and with ``compute=False``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Write options of this output, defaults too."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Path of each file read -> its size and time of change, or its ETag; empty with ``compute=False``, where no journal needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What is known before a run."""

    begun: str
    engine: str
    processes: int
    threads: int

    @classmethod
    def now(cls) -> Beginning:
        """As dask is set up at this moment."""
        where = workers()
        return cls(begun=iso_now(), engine=engine_name(), processes=where.processes, threads=where.threads)

    def end(self, listening: Listening, *, seconds: float, stage_seconds: float) -> RunFacts:
        """The facts after the run; ``seconds``: wall time, ``stage_seconds``: of all stages of all blocks of this run."""
        others = [peak for process, peak in listening.peaks.items() if process != listening.process]
        return RunFacts(
            begun=self.begun,
            ended=iso_now(),
            host=socket.gethostname(),
            engine=self.engine,
            processes=self.processes,
            threads=self.threads,
            versions=library_versions(),
            retries=listening.retries,
            worker_peak_nbytes=max(others, default=None),
            wait_seconds=max(0.0, seconds * self.processes * self.threads - stage_seconds),
            printed=listening.printed,
        )


def facts_of_later(client: Any, began: float, timelines: Sequence[Timeline]) -> RunFacts:
    """The facts of a run that nobody led, asked for in its last task: what the blocks' own notes and the cluster tell.

    Parameters
    ----------
    client
        Of the cluster that ran it; None elsewhere.
    began
        Seconds since 1970.
    timelines
        Of all outputs.
    """
    threads: dict[str, set[str]] = {}
    for worker in {worker for timeline in timelines for worker, *_ in timeline}:
        process, _, thread = worker.rpartition(":")
        threads.setdefault(process, set()).add(thread)
    engine, peaks = _engine_of_task(), {}
    if client is not None:
        engine, peaks = "cluster", client.run(peak_nbytes, on_error="ignore")
    return RunFacts(
        begun=datetime.fromtimestamp(began, UTC).strftime(ISO),
        ended=iso_now(),
        host=socket.gethostname(),
        engine=engine,
        processes=max(len(threads), 1),
        threads=max(map(len, threads.values()), default=1),
        versions=library_versions(),
        worker_peak_nbytes=max((peak for peak in peaks.values() if peak is not None), default=None),
    )


def _engine_of_task() -> str:
    """What this task, which is none of a cluster, runs on."""
    if multiprocessing.parent_process() is not None:
        return "processes"
    return "synchronous" if threading.current_thread() is threading.main_thread() else "threads"


def engine_name() -> str:
    """What dask would run blocks on now."""
    if active_client() is not None:
        return "cluster"
    get = scheduler_in_use()
    if get is dask.threaded.get:
        return "threads"
    if get is dask.local.get_sync:
        return "synchronous"
    module = str(getattr(get, "__module__", ""))
    return "processes" if module == "dask.multiprocessing" else module


def iso_now() -> str:
    """``2024-05-31T12:00:00Z``."""
    return datetime.now(UTC).strftime(ISO)


def options_in_words(options: WriteOptions) -> dict[str, Any]:
    """Each option as JSON can say it; tables by their type only."""
    return {one.name: plain(getattr(options, one.name)) for one in dataclasses.fields(options)}


def plain(value: Any) -> Any:
    """A value of what JSON knows; NaN and infinities as ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, since JSON has no such numbers."""
    if isinstance(value, Enum | np.generic):
        value = value.name if isinstance(value, Enum) else value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else json.dumps(value)
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, np.dtype | os.PathLike) else f"a {type(value).__name__}"
