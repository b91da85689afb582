"""Pixels of a block as rows of a table, and back: what models work on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.masking import holds
from daskraster.metadata import Number

# Rows given to a model at once: what it makes of them on the way (a copy in float64, distances, votes of each tree) is several times as large.
BATCH_ROWS = 1 << 17


def valid_pixels(block: NDArray[Any], nodata: Sequence[Number | None]) -> NDArray[np.bool_]:
    """Where ``(y, x)`` no band of a block ``(band, y, x)`` is its nodata value or NaN."""
    valid = np.ones(block.shape[1:], np.bool_)
    for band, value in zip(block, nodata, strict=True):
        if block.dtype.kind == "f":
            valid &= ~np.isnan(band)
        if value is not None and holds(block.dtype, value):
            valid &= band != block.dtype.type(value)
    return valid


def by_rows(
    func: Callable[[NDArray[Any]], NDArray[Any]], block: NDArray[Any], valid: NDArray[np.bool_], out: NDArray[Any]
) -> None:
    """Give the valid pixels of a block to ``func`` as rows ``(n, band)`` and put its results ``(n, band)`` into ``out`` ``(band, y, x)``.

    Rows are in the block's dtype and own their memory, at most `BATCH_ROWS` at once. ``func`` is not called where no pixel is valid.
    """
    pixels = block.reshape(len(block), -1)
    results = out.reshape(len(out), -1)  # a view: out is contiguous
    places = np.flatnonzero(valid)
    for start in range(0, places.size, BATCH_ROWS):
        part = places[start : start + BATCH_ROWS]
        results[:, part] = func(np.ascontiguousarray(pixels[:, part].T)).T
