"""A block cut into the file's tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cut_tiles(block: NDArray[Any], tile_yx: tuple[int, int]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """The tiles of a block, row by row from the upper left, each of full size.

    Parameters
    ----------
    block
        ``(band, y, x)``; its upper left pixel is a tile's upper left pixel.
    tile_yx
        Rows and columns of a tile.

    Yields
    ------
    Tile row and column counted from the block's corner, and the tile ``(band, y, x)``: a view where it lies whole inside the
    block; else padded by repeating the last row and column, which compresses as well as zeros and keeps lossy codecs from
    ringing into the picture.
    """
    tile_rows, tile_cols = tile_yx
    for row, top in enumerate(range(0, block.shape[1], tile_rows)):
        for col, left in enumerate(range(0, block.shape[2], tile_cols)):
            tile = block[:, top : top + tile_rows, left : left + tile_cols]
            missing_rows, missing_cols = tile_rows - tile.shape[1], tile_cols - tile.shape[2]
            if missing_rows or missing_cols:
                tile = np.pad(tile, ((0, 0), (0, missing_rows), (0, missing_cols)), mode="edge")
            yield row, col, tile
