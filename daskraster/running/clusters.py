"""Worker processes for rasters: on this machine, on SLURM, on PBS.

dask starts the workers; what is added are the settings that rasters need and people forget: threads and caches of GDAL, BLAS, OpenMP and numba
set before any of them is loaded, no spilling (blocks are small, and it would hide where they are not), and what batch systems want
(`daskraster.running.batch`).
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from dask.system import CPU_COUNT

from daskraster.errors import ClusterError
from daskraster.running import allocator
from daskraster.running.batch import start_batch
from daskraster.running.owning import client_class
from daskraster.running.sizing import WorkerShape
from daskraster.running.warming import preloads
from daskraster.running.wishes import ClusterWishes

if TYPE_CHECKING:
    import distributed

# The leading process and the system need some memory too.
SHARE_OF_MEMORY = 0.8
GUARD = 'in a script, what starts workers and what uses them stands under if __name__ == "__main__":, since each worker imports the script'


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
    job_memory_factor: float | None = None,
    log_directory: str | os.PathLike[str] | None = None,
    wait_for: int | None = None,
    timeout: float | None = 600,
    **options: Any,
) -> distributed.Client:
    """Start workers sized for rasters and give a Client on them; closing it, or leaving its ``with``, stops the workers too.

    Parameters
    ----------
    kind
        ``"local"``: processes on this machine. ``"slurm"``, ``"pbs"``: jobs of a batch system, one worker process each; needs the extra
        ``jobqueue``.
    n_workers
        Worker processes; on a batch system each is a job. Default: as many as dask would start on this machine; one job.
    threads_per_worker
        Blocks that a worker computes at one time. Default: as dask divides this machine; 4, or what the site's ``jobqueue.yaml`` says, in a job.
    cores_per_worker
        Cores of a job, where its libraries are to have more than one thread for each block; default ``threads_per_worker``.
    memory
        Limit of a worker, in bytes or as ``"8 GiB"``. Default: its share of four fifths of this machine; 2 GiB a thread, or what
        ``jobqueue.yaml`` says, in a job. A job is given ``job_memory_factor`` times as much.
    adapt
        Fewest and most workers, in place of ``n_workers``: dask asks for as many as there is work for.
    environment
        Variables for the workers. They win over those that are set anyway: ``GDAL_CACHEMAX``, ``GDAL_NUM_THREADS``,
        ``OMP_NUM_THREADS`` and the like, and ``MALLOC_TRIM_THRESHOLD_`` with ``MALLOC_MMAP_THRESHOLD_``, so that arrays are as fast as in threads.
    local_directory
        Where workers put temporary files. Default: in a job the node's own disk (``$SLURM_TMPDIR``, ``$TMPDIR``, ``/tmp``), else what dask chooses.
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
        Memory asked of the batch system over the limit of the worker; default 1.3.
    log_directory
        For the jobs' output. Default: a folder under ``~/.cache/daskraster``, removed at the end.
    wait_for
        Of a batch system: workers to wait for before this returns; default 1. On this machine all are waited for.
    timeout
        Of a batch system: seconds to wait for them; None: for ever.
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
    >>> with cluster("local", n_workers=1, threads_per_worker=1) as client:
    ...     client.submit(sum, [1, 2]).result()
    3
    """
    wishes = ClusterWishes(
        kind=kind,
        n_workers=n_workers,
        threads_per_worker=threads_per_worker,
        cores_per_worker=cores_per_worker,
        memory=memory,
        adapt=adapt,
        environment=dict(environment or {}),
        local_directory=None if local_directory is None else os.fspath(local_directory),
        interface=interface,
        dashboard_address=dashboard_address,
        walltime=walltime,
        queue=queue,
        account=account,
        job_memory_factor=job_memory_factor,
        log_directory=None if log_directory is None else os.fspath(log_directory),
        wait_for=wait_for,
        timeout=timeout,
        options=options,
    )
    return _start_local(wishes) if kind == "local" else start_batch(wishes)


def _start_local(wishes: ClusterWishes) -> Any:
    """A Client on processes of this machine; see `cluster`."""
    import distributed  # noqa: PLC0415 - a second of import that threads do not need
    from distributed.system import MEMORY_LIMIT  # noqa: PLC0415 - as above

    wishes.check_options("distributed.LocalCluster", distributed.LocalCluster, distributed.Nanny, distributed.Worker)
    count, threads = _local_numbers(wishes)
    shape = WorkerShape(
        threads=threads,
        cores=wishes.cores_per_worker or threads,
        memory_nbytes=wishes.memory_nbytes or int(MEMORY_LIMIT * SHARE_OF_MEMORY / count),
        variables=wishes.environment,
    )
    settings = {
        "n_workers": int(wishes.first_workers(default=count)),
        "threads_per_worker": threads,
        "memory_limit": shape.memory_nbytes,
        "dashboard_address": wishes.dashboard_address,
        "interface": wishes.interface,
        "local_directory": wishes.local_directory,
        "env": shape.environment(),
        **({"worker_class": _nanny_class()} if wishes.options.get("processes", True) else {}),
        "config": {"distributed.worker.memory.target": False, "distributed.worker.memory.spill": False},
    }
    _check_not_imported()
    try:
        cluster = distributed.LocalCluster(**{**settings, **wishes.options, **preloads(wishes.options)})
    except RuntimeError as error:
        raise ClusterError(f"the workers did not start: {error}; {GUARD}") from error
    try:
        if wishes.adapt:
            cluster.adapt(minimum=wishes.adapt[0], maximum=wishes.adapt[1])
        return client_class()(cluster)
    except BaseException:
        cluster.close()
        raise


def _check_not_imported() -> None:
    """Refuse to start workers in a worker that is about to start: each imports the script that started it.

    Raises
    ------
    ClusterError
        With what the script lacks.
    """
    # What multiprocessing looks at itself; without a look the worker would start workers, which would start workers ...
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(f"a worker imports the script, which starts workers again; {GUARD}")


@functools.cache
def _nanny_class() -> Any:
    """What starts workers with variables that the C library reads before Python runs; dask sets ``env`` only after that."""
    import distributed  # noqa: PLC0415 - as above

    class RasterNanny(distributed.Nanny):
        """Starts a worker whose allocator keeps what arrays give back, unless a user wants something else."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            wanted = {name: value for name, value in self.env.items() if name in allocator.VARIABLES}
            if allocator.is_as_dask_sets_it(self.pre_spawn_env) or wanted != allocator.VARIABLES:
                self.pre_spawn_env = {**self.pre_spawn_env, **wanted}

    return RasterNanny


def _local_numbers(wishes: ClusterWishes) -> tuple[int, int]:
    """Workers, the most of them under ``adapt``, and the threads of each: what was not said so that all cores are used once."""
    count = wishes.adapt[1] if wishes.adapt else wishes.n_workers
    threads = wishes.threads_per_worker
    if count is None and threads is None:
        # As many processes as threads in each, as dask has it: functions in Python want processes, decoded seams are shared by threads.
        count = max(
            number for number in range(1, CPU_COUNT + 1) if CPU_COUNT % number == 0 and number >= CPU_COUNT**0.5
        )
    count = count or max(1, CPU_COUNT // (threads or 1))
    return count, threads or max(1, CPU_COUNT // count)
