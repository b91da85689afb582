"""Worker processes for rasters: on this machine, on SLURM, on PBS.

Strategy. dask starts the workers; what is added are the settings that rasters need and people forget. One process a job, since dask-jobqueue
never replaces jobs of several; memory asked of the batch system above the worker's limit, since the nanny is counted too; a lifetime below the
walltime, staggered, so that workers leave in order instead of being killed all at once; temporary files on the node's own disk; no spilling, since
blocks are small and spilling hides that they are not; and the threads and caches of GDAL, BLAS, OpenMP and numba set before any of them is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes

from daskraster.errors import ClusterError, OptionError
from daskraster.running.queues import SYSTEMS, BatchSystem, job_class
from daskraster.running.sizing import THREAD_NBYTES, Lifetime, WorkerShape, format_walltime, parse_walltime
from daskraster.running.watching import Watchdog, submit, wait_for_workers

logger = logging.getLogger(__name__)

NODE_SCRATCH = '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"'  # expanded by the shell of the job
FAST_INTERFACES = ("ib", "hsn", "opa", "bond-ib")  # InfiniBand, Slingshot, Omni-Path
NO_SPILLING = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
}
WATCH_SECONDS = 5.0
# How dask-jobqueue calls what has a keyword of ours.
OURS = {
    "cores": "threads_per_worker= and cores_per_worker=",
    "memory": "memory=",
    "processes": "nothing: there is one process a job, since lost jobs of several are never replaced",
    "n_workers": "n_workers=",
    "job_cls": "nothing",
    "asynchronous": "nothing: the client is synchronous",
}


def cluster(
    kind: Literal["local", "slurm", "pbs"] = "local",
    *,
    n_workers: int | None = None,
    threads_per_worker: int | None = None,
    cores_per_worker: int | None = None,
    memory: int | str | None = None,
    adapt: tuple[int, int] | None = None,
    environment: Mapping[str, str] | None = None,
    local_directory: str | os.PathLike[str] | None = None,
    interface: str | None = None,
    dashboard_address: str = ":0",
    walltime: str | timedelta | None = None,
    queue: str | None = None,
    account: str | None = None,
    job_memory_factor: float = 1.3,
    log_directory: str | os.PathLike[str] | None = None,
    wait_for: int | None = None,
    timeout: float | None = 600,
    **options: Any,
) -> Any:
    """Start workers sized for rasters and give a Client on them; closing it, or leaving its ``with``, stops the workers too.

    Parameters
    ----------
    kind
        ``"local"``: processes on this machine. ``"slurm"``, ``"pbs"``: jobs of a batch system, one worker process each; needs the extra
        ``jobqueue``.
    n_workers
        Worker processes, which are jobs on a batch system. Default: as many as fit this machine; one job.
    threads_per_worker
        Blocks that a worker has at work at one time. Default: as dask divides this machine; 4, or what the site's ``jobqueue.yaml`` says, in a job.
    cores_per_worker
        Cores of a job, where its libraries are to have more than one thread for each block; default ``threads_per_worker``.
    memory
        Limit of a worker, in bytes or as ``"8 GiB"``. Default: its share of four fifths of this machine; 2 GiB a thread, or what
        ``jobqueue.yaml`` says, in a job. A job is given ``job_memory_factor`` times as much.
    adapt
        Fewest and most workers, in place of ``n_workers``: dask asks for as many as there is work for.
    environment
        Variables for the workers, beside and before those that are set anyway: ``GDAL_CACHEMAX``, ``GDAL_NUM_THREADS``,
        ``OMP_NUM_THREADS`` and its like.
    local_directory
        Where workers put temporary files. Default: the node's own disk (``$SLURM_TMPDIR``, ``$TMPDIR``, ``/tmp``).
    interface
        Network between scheduler and workers, as ``ip link`` names it. Default on batch systems: the first fast one (``ib0``, ``hsn0`` ...) where there is one.
    dashboard_address
        Of dask's dashboard; its link is shown with the client. Default: any free port.
    walltime
        Of a job: ``"HH:MM:SS"``, ``"D-HH:MM:SS"`` or a timedelta; default one hour, or what ``jobqueue.yaml`` says. Workers leave some minutes earlier, one after
        the other, and new jobs take their place for as long as the client is open.
    queue, account
        Of the batch system.
    job_memory_factor
        Memory asked of the batch system over the limit of the worker.
    log_directory
        For the jobs' output. Default: a folder under ``~/.cache/daskraster``, removed at the end.
    wait_for
        Workers to wait for before this returns; default 1, all on this machine.
    timeout
        Seconds to wait for them; None: for ever.
    **options
        Anything else that `distributed.LocalCluster`, `distributed.Worker`, or dask-jobqueue's cluster of this kind takes.

    Returns
    -------
    distributed.Client
        Active until it is closed. On a batch system lost jobs are replaced meanwhile.

    Raises
    ------
    OptionError
        An option that is unknown, out of range, or does not go with ``kind``.
    ClusterError
        dask-jobqueue is not installed, there is no such batch system here, it refused a job (with its own words), or no worker came in time
        (with what it says of the jobs). Nothing is left running.

    Examples
    --------
    >>> with cluster("local", n_workers=1, threads_per_worker=1) as client:  # doctest: +SKIP
    ...     write_raster(result, "out.tif")
    """
    if kind not in ("local", *SYSTEMS):
        raise OptionError(f"cluster({kind!r}) is not known; there are 'local', {', '.join(map(repr, SYSTEMS))}")
    _check_counts(n_workers, adapt, wait_for)
    common = _Common(
        n_workers=n_workers,
        adapt=adapt,
        interface=interface,
        dashboard_address=dashboard_address,
        local_directory=None if local_directory is None else os.fspath(local_directory),
        options=options,
    )
    if kind == "local":
        for name, value in (("walltime", walltime), ("queue", queue), ("account", account), ("log_directory", log_directory)):
            if value is not None:
                raise OptionError(f"{name}= goes with batch systems, not with workers on this machine")
        return _local(common, threads_per_worker, cores_per_worker, memory, dict(environment or {}))
    job = _job(kind, threads_per_worker, cores_per_worker, memory, walltime, job_memory_factor, dict(environment or {}))
    place = _JobPlace(queue=queue, account=account, log_directory=log_directory)
    return _batch(SYSTEMS[kind], common, job, place, 1 if wait_for is None else wait_for, timeout)


def is_batch(client: Any) -> bool:
    """Whether the workers of a Client are jobs of a batch system, which may end at any time; as far as it can be seen from here."""
    bases = type(getattr(client, "cluster", None)).__mro__
    return any(base.__module__.partition(".")[0] == "dask_jobqueue" for base in bases)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What all kinds of clusters take."""

    n_workers: int | None
    adapt: tuple[int, int] | None
    interface: str | None
    dashboard_address: str
    local_directory: str | None
    options: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What one job is asked for."""

    shape: WorkerShape
    nbytes: int
    walltime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobPlace:
    """Where jobs run and write what they say."""

    queue: str | None
    account: str | None
    log_directory: str | os.PathLike[str] | None


def _check_counts(n_workers: int | None, adapt: tuple[int, int] | None, wait_for: int | None) -> None:
    if n_workers is not None and n_workers < 1:
        raise OptionError(f"n_workers={n_workers}: there must be one worker or more")
    if adapt is None:
        most = n_workers
    elif n_workers is not None:
        raise OptionError("n_workers= and adapt= exclude each other: adapt=(fewest, most)")
    else:
        fewest, most = adapt
        if not 0 <= fewest <= most or most < 1:
            raise OptionError(f"adapt={adapt} is not (fewest, most) workers")
    if wait_for is not None and not 0 <= wait_for <= (math.inf if most is None else most):
        raise OptionError(f"wait_for={wait_for} workers of {most or 1}")


def _local(
    common: _Common,
    threads: int | None,
    cores: int | None,
    memory: int | str | None,
    variables: dict[str, str],
) -> Any:
    import distributed  # noqa: PLC0415 - a second of import that threads do not need
    from distributed.deploy.local import nprocesses_nthreads  # noqa: PLC0415
    from distributed.system import MEMORY_LIMIT  # noqa: PLC0415

    allowed = _names_of(distributed.LocalCluster, distributed.Nanny, distributed.Worker)
    _check_options(common.options, allowed, "distributed.LocalCluster")
    count = common.n_workers or (common.adapt[1] if common.adapt else None)
    if count is None:
        count, threads = nprocesses_nthreads() if threads is None else (max(1, CPU_COUNT // threads), threads)
    threads = threads or max(1, CPU_COUNT // count)
    # The leading process and the system need some memory too.
    nbytes = _nbytes(memory) if memory is not None else int(MEMORY_LIMIT * 0.8 / count)
    shape = WorkerShape(threads=threads, cores=cores or threads, memory_nbytes=nbytes, variables=variables)
    settings = {
        "n_workers": common.adapt[0] if common.adapt else count,
        "threads_per_worker": threads,
        "memory_limit": nbytes,
        "config": {"distributed.worker.memory.target": False, "distributed.worker.memory.spill": False},
        "dashboard_address": common.dashboard_address,
        "interface": common.interface,
        "env": shape.environment(),
    }
    if common.local_directory is not None:
        settings["local_directory"] = common.local_directory
    started = distributed.LocalCluster(**{**settings, **common.options})
    try:
        if common.adapt:
            started.adapt(minimum=common.adapt[0], maximum=common.adapt[1])
        return _client_class()(started)
    except BaseException:
        started.close()
        raise


def _job(
    kind: str,
    threads: int | None,
    cores: int | None,
    memory: int | str | None,
    walltime: str | timedelta | None,
    factor: float,
    variables: dict[str, str],
) -> _Job:
    """What the keywords say, else the site's ``jobqueue.yaml``, else what suits rasters."""
    _jobqueue()  # its import reads jobqueue.yaml
    site = dask.config.get(f"jobqueue.{kind}", {})
    threads = threads or site.get("cores") or 4
    if memory is None and site.get("memory"):
        nbytes = int(_nbytes(site["memory"]) / factor)  # there it is that of the job
    else:
        nbytes = _nbytes(memory) if memory is not None else threads * THREAD_NBYTES
    if walltime is None:
        # dask-jobqueue's own default of half an hour cannot be told from a site's.
        walltime = site.get("walltime") if site.get("walltime") not in (None, "00:30:00") else "01:00:00"
    shape = WorkerShape(
        threads=threads, cores=cores or threads, memory_nbytes=nbytes, variables={**NO_SPILLING, **variables}
    )
    return _Job(shape=shape, nbytes=shape.job_nbytes(factor), walltime=parse_walltime(walltime))


