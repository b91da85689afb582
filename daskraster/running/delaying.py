"""A run to be done later, as one Delayed: start -> every block -> finish.

Which engine will run it is not known, so the sinks are ready for any. Nobody watches the run either, so every task is wrapped: the one
that raises removes the partial files on its way out, wherever it runs.
"""

from __future__ import annotations

import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dask._task_spec import Task, TaskRef
from dask.core import flatten
from dask.delayed import Delayed, delayed
from dask.highlevelgraph import HighLevelGraph
from dask.utils import ensure_dict

from daskraster.errors import RasterWriteError
from daskraster.files import PartialFile
from daskraster.formats.protocols import Receipt, Sink
from daskraster.metadata import RasterMetadata
from daskraster.positioned import Buffer
from daskraster.posting import leave_greeting
from daskraster.running.engines import stop_writers
from daskraster.running.facts import facts_of_later
from daskraster.running.finishing import finish, reports
from daskraster.running.flattening import Flattening, Travel
from daskraster.running.gathering import Gathering
from daskraster.running.outputs import Output, receipts
from daskraster.running.pyramid import Pyramid
from daskraster.running.report import WriteReport
from daskraster.running.walking import rows_together
from daskraster.running.waves import Key, optimised, row_by_row


@dataclass(frozen=True, slots=True)
class _Started:
    """What the first task hands to the others."""

    sink: Sink
    at: float
    failures: list[BaseException] = field(default_factory=list)
    """What went wrong first, seen by all tasks of this process: those that then find their file gone tell the cause instead."""


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A task's function that removes the partial files when it raises. The first arguments are what was started."""

    func: Callable[..., Any]
    count: int

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        try:
            return self.func(*arguments[self.count :], **keywords)
        except BaseException as error:
            started: Sequence[_Started] = arguments[: self.count]
            for one in started:
                one.failures.append(error)
            _discard(started)
            first = started[0].failures[0]
            if first is error:
                raise
            raise first from None


def delayed_run(outputs: Sequence[Output], *, single: bool) -> Delayed:
    """One Delayed that writes all ``outputs``; its value is the list of their reports, or the one report if ``single``."""
    token = uuid.uuid4().hex
    started = [
        delayed(_start, pure=False)(output.sink, dask_key_name=f"start-{output.sink.target.name}-{token}")
        for output in outputs
    ]
    arrays = [receipts(output, first) for output, first in zip(outputs, started, strict=True)]
    keys = [list(flatten(array.__dask_keys__())) for array in arrays]
    merged = HighLevelGraph.merge(*[array.dask for array in arrays])
    first_keys = [first.key for first in started]
    # The starts among what is wanted: dask would fuse one with a single block that follows on it.
    wanted = [*first_keys, *[key for of_array in keys for key in of_array]]
    graph, recipes = Flattening(travel=Travel.ONCE).flattened(optimised(merged, wanted))
    unguarded = recipes.union(first_keys)
    guarded = {key: task if key in unguarded else _guard(task, first_keys) for key, task in graph.items()}
    renamed, names = row_by_row(guarded, token, together=rows_together(merged))
    renamed |= _persisted(merged, renamed)
    starts = [names[key] for key in first_keys]
    gatherings = [
        _add_gatherings(renamed, output, start, [names[key] for key in of_array], starts)
        for output, start, of_array in zip(outputs, starts, keys, strict=True)
    ]
    last = f"finish-{token}"
    renamed[last] = Task(
        last,
        _Finish([output.metadata for output in outputs], [output.options for output in outputs], single),
        *[TaskRef(key) for key in starts],
        *[TaskRef(key) for key in gatherings],
    )
    return Delayed(last, renamed)


def _persisted(merged: HighLevelGraph, graph: Mapping[str, Any]) -> dict[Key, Any]:
    """The Futures that a graph needs and optimising has left out: a cluster forgets their results when no one holds them."""
    missing = {key for task in graph.values() for key in task.dependencies if key not in graph}
    if not missing:
        return {}
    return {
        part.key: part for part in ensure_dict(merged).values() if isinstance(part, TaskRef) and part.key in missing
    }


def _add_gatherings(
    graph: dict[str, Any], output: Output, start: str, receipts: Sequence[str], starts: Sequence[str]
) -> str:
    """Add the tasks that take up the blocks of an output, ``receipts`` row by row; the key of the last one.

    With overviews one task a row of blocks, each going on where the last one stopped, so that pieces of overviews do not pile up.
    """
    step = len(output.chunks[2]) if output.pyramid is not None else len(receipts)
    before = start
    for number, first in enumerate(range(0, len(receipts), step)):
        key = f"gather-{start}-{number:07d}"
        task = Task(
            key,
            _Gather(output.pyramid, output.metadata.shape[0], output.numblocks),
            TaskRef(before),
            *[TaskRef(receipt) for receipt in receipts[first : first + step]],
        )
        graph[key] = _guard(task, starts)
        before = key
    return before


