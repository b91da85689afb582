"""Chunk sizes: how a raster is cut into blocks, where a user says nothing and where a user says something."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from daskraster.grid import Window, split_axis, table_cores

type ChunksYX = tuple[tuple[int, ...], tuple[int, ...]]

# A block's pixels, all bands: 2048 x 2048 of uint16. 16 MiB are no faster (24576^2 in 7.2-8.4 s against 7.8-8.5) and take 40 MB
# more with two threads; below it the 0.4 ms of a task begin to show.
BLOCK_NBYTES = 8 << 20
OUTPUT_TILE = 512  # the default tile of what is written: blocks that are multiples of it need no re-chunking


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
