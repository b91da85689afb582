"""How much memory a run takes, told from its blocks before it runs.

A worker thread holds one block at a time, in the stage that needs most:

- reading: the block with its halo, and once more what is decoded for it where windows cut through tiles;
- the function: what it gets, what it returns, and what it needs on the way, which only running it on a block shows;
- writing: the result with its halo (trimming copies nothing), the result in the file's own type, its encoded tiles, its halves.

Shared by all threads of a process: decoded seams, GDAL's block cache, rows of blocks that wait for their neighbours, strips of overviews,
the tiles of a small COG, tasks and receipts. All of it depends on the size of a block, on the width of the raster at most, and not on its height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from daskraster.formats.gdal_handles import CACHE_NBYTES as GDAL_CACHE_NBYTES
from daskraster.formats.mosaic import SEAMS_NBYTES, MosaicSource
from daskraster.formats.tilecache import cache_nbytes
from daskraster.formats.warped import PIECE_NBYTES, Warp, WarpedSource
from daskraster.lazy.anatomy import Anatomy, Exchange
from daskraster.lazy.expression_sources import ExpressionSource, leaf_reads
from daskraster.lazy.sources import ReadBlock
from daskraster.running.engines import uses_other_processes
from daskraster.running.outputs import Output
from daskraster.running.waves import SHARING_WAVE_BLOCKS, WAVE_BLOCKS
from daskraster.running.workers import Workers

TASK_NBYTES = 4_000  # one task with its keys, 2.6 to 3.4 KB measured
TILE_NBYTES = 64  # a tile in the receipts and in the index at the end
START_NBYTES = (
    40 << 20
)  # codecs, threads' stacks, what is imported with the first block, freed memory not given back: 25 to 35 MB
ROWS_WAITING = 3  # rows of blocks alive while neighbours are exchanged: one above, one under way, one below


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """What one worker process needs at most, in bytes."""

    base_nbytes: int
    """What the process has now, and what every run adds to it."""
    block_nbytes: int
    """A block in the stage that needs most."""
    threads: int
    """Blocks at a time."""
    shared_nbytes: int
    """Caches, rows of blocks, overviews, receipts."""
    limit_nbytes: int
    """What a worker may have: the batch system's, the worker's or the machine's word."""

    @property
    def peak_nbytes(self) -> int:
        """All of it."""
        return self.base_nbytes + self.threads * self.block_nbytes + self.shared_nbytes

    @property
    def fits(self) -> bool:
        """Whether the limit allows it."""
        return self.peak_nbytes <= self.limit_nbytes


def memory_plan(
    output: Output, parts: Anatomy, workers: Workers, *, function_stage_nbytes: int | None = None
) -> MemoryPlan:
    """The memory of a run.

    Parameters
    ----------
    output
        What is written.
    parts
        The anatomy of ``output.data``.
    workers
        Where it will run.
    function_stage_nbytes
        What the function gets, returns and needs on the way, for the largest block; None: twice what it gets and gives, a guess.
    """
    itemsize = output.data.dtype.itemsize
    core = _block_nbytes(output.chunks, output.metadata.dtype.itemsize)
    result = _block_nbytes(output.chunks, itemsize, function_halo(parts))
    gets = max(sum(map(read_nbytes, parts.roots)), result if parts.exchanges or parts.others else 0)
    if function_stage_nbytes is None:
        function_stage_nbytes = 2 * (gets + result) if parts.functions else 0
    function_stage_nbytes = max(function_stage_nbytes, _steps_nbytes(output, parts, gets))
    converted = 0 if output.data.dtype == output.metadata.dtype else core
    if output.validity is not None:
        # Where pixels are valid, and blocks under way in a wider type.
        pixels = core // output.metadata.dtype.itemsize
        converted += pixels * (2 + (output.validity.dtype.itemsize if output.validity.marks_anew else 0))
    halves = 0 if output.pyramid is None else core // 2
    stages = (
        gets + max(map(_reading_nbytes, parts.roots), default=0),
        function_stage_nbytes,
        result + converted + core + halves,
    )
    return MemoryPlan(
        base_nbytes=workers.base_nbytes + START_NBYTES,
        block_nbytes=max(stages),
        threads=workers.threads,
        shared_nbytes=_seams(parts.reads)
        + sum(_rows_nbytes(exchange, itemsize) for exchange in _waiting(parts, output))
        + _strips_nbytes(output)
        + output.sink.held_nbytes(many_processes=uses_other_processes())
        + _bookkeeping_nbytes(output, parts),
        limit_nbytes=workers.limit_nbytes,
    )


def read_nbytes(read: ReadBlock) -> int:
    """The largest block of a source with its halo."""
    windows = read.windows
    rows, cols = (
        min(max(sizes) + 2 * halo, limit)
        for sizes, halo, limit in zip(windows.chunks_yx, windows.halo_yx, windows.extent.shape_yx, strict=True)
    )
    return len(read.view.bands) * rows * cols * read.view.source.dtype.itemsize


