"""Workers as jobs of a batch system, through dask-jobqueue, with what people forget.

One process a job, since dask-jobqueue never replaces lost jobs of several; memory asked of the batch system above the worker's limit, since the
nanny is counted too; a lifetime below the walltime, staggered, so that workers leave in order instead of being killed all at once; temporary files on
the node's own disk; jobs asked for where a refusal can be seen, and asked for again when they are lost (`daskraster.running.watching`).
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask

from daskraster.errors import ClusterError
from daskraster.running.owning import client_class
from daskraster.running.queues import SYSTEMS, BatchSystem, job_class
from daskraster.running.sizing import THREAD_NBYTES, Lifetime, WorkerShape, format_walltime, parse_walltime
from daskraster.running.warming import preloads
from daskraster.running.watching import Watchdog, submit, wait_for_workers
from daskraster.running.wishes import ClusterWishes, parse_memory

NODE_SCRATCH = '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"'  # expanded by the shell of the job
FAST_INTERFACES = ("ib", "hsn", "opa")  # InfiniBand, Slingshot, Omni-Path
NO_SPILLING = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
}
JOB_MEMORY_FACTOR = 1.3  # 1.2 to 1.4: nanny and interpreter take 150 to 300 MB beside the worker
JOB_THREADS = 4
JOBQUEUE_WALLTIME = "00:30:00"  # dask-jobqueue's own default, which cannot be told from a site's
WALLTIME = "01:00:00"
WATCH_SECONDS = 5.0


def start_batch(wishes: ClusterWishes) -> Any:
    """A Client on jobs of a batch system; see `daskraster.cluster`.

    Raises
    ------
    OptionError, ClusterError
        As `daskraster.cluster`; no job is left.
    """
    system = SYSTEMS[wishes.kind]
    base = getattr(_jobqueue(), system.cluster_class)
    wishes.check_options(system.cluster_class, *base.__mro__, *base.job_cls.__mro__)
    job = _Job.of(wishes)
    fewest = int(wishes.first_workers(default=1))
    logs = _log_folder(wishes.log_directory)
    temporary = logs if wishes.log_directory is None else None
    cluster = None
    try:
        cluster = base(**_settings(base, system, wishes, job, logs))
        for _ in range(fewest):
            cluster.worker_spec.update(cluster.new_worker_spec())
        cluster.sync(submit, cluster, system)
        due = min(1 if wishes.wait_for is None else wishes.wait_for, fewest)
        wait_for_workers(cluster, system, count=due, seconds=wishes.timeout)
        if wishes.adapt:
            cluster.adapt(minimum=wishes.adapt[0], maximum=wishes.adapt[1])
        watchdog = Watchdog(cluster, system, seconds=WATCH_SECONDS)
        client = client_class()(cluster, watchdog=watchdog, remove=temporary)
    except BaseException:
        if cluster is not None:
            cluster.close()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    watchdog.start()
    return client


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What one job is asked for."""

    shape: WorkerShape
    nbytes: int
    walltime: timedelta

    @classmethod
    def of(cls, wishes: ClusterWishes) -> _Job:
        """What the keywords say, else the site's ``jobqueue.yaml``, else what suits rasters."""
        site = dask.config.get(f"jobqueue.{wishes.kind}", {})
        factor = wishes.job_memory_factor or JOB_MEMORY_FACTOR
        threads = wishes.threads_per_worker or site.get("cores") or JOB_THREADS
        nbytes = wishes.memory_nbytes
        if nbytes is None:  # the site's is that of the job
            nbytes = int(parse_memory(site["memory"]) / factor) if site.get("memory") else threads * THREAD_NBYTES
        walltime = wishes.walltime or site.get("walltime")
        if walltime in (None, JOBQUEUE_WALLTIME) and wishes.walltime is None:
            walltime = WALLTIME
        shape = WorkerShape(
            threads=threads,
            cores=wishes.cores_per_worker or threads,
            memory_nbytes=nbytes,
            variables={**NO_SPILLING, **wishes.environment},
        )
        return cls(shape=shape, nbytes=shape.job_nbytes(factor), walltime=parse_walltime(walltime))


def _settings(base: Any, system: BatchSystem, wishes: ClusterWishes, job: _Job, logs: Path) -> dict[str, Any]:
    """Keywords for dask-jobqueue."""
    options, shape = dict(wishes.options), job.shape
    lifetime = Lifetime.within(job.walltime)
    arguments = ["--lifetime", f"{lifetime.seconds}s", "--lifetime-stagger", f"{lifetime.stagger_seconds}s"]
    if shape.threads != shape.cores:
        # The last --nthreads counts; dask-jobqueue gives the number of cores.
        arguments += ["--nthreads", str(shape.threads)]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in shape.environment().items()]
    megabytes = job.nbytes >> 20
    settings = {
        "job_cls": job_class(base.job_cls),
        "n_workers": 0,
        "cores": shape.cores,
        "processes": 1,
        "memory": f"{shape.memory_nbytes}B",
        "walltime": format_walltime(job.walltime),
        "queue": wishes.queue,
        "account": wishes.account,
        "interface": wishes.interface or _fast_interface(),
        "local_directory": NODE_SCRATCH if wishes.local_directory is None else shlex.quote(wishes.local_directory),
        "log_directory": str(logs),
        "scheduler_options": {"dashboard_address": wishes.dashboard_address, **options.pop("scheduler_options", {})},
        "worker_extra_args": [*arguments, *_preload_arguments(), *options.pop("worker_extra_args", [])],
        "job_script_prologue": [*exports, *options.pop("job_script_prologue", [])],
    }
    if system is SYSTEMS["slurm"]:
        settings["job_mem"] = f"{megabytes}M"
    else:
        settings["resource_spec"] = f"select=1:ncpus={shape.cores}:mem={megabytes}MB"
    return {**settings, **options}


def _preload_arguments() -> list[str]:
    return [word for text in preloads({})["preload"] for word in ("--preload", shlex.quote(text))]


def _jobqueue() -> Any:
    try:
        import dask_jobqueue  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ClusterError(
            f"batch systems need the extra jobqueue, pip install 'daskraster[jobqueue]': {error}"
        ) from error
    return dask_jobqueue


def _log_folder(asked: str | None) -> Path:
    """Where jobs write their output; all nodes must see it, so not under /tmp."""
    if asked is not None:
        return Path(asked).absolute()
    above = Path.home() / ".cache" / "daskraster"
    try:
        above.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="jobs-", dir=above))
    except OSError as error:
        raise ClusterError(
            f"cannot make a folder for the jobs' output in {above}: {error}; give log_directory="
        ) from error


def _fast_interface() -> str | None:
    """The first network made for clusters that this machine has, if it is up."""
    import psutil  # noqa: PLC0415 - comes with distributed

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    fast = sorted(
        name
        for name, known in psutil.net_if_addrs().items()
        if name in up and name.startswith(FAST_INTERFACES) and any(one.family.name == "AF_INET" for one in known)
    )
    return fast[0] if fast else None
