"""The dask layer that holds a source, and how to find it again.

Strategy. A raster file becomes one Blockwise layer whose first step is a `ReadBlock`. Whoever needs a block with its halo looks for
that step in the array's own graph and asks the source for the larger window, instead of asking the graph for neighbours: one task a
block (0.4 ms) where `map_overlap` makes about 12 (4.3 ms) and keeps a row of blocks alive. Nothing is registered anywhere, so the
source survives copies and pickling and is gone after ``persist``. Plain slices (``isel``, ``sel``, ``clip_box``, one band, a list of bands)
are seen through, since those are what people do most. A source made of many others is narrowed for each block, when dask makes the task, to those it needs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import Alias, Task, TaskRef
from dask.array.chunk import getitem
from dask.base import tokenize
from dask.blockwise import Blockwise
from dask.layers import ArrayBlockwiseDep
from numpy.typing import NDArray

from daskraster.formats.protocols import Narrowing, Source
from daskraster.grid import Window, split_axis, table_cores
from daskraster.timing import stage

type ChunksYX = tuple[tuple[int, ...], tuple[int, ...]]

# A block's pixels, all bands: 2048 x 2048 of uint16. 16 MiB are no faster (24576^2 in 7.2-8.4 s against 7.8-8.5) and take 40 MB
# more with two threads; below it the 0.4 ms of a task begin to show.
BLOCK_NBYTES = 8 << 20
LAYER_PREFIX = "raster-"
# What dask indexes with lists by. It is private: by name, so that a dask without it costs the short cut and not the import.
TAKE = "dask.array._shuffle._getitem"
OUTPUT_TILE = 512  # the default tile of what is written: blocks that are multiples of it need no re-chunking


@dataclass(frozen=True, slots=True)
class SourceView:
    """A rectangle and some bands of a source: what an array's pixels are."""

    source: Source
    bands: tuple[int, ...]
    window: Window
    """In pixels of the source; the array's upper left pixel is its corner."""

    @property
    def extent(self) -> Window:
        """The whole source in pixels of the array: where real pixels lie, also beyond the array's edge."""
        rows, cols = self.source.shape[1:]
        return Window(-self.window.row_off, -self.window.col_off, rows, cols)


@dataclass(frozen=True, slots=True)
class BlockWindows:
    """The window of each block of an array chunked as ``chunks_yx``, with a halo, clipped to an extent."""

    chunks_yx: ChunksYX
    halo_yx: tuple[int, int]
    extent: Window
    """Where pixels exist, in pixels of the array; usually the array."""

    def core(self, row: int, col: int) -> Window:
        """The block without halo."""
        rows, cols = self.chunks_yx
        return Window(sum(rows[:row]), sum(cols[:col]), rows[row], cols[col])

    def haloed(self, row: int, col: int) -> Window:
        """The block with as much of its halo as there is."""
        return self.core(row, col).grow(self.halo_yx).clip(self.extent)

    def haloed_chunks(self) -> ChunksYX:
        """Chunk sizes of the array of haloed blocks."""
        rows = tuple(self.haloed(row, 0).height for row in range(len(self.chunks_yx[0])))
        cols = tuple(self.haloed(0, col).width for col in range(len(self.chunks_yx[1])))
        return rows, cols


@dataclass(frozen=True, slots=True)
class ReadBlock:
    """First step of a source layer: block number -> pixels ``(band, y, x)`` with halo."""

    view: SourceView
    windows: BlockWindows

    def __call__(self, block_id: tuple[int, int, int]) -> NDArray[Any]:
        """The pixels of one block.

        Raises
        ------
        RasterReadError
            The source could not be read; the message names file and window.
        """
        _, row, col = block_id
        window = self.windows.haloed(row, col).shift(self.view.window.row_off, self.view.window.col_off)
        with stage("read"):
            return self.view.source.read(window, self.view.bands)


@dataclass(frozen=True, slots=True)
class ReadWindow:
    """What a block's task holds of a source that can be narrowed: as much as its window takes, and no more."""

    source: Source
    window: Window
    bands: tuple[int, ...]


