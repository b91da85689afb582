"""Keeps a batch cluster at the number of jobs it should have.

Strategy. A cluster of dask asks for a new job where it has none of that name. It forgets a job some seconds after its worker has gone, but it does
not ask again by itself, and a job that ended before its worker came (cancelled while it waited, on a broken node) it never forgets. So a
thread looks every few seconds: jobs whose worker never came are looked up in the batch system and forgotten where they are over, and what is missing is
asked for again; after a refusal, or jobs that end at once, it waits longer each time.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from daskraster.errors import ClusterError
from daskraster.running.queues import BatchSystem, told, words_of

logger = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 300


class Watchdog:
    """Watches one cluster in a thread of its own until `stop`."""

    def __init__(self, cluster: Any, system: BatchSystem, *, seconds: float) -> None:
        self._cluster = cluster
        self._system = system
        self._seconds = seconds
        self._came: set[str] = set()  # ids of jobs whose worker was seen
        self._failures = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="daskraster-watchdog", daemon=True)
        self.replaced = 0
        """Jobs asked for in the place of others."""
        self.trouble: str | None = None
        """What the batch system said when it last refused a job; None since it took one."""
        self.fruitless = 0
        """Jobs that ended before their worker came, since there was a worker."""
        self.ended = ""
        """How the last one of those ended."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; returns when a look under way is over."""
        self._ended.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(min(self._seconds * 2**self._failures, LONGEST_WAIT_SECONDS)):
            try:
                self.look()
            except ClusterError as error:
                self._failures += 1
                self.trouble = str(error)
                logger.warning("%s", error)
            except (OSError, RuntimeError, TimeoutError):
                if self._ended.is_set() or self._cluster.status.name != "running":
                    return  # the cluster is being closed
                logger.warning("a look at the jobs of %s failed", self._cluster.name, exc_info=True)

    def look(self) -> None:
        """One look: forget what is over, ask for what is missing.

        Raises
        ------
        ClusterError
            The batch system does not answer or refuses a job.
        """
        over = self._over()
        missing = self._cluster.sync(self._correct, over)
        if missing and not self._ended.is_set():
            self.replaced += len(missing)
            self._failures = self._failures + 1 if over else 0
            self.trouble = None
            logger.info("%s: %d lost job(s) replaced: %s", self._system.name, len(missing), ", ".join(sorted(missing)))
        elif not over and self.trouble is None:
            self._failures = 0

    def _over(self) -> list[Any]:
        """Names of jobs without a worker that will never have one."""
        connected = {worker["name"] for worker in self._cluster.scheduler_info["workers"].values()}
        if connected:
            self.fruitless = 0
        waiting: dict[Any, str | None] = {}
        for name, job in list(self._cluster.workers.items()):
            if name in connected:
                self._came.add(job.job_id)
            elif job.job_id not in self._came:
                waiting[name] = job.job_id
        if not waiting:
            return []
        states = self._system.states({job_id for job_id in waiting.values() if job_id})
        over = [name for name, job_id in waiting.items() if job_id is None or self._system.is_over(states.get(job_id))]
        for name in over:
            said = states.get(waiting[name] or "") or "unknown"
            if waiting[name] is not None:  # else it was refused
                self.fruitless += 1
                self.ended = f"job {waiting[name]}: {said}{_log_ends(self._cluster)}"
            logger.warning("%s: job %s ended before its worker came: %s", self._system.name, waiting[name], said)
        return over

    async def _correct(self, over: list[Any]) -> list[str]:
        """Forget these jobs and ask for all that are missing, in the loop of the cluster; names of those asked for."""
        cluster = self._cluster
        if cluster.status.name != "running":
            return []
        for name in over:
            job = cluster.workers.pop(name, None)
            if job is not None:
                await job.close()
        missing = [str(name) for name in set(cluster.worker_spec) - set(cluster.workers)]
        if missing:
            await submit(cluster, self._system)
        return missing


async def submit(cluster: Any, system: BatchSystem) -> None:
    """Ask for all jobs that a cluster should have and has not.

    Raises
    ------
    ClusterError
        One was refused: with the batch system's own words. The others were still asked for.
    """
    try:
        # What cluster.scale() only schedules, its exceptions logged at best.
        await cluster._correct_state()
    except FileNotFoundError as error:
        raise ClusterError(
            f"there is no {system.submit} here: {system.name} takes jobs from a machine that has its commands, often a login node"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"{system.name} refused a job: {words_of(error)}") from error


def wait_for_workers(cluster: Any, system: BatchSystem, *, count: int, seconds: float | None) -> None:
    """Return when ``count`` workers are there.

    Raises
    ------
    ClusterError
        They did not come in time, or all jobs are over; with what the batch system and the jobs' logs say.
    """
    begin, asked = time.monotonic(), 0.0
    while True:
        there = len(cluster.scheduler_info["workers"])
        if there >= count:
            return
        waited = time.monotonic() - begin
        if waited - asked > 2:
            asked = waited
            jobs = {job.job_id: name for name, job in list(cluster.workers.items())}
            states = system.states(set(jobs))
            if jobs and not there and all(system.is_over(states.get(job_id)) for job_id in jobs):
                raise ClusterError(
                    f"all {len(jobs)} jobs ended before a worker came. {told(system, states, list(jobs))}{_log_ends(cluster)}"
                )
        if seconds is not None and waited > seconds:
            jobs = {job.job_id: name for name, job in list(cluster.workers.items())}
            raise ClusterError(
                f"{there} of {count} workers came within {seconds:.0f} s. {told(system, system.states(set(jobs)), list(jobs))}; "
                f"give a longer timeout=, wait_for=0 to go on without them, or another queue=.{_log_ends(cluster)}"
            )
        time.sleep(0.2)


def _log_ends(cluster: Any) -> str:
    """The last lines of one job's log, where there is one."""
    folder = cluster._dummy_job.log_directory
    if folder is None:
        return ""
    files = [path for path in Path(folder).iterdir() if path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        text = path.read_text(errors="replace").strip()
        if text:
            return f"\nThe end of {path}:\n" + "\n".join(text.splitlines()[-8:])
    return ""
