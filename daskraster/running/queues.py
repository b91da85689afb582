"""Batch systems: what they are called, what they say of jobs, what they say when they refuse one."""

from __future__ import annotations

import functools
import getpass
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskraster.errors import ClusterError

QUERY_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSystem:
    """One kind of batch system."""

    name: str
    cluster_class: str
    """dask-jobqueue's."""
    submit: str
    """Its command."""
    query: tuple[str, ...]
    """Command that lists this user's jobs, ``{user}`` filled in."""
    line: str
    """Regular expression of a listed job: ``id``, ``state`` and perhaps ``reason``."""
    over: frozenset[str]
    """States that nothing follows on."""
    stuck: str
    """Regular expression of states, with their reasons, that last until a person changes something."""

    def states(self, job_ids: Collection[str]) -> dict[str, str]:
        """What the batch system says of these jobs, in its own words; those it knows no longer are not there.

        Raises
        ------
        ClusterError
            It does not answer.
        """
        command = [part.format(user=getpass.getuser()) for part in self.query]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterError(f"{self.name} does not answer to {' '.join(command)}: {error}") from error
        if asked.returncode:
            raise ClusterError(
                f"{self.name} refuses {' '.join(command)}: {asked.stderr.strip() or asked.stdout.strip()}"
            )
        return {number: said for number, said in self._parsed(asked.stdout).items() if number in job_ids}

    def _parsed(self, listing: str) -> dict[str, str]:
        found = (re.match(self.line, text.strip()) for text in listing.splitlines())
        return {
            one["id"]: " ".join(filter(None, (one["state"], one.groupdict().get("reason")))) for one in found if one
        }

    def is_over(self, state: str | None) -> bool:
        """Whether a job in this state, or unknown to the batch system, will do nothing more."""
        return state is None or state.split()[0] in self.over

    def is_stuck(self, state: str | None) -> bool:
        """Whether a job waits for what no time will bring: an account without hours, a partition that is closed."""
        return state is not None and re.fullmatch(self.stuck, state) is not None


SYSTEMS: Mapping[str, BatchSystem] = {
    "slurm": BatchSystem(
        name="SLURM",
        cluster_class="SLURMCluster",
        submit="sbatch",
        query=("squeue", "--noheader", "--states=all", "--user={user}", "--format=%i|%T|%r"),
        line=r"(?P<id>\d+)\|(?P<state>[A-Z_]+)[^|]*\|(?P<reason>.*)",
        over=frozenset(
            [
                "BOOT_FAIL",
                "CANCELLED",
                "COMPLETED",
                "DEADLINE",
                "FAILED",
                "NODE_FAIL",
                "OUT_OF_MEMORY",
                "PREEMPTED",
                "TIMEOUT",
            ]
        ),
        # Limits of what runs at one time pass; closed partitions, used up minutes, holds and what can never be met do not.
        stuck=r"PENDING .*(PartitionDown|PartitionInactive|PartitionTimeLimit|PartitionNodeLimit|BadConstraints|Invalid|NotAllowed|Minutes"
        r"|MaxWallDuration|JobHeld|DependencyNeverSatisfied).*",
    ),
    "pbs": BatchSystem(
        name="PBS",
        cluster_class="PBSCluster",
        submit="qsub",
        query=("qstat", "-u", "{user}"),
        # The last columns differ between OpenPBS and Torque, but the state is one letter between two times.
        line=r"(?P<id>\d+)\S*\s.*\s(?P<state>[A-Z])\s+\S+$",
        over=frozenset("CFX"),
        stuck="H.*",
    ),
}


def system_of(cluster: Any) -> BatchSystem | None:
    """The batch system behind dask-jobqueue's cluster; None where it is another kind of cluster, or none."""
    for base in type(cluster).__mro__:
        for system in SYSTEMS.values():
            if base.__name__ == system.cluster_class and base.__module__.startswith("dask_jobqueue"):
                return system
    return None


def told(system: BatchSystem, states: Mapping[str, str], job_ids: Sequence[str]) -> str:
    """What a batch system says of jobs, in a sentence."""
    listed = "; ".join(f"job {job_id}: {states.get(job_id, 'not known any more')}" for job_id in job_ids[:5])
    more = f"; and {len(job_ids) - 5} more" if len(job_ids) > 5 else ""
    return f"{system.name} says: {listed}{more}"


def words_of(error: BaseException) -> str:
    """What a batch system's command said itself, out of the exception that dask-jobqueue makes of it."""
    found = re.search(r"stdout:\n(.*?)\nstderr:\n(.*)", str(error), re.DOTALL)
    if found is None:
        return str(error)
    return "\n".join(filter(None, (part.strip() for part in (found[2], found[1])))) or str(error)


@functools.cache
def job_class(base: type) -> Any:
    """dask-jobqueue's class of a job, which keeps what went wrong and ends as closed."""
    from distributed.core import Status  # noqa: PLC0415 - a second of import that only clusters need

    async def start(self: Any) -> None:
        self.refusal = None
        try:
            await base.start(self)  # type: ignore[attr-defined]
        except Exception as error:
            self.refusal = error
            self.status = Status.failed
            raise

    async def close(self: Any) -> None:
        await base.close(self)  # type: ignore[attr-defined]
        # Left "running" by dask-jobqueue, which fails an assertion when the cluster closes while someone still holds the job.
        self.status = Status.closed

    return type(f"Kept{base.__name__}", (base,), {"start": start, "close": close})
