"""A large run as a row of graphs of bounded size, each with some thousand blocks.

Strategy. The graph of a whole run has a task for each block, some 3 KB of Python objects: a million blocks would take minutes and
gigabytes before the first one starts. So block rows are taken in waves, and only the tasks of one wave exist at a time: 40 microseconds
and 3 KB for each of its blocks, whatever the size of the raster. ::

    rows of blocks 0 .. 7    wave 0      graph made, run, forgotten
    rows of blocks 8 .. 15   wave 1      graph made, run, forgotten
    ...

Where every block stands alone (a file read with its halo, a function, a file written) waves share nothing. Where blocks exchange neighbours
in the graph, those at a seam of two waves are needed in both. They are never computed twice (a function may be random, or expensive): the first
wave keeps their results for the second one, about two rows of blocks, so such graphs are cut into fewer waves.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
from dask._task_spec import DataNode, convert_legacy_graph, fuse_linear_task_spec
from dask.highlevelgraph import HighLevelGraph
from dask.utils import ensure_dict

from daskraster.running.walking import rows_together

# Blocks in a wave. Smaller waves leave threads idle at their ends (one block's time in 4096), larger ones start later.
WAVE_BLOCKS = 4096
# Where waves share blocks: each seam keeps two rows of them, and a graph of this size, about 200,000 tasks, still starts in seconds.
SHARING_WAVE_BLOCKS = 16384

type Key = Any
type Block = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A part of a run."""

    graph: dict[str, Any]
    """Tasks by keys whose order as text is the blocks' row-major order."""
    targets: dict[str, tuple[int, Block]]
    """The key of each receipt, the number of its output and its block."""
    kept: frozenset[str]
    """Results that the next wave needs too; their tasks are not in its graph."""
    shared: frozenset[str] = frozenset()
    """Results that all later waves may need; their tasks are not in their graphs either."""


def waves(outputs: Sequence[da.Array], *, skip: Sequence[Collection[Block]] = ()) -> Iterator[Wave]:
    """The graphs of a run, one after the other, each made when it is asked for.

    Parameters
    ----------
    outputs
        Arrays of receipts, one a block, as `daskraster.running.outputs.receipts` makes them.
    skip
        For each output the blocks that are there already; nothing is computed for them.
    """
    merged = HighLevelGraph.merge(*[output.dask for output in outputs])
    skip = skip or [()] * len(outputs)
    ending = uuid.uuid4().hex[:12]
    parts = _parts(outputs, skip, WAVE_BLOCKS)
    first = list(itertools.islice(parts, 2))
    if len(first) > 1 and _share(merged, *first):
        parts = _parts(outputs, skip, SHARING_WAVE_BLOCKS)
        first = list(itertools.islice(parts, 2))
        if len(first) > 1:
            yield from _sharing(merged, itertools.chain(first, parts), ending)
            return
    together = rows_together(merged)
    for part in itertools.chain(first, parts):
        graph, names = row_by_row(optimised(merged, list(part)), ending, together=together)
        yield Wave(graph=graph, targets={names[key]: target for key, target in part.items()}, kept=frozenset())


type _Part = dict[Key, tuple[int, Block]]