@dataclass(frozen=True, slots=True)
class _Gather:
    """Takes up blocks. The gathering itself goes on; that it was here before, after a retry, it sees by the blocks it has."""

    pyramid: Pyramid | None
    bands: int
    numblocks: tuple[int, int, int]

    def __call__(self, before: _Started | Gathering, *taken: Receipt) -> Gathering:
        gathering = before if isinstance(before, Gathering) else self._begun(before.sink)
        for receipt in taken:
            gathering.add(receipt)
        return gathering

    def _begun(self, sink: Sink) -> Gathering:
        return Gathering(sink, self.pyramid, self.bands, self.numblocks)


def _guard(task: Any, started: Sequence[str]) -> Any:
    if type(task) is not Task:  # an alias or a constant, which cannot raise
        return task
    first = [TaskRef(key) for key in started]
    return Task(task.key, _Guarded(task.func, len(first)), *first, *task.args, **task.kwargs)


def _start(sink: Sink) -> _Started:
    """The first task.

    Raises
    ------
    RasterWriteError
        The file cannot be created, or there are workers that do not see it.
    """
    at = time.time()
    started = sink.start(many_processes=True)
    client = _client_of_worker()
    try:
        if client is not None and started.partial is not None:
            _check_shared(started.partial, client)
            started = started.posting(NobodyLeads(started.partial.target))
    except BaseException:
        started.discard()
        raise
    return _Started(started, at)


@dataclass(frozen=True, slots=True)
class NobodyLeads:
    """What a worker that joined late and does not see the folder meets in place of a leading process; see `daskraster.posting.Post`."""

    target: Path

    def sees(self, path: Path) -> bool | None:
        """Nobody can be asked."""
        return None

    def deliver(self, path: Path, parts: Sequence[Buffer], *, reserved: bool) -> list[int]:
        """Refuse.

        Raises
        ------
        RasterWriteError
            Always.
        """
        raise RasterWriteError(
            f"cannot write {self.target} with compute=False: this worker on {socket.gethostname()}, which joined when the run had begun, does not share its "
            "folder with the worker that it began on, and such a run has no leading process that its blocks could be sent to; write to a folder that all machines see, "
            "or with compute=True"
        )


def _check_shared(partial: PartialFile, client: Any) -> None:
    """Refuse a run whose blocks would have to travel: it has no leading process that they could be sent to."""
    greetings = client.run(leave_greeting, partial.path, partial.claims, on_error="ignore")
    blind = [address for address, greeting in greetings.items() if greeting is None or not greeting.exists()]
    if blind:
        raise RasterWriteError(
            f"cannot write {partial.target} with compute=False: {len(blind)} of {len(greetings)} workers (the first is {blind[0]}) do not share its folder with "
            "the worker that the run began on, and such a run has no leading process that their blocks could be sent to; write to a folder that all machines see, or with "
            "compute=True"
        )


def _discard(started: Sequence[_Started]) -> None:
    for one in started:
        one.sink.discard()


@dataclass(frozen=True, slots=True)
class _Finish:
    """The last task. Holds no output: dask would see the arrays in it and compute those too."""

    metadatas: Sequence[RasterMetadata]
    options: Sequence[Mapping[str, Any]]
    single: bool

    def __call__(self, *arguments: Any) -> list[WriteReport] | WriteReport:
        started: Sequence[_Started] = arguments[: len(self.metadatas)]
        gatherings: Sequence[Gathering] = arguments[len(self.metadatas) :]
        sinks = [one.sink for one in started]
        client = _client_of_worker()
        try:
            partials: list[Path] = [sink.partial.path for sink in sinks if sink.partial is not None]
            finished = finish(sinks, gatherings, stop_writers(partials, client=client))
        except BaseException:
            _discard(started)
            raise
        began = min(one.at for one in started)
        facts = facts_of_later(client, began, [gathering.timeline for gathering in gatherings])
        runs = [replace(facts, options=options) for options in self.options]
        done = reports(self.metadatas, finished, time.time() - began, runs=runs)
        return done[0] if self.single else done


def _client_of_worker() -> Any:
    """A client of the cluster on whose worker this runs; None elsewhere."""
    worker = sys.modules.get("distributed.worker")
    if worker is None or not hasattr(worker.thread_state, "execution_state"):
        return None
    return worker.get_client()
