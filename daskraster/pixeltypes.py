"""Pixel types that rasters have, and what of a number they hold.

Ground floor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskraster.errors import OptionError
from daskraster.hints import near
from daskraster.metadata import Number

PIXEL_TYPES = tuple(
    np.dtype(name)
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
)


def pixel_type(dtype: Any) -> np.dtype[Any]:
    """A NumPy dtype that rasters can have, native byte order; bool is uint8.

    Raises
    ------
    OptionError
        No raster format holds it.
    """
    try:
        wanted = np.dtype(dtype).newbyteorder("=")
    except TypeError as error:
        hint = near(dtype, map(str, PIXEL_TYPES)) if isinstance(dtype, str) else ""
        raise OptionError(f"dtype={dtype!r} is no NumPy dtype{hint}") from error
    if wanted.kind == "b":
        return np.dtype(np.uint8)
    if wanted not in PIXEL_TYPES:
        raise OptionError(f"dtype {wanted} cannot be written; possible are {', '.join(map(str, PIXEL_TYPES))}")
    return wanted


def check_nodata(nodata: Number | None, dtype: np.dtype[Any]) -> Number | None:
    """``nodata`` as a pixel value of ``dtype``, exact.

    Raises
    ------
    OptionError
        ``dtype`` cannot hold it.
    """
    if nodata is None:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = float(dtype.type(nodata))
        if np.isinf(value) and not np.isinf(float(nodata)):
            raise OptionError(
                f"nodata={nodata} does not fit {dtype}; its range is {np.finfo(dtype).min} to {np.finfo(dtype).max}"
            )
        return value
    limits = np.iinfo(dtype)
    if np.isnan(nodata) or nodata != int(nodata) or not limits.min <= int(nodata) <= limits.max:
        raise OptionError(
            f"nodata={nodata} does not fit {dtype}, which holds whole numbers from {limits.min} to {limits.max}; give another nodata=, or nodata=None"
        )
    return int(nodata)