def read_window(what: ReadWindow) -> NDArray[Any]:
    """First step of a layer of narrowed sources: pixels ``(band, y, x)`` with halo.

    Raises
    ------
    RasterReadError
        The source could not be read; the message names file and window.
    """
    with stage("read"):
        return what.source.read(what.window, what.bands)


class NarrowedBlocks(ArrayBlockwiseDep):
    """The `ReadWindow` of each block, made when dask makes the tasks.

    A mosaic's table of 10,000 members weighs 3 MB pickled, and a cluster's scheduler sends every task by itself.
    """

    def __init__(self, read: ReadBlock, chunks: tuple[tuple[int, ...], ...], token: str) -> None:
        super().__init__(chunks)
        self.read = read
        self._token = token

    def __dask_tokenize__(self) -> str:
        return self._token

    def __getitem__(self, idx: tuple[int, ...]) -> ReadWindow:
        view, (row, col) = self.read.view, idx[-2:]
        window = self.read.windows.haloed(row, col).shift(view.window.row_off, view.window.col_off)
        assert isinstance(view.source, Narrowing)
        return ReadWindow(view.source.part(window), window, view.bands)


def source_array(
    view: SourceView, chunks_yx: ChunksYX, *, halo_yx: tuple[int, int] = (0, 0), extent: Window | None = None
) -> da.Array:
    """A lazy array ``(band, y, x)`` of a view, all bands in one chunk; with a halo, neighbouring blocks repeat its pixels.

    Parameters
    ----------
    view
        What to read.
    chunks_yx
        Chunk sizes without halo; they sum up to the view's window.
    halo_yx
        Rows and columns added on each side of every block, as far as ``extent`` goes.
    extent
        In pixels of the array; None: the array itself.
    """
    windows = BlockWindows(chunks_yx, halo_yx, extent or Window(0, 0, *view.window.shape_yx))
    # The whole source, not its token alone: masked or not, full resolution or overview, one file gives different pixels.
    token = tokenize(repr(view.source), view.bands, view.window, windows)
    read = ReadBlock(view, windows)
    chunks = ((len(view.bands),), *windows.haloed_chunks())
    dtype = view.source.dtype
    meta = np.empty((0, 0, 0), dtype=dtype)
    name = f"{LAYER_PREFIX}{token}"
    if isinstance(view.source, Narrowing):
        blocks = NarrowedBlocks(read, chunks, name)
        return da.blockwise(read_window, "byx", blocks, "byx", dtype=dtype, meta=meta, name=name, align_arrays=False)
    return da.map_blocks(read, chunks=chunks, dtype=dtype, meta=meta, name=name)


def source_of(array: da.Array) -> SourceView | None:
    """The view whose pixels an array ``(band, y, x)`` or ``(y, x)`` is, or None where it is not one plain rectangle of a source."""
    found = _found(array.dask.layers, array.name)
    if found is None:
        return None
    view, _ = found
    expected = array.shape if array.ndim == 3 else (1, *array.shape)
    return view if (len(view.bands), *view.window.shape_yx) == expected else None


def reads_in(layer: Any) -> list[ReadBlock]:
    """The reading steps that a layer of a graph holds."""
    if not isinstance(layer, Blockwise):
        return []
    held: list[Any] = [value for value, index in layer.indices if index is None]
    return [
        *(blocks.read for blocks in layer.io_deps.values() if isinstance(blocks, NarrowedBlocks)),
        *(value for value in held if isinstance(value, ReadBlock)),
    ]


def sources_in(array: da.Array) -> list[Source]:
    """Every source that the pixels of an array are made of, however they were computed: files, not what is made of them."""
    reads = [read for layer in array.dask.layers.values() for read in reads_in(layer)]
    return list(dict.fromkeys(leaf for read in reads for leaf in _leaves(read.view.source)))


def _leaves(source: Source) -> list[Source]:
    if not isinstance(source, Narrowing):
        return [source]
    return [leaf for inner in source.inner_sources for leaf in _leaves(inner)]


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


