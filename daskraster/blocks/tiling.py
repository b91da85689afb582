"""The tiles of a file, their numbers, and a block cut into them; the levels of its overviews."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.overviews import half_shape
from daskraster.errors import OptionError
from daskraster.grid import Window


def cut_tiles(
    block: NDArray[Any], tile_yx: tuple[int, int], *, smooth: bool = False
) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """The tiles of a block, row by row from the upper left, each of full size.

    Parameters
    ----------
    block
        ``(band, y, x)``; its upper left pixel is a tile's upper left pixel.
    tile_yx
        Rows and columns of a tile.
    smooth
        Whether padding repeats the last row too, which keeps lossy codecs from ringing into the picture. Else rows of zeros follow.

    Yields
    ------
    Tile row and column counted from the block's corner, and the tile ``(band, y, x)``: a view where it lies whole inside the
    block; else padded by repeating the last column, which is nothing but zeros for a predictor, and below by zeros: repeated rows of
    noise cost deflate a few bytes each (5 % of a file of 1025 x 1023 pixels in tiles of 512).
    """
    tile_rows, tile_cols = tile_yx
    for row, top in enumerate(range(0, block.shape[1], tile_rows)):
        for col, left in enumerate(range(0, block.shape[2], tile_cols)):
            tile = block[:, top : top + tile_rows, left : left + tile_cols]
            missing_rows, missing_cols = tile_rows - tile.shape[1], tile_cols - tile.shape[2]
            if missing_rows or missing_cols:
                tile = np.pad(tile, ((0, 0), (0, 0), (0, missing_cols)), mode="edge")
                tile = np.pad(tile, ((0, 0), (0, missing_rows), (0, 0)), mode="edge" if smooth else "constant")
            yield row, col, tile


@dataclass(frozen=True, slots=True, kw_only=True)
class TileArray:
    """The tiles of one raster and their numbers: row by row, and band by band where a tile holds one band.

    >>> tiles = TileArray(shape=(2, 100, 250), tile_yx=(64, 64), band_interleaved=True)
    >>> tiles.counts_yx, tiles.count, tiles.per_band
    ((2, 4), 16, 8)
    """

    shape: tuple[int, int, int]
    """Bands, rows, columns of pixels."""
    tile_yx: tuple[int, int]
    band_interleaved: bool
    """Whether a tile holds one band, not all."""
    stored: bool = True
    """Whether these tiles are in the file; a level between two that are wanted is computed, not stored."""

    @property
    def counts_yx(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.shape[1] // self.tile_yx[0]), -(-self.shape[2] // self.tile_yx[1])

    @property
    def per_band(self) -> int:
        """Tiles that cover the raster once."""
        rows, cols = self.counts_yx
        return rows * cols

    @property
    def count(self) -> int:
        """All tiles in the file."""
        return self.per_band * (self.shape[0] if self.band_interleaved else 1) * self.stored

    @property
    def pixels_per_tile(self) -> int:
        """Values in one tile, of all the bands it holds."""
        return self.tile_yx[0] * self.tile_yx[1] * (1 if self.band_interleaved else self.shape[0])

    def cut(
        self, block: NDArray[Any], window: Window, band_off: int, *, smooth: bool = False
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Number and values of each tile of a block ``(band, y, x)``: ``(y, x)``, or ``(y, x, band)`` for all bands; see `cut_tiles`."""
        cols = self.counts_yx[1]
        first_row, first_col = window.row_off // self.tile_yx[0], window.col_off // self.tile_yx[1]
        for row, col, tile in cut_tiles(block, self.tile_yx, smooth=smooth):
            position = (first_row + row) * cols + first_col + col
            if not self.band_interleaved and self.shape[0] > 1:
                yield position, tile.transpose(1, 2, 0)
            else:
                for band, values in enumerate(tile, band_off):
                    yield band * self.per_band + position, values


def overview_levels(
    tiles: TileArray,
    wanted: bool | Sequence[int],
    *,
    partial_cells: bool,
    tile_of: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> tuple[TileArray, ...]:
    """The levels 2, 4, 8 ... of a raster, each half the one before.

    Parameters
    ----------
    tiles
        The raster at full resolution.
    wanted
        True: down to the first level of one tile; False: none; factors: up to the largest of them, the others not stored.
    partial_cells
        As in `daskraster.blocks.overviews.half_shape`.
    tile_of
        Tile of a level of given rows and columns; None: that of the full resolution.

    Raises
    ------
    OptionError
        A factor is no power of two, or so large that the level before is a single pixel or nothing is left.

    >>> full = TileArray(shape=(1, 1000, 700), tile_yx=(256, 256), band_interleaved=False)
    >>> [level.shape[1:] for level in overview_levels(full, True, partial_cells=True)]
    [(500, 350), (250, 175)]
    >>> [level.stored for level in overview_levels(full, [8, 2], partial_cells=True)]
    [True, False, True]
    """
    factors = () if isinstance(wanted, bool) else tuple(wanted)
    levels: list[TileArray] = []
    last = tiles
    while (wanted is True and _more_than_a_tile(last, tiles)) or (factors and 2 ** len(levels) < max(factors)):
        rows, cols = half_shape((last.shape[1], last.shape[2]), partial_cells=partial_cells)
        if not rows or not cols or last.shape[1:] == (1, 1):
            if wanted is True:
                break
            raise OptionError(
                f"overviews={list(factors)} goes too far for {tiles.shape[2]} x {tiles.shape[1]} pixels: "
                f"the level {2 ** len(levels)} has {last.shape[2]} x {last.shape[1]}"
            )
        factor = 2 ** (len(levels) + 1)
        last = replace(
            last,
            shape=(tiles.shape[0], rows, cols),
            tile_yx=tiles.tile_yx if tile_of is None else tile_of((rows, cols)),
            stored=wanted is True or factor in factors,
        )
        levels.append(last)
    return tuple(levels)


def _more_than_a_tile(level: TileArray, full: TileArray) -> bool:
    return level.shape[1] > full.tile_yx[0] or level.shape[2] > full.tile_yx[1]
