"""A large array at screen resolution: of each block the pixels that will be seen, and nothing else is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray


def seen(length: int, wanted: int) -> NDArray[np.int64]:
    """The pixels of an axis that a picture of ``wanted`` pixels shows: those under the middles of its own, as GDAL picks the nearest.

    >>> seen(10, 3), seen(3, 10)
    (array([1, 5, 8]), array([0, 1, 2]))
    """
    if wanted >= length:
        return np.arange(length)
    # Whole numbers: a middle that lies on an edge belongs to the pixel behind it on every machine.
    return (2 * np.arange(wanted, dtype=np.int64) + 1) * length // (2 * wanted)


@dataclass(frozen=True, slots=True)
class _Pick:
    """A block -> copies of its pixels that are seen; a view would keep the whole block in memory until the end."""

    rows: tuple[NDArray[np.int64], ...]
    """Of each row of blocks, counted from its first pixel."""
    cols: tuple[NDArray[np.int64], ...]

    def __call__(self, block: NDArray[Any], block_id: tuple[int, int, int]) -> NDArray[Any]:
        _, row, col = block_id
        return block[:, self.rows[row][:, np.newaxis], self.cols[col]]


def thinned(data: da.Array, shape_yx: tuple[int, int]) -> da.Array:
    """A lazy array ``(band, y, x)`` of at most ``shape_yx``: one step a block, so no more blocks are in memory than threads run."""
    rows, cols = (seen(length, wanted) for length, wanted in zip(data.shape[1:], shape_yx, strict=True))
    pick = _Pick(_by_chunk(rows, data.chunks[1]), _by_chunk(cols, data.chunks[2]))
    chunks = (data.chunks[0], tuple(map(len, pick.rows)), tuple(map(len, pick.cols)))
    return da.map_blocks(pick, data, chunks=chunks, dtype=data.dtype, meta=np.empty((0, 0, 0), data.dtype))


def _by_chunk(places: NDArray[np.int64], sizes: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    stops = np.cumsum(sizes)
    cuts = np.searchsorted(places, stops)[:-1]
    return tuple(part - start for part, start in zip(np.split(places, cuts), stops - np.array(sizes), strict=True))