def _batch(
    system: BatchSystem, common: _Common, job: _Job, place: _JobPlace, wait_for: int, timeout: float | None
) -> Any:
    base = getattr(_jobqueue(), system.cluster_class)
    _check_options(common.options, _names_of(base, base.job_cls, *base.__mro__, *base.job_cls.__mro__), system.cluster_class)
    fewest = common.adapt[0] if common.adapt else common.n_workers or 1
    logs, temporary = _log_folder(place.log_directory)
    started = None
    try:
        started = base(**_batch_settings(base, system, common, job, place, logs))
        for _ in range(fewest):
            started.worker_spec.update(started.new_worker_spec())
        started.sync(submit, started, system)
        wait_for_workers(started, system, count=min(wait_for, fewest), seconds=timeout)
        if common.adapt:
            started.adapt(minimum=common.adapt[0], maximum=common.adapt[1])
        watchdog = Watchdog(started, system, seconds=WATCH_SECONDS)
        client = _client_class()(started, watchdog=watchdog, remove=logs if temporary else None)
        watchdog.start()
        return client
    except BaseException:
        if started is not None:
            with contextlib.suppress(AssertionError):
                started.close()
        if temporary:
            shutil.rmtree(logs, ignore_errors=True)
        raise


def _batch_settings(
    base: Any, system: BatchSystem, common: _Common, job: _Job, place: _JobPlace, logs: Path
) -> dict[str, Any]:
    """Keywords for dask-jobqueue."""
    options = dict(common.options)
    lifetime = Lifetime.within(job.walltime)
    shape = job.shape
    settings: dict[str, Any] = {
        "job_cls": job_class(base.job_cls),
        "n_workers": 0,  # asked for later, where a refusal can be seen
        "cores": shape.cores,
        "processes": 1,
        "memory": f"{shape.memory_nbytes}B",
        "walltime": format_walltime(job.walltime),
        "queue": place.queue,
        "account": place.account,
        "interface": common.interface or _fast_interface(),
        "local_directory": common.local_directory or NODE_SCRATCH,
        "log_directory": str(logs),
        "scheduler_options": {"dashboard_address": common.dashboard_address, **options.pop("scheduler_options", {})},
        "worker_extra_args": [
            # A second --nthreads counts more than dask-jobqueue's own, which is the number of cores.
            *(["--nthreads", str(shape.threads)] if shape.threads != shape.cores else []),
            "--lifetime",
            f"{lifetime.seconds}s",
            "--lifetime-stagger",
            f"{lifetime.stagger_seconds}s",
            *options.pop("worker_extra_args", []),
        ],
        "job_script_prologue": [
            *(f"export {name}={_quoted(value)}" for name, value in shape.environment().items()),
            *options.pop("job_script_prologue", []),
        ],
    }
    if system.name == "SLURM":
        settings["job_mem"] = f"{job.nbytes >> 20}M"
    elif "resource_spec" not in options:
        settings["resource_spec"] = f"select=1:ncpus={shape.cores}:mem={job.nbytes >> 20}MB"
    return {**settings, **options}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _jobqueue() -> Any:
    try:
        import dask_jobqueue  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ClusterError(
            f"batch systems need the extra jobqueue, pip install 'daskraster[jobqueue]': {error}"
        ) from error
    return dask_jobqueue


