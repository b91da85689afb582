"""The dask layer that holds a source.

Strategy. A raster file becomes one Blockwise layer whose first step is a `ReadBlock`. Whoever needs a block with its halo looks for
that step in the array's own graph and asks the source for the larger window, instead of asking the graph for neighbours: one task a
block (0.4 ms) where `map_overlap` makes about 12 (4.3 ms) and keeps a row of blocks alive. Nothing is registered anywhere, so the
source survives copies and pickling and is gone after ``persist``. Plain slices (``isel``, ``sel``, ``clip_box``, one band, a list of bands)
are seen through (`daskraster.lazy.slicing`), since those are what people do most. A source made of many others is narrowed for each block, when dask makes the task, to those it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.blockwise import Blockwise
from dask.layers import ArrayBlockwiseDep
from numpy.typing import NDArray

from daskraster.formats.protocols import Narrowing, Source
from daskraster.grid import Window
from daskraster.lazy.chunking import ChunksYX
from daskraster.timing import stage

LAYER_PREFIX = "raster-"


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
