"""Statistics and histogram of one band, from blocks in any order.

A block gives a `PartialStatistics`, small enough to travel with its receipt; partials merge into one; that one is finished into
`BandStatistics`. Whatever the order and grouping of merging, the result is the same to the last bit, because nothing is ever
rounded on the way:

- Sums and sums of squares are Python integers, in units of 1 for integer pixels and of 2**-1074 (the smallest float64) for floats.
  A block sums deviations from its own mean in float64, where they are small, and only then moves to the common zero, exactly. So
  a mean of 1e9 with a deviation of 1 keeps all its digits, where a merged (count, mean, M2) is left with seven, and no shift has
  to be agreed upon before the run.
- The histogram counts bins of a width of 2**k that begin at multiples of 2**k. k follows from minimum and maximum alone, a
  wider range never has a smaller k, and a bin of 2**k is exactly two of 2**(k-1): bins of a partial are added up by pairs
  until they fit. Integers have k = 0, a bin a value, up to a range of 65,536, hence always with 8 and 16 bits; classes (thematic) up to one of 4,194,304.

Valid is what is neither nodata nor NaN. Infinities are valid pixels, but left out of everything but their own count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.bins import CLASS_RANGE, EXACT_RANGE, FLOAT_UNIT_BITS, BinCounts, bin_exponent, bin_of
from daskraster.blocks.results import (
    LINEAR_BINS,
    BandStatistics,
    Histogram,
    histogram_items,
    metadata_items,
)
from daskraster.blocks.summing import (
    count_values,
    distance,
    exact_sums,
    finite_floats,
    float_sums,
    matchable,
    valid_integers,
)
from daskraster.errors import BlockResultError
from daskraster.metadata import Number

__all__ = [
    "BandStatistics",
    "Histogram",
    "PartialStatistics",
    "bin_exponent",
    "histogram_items",
    "merge_statistics",
    "metadata_items",
    "partial_statistics",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialStatistics:
    """What is known of some pixels of a band. Immutable, picklable, safe in threads.

    Pickled size: about 1 KB with 8-bit pixels and float constants, 8-24 KB with floats and wide integers, at most 1-2 bytes a
    value of the block's range with 16 bits (64-128 KB where a block of 2048 x 2048 uses all 65,536). Merge as they arrive.
    """

    dtype: np.dtype[Any]
    thematic: bool
    pixels: int = 0
    count: int = 0
    infinities: int = 0
    minimum: Number | None = None
    maximum: Number | None = None
    total: int = 0
    """Sum, in units of 1 (integers) or 2**-1074 (floats)."""
    squares: int = 0
    """Sum of squares, in units of the square."""
    counts: BinCounts | None = None

    def merge(self, *others: PartialStatistics) -> PartialStatistics:
        """These pixels and those of the others; see `merge_statistics`."""
        return merge_statistics((self, *others))

    def finish(self) -> BandStatistics:
        """The statistics.

        The histogram has one bin a value from 0 to the maximum for uint8 and thematic integers (from the minimum where that is
        negative, or the maximum above 4,194,304), one bin a value from the minimum for other integers of at most 256 values and
        for a constant, else 256 linear bins from minimum to maximum. Linear bins are exact for integers whose range is at most 65,536; else a pixel is counted at most
        one bin beside its own. Thematic integers of a wider range get linear bins too.
        """
        if self.minimum is None or self.maximum is None or self.counts is None:
            return BandStatistics(pixels=self.pixels, count=0, infinities=self.infinities)
        histogram = self._histogram(self.minimum, self.maximum, self.counts)
        mean, stddev = self._moments()
        counts = np.array(histogram.counts)
        median = int(np.argmax(2 * counts.cumsum() >= self.count))
        return BandStatistics(
            pixels=self.pixels,
            count=self.count,
            infinities=self.infinities,
            minimum=self.minimum,
            maximum=self.maximum,
            mean=mean,
            stddev=stddev,
            median=self._pixel_value(histogram.lower_edge(median)),
            mode=self._pixel_value(histogram.lower_edge(int(np.argmax(counts)))),
            histogram=histogram,
        )

    def _pixel_value(self, value: Fraction) -> Number:
        return float(value) if self.dtype.kind == "f" else round(value)

    def _moments(self) -> tuple[float, float]:
        """Mean and population standard deviation, rounded once from exact integers."""
        unit_bits = FLOAT_UNIT_BITS if self.dtype.kind == "f" else 0
        divisor = self.count << unit_bits
        # Rounding within blocks may leave less than nothing where all values are nearly equal.
        squared = max(self.count * self.squares - self.total * self.total, 0)
        # 64 bits more than a float holds, so that the integer root loses none.
        bits = max((256 - squared.bit_length()) // 2, 0)
        return self.total / divisor, math.isqrt(squared << (2 * bits)) / (divisor << bits)

    def _histogram(self, minimum: Number, maximum: Number, bins: BinCounts) -> Histogram:
        counts = bins.unpack().astype(np.int64)
        if self.dtype.kind == "f":
            if minimum == maximum:
                return Histogram(minimum=minimum, maximum=maximum, function="direct", counts=(self.count,))
        elif bins.exponent == 0 and (self.thematic or self.dtype == np.uint8):
            # Up to the first pixel's value; not for the rare classes that are numbered from a million on.
            leading = max(int(minimum), 0) if maximum <= CLASS_RANGE else 0
            filled = (0,) * leading + tuple(counts.tolist())
            return Histogram(minimum=minimum - leading, maximum=maximum, function="direct", counts=filled)
        elif bins.exponent == 0 and maximum - minimum < LINEAR_BINS:
            return Histogram(minimum=minimum, maximum=maximum, function="direct", counts=tuple(counts.tolist()))
        # In units of the narrow bins, from the first of them, so that no digits are lost where the values are large.
        width = Fraction(2) ** bins.exponent
        start = float(Fraction(minimum) / width - bins.low)
        span = float((Fraction(maximum) - Fraction(minimum)) / width)
        # Values of integers are where their bins begin, else a bin counts where its middle lies.
        places = np.arange(counts.size) - start
        if self.dtype.kind == "f" or bins.exponent:
            places += 0.5
        index = np.clip(places * LINEAR_BINS // span, 0, LINEAR_BINS - 1).astype(np.int64)
        linear = np.zeros(LINEAR_BINS, np.int64)
        np.add.at(linear, index, counts)
        return Histogram(minimum=minimum, maximum=maximum, function="linear", counts=tuple(linear.tolist()))


def partial_statistics(block: NDArray[Any], nodata: Number | None, *, thematic: bool) -> PartialStatistics:
    """Statistics of one block of one band.

    Parameters
    ----------
    block
        ``(y, x)``, integer or float of at most 64 bits, any strides. Not changed.
    nodata
        Pixels of this value (and NaN) are left out; None: none. A value that the type cannot hold matches nothing.
    thematic
        Whether pixels are classes; decides on the final bins only.
    """
    nodata = matchable(nodata, block.dtype)
    empty = PartialStatistics(dtype=block.dtype, thematic=thematic, pixels=block.size)
    if block.size == 0:
        return empty
    if block.dtype.kind == "f":
        return _of_floats(block, nodata, empty)
    return (_of_narrow if block.dtype.itemsize <= 2 else _of_wide)(block, nodata, empty)


def merge_statistics(parts: Iterable[PartialStatistics]) -> PartialStatistics:
    """One partial of all; order and grouping make no difference. Many at once cost less than one after the other.

    Raises
    ------
    BlockResultError
        Parts of different dtype, or thematic and not.
    ValueError
        No parts.
    """
    parts = tuple(parts)
    kinds = {(part.dtype, part.thematic) for part in parts}
    if len(kinds) > 1:
        listed = ", ".join(sorted(f"{dtype}{' thematic' * thematic}" for dtype, thematic in kinds))
        raise BlockResultError(f"statistics of blocks of one band must have one dtype, not {listed}")
    ((dtype, thematic),) = kinds
    filled = [part for part in parts if part.count]
    minimum = min((part.minimum for part in filled if part.minimum is not None), default=None)
    maximum = max((part.maximum for part in filled if part.maximum is not None), default=None)
    return PartialStatistics(
        dtype=dtype,
        thematic=thematic,
        pixels=sum(part.pixels for part in parts),
        count=sum(part.count for part in parts),
        infinities=sum(part.infinities for part in parts),
        minimum=minimum,
        maximum=maximum,
        total=sum(part.total for part in parts),
        squares=sum(part.squares for part in parts),
        counts=None
        if minimum is None or maximum is None
        else _merge_counts(filled, minimum, maximum, _exact_range(thematic)),
    )


def _exact_range(thematic: bool) -> int:
    return CLASS_RANGE if thematic else EXACT_RANGE


def _merge_counts(parts: list[PartialStatistics], minimum: Number, maximum: Number, exact_range: int) -> BinCounts:
    exponent = bin_exponent(minimum, maximum, exact_range)
    low = bin_of(minimum, exponent)
    counts = np.zeros(bin_of(maximum, exponent) - low + 1, np.int64)
    for part in parts:
        if part.counts is not None:
            first, widened = part.counts.coarsen(exponent)
            counts[first - low : first - low + widened.size] += widened
    return BinCounts.pack(exponent, low, counts)


def _of_narrow(block: NDArray[Any], nodata: Number | None, empty: PartialStatistics) -> PartialStatistics:
    """8 and 16 bits: everything from the counts of all values."""
    counts, low = count_values(block)
    if nodata is not None:
        counts[int(nodata) - low] = 0
    filled = np.flatnonzero(counts)
    if filled.size == 0:
        return empty
    low += int(filled[0])
    counts = counts[filled[0] : filled[-1] + 1]
    # Offsets below 2**16, so sums of squares stay below 2**63 up to 2**31 pixels.
    offsets = np.arange(counts.size)
    count, total, squares = int(counts.sum()), int(offsets @ counts), int((offsets * offsets) @ counts)
    return PartialStatistics(
        dtype=empty.dtype,
        thematic=empty.thematic,
        pixels=empty.pixels,
        count=count,
        minimum=low,
        maximum=low + counts.size - 1,
        total=total + low * count,
        squares=squares + 2 * low * total + low * low * count,
        counts=BinCounts.pack(0, low, counts),
    )


def _of_wide(block: NDArray[Any], nodata: Number | None, empty: PartialStatistics) -> PartialStatistics:
    """Integers of 32 and 64 bits: exact sums of distances from each chunk's minimum."""
    count = total = squares = 0
    lows, highs = [], []
    for chunk in valid_integers(block, nodata):
        low, high = int(chunk.min()), int(chunk.max())
        once, twice = exact_sums(distance(chunk, low), high - low)
        count += chunk.size
        total += once + low * chunk.size
        squares += twice + 2 * low * once + low * low * chunk.size
        lows.append(low)
        highs.append(high)
    if not count:
        return empty
    minimum, maximum = min(lows), max(highs)
    exponent = bin_exponent(minimum, maximum, _exact_range(empty.thematic))
    first = bin_of(minimum, exponent)
    counts = np.zeros(bin_of(maximum, exponent) - first + 1, np.int64)
    for chunk in valid_integers(block, nodata):
        index = (distance(chunk, first << exponent) >> np.uint64(exponent)).view(np.int64)
        if counts.size <= EXACT_RANGE + 1:
            counts += np.bincount(index, minlength=counts.size)
            continue
        # Many classes: each chunk holds few of them, in runs along the rows.
        begins = np.concatenate(([0], np.flatnonzero(index[1:] != index[:-1]) + 1))
        np.add.at(counts, index[begins], np.diff(begins, append=index.size))
    return PartialStatistics(
        dtype=empty.dtype,
        thematic=empty.thematic,
        pixels=empty.pixels,
        count=count,
        minimum=minimum,
        maximum=maximum,
        total=total,
        squares=squares,
        counts=BinCounts.pack(exponent, first, counts),
    )


