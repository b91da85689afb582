"""Pixels as floats, NaN where there is no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.metadata import Number


def masked_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The float that holds NaN and the integers: float32 for 8 and 16 bits, else float64; floats stay."""
    if dtype.kind == "f":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def masked(
    pixels: NDArray[Any], valid: NDArray[np.uint8] | None, nodata: Sequence[Number | None], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Pixels ``(band, y, x)`` as ``dtype`` (see `masked_dtype`), NaN where they are nodata or masked.

    Parameters
    ----------
    pixels
        As the file holds them; float pixels are overwritten.
    valid
        Same shape, 0 where masked; None where the file has no mask.
    nodata
        One for each band; compared in the pixels' own type, since a 64-bit integer has no exact float.
    dtype
        Of the result.
    """
    result = pixels.astype(dtype, copy=False)
    for band, value in enumerate(nodata):
        if value is not None and holds(pixels.dtype, value):
            result[band][pixels[band] == pixels.dtype.type(value)] = np.nan
    if valid is not None:
        result[valid == 0] = np.nan
    return result


def holds(dtype: np.dtype[Any], value: Number) -> bool:
    """Whether a pixel of ``dtype`` can be ``value``; a nodata value that none can be masks nothing.

    Truth values have none: xarray lets ``image > 5`` keep the attrs of ``image``. Nor have complex numbers.
    """
    if dtype.kind == "f":
        return not np.isnan(value)
    if dtype.kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    return bool(np.isfinite(value)) and value == int(value) and limits.min <= value <= limits.max