def _parts(outputs: Sequence[da.Array], skip: Sequence[Collection[Block]], wave_blocks: int) -> Iterator[_Part]:
    """The receipts' keys of each wave, of whole rows of blocks; those of a million blocks at once would take 250 MB.

    Outputs go along with one another: each wave takes the same share of the rows of each.
    """
    total = sum(output.npartitions for output in outputs)
    count = min(-(-total // wave_blocks), max(output.numblocks[1] for output in outputs))
    for share in range(count):
        part: _Part = {}
        for number, output in enumerate(outputs):
            bands, rows, cols = output.numblocks
            of_share = range(share * rows // count, (share + 1) * rows // count)
            for block in itertools.product(range(bands), of_share, range(cols)):
                if block not in skip[number]:
                    part[output.name, *block] = number, block
        if part:
            yield part


def _share(graph: HighLevelGraph, one: _Part, other: _Part) -> bool:
    """Whether two waves need a task in common."""
    first, second = (
        {key for layer in graph.cull(set(part)).layers.values() for key in layer.get_output_keys()}
        for part in (one, other)
    )
    return not first.isdisjoint(second)


def _sharing(merged: HighLevelGraph, parts: Iterable[_Part], ending: str) -> Iterator[Wave]:
    """Waves that pass on what they have in common."""
    graph: dict[Key, Any] | None = None
    known: set[Key] = set()
    for part, next_part in itertools.pairwise(itertools.chain(parts, [None])):
        assert part is not None
        graph = _graph_of(merged, part) if graph is None else graph
        following = {} if next_part is None else _graph_of(merged, next_part)
        kept = {
            name
            for key, task in following.items()
            if key not in graph
            for name in task.dependencies
            if name in graph or name in known
        }
        needed = _needed(graph, [*part, *(kept - known)], known)
        # What was kept is given as data, to be looked up by name; fusing must not swallow what is to be kept.
        fused = fuse_linear_task_spec(
            {**needed, **{key: DataNode(key, None) for key in known}}, keys={*part, *kept, *known}
        )
        renamed, names = row_by_row({key: task for key, task in fused.items() if key not in known}, ending, known)
        yield Wave(
            graph=renamed,
            targets={names[key]: target for key, target in part.items()},
            kept=frozenset(_name(key, ending) for key in kept),
        )
        graph, known = following, kept


def _graph_of(merged: HighLevelGraph, part: _Part) -> dict[Key, Any]:
    return convert_legacy_graph(ensure_dict(merged.cull(set(part))))


def optimised(graph: HighLevelGraph, keys: Sequence[Key]) -> dict[Key, Any]:
    """The tasks that keys depend on, without what is persisted on a cluster; made of dask's nodes also where dask is told not to fuse."""
    return convert_legacy_graph(dict(da.Array.__dask_optimize__(graph, keys)))


def _needed(graph: dict[Key, Any], targets: Sequence[Key], known: set[Key]) -> dict[Key, Any]:
    """The tasks that the targets depend on, without what is known already and what only that depends on.

    What is in no graph is persisted on a cluster.
    """
    needed: dict[Key, Any] = {}
    waiting = list(targets)
    while waiting:
        key = waiting.pop()
        if key in graph and key not in needed and key not in known:
            needed[key] = graph[key]
            waiting += graph[key].dependencies
    return needed


def row_by_row(
    graph: dict[Key, Any], ending: str, known: Collection[Key] = frozenset(), *, together: int = 1
) -> tuple[dict[str, Any], dict[Key, str]]:
    """The same graph with keys whose order as text is the blocks' row-major order, and the new name of each key.

    dask runs tasks that are alike in the order of their keys as text, where block 10 comes before block 9. Blocks far apart would
    take turns, and what they share at their seams would be kept for long or computed twice.

    Parameters
    ----------
    graph
        Tasks by key.
    ending
        Of the new names, the run's own. Two runs of one array on one cluster have tasks of their own, though what they read goes by one name: each
        tells its news to its own run. A cluster would take one for the other.
    known
        Keys that are not in the graph, but will be given under their new names. Whatever else tasks depend on that is not there keeps its name:
        it is persisted on a cluster, which knows it by that.
    together
        Rows of blocks that are taken column by column, where no block depends on another; see `daskraster.running.walking`.
    """
    if together > 1 and not any(map(_is_block, (name for task in graph.values() for name in task.dependencies))):
        names = {key: _name(_in_bands(key, together), ending) for key in graph}
    else:
        names = {key: _name(key, ending) for key in graph}
    renaming = {**{key: _name(key, ending) for key in known}, **names}
    return {names[key]: task.substitute(renaming, key=names[key]) for key, task in graph.items()}, names


def _in_bands(key: Key, together: int) -> Key:
    """A block's key ``(name, band, row, column)`` as its place in the order of bands of rows."""
    if not _is_block(key):
        return key
    *before, row, col = key
    return *before, row // together, col, row


def _is_block(key: Key) -> bool:
    return isinstance(key, tuple) and len(key) > 2


def _name(key: Key, ending: str) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return "-".join([*(f"{part:07d}" if isinstance(part, int) else str(part) for part in parts), ending])
