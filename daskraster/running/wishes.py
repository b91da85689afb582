"""What a user asked of a cluster, checked before anything starts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dask.utils import parse_bytes

from daskraster.errors import OptionError
from daskraster.running.queues import SYSTEMS
from daskraster.running.sizing import MIN_WORKER_NBYTES

# How dask calls what has a keyword of ours, or is settled.
OURS = {
    "cores": "threads_per_worker= and cores_per_worker=",
    "memory_limit": "memory=",
    "processes": "nothing: there is one process a job, since lost jobs of several are never replaced",
    "job_cls": "nothing",
    "asynchronous": "nothing: the client is synchronous",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterWishes:
    """The keywords of `daskraster.cluster`."""

    kind: str
    n_workers: int | None
    threads_per_worker: int | None
    cores_per_worker: int | None
    memory: int | str | None
    adapt: tuple[int, int] | None
    environment: Mapping[str, str]
    local_directory: str | None
    interface: str | None
    dashboard_address: str
    walltime: str | timedelta | None
    queue: str | None
    account: str | None
    job_memory_factor: float | None
    log_directory: str | None
    wait_for: int | None
    timeout: float | None
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises
        ------
        OptionError
            An unknown kind, impossible numbers, keywords of a batch system for workers on this machine.
        """
        if self.kind not in ("local", *SYSTEMS):
            raise OptionError(
                f"cluster({self.kind!r}) is not known; there are 'local', {', '.join(map(repr, SYSTEMS))}"
            )
        for name in ("n_workers", "threads_per_worker", "cores_per_worker"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"{name}={value}: there must be one or more")
        self._check_adapt()
        if self.wait_for is not None and not 0 <= self.wait_for <= self.first_workers(default=math.inf):
            raise OptionError(
                f"wait_for={self.wait_for} of {self.first_workers(default=math.inf)} workers that are started"
            )
        if self.timeout is not None and self.timeout < 0:
            raise OptionError(f"timeout={self.timeout} seconds; None waits for ever")
        if self.kind == "local":
            for name in ("walltime", "queue", "account", "job_memory_factor", "log_directory"):
                if getattr(self, name) is not None:
                    raise OptionError(f"{name}= goes with batch systems, not with workers on this machine")

    def _check_adapt(self) -> None:
        if self.adapt is None:
            return
        if self.n_workers is not None:
            raise OptionError("n_workers= and adapt= exclude each other; give adapt=(fewest, most)")
        fewest, most = self.adapt
        if not 0 <= fewest <= most or most < 1:
            raise OptionError(f"adapt={self.adapt} is not (fewest, most) workers")

    def first_workers(self, *, default: float) -> float:
        """Workers that are started at once."""
        return self.adapt[0] if self.adapt else self.n_workers or default

    @property
    def memory_nbytes(self) -> int | None:
        """Limit of a worker, where it was given.

        Raises
        ------
        OptionError
            It is not understood, or too small.
        """
        return None if self.memory is None else parse_memory(self.memory)

    def check_options(self, taker: str, *classes: type) -> None:
        """Refuse options that none of the constructors takes.

        Raises
        ------
        OptionError
            One is unknown, or has a keyword of ours.
        """
        allowed = set().union(*map(_keywords_of, classes)) - OURS.keys()
        for name in self.options:
            if name in OURS:
                raise OptionError(f"{name}= is not passed to {taker}; use {OURS[name]}")
            if name not in allowed:
                raise OptionError(
                    f"cluster() has no option {name!r}, nor has {taker}, which has {', '.join(sorted(allowed))}"
                )


def parse_memory(memory: int | str) -> int:
    """Bytes of a number or of a text as ``"8 GiB"``.

    Raises
    ------
    OptionError
        It is not understood, or less than a worker needs.
    """
    try:
        nbytes = int(parse_bytes(memory))
    except ValueError as error:
        raise OptionError(f"memory={memory!r} is not understood; give bytes, or a text as '8 GiB'") from error
    if nbytes < MIN_WORKER_NBYTES:
        raise OptionError(f"memory={memory!r}: a worker needs {MIN_WORKER_NBYTES >> 20} MB or more")
    return nbytes


def _keywords_of(taker: type) -> set[str]:
    parameters = inspect.signature(taker.__init__).parameters.values()  # type: ignore[misc]
    kinds = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return {parameter.name for parameter in parameters if parameter.kind in kinds} - {"self"}