def _of_floats(block: NDArray[Any], nodata: Number | None, empty: PartialStatistics) -> PartialStatistics:
    count = total = squares = infinities = 0
    lows, highs = [], []
    for chunk, infinite in finite_floats(block, nodata):
        infinities += infinite
        if chunk.size == 0:
            continue
        low, high = float(chunk.min()), float(chunk.max())
        once, twice = float_sums(chunk, low, high)
        count += chunk.size
        total += once
        squares += twice
        # -0.0 and 0.0 are one value; which one comes first must not show.
        lows.append(low + 0.0)
        highs.append(high + 0.0)
    if not count:
        return PartialStatistics(dtype=empty.dtype, thematic=empty.thematic, pixels=empty.pixels, infinities=infinities)
    minimum, maximum = min(lows), max(highs)
    return PartialStatistics(
        dtype=empty.dtype,
        thematic=empty.thematic,
        pixels=empty.pixels,
        count=count,
        infinities=infinities,
        minimum=minimum,
        maximum=maximum,
        total=total,
        squares=squares,
        counts=_count_floats(block, nodata, minimum, maximum, count),
    )


def _count_floats(
    block: NDArray[Any], nodata: Number | None, minimum: Number, maximum: Number, count: int
) -> BinCounts:
    """Bin = floor(value / 2**k), exact in float64 (a power of two changes no digit; the difference of bins is small)."""
    exponent = bin_exponent(minimum, maximum)
    low = bin_of(minimum, exponent)
    if minimum == maximum:
        return BinCounts.pack(exponent, low, np.array([count]))
    counts = np.zeros(bin_of(maximum, exponent) - low + 1, np.int64)
    for chunk, _ in finite_floats(block, nodata):
        values = chunk.astype(np.float64)
        # ldexp is exact where 2**-k itself is no float, but ten times slower.
        values = values * 2.0**-exponent if abs(exponent) < 1000 else np.ldexp(values, -exponent)
        np.floor(values, out=values)
        values -= float(low)
        counts += np.bincount(values.astype(np.int64), minlength=counts.size)
    return BinCounts.pack(exponent, low, counts)
