"""How long a run waits when all its workers have gone and none comes.

Strategy. Blocks that are under way when the last worker leaves wait in the scheduler, for ever if no other comes: every further job may have been refused,
an account may have run out, a partition closed. Whether one will come is asked of the batch system itself: a job that waits in a
queue, however slow, is on its way; one that was refused, or that waits for what only a person can change, is not. Other clusters cannot be
asked, there time alone decides. The run then ends with an exception in the batch system's own words; what is finished stays for
``resume=True`` where it is kept.

The time is dask's configuration ``daskraster.no-workers-timeout`` (``DASK_DASKRASTER__NO_WORKERS_TIMEOUT`` in the environment), ten minutes where it is
not set; None waits for ever.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import dask
from dask.utils import parse_timedelta

from daskraster.errors import ClusterError, OptionError, WorkerError
from daskraster.running.queues import system_of, told
from daskraster.running.watching import Watchdog

logger = logging.getLogger(__name__)

NAME = "daskraster.no-workers-timeout"
# A node that is bought in a cloud takes two to five minutes, as long as a controller that is started anew.
TIMEOUT = "10 minutes"
LOOK_SECONDS = 5.0  # between two looks for workers while no block comes back
# Between two questions to a batch system that said that jobs wait.
ASK_SECONDS = 60.0
FRUITLESS_JOBS = 3  # that ended before their worker came, one after the other: the next one will not do better


@dataclass(frozen=True, slots=True)
class Prospect:
    """Whether a worker may come."""

    hopeful: bool
    words: str


class Patience:
    """The patience of one run. `check` is to be called, by one thread, for as long as no block comes back.

    Raises
    ------
    OptionError
        The configured time is not understood.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._seconds = _configured()
        self._interval = LOOK_SECONDS if self._seconds is None else min(LOOK_SECONDS, self._seconds / 4)
        self._looked = time.monotonic()
        self._alone_since: float | None = None
        self._asked = float("-inf")
        self._said = ""

    def check(self) -> None:
        """Return while there are workers, or one may come.

        Raises
        ------
        ClusterError
            There has been none for longer than the configured time, and the batch system, in its own words, gives none.
        WorkerError
            There has been none for so long, on a cluster that cannot be asked.
        """
        now = time.monotonic()
        if self._seconds is None or now - self._looked < self._interval:
            return
        self._looked = now
        if self._has_workers():
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = now
        alone = now - self._alone_since
        if alone < self._seconds or now - self._asked < min(ASK_SECONDS, self._seconds):
            return
        self._asked = now
        prospect = prospect_of(getattr(self._client, "cluster", None), getattr(self._client, "watchdog", None))
        if not prospect.hopeful:
            raise _given_up(prospect, alone)
        if prospect.words != self._said:
            self._said = prospect.words
            logger.warning("no worker is there; the run waits. %s", prospect.words)

    def _has_workers(self) -> bool:
        """Whether there are any, as far as the scheduler answers: the blocks under way tell of one that is gone."""
        if self._client.status != "running":
            return True
        try:
            return bool(self._client.nthreads())
        except (OSError, TimeoutError) as error:
            logger.debug("the scheduler was not reached: %s", error)
            return True


def _configured() -> float | None:
    said = dask.config.get(NAME, TIMEOUT)
    if said is None:
        return None
    try:
        seconds = float(parse_timedelta(said))
    except (ValueError, TypeError, KeyError) as error:
        raise OptionError(
            f"dask's configuration {NAME}={said!r} is not understood; give a time as '5 minutes', or None to wait for ever"
        ) from error
    if not seconds > 0:
        raise OptionError(f"dask's configuration {NAME}={said!r} must be more than nothing; None waits for ever")
    return seconds


def prospect_of(cluster: Any, watchdog: Watchdog | None) -> Prospect:
    """Whether the cluster of a Client, None where it has none, will have another worker."""
    system = system_of(cluster)
    jobs = [job.job_id for job in list(getattr(cluster, "workers", {}).values()) if getattr(job, "job_id", None)]
    if system is None:  # or one that cannot be asked
        return Prospect(bool(jobs), f"jobs that may be waiting: {', '.join(jobs[:5])}" if jobs else "")
    try:
        states = system.states(set(jobs))
    except ClusterError as error:
        return Prospect(False, str(error))
    coming = any(not system.is_over(state) and not system.is_stuck(state) for state in states.values())
    in_vain = watchdog is not None and watchdog.fruitless >= FRUITLESS_JOBS
    if coming and not in_vain:
        return Prospect(True, told(system, states, jobs))
    if watchdog is not None and watchdog.trouble is not None:
        words = watchdog.trouble
    elif watchdog is not None and in_vain:
        words = f"{watchdog.fruitless} jobs in a row ended before their worker came, the last one: {watchdog.ended}"
    else:
        words = told(system, states, jobs) if jobs else f"no job of {system.name} is left, and none was asked for"
    return Prospect(False, words)


def _given_up(prospect: Prospect, alone: float) -> ClusterError | WorkerError:
    longer = f"To wait longer, set dask's configuration {NAME}"
    if prospect.words:
        return ClusterError(
            f"no worker has been there for {alone:.0f} s, and none is coming: {prospect.words}. {longer}"
        )
    return WorkerError(
        f"no worker has been there for {alone:.0f} s, and nothing is known that starts one: see what ended them, in their logs or those of the scheduler, "
        f"and start workers again. {longer}"
    )
