"""The mean of many blocks, exact: whatever the order in which they come, it is one and the same.

Integers are added as integers, 64-bit ones in two halves, and the quotient is rounded half away from zero. Floats are added without
loss: each pixel's sum is kept as a few doubles that do not overlap (Shewchuk, "Adaptive Precision Floating-Point Arithmetic", 1997,
theorem 10), rounded to one double at the end as `math.fsum` does, then divided. For float32 pixels one double is nearly always enough,
so the second array is made only where something was lost without it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskraster.grid import Window

HALF = 32
LOW_HALF = (1 << HALF) - 1
# 32,767 summands of 16 bits fit 32: half the memory of 64-bit sums.
MOST_SUMMANDS_OF_16_BITS = (1 << 15) - 1


class Mean(Protocol):
    """Takes blocks, gives their mean."""

    def add(self, window: Window, pixels: NDArray[Any], take: NDArray[np.bool_]) -> None:
        """Count ``pixels`` ``(band, y, x)`` in, where ``take`` ``(y, x)`` says so; ``window`` is their place."""

    def result(self, count: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The mean ``(band, y, x)``; ``count`` ``(y, x)`` says of how many, at least 1."""


def mean_of(shape: tuple[int, int, int], dtype: np.dtype[Any], summands: int) -> Mean:
    """An empty mean.

    Parameters
    ----------
    shape
        Bands, rows, columns.
    dtype
        Of the pixels: an integer or a float.
    summands
        How many blocks will come at most.
    """
    if dtype.kind == "f":
        return _FloatMean(shape)
    if dtype.itemsize == 8:
        return _LongMean(shape)
    narrow = dtype.itemsize <= 2 and summands <= MOST_SUMMANDS_OF_16_BITS
    return _IntegerMean(shape, np.dtype(np.int32 if narrow else np.int64))


class _IntegerMean:
    """Of integers up to 32 bits: one sum a pixel."""

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._sums = np.zeros(shape, dtype)

    def add(self, window: Window, pixels: NDArray[Any], take: NDArray[np.bool_]) -> None:
        part = self._sums[(slice(None), *window.slices)]
        np.add(part, pixels, out=part, where=take)

    def result(self, count: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        out = np.empty(self._sums.shape, dtype)
        count = count.astype(self._sums.dtype)
        for band, sums in zip(out, self._sums, strict=True):
            floor, rest = np.divmod(sums, count)
            band[...] = floor + _rounds_up(floor, rest, count)
        return out


class _LongMean:
    """Of 64-bit integers: the sum of the upper halves and that of the lower ones, neither of which can overflow."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._high = np.zeros(shape, np.int64)
        self._low = np.zeros(shape, np.int64)

    def add(self, window: Window, pixels: NDArray[Any], take: NDArray[np.bool_]) -> None:
        place = (slice(None), *window.slices)
        for sums, half in ((self._high, pixels >> HALF), (self._low, pixels & pixels.dtype.type(LOW_HALF))):
            np.add(sums[place], half.astype(np.int64), out=sums[place], where=take)

    def result(self, count: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        out = np.empty(self._high.shape, dtype)
        count = count.astype(np.int64)
        for band, high, low in zip(out, self._high, self._low, strict=True):
            upper, rest = np.divmod(high, count)
            lower, rest = np.divmod((rest << HALF) + low, count)
            # Wraps around on the way, never at its end: a mean lies in the range of its summands.
            floor = (upper.view(np.uint64) << np.uint64(HALF)) + lower.view(np.uint64)
            whole = floor.view(dtype)
            band[...] = whole + _rounds_up(whole, rest, count).astype(dtype)
        return out


def _rounds_up(floor: NDArray[Any], rest: NDArray[Any], count: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether ``floor + rest / count`` is rounded up, half going away from zero."""
    beyond = rest - (count - rest)  # not 2 * rest, which could overflow
    up: NDArray[np.bool_] = (beyond > 0) | ((beyond == 0) & (floor >= 0))
    return up


class _FloatMean:
    """Of floats: each pixel's sum as doubles that do not overlap, the greatest last."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._parts = [np.zeros(shape, np.float64)]
        self._special: NDArray[np.float64] | None = None
        """Sums of infinities and NaN, where there are any."""

    def add(self, window: Window, pixels: NDArray[Any], take: NDArray[np.bool_]) -> None:
        place = (slice(None), *window.slices)
        carried = np.where(take, pixels, 0).astype(np.float64, copy=False)
        finite = np.isfinite(carried)
        if not finite.all():
            if self._special is None:
                self._special = np.zeros_like(self._parts[0])
            with np.errstate(invalid="ignore"):
                self._special[place] += np.where(finite, 0, carried)
            carried[~finite] = 0
        grown: list[NDArray[np.float64]] = []
        for part in self._parts:
            carried, lost = _two_sum(carried, part[place])
            if lost.any():
                grown.append(lost)
        grown.append(carried)
        while len(self._parts) < len(grown):
            self._parts.insert(0, np.zeros_like(self._parts[0]))
        for part in self._parts[: len(self._parts) - len(grown)]:
            part[place] = 0
        for part, values in zip(self._parts[len(self._parts) - len(grown) :], grown, strict=True):
            part[place] = values

    def result(self, count: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        mean = _rounded(self._parts)
        mean /= count
        if self._special is not None:
            np.copyto(mean, self._special, where=(self._special != 0))
        with np.errstate(over="ignore"):
            return mean.astype(dtype, copy=False)


def _two_sum(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The rounded sum and what rounding lost, whichever is greater (Knuth)."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = one + other
        virtual = total - one
        lost = (one - (total - virtual)) + (other - virtual)
    if not np.isfinite(total).all():
        lost[~np.isfinite(total)] = 0  # beyond the range of doubles: infinite, not NaN
    return total, lost


def _rounded(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The sum of doubles that do not overlap, the greatest last, as the nearest double, half to even."""
    high = parts[-1].copy()
    if len(parts) == 1:
        return high
    low = np.zeros_like(high)
    below = np.zeros_like(high)  # the sign of what is left under `low`
    for part in reversed(parts[:-1]):
        settled = low != 0
        np.copyto(below, np.sign(part), where=settled & (below == 0))
        total, lost = _two_sum(high, part)
        np.copyto(low, lost, where=~settled)
        np.copyto(high, total, where=~settled)
    # `low` was exactly half a unit of `high` and more lies on its side: the tie was none.
    twice = 2 * low
    nudged = high + twice
    np.copyto(high, nudged, where=(low * below > 0) & (nudged - high == twice))
    return high