def _reading_nbytes(read: ReadBlock) -> int:
    """What reading a block takes beside the block: decoded tiles, members, inputs, what the warper copies."""
    block = read_nbytes(read)
    source = read.view.source
    pixels = block // (len(read.view.bands) * source.dtype.itemsize)
    if isinstance(source, ExpressionSource):
        inputs = [leaf for leaf in leaf_reads(read) if leaf is not read]
        return sum(map(read_nbytes, inputs)) + max(map(_reading_nbytes, inputs), default=0)
    if isinstance(source, MosaicSource):
        # One member at a time, masks, and the sums of a mean.
        sums = 16 * len(read.view.bands) * pixels if source.method == "mean" else 0
        return block + 3 * pixels + sums + SEAMS_NBYTES // 2
    if isinstance(source, WarpedSource):
        return _warping_nbytes(source, block, pixels)
    return block


def _warping_nbytes(source: WarpedSource, block: int, pixels: int) -> int:
    """The window of the source, GDAL's copies of it and of the result, and places of pixels."""
    if not isinstance(source.regrid, Warp):
        return block
    down, across = source.regrid.plan.scale_yx
    needed = min(int(block / (down * across)) + block // 4, PIECE_NBYTES + block)
    return 2 * needed + block + 2 * pixels


def _steps_nbytes(output: Output, parts: Anatomy, gets: int) -> int:
    """What the hungriest of our own steps holds, its input and its result among it."""
    if not parts.steps:
        return 0
    pixels = max(output.chunks[1]) * max(output.chunks[2])
    bands = max((len(read.view.bands) for read in parts.roots), default=1)
    itemsize = max((read.view.source.dtype.itemsize for read in parts.roots), default=output.data.dtype.itemsize)
    return gets + max(step.work_nbytes(pixels, bands, itemsize) for step in parts.steps)


def _block_nbytes(chunks: Sequence[Sequence[int]], itemsize: int, halo_yx: tuple[int, int] = (0, 0)) -> int:
    bands, rows, cols = (max(sizes) for sizes in chunks)
    return bands * (rows + 2 * halo_yx[0]) * (cols + 2 * halo_yx[1]) * itemsize


def function_halo(parts: Anatomy) -> tuple[int, int]:
    """Rows and columns that the functions look beyond a block."""
    halos = [layer.step.windows.halo_yx for layer in parts.functions]
    return max((rows for rows, _ in halos), default=0), max((cols for _, cols in halos), default=0)


def _seams(reads: Sequence[ReadBlock]) -> int:
    """Decoded tiles kept for neighbours, about one row of tiles for each source, and GDAL's own cache."""
    kept = most = 0
    for read in reads:
        if any(read.windows.halo_yx):
            view = read.view
            rows, cols = (min(tile, size) for tile, size in zip(view.source.tile_yx, view.window.shape_yx, strict=True))
            row_nbytes = len(view.bands) * rows * view.source.dtype.itemsize
            kept += 2 * row_nbytes * view.window.width
            most = max(most, cache_nbytes(row_nbytes * cols))
    return min(kept, most) + (GDAL_CACHE_NBYTES if reads else 0)


def _waiting(parts: Anatomy, output: Output) -> list[Exchange]:
    """Where rows of blocks wait; what other layers than ours do is taken for one more exchange."""
    others = [Exchange(halo_yx=(0, 0), chunks=output.chunks)] if parts.others and not parts.exchanges else []
    return [*parts.exchanges, *others]


def _rows_nbytes(exchange: Exchange, itemsize: int) -> int:
    """Rows of blocks that wait for their neighbours, never more than all of them."""
    bands, rows, cols = exchange.chunks
    waiting = min(ROWS_WAITING * max(rows) + 2 * exchange.halo_yx[0], sum(rows))
    return sum(bands) * waiting * sum(cols) * itemsize


def _strips_nbytes(output: Output) -> int:
    """Rows of tiles of the overviews that blocks make together, in the leading process: two of each level, and what is halved of them."""
    if output.pyramid is None:
        return 0
    levels = output.pyramid.levels[output.pyramid.shared :]
    itemsize = output.metadata.dtype.itemsize
    return sum(
        3 * level.shape[0] * min(level.tile_yx[0], level.shape[1]) * level.shape[2] * itemsize for level in levels
    )


def _bookkeeping_nbytes(output: Output, parts: Anatomy) -> int:
    """Tasks, and what is kept of every tile."""
    blocks = math.prod(map(len, output.chunks))
    wave = SHARING_WAVE_BLOCKS if parts.exchanges or parts.others else WAVE_BLOCKS
    tasks = min(blocks, wave) * (12 if parts.exchanges else 1)
    tiles = sum(level.count for level in output.sink.levels)
    return tasks * TASK_NBYTES + tiles * TILE_NBYTES