def _nbytes(memory: int | str) -> int:
    try:
        return int(parse_bytes(memory))
    except ValueError as error:
        raise OptionError(f"memory={memory!r} is not understood; give bytes, or a text as '8 GiB'") from error


def _names_of(*classes: type) -> set[str]:
    """Keywords that the constructors take."""
    return {
        name
        for of_class in classes
        for name, parameter in inspect.signature(of_class.__init__).parameters.items()  # type: ignore[misc]
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name != "self"
    }


def _check_options(options: Mapping[str, Any], allowed: set[str], taker: str) -> None:
    for name in options:
        if name in OURS:
            raise OptionError(f"{name}= is not passed to {taker}; use {OURS[name]}")
        if name not in allowed:
            raise OptionError(f"cluster() has no option {name!r}, nor has {taker}; it has {', '.join(sorted(allowed - set(OURS)))}")


def _log_folder(asked: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """Where jobs write their output, and whether it goes at the end; must be seen by all nodes, which /tmp is not."""
    if asked is not None:
        return Path(asked).absolute(), False
    above = Path.home() / ".cache" / "daskraster"
    try:
        above.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="jobs-", dir=above)), True
    except OSError as error:
        raise ClusterError(f"cannot make a folder for the jobs' output in {above}: {error}; give log_directory=") from error


