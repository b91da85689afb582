"""What is done to the pixels, and what the result must be: the same functions for every tool, and for the check of its output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPEATED = 2048
"""Pixels a side of the piece of a scene that "repeat" writes again and again."""
PIXEL = 10.0
"""Side of a scene's pixel, in metres."""

type Pixels = NDArray[Any]


def add_one(block: Pixels) -> Pixels:
    """Add one to a block of any shape and dtype; integers wrap at the end of their range, as NumPy's do."""
    return block + 1


def mean5(block: Pixels) -> Pixels:
    """Mean of 5 x 5 pixels, in the dtype of the block ``(band, y, x)`` or ``(y, x)``; edges are mirrored."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(block, size=(1,) * (block.ndim - 2) + (5, 5))


def ndvi(block: Pixels) -> Pixels:
    """``(b2 - b1) / (b2 + b1)`` of two bands ``(2, y, x)`` as float32 ``(1, y, x)``; scenes hold no zeros."""
    red, near_infrared = block[:1].astype(np.float32), block[1:2].astype(np.float32)
    return (near_infrared - red) / (near_infrared + red)


def slope(block: Pixels) -> Pixels:
    """Slope in degrees, float32, of heights in metres ``(..., y, x)`` by Horn's method; outermost pixels repeat their neighbours."""
    z = np.pad(block, [(0, 0)] * (block.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    rows, cols = block.shape[-2:]

    def at(down: int, right: int) -> Pixels:
        return z[..., down : down + rows, right : right + cols]

    east = (at(0, 2) + 2 * at(1, 2) + at(2, 2) - at(0, 0) - 2 * at(1, 0) - at(2, 0)) / np.float32(8 * PIXEL)
    south = (at(2, 0) + 2 * at(2, 1) + at(2, 2) - at(0, 0) - 2 * at(0, 1) - at(0, 2)) / np.float32(8 * PIXEL)
    result: Pixels = np.degrees(np.arctan(np.sqrt(east * east + south * south))).astype(np.float32)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One function of a benchmark."""

    function: Callable[[Pixels], Pixels]
    """``(band, y, x)`` -> ``(band, y, x)``."""
    halo: int = 0
    """Pixels that the function looks around itself."""
    dtype: str | None = None
    """Of the result; None: that of the source."""
    bands: int | None = None
    """Of the result; None: those of the source."""
    tolerance: float = 0.0
    """What another tool's arithmetic may differ by."""


OPERATIONS = {
    "add": Operation(function=add_one),
    "mean": Operation(function=mean5, halo=2),
    "ndvi": Operation(function=ndvi, dtype="float32", bands=1, tolerance=1e-6),
    "slope": Operation(function=slope, halo=1, dtype="float32", tolerance=0.02),
}
