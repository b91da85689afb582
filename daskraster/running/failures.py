"""What is told when a block fails for good: its window, the cause, how often it was tried.

A block that raises may be tried again. Elsewhere than on a cluster its task calls itself again, on a cluster the scheduler sends it out again, perhaps
to another worker. Workers that die, run out of memory or lose the connection cost the blocks they were running: the scheduler gives those to
others, until as many workers have died with one block as ``distributed.scheduler.allowed-failures`` permits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskraster.errors import BlockResultError, FunctionPicklingError, RasterWriteError, WorkerError
from daskraster.grid import Window
from daskraster.lazy.functions import FunctionStep, function_name

# Would come out the same, however often: a wrong shape, a disk that is full, a run that was stopped.
HOPELESS = (BlockResultError, RasterWriteError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the blocks of one output lie."""

    target: Path
    chunks: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Bands, rows and columns of each block."""

    def describe(self, block: tuple[int, int, int]) -> str:
        """Window, number and file of a block."""
        _, row, col = block
        _, rows, cols = self.chunks
        window = Window(sum(rows[:row]), sum(cols[:col]), rows[row], cols[col])
        return f"{window}, block ({row}, {col}) of ({len(rows)}, {len(cols)}), of {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """How blocks are tried, and how they are called when that fails."""

    retries: int = 0
    """How often a block that raised is tried again."""
    outputs: Sequence[Place] = ()

    def describe(self, number: int, block: tuple[int, int, int]) -> str:
        """A block of an output."""
        return self.outputs[number].describe(block) if self.outputs else f"block {block}"


@dataclass(frozen=True, slots=True)
class Retrying:
    """A task's function that tries again when it raises, and says what it was doing when it gives up."""

    func: Callable[..., Any]
    retries: int
    what: str
    """The block; empty for a step on the way to one."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        for left in range(self.retries, -1, -1):
            try:
                return self.func(*arguments, **keywords)
            except Exception as error:
                if left and not isinstance(error, HOPELESS):
                    continue
                tries = self.retries - left + 1
                explain(error, self.what, tries)
                raise
        raise AssertionError("the last try returns or raises")


def explain(error: BaseException, what: str, tries: int) -> None:
    """Add to an exception which block it stopped, unless it says so, and how often that was tried, where more than once."""
    told = " ".join([str(error), *getattr(error, "__notes__", ())])
    if what and "Window(" not in told:
        error.add_note(f"while computing {what}")
    if tries > 1:
        error.add_note(f"tried {tries} times")


def of_worker(error: BaseException, what: str, retries: int) -> BaseException:
    """What to raise for an exception that a cluster gave for a block."""
    kind = type(error).__name__
    if kind == "KilledWorker":
        tries = getattr(error, "allowed_failures", 0) + 1
        last = getattr(getattr(error, "last_worker", None), "address", "unknown")
        told: BaseException = WorkerError(
            f"{what} was given up: {tries} workers died while they had it, the last one was {last}. Most often they ran out of memory: "
            "give each worker more memory or fewer threads, or make blocks smaller with chunks=; the workers' logs say more. (The cause may be another block that they had at the same time.)"
        )
        told.__cause__ = error
        return told
    if isinstance(error, ModuleNotFoundError):
        told = WorkerError(
            f"{what} cannot run on a worker: {error}; install there what is installed here (for one run: client.upload_file)"
        )
        told.__cause__ = error
        return told
    explain(error, what, 1 if isinstance(error, HOPELESS) else retries + 1)
    return error


def check_sendable(graph: dict[str, Any], targets: Sequence[str]) -> None:
    """Refuse what cannot be sent to worker processes, before anything runs; one block stands for all.

    Raises
    ------
    FunctionPicklingError
        With the function's name and what it holds.
    """
    import cloudpickle  # noqa: PLC0415 - comes with dask

    needed: dict[str, Any] = {}
    waiting = list(targets[:1])
    while waiting:
        key = waiting.pop()
        if key in graph and key not in needed:
            needed[key] = graph[key]
            waiting += graph[key].dependencies
    try:
        cloudpickle.dumps(needed)
    except Exception as error:
        steps = [step for task in needed.values() for step in _steps(task)]
        raise FunctionPicklingError(_unsendable(steps, error)) from error


def _unsendable(steps: Sequence[FunctionStep], error: Exception) -> str:
    import cloudpickle  # noqa: PLC0415

    for step in steps:
        try:
            cloudpickle.dumps((step.func, dict(step.kwargs)))
        except Exception as inner:  # noqa: BLE001 - objects raise whatever they like
            return (
                f"the function {function_name(step.func)} cannot be sent to worker processes: {inner}. It holds something that belongs to this "
                "process (a lock, an open file, a generator): create that inside the function, or run on threads"
            )
    return f"the blocks cannot be sent to worker processes: {error}; run on threads, or leave out what belongs to this process"


def _steps(value: Any) -> list[FunctionStep]:
    """The functions in a task, wherever fusing has put them."""
    if isinstance(value, FunctionStep):
        return [value]
    if isinstance(value, dict):
        return [step for part in value.values() for step in _steps(part)]
    if isinstance(value, list | tuple):
        return [step for part in value for step in _steps(part)]
    parts = [getattr(value, name) for name in ("func", "args", "kwargs", "value") if hasattr(value, name)]
    return [step for part in parts for step in _steps(part)] if hasattr(value, "dependencies") else []