def _fast_interface() -> str | None:
    """The first network made for clusters that this machine has, if it is up."""
    import psutil  # noqa: PLC0415 - comes with distributed

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    with_address = {
        name for name, known in psutil.net_if_addrs().items() if any(one.family.name == "AF_INET" for one in known)
    }
    fast = sorted(name for name in up & with_address if name.startswith(FAST_INTERFACES))
    return fast[0] if fast else None


@functools.cache
def _client_class() -> Any:
    """A Client that stops its cluster when it is closed."""
    import distributed  # noqa: PLC0415 - a second of import that threads do not need

    class ClusterClient(distributed.Client):
        """See `cluster`."""

        def __init__(self, started: Any, *, watchdog: Watchdog | None = None, remove: Path | None = None) -> None:
            self.watchdog = watchdog
            self._remove = remove
            super().__init__(started)

        def close(self, timeout: Any = None) -> None:
            """Close the client and stop its workers; harmless when done already."""
            if self.watchdog is not None:
                self.watchdog.stop()
            if self.status not in ("closed", "newly-created"):
                super().close(**({} if timeout is None else {"timeout": timeout}))
            started = self.cluster
            if started is not None and started.status.name not in ("closed", "closing"):
                started.close()
            if self._remove is not None:
                shutil.rmtree(self._remove, ignore_errors=True)

        def __repr__(self) -> str:
            text = cast(str, super().__repr__())
            link = None if self.status == "closed" else self.dashboard_link
            return text if not link else f"{text.removesuffix('>')}, dashboard={link}>"

    return ClusterClient
