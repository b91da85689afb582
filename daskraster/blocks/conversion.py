"""A block in another pixel type: rounded and clamped, never wrapped."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def convert(block: NDArray[Any], dtype: np.dtype[Any], nodata: float | int | None) -> NDArray[Any]:
    """``block`` as ``dtype``.

    To integers: values are rounded half away from zero, then clamped to the range of ``dtype``; infinities clamp too, NaN
    becomes ``nodata``, or 0 where there is none. To floats: NumPy's own conversion (values beyond float32 become infinite).

    Parameters
    ----------
    block
        Any real or boolean dtype, any shape.
    dtype
        The type due.
    nodata
        What NaN becomes in integers; representable in ``dtype``.

    Returns
    -------
    The same array where the type is right already, else a new one.
    """
    if block.dtype == dtype:
        return block
    if dtype.kind not in "iu" or block.dtype.kind == "b":
        with np.errstate(over="ignore"):
            return block.astype(dtype)
    limits = np.iinfo(dtype)
    if block.dtype.kind in "iu":
        if np.can_cast(block.dtype, dtype):
            return block.astype(dtype)
        source = np.iinfo(block.dtype)
        return np.clip(block, max(limits.min, source.min), min(limits.max, source.max)).astype(dtype)
    return _round_and_clamp(block, dtype, nodata)


def _round_and_clamp(block: NDArray[Any], dtype: np.dtype[Any], nodata: float | int | None) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    # Set apart before the conversion, not clamped: the limits of 64-bit integers are no floats.
    below, above, invalid = block <= limits.min, block >= limits.max, np.isnan(block)
    values = np.where(below | above | invalid, 0, block)
    # Half away from zero: trunc(x) + trunc(2 * rest) is exact where x + 0.5 is not (0.49999999999999994, and 2**52 + 1).
    whole = np.trunc(values)
    result = (whole + np.trunc(2 * (values - whole))).astype(dtype)
    result[below] = limits.min
    result[above] = limits.max
    result[invalid] = 0 if nodata is None else nodata
    return result
