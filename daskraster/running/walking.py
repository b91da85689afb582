"""The order in which the blocks of a run are taken, where what they share at their seams would grow with the raster's width.

Blocks are taken row by row, and of each row of blocks a row of decoded tiles is kept for the next one: 25 MB across 24,576 columns of uint16, 268 MB across
262,144. Where that is more than `daskraster.formats.tilecache.ROW_NBYTES`, blocks are taken in bands of some rows, column by column within a band: ::

    row by row      0  1  2  3      bands of two    0  2  4  6
                    4  5  6  7                      1  3  5  7
                    8  9 10 11                      8 10 12 14
                   12 13 14 15                      9 11 13 15

What is kept is then a column of tiles as high as a band, however large the raster is. Between bands a row of tiles is decoded twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from dask.highlevelgraph import HighLevelGraph

from daskraster.formats.protocols import Narrowing
from daskraster.formats.tilecache import band_rows
from daskraster.lazy.sources import ReadBlock, reads_in


def rows_together(graph: HighLevelGraph) -> int:
    """Rows of blocks that make a band of a run; 1: row by row."""
    return band_of(read for layer in graph.layers.values() for read in reads_in(layer))


def band_of(reads: Iterable[ReadBlock]) -> int:
    """Rows of blocks that make a band where blocks are read like that; 1: row by row.

    The fewest that any of the sources asks for, since each keeps a column of its own. A source made of others keeps little, whatever the order.
    """
    wished = [_wished(read) for read in reads if not isinstance(read.view.source, Narrowing)]
    return min((rows for rows in wished if rows > 1), default=1)


def _wished(read: ReadBlock) -> int:
    source, windows = read.view.source, read.windows
    if not any(windows.halo_yx):
        return 1
    return band_rows(source.shape[2], max(windows.chunks_yx[0]), source.tile_yx, len(read.view.bands) * source.dtype.itemsize)
