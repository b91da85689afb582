"""Threads and caches of libraries kept small while blocks run, on workers that were not started for rasters and in this process.

dask runs a block in each of its threads. A library that starts as many threads as there are cores in each of them makes cores times cores of
them: up to ten times slower. `daskraster.running.clusters` sets limits before its workers start; any other Client's workers, and this process where dask's
threads run in it, get them for as long as a run lasts.

What is set: ``GDAL_NUM_THREADS``, which GDAL looks up each time; on workers also the variables of `daskraster.running.sizing`, which libraries that are
loaded later read; and the pools of BLAS and OpenMP that are loaded already, through threadpoolctl, where that is installed (it comes with
scikit-learn). Workers also keep the memory that arrays give back, see `daskraster.running.allocator`. What the user set in the environment stays.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dask
from dask.system import CPU_COUNT

from daskraster.errors import WorkerError
from daskraster.formats.gdal_handles import limit_cache
from daskraster.running.allocator import VARIABLES as ALLOCATOR_VARIABLES
from daskraster.running.allocator import keep_freed, teach
from daskraster.running.sizing import MIN_WORKER_NBYTES, THREAD_NBYTES, WorkerShape

logger = logging.getLogger(__name__)

TRIES = 5
_lock = threading.Lock()
_holders = 0
_undo: contextlib.ExitStack | None = None
# How many modules were imported, and the last of them, when the controller of the pools was made.
_known: tuple[tuple[int, str], Any] | None = None


def set_limits(
    variables: Mapping[str, str], *, threads: int, cache_nbytes: int | None = None, keep_memory: bool = False
) -> None:
    """Limit the libraries of this process, until as many `lift_limits` have come as there were calls of this.

    Parameters
    ----------
    variables
        Environment variables to be set where they are not set.
    threads
        Of the pools of libraries that are loaded.
    cache_nbytes
        Of GDAL's block cache; None leaves it.
    keep_memory
        Whether memory that arrays give back is kept, where dask has it returned at once.
    """
    global _holders, _undo  # noqa: PLW0603 - what it changes is the process's as well
    with _lock:
        _holders += 1
        if _holders == 1:
            _undo = contextlib.ExitStack()
            if cache_nbytes is not None and "GDAL_CACHEMAX" not in os.environ:
                _undo.callback(limit_cache, limit_cache(cache_nbytes))
            for name in variables.keys() - os.environ.keys():
                os.environ[name] = variables[name]
                _undo.callback(os.environ.pop, name, None)
            if keep_memory:
                _undo.callback(keep_freed(os.environ))
            _limit_pools(threads, _undo)


def lift_limits() -> None:
    """What was before, when the last one who set limits has come."""
    global _holders, _undo  # noqa: PLW0603 - as above
    with _lock:
        _holders -= 1
        if _holders == 0 and _undo is not None:
            _undo.close()
            _undo = None


def _limit_pools(threads: int, undo: contextlib.ExitStack) -> None:
    """BLAS and OpenMP, where threadpoolctl is there and they are loaded; never more than they have."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return
    controller = _controller(threadpoolctl)
    if any(pool["num_threads"] > threads for pool in controller.info()):
        undo.callback(controller.limit(limits=threads).restore_original_limits)


def _controller(threadpoolctl: Any) -> Any:
    """What controls the pools that are loaded. Looking for them takes 2.3 ms, and 6 the first time: once as long as nothing was imported.

    A library that comes otherwise, by ``ctypes`` alone, is seen after the next import.
    """
    global _known  # noqa: PLW0603 - what is loaded is loaded into the process
    loaded = (len(sys.modules), next(reversed(sys.modules)))
    if _known is None or _known[0] != loaded:
        _known = loaded, threadpoolctl.ThreadpoolController()
    return _known[1]


@contextlib.contextmanager
def limited(client: Any) -> Iterator[None]:
    """Limits for the time of a run: on all workers of ``client``, those that join later too, or in this process where there is none.

    Raises
    ------
    WorkerError
        A worker lacks the package, or the scheduler is gone, or the client was closed; nothing was computed.
    """
    if client is None:
        teach()
        threads = dask.config.get("num_workers", None) or CPU_COUNT
        # Only what can be taken back: a library that is loaded meanwhile would keep what it reads for ever.
        set_limits({"GDAL_NUM_THREADS": "1"}, threads=max(1, CPU_COUNT // threads))
        try:
            yield
        finally:
            lift_limits()
        return
    name = f"daskraster-limits-{uuid.uuid4().hex}"
    try:
        _persistently(lambda: client.register_plugin(_plugin_class()(quiet=_is_local(client)), name=name))
    except Exception as error:
        # distributed has no error of its own for it: an AttributeError of None, among others.
        if "No module named" in str(error):
            raise WorkerError(
                f"a worker cannot run blocks: {error}; install there what is installed here: nothing was computed"
            ) from error
        if client.status == "running":
            raise
        raise WorkerError("the cluster's scheduler is gone, or the client was closed: nothing was computed") from error
    try:
        yield
    finally:
        if client.status == "running":
            _persistently(lambda: client.unregister_worker_plugin(name))


def _is_local(client: Any) -> bool:
    """Whether its workers write their log to the user's terminal; jobs write theirs to files, where it is wanted."""
    from distributed import LocalCluster  # noqa: PLC0415 - loaded, as there is a Client

    return isinstance(getattr(client, "cluster", None), LocalCluster)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a worker's log says something that the run does not tell: it raises what a block raised, and the log of each failed block and
    try would bury it, in 40 lines a time.

    A filter of the logger ``distributed.worker``.
    """
    if not isinstance(record.args, tuple) or not record.msg.startswith("Compute Failed"):
        return True
    return not any("Telling(" in str(one) for one in record.args)


def _persistently(tell_workers: Callable[[], Any]) -> None:
    """Tell all workers something; again where one of them died meanwhile, whose connection then fails for all."""
    for attempt in range(TRIES):
        try:
            tell_workers()
            return
        except OSError as error:  # CommClosedError among them
            logger.debug("telling the workers failed: %s", error)
            time.sleep(0.1 * 2**attempt)
    logger.warning("limits of threads and caches could not be changed on all workers, of which some died meanwhile")


def limit_worker(worker: Any) -> None:
    """Limits that suit a worker of distributed: a core for each of its threads, a cache from its memory."""
    threads, nbytes = worker.state.nthreads, worker.memory_manager.memory_limit or worker.state.nthreads * THREAD_NBYTES
    environment = WorkerShape(
        threads=threads, cores=threads, memory_nbytes=max(nbytes, MIN_WORKER_NBYTES)
    ).environment()
    # glibc has read its own when the process started; what runs here as a process of its own shall not be changed.
    later = {name: value for name, value in environment.items() if name not in ALLOCATOR_VARIABLES}
    set_limits(later, threads=1, cache_nbytes=int(environment["GDAL_CACHEMAX"]) << 20, keep_memory=True)


@functools.cache
def _plugin_class() -> Any:
    """A plugin that limits a worker from its start, or its registration, to the end of a run."""
    from distributed import WorkerPlugin  # noqa: PLC0415 - a second of import that threads do not need

    class Limits(WorkerPlugin):
        """See `limited`."""

        def __init__(self, *, quiet: bool) -> None:
            self._quiet = quiet

        def setup(self, worker: Any) -> None:
            """The worker joins."""
            limit_worker(worker)
            if self._quiet:
                logging.getLogger("distributed.worker").addFilter(is_news)

        def teardown(self, worker: Any) -> None:
            """The run is over."""
            lift_limits()
            logging.getLogger("distributed.worker").removeFilter(is_news)

    return Limits
