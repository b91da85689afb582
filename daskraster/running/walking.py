"""The order in which the blocks of a run are taken, where what they share at their seams would grow with the raster's width.

Blocks are taken row by row, and of each row of blocks a row of decoded tiles is kept for the next one: 25 MB across 24,576 columns of uint16, 268 MB across
262,144. Where that is more than `daskraster.formats.tilecache.ROW_NBYTES`, blocks are taken in bands of some rows, column by column within a band: ::

    row by row      0  1  2  3      bands of two    0  2  4  6
                    4  5  6  7                      1  3  5  7
                    8  9 10 11                      8 10 12 14
                   12 13 14 15                      9 11 13 15

What is kept is then a column of tiles as high as a band, however large the raster is. Between bands a row of tiles is decoded twice.
Overviews that blocks make together grow in strips as wide as the raster (`daskraster.running.pyramid`): a band is no higher than what fills one of the first level.
"""

from __future__ import annotations

from typing import Any

from dask.blockwise import Blockwise
from dask.highlevelgraph import HighLevelGraph

from daskraster.formats.protocols import Narrowing
from daskraster.formats.tilecache import band_rows
from daskraster.lazy.sources import ReadBlock, reads_in
from daskraster.running.blockwriting import WriteBlock


def rows_together(graph: HighLevelGraph) -> int:
    """Rows of blocks that make a band of a run; 1: row by row.

    The fewest that any of the sources asks for, since each keeps a column of its own; no more than any of the outputs allows.
    """
    layers = graph.layers.values()
    wished = [_wished(read) for layer in layers for read in reads_in(layer)]
    allowed = [_allowed(step) for layer in layers for step in _writing(layer)]
    return min([*(rows for rows in wished if rows > 1), *allowed]) if max(wished, default=1) > 1 else 1


def _wished(read: ReadBlock) -> int:
    """What is kept of a source; one made of others keeps little, in whatever order it is read."""
    source, windows = read.view.source, read.windows
    if isinstance(source, Narrowing) or not any(windows.halo_yx):
        return 1
    pixel_nbytes = len(read.view.bands) * source.dtype.itemsize
    return band_rows(read.view.window.width, max(windows.chunks_yx[0]), source.tile_yx, pixel_nbytes)


def _writing(layer: Any) -> list[WriteBlock]:
    if not isinstance(layer, Blockwise):
        return []
    held: list[Any] = [value for value, index in layer.indices if index is None]
    return [value for value in held if isinstance(value, WriteBlock)]


def _allowed(step: WriteBlock) -> int:
    rows = max(step.chunks[1])
    pyramid = step.pyramid
    if pyramid is None or pyramid.shared >= len(pyramid.levels):
        return sum(step.chunks[1]) // rows + 1
    return max((pyramid.strip_rows(pyramid.shared) << pyramid.shared) // rows, 1)