def auto_chunks(
    shape: tuple[int, int, int], dtype: np.dtype[Any], tile_yx: tuple[int, int], budget: int = BLOCK_NBYTES
) -> ChunksYX:
    """Chunk sizes that are whole multiples of a file's tiles and hold about ``budget`` bytes, all bands counted.

    Parameters
    ----------
    shape
        Bands, rows, columns.
    dtype
        Of the pixels in memory.
    tile_yx
        Rows and columns that are decoded together. As wide as the raster: strips, then chunks are full-width bands of rows.
    """
    bands, rows, cols = shape
    pixels = max(budget // (bands * dtype.itemsize), 1)
    tile_rows, tile_cols = min(tile_yx[0], rows), min(tile_yx[1], cols)
    if tile_cols == cols:
        return split_axis(rows, _multiple(max(pixels // cols, 1), tile_rows)), (cols,)
    side = math.isqrt(pixels)
    size_yx = [_multiple(side, tile) for tile in (tile_rows, tile_cols)]
    # A raster narrower than the block gives its room to the other axis.
    if size_yx[1] >= cols:
        size_yx[0] = _multiple(pixels // cols, tile_rows)
    elif size_yx[0] >= rows:
        size_yx[1] = _multiple(pixels // rows, tile_cols)
    if min(size_yx[0], rows) * min(size_yx[1], cols) > 4 * pixels:  # long tiles: the short axis gives way
        size_yx[0] = max(pixels // min(size_yx[1], cols) // tile_rows, 1) * tile_rows
    return split_axis(rows, size_yx[0]), split_axis(cols, size_yx[1])


def _multiple(wanted: int, tile: int) -> int:
    """A multiple of ``tile`` near ``wanted``, of the output's tile too where that costs at most twice the room."""
    both = math.lcm(tile, OUTPUT_TILE)
    if both <= 2 * wanted:
        return max(round(wanted / both), 1) * both
    return max(wanted // tile, 1) * tile


def check_chunks(chunks: Any, shape_yx: tuple[int, int]) -> ChunksYX:
    """Chunk sizes from what a user gives: an int, a pair (y, x) of ints or of tuples of sizes, a dict by dimension, a tile table.

    Raises
    ------
    ValueError
        They make no partition of the raster.
    """
    if isinstance(chunks, list | tuple) and any(isinstance(part, Window) for part in chunks):
        return _table_chunks(chunks, shape_yx)
    if isinstance(chunks, dict):
        unknown = set(chunks) - {"band", "y", "x"}
        if unknown:
            raise ValueError(f"chunks={chunks!r}: the dimensions are band, y, x")
        chunks = (chunks.get("y", -1), chunks.get("x", -1))
    elif isinstance(chunks, int):
        chunks = (chunks, chunks)
    if isinstance(chunks, list | tuple) and len(chunks) == 3:
        chunks = chunks[1:]
    if not isinstance(chunks, list | tuple) or len(chunks) != 2:
        raise ValueError(f"chunks={chunks!r} must be 'auto', a number, a pair (y, x), or a dict with y and x")
    rows, cols = (_axis_chunks(part, size) for part, size in zip(chunks, shape_yx, strict=True))
    return rows, cols


def _table_chunks(table: Sequence[Any], shape_yx: tuple[int, int]) -> ChunksYX:
    """The cores of a tile table as chunks; its overlap is given to `apply`, not to the array."""
    strange = next((part for part in table if not isinstance(part, Window)), None)
    if strange is not None:
        raise ValueError(f"chunks= is a list of windows with {strange!r} among them; a tile table has windows alone")
    try:
        return table_cores(table, shape_yx)
    except ValueError as error:
        rows, cols = shape_yx
        raise ValueError(
            f"chunks= is no tile table of this raster of {cols} x {rows} pixels: {error}; make one with dr.tile_windows"
        ) from error


def _axis_chunks(part: Any, size: int) -> tuple[int, ...]:
    if part is None or part == -1:
        return (size,)
    if isinstance(part, int | np.integer) and part > 0:
        return split_axis(size, int(part))
    if isinstance(part, tuple | list) and sum(part) == size and all(isinstance(n, int) and n > 0 for n in part):
        return tuple(part)
    raise ValueError(
        f"chunks of {part!r} do not fit an axis of {size} pixels: give a positive number, -1, or sizes that sum up to {size}"
    )


def starts(sizes: Sequence[int]) -> tuple[int, ...]:
    """First pixel of each chunk of an axis."""
    return tuple(itertools.accumulate(sizes, initial=0))[:-1]
