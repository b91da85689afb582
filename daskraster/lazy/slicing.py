"""Whether an array is still a plain piece of a source: the view behind slices and picked bands, found in dask's own graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import Alias, Task, TaskRef
from dask.array.chunk import getitem
from dask.blockwise import Blockwise

from daskraster.grid import Window
from daskraster.lazy.sources import LAYER_PREFIX, SourceView, reads_in

# What dask indexes with lists by. It is private: by name, so that a dask without it costs the short cut and not the import.
TAKE = "dask.array._shuffle._getitem"


def source_of(array: da.Array) -> SourceView | None:
    """The view whose pixels an array ``(band, y, x)`` or ``(y, x)`` is, or None where it is not one plain rectangle of a source."""
    found = _found(array.dask.layers, array.name)
    if found is None:
        return None
    view, _ = found
    expected = array.shape if array.ndim == 3 else (1, *array.shape)
    return view if (len(view.bands), *view.window.shape_yx) == expected else None


type _Chunks = tuple[tuple[int, ...], ...]


def _found(layers: Any, name: str) -> tuple[SourceView, _Chunks] | None:
    """The view and the chunk sizes of the array that layer ``name`` makes."""
    layer = layers.get(name)
    # dask's optimisation gives the last step's name to what it fused.
    if isinstance(layer, Blockwise) and name.startswith(LAYER_PREFIX):
        for read in reads_in(layer):
            if read.windows.halo_yx == (0, 0):
                return read.view, ((len(read.view.bands),), *read.windows.chunks_yx)
        return None
    if layer is None or not name.startswith("getitem-"):
        return None
    tasks = dict(layer)
    return _taken(layers, name, tasks) or _sliced(layers, name, tasks)


def _taken(layers: Any, name: str, tasks: dict[Any, Any]) -> tuple[SourceView, _Chunks] | None:
    """See through bands picked by a list, ``isel(band=[2, 0])``: each task takes them from the block at its own place.

    What was sliced with the same ``isel`` is a step of the same layer before it.
    """
    own = {key: task for key, task in tasks.items() if key[0] == name}
    if any(not isinstance(task, Task) or _name_of(task.func) != TAKE or len(task.args) != 2 for task in own.values()):
        return None
    pairs = [(key, *(getattr(part, "key", None) for part in task.args)) for key, task in own.items()]
    if not pairs or any(not isinstance(block, tuple) or block[1:] != key[1:] for key, block, _ in pairs):
        return None
    parents, takers = {block[0] for _, block, _ in pairs}, {taker for *_, taker in pairs}
    if len(parents) != 1 or len(takers) != 1:
        return None
    parent = parents.pop()
    before = {key: task for key, task in tasks.items() if key[0] == parent}
    found = _sliced(layers, parent, before) if before else _found(layers, parent)
    bands = _bands_taken(getattr(tasks.get(takers.pop()), "value", None))
    if found is None or bands is None or len(found[1]) != 3 or len(found[1][0]) != 1:
        return None
    view, chunks = found
    return SourceView(view.source, tuple(view.bands[band] for band in bands), view.window), ((len(bands),), *chunks[1:])


def _name_of(func: Any) -> str:
    return f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', '')}"


def _bands_taken(taker: Any) -> list[int] | None:
    """Positions that dask's index ``(axis sizes, (positions, slice, slice))`` picks along the first axis; None for any other."""
    index = taker[1] if isinstance(taker, tuple) and len(taker) == 2 else None
    if not isinstance(index, tuple) or len(index) != 3 or not isinstance(index[0], np.ndarray):
        return None
    positions: list[int] = index[0].tolist()
    whole = all(part == slice(None) for part in index[1:])
    return positions if whole and len(set(positions)) == len(positions) else None


def _sliced(layers: Any, name: str, tasks: dict[Any, Any]) -> tuple[SourceView, _Chunks] | None:
    """See through a layer of ``getitem`` tasks with steps of 1, each from one block of a view."""
    first = _piece(tasks.get((name, *(0,) * _rank(tasks))))
    parent = _found(layers, first[0][0]) if first else None
    if first is None or parent is None:
        return None
    view, parent_chunks = parent
    _, index = first
    if len(index) != len(parent_chunks) or any(isinstance(part, int) for part in index[-2:]):
        return None
    rank = _rank(tasks)
    kept = [axis for axis, part in enumerate(index) if isinstance(part, slice)]
    if len(kept) != rank:
        return None
    spans: list[list[tuple[int, int]]] = []
    for position, axis in enumerate(kept):
        pieces = [
            _piece(tasks[key])
            for number in range(max(key[1 + position] for key in tasks) + 1)
            for key in [(name, *(number if place == position else 0 for place in range(rank)))]
        ]
        span = _spans(pieces, axis, parent_chunks[axis])
        if span is None:
            return None
        spans.append(span)
    bands = view.bands
    if len(parent_chunks) == 3:
        part = index[0]
        if isinstance(part, slice):
            bands = bands[spans[0][0][0] : spans[0][-1][1]]
        else:
            bands = (bands[sum(parent_chunks[0][: first[0][1]]) + part],)
    (top, _), (left, _) = spans[-2][0], spans[-1][0]
    rows, cols = (span[-1][1] - span[0][0] for span in spans[-2:])
    window = Window(view.window.row_off + top, view.window.col_off + left, rows, cols)
    chunks = tuple(tuple(stop - start for start, stop in span) for span in spans)
    return SourceView(view.source, bands, window), chunks


def _rank(tasks: dict[Any, Any]) -> int:
    return len(next(iter(tasks))) - 1


def _piece(task: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """Which block a task takes a piece of, and the index into it; None where it does anything else."""
    if isinstance(task, Alias):
        target: Any = task.target
        return target, (slice(None),) * (len(target) - 1)
    if isinstance(task, Task) and task.func is getitem and len(task.args) == 2 and isinstance(task.args[0], TaskRef):
        index = task.args[1]
        if isinstance(index, tuple) and all(isinstance(part, slice | int) for part in index):
            return task.args[0].key, index
    return None


def _spans(
    pieces: Sequence[tuple[Any, tuple[Any, ...]] | None], axis: int, chunks: tuple[int, ...]
) -> list[tuple[int, int]] | None:
    """Start and stop of each piece along one axis of the parent; None unless they follow on one another with step 1."""
    spans: list[tuple[int, int]] = []
    for piece in pieces:
        if piece is None:
            return None
        key, index = piece
        begin, size = sum(chunks[: key[1 + axis]]), chunks[key[1 + axis]]
        start, stop, step = index[axis].indices(size)
        if step != 1 or (spans and spans[-1][1] != begin + start):
            return None
        spans.append((begin + start, begin + stop))
    return spans
