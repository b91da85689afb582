"""Counts of pixels in bins of a width of 2**k, which add up exactly whatever the range of the blocks they come from.

See `daskraster.blocks.statistics` for why.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.metadata import Number

# Range of integers up to which each value has its own bin.
EXACT_RANGE = 65_536
# The same for classes, whose counts are wanted one by one: labels of components. 32 MB of counts at most, while they are added up.
CLASS_RANGE = 1 << 22
# Fewer bins of a power of two otherwise: at least 16 of them to each of the 256 final ones, 16 KB in a receipt.
COARSE_BINS = 8_192

# The smallest positive float64 is 2**-1074: every float is a whole number of these.
FLOAT_UNIT_BITS = 1074


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinCounts:
    """Pixels per bin of width 2**exponent; the first bin begins at ``low * 2**exponent``. Arrays are never changed."""

    exponent: int
    low: int
    size: int
    """Number of bins."""
    counts: NDArray[Any]
    """Of all bins, or of those in ``bins``; the smallest unsigned type that holds them."""
    bins: NDArray[Any] | None = None
    """Offsets of the bins that hold pixels, where listing them takes less room than all counts."""

    @classmethod
    def pack(cls, exponent: int, low: int, counts: NDArray[Any]) -> BinCounts:
        """From the counts of all bins."""
        small = counts.astype(np.min_scalar_type(counts.max()))
        filled = np.flatnonzero(counts)
        bins = filled.astype(np.min_scalar_type(counts.size))
        if filled.size * (bins.itemsize + small.itemsize) < small.nbytes:
            return cls(exponent=exponent, low=low, size=counts.size, counts=small[filled], bins=bins)
        return cls(exponent=exponent, low=low, size=counts.size, counts=small)

    def unpack(self) -> NDArray[Any]:
        """Counts of all bins."""
        if self.bins is None:
            return self.counts
        counts = np.zeros(self.size, self.counts.dtype)
        counts[self.bins] = self.counts
        return counts

    def coarsen(self, exponent: int) -> tuple[int, NDArray[Any]]:
        """First bin and counts at bins of ``2**exponent``, not narrower than these: pairs of pairs added up."""
        counts, steps = self.unpack(), exponent - self.exponent
        first = self.low >> steps
        # The bins that begin a wider one; only the first may begin in its middle. Python integers: steps may be hundreds.
        second = ((first + 1) << steps) - self.low
        if steps == 0 or second >= counts.size:
            return first, counts if steps == 0 else counts.sum(dtype=np.int64, keepdims=True)
        begins = np.concatenate(([0], np.arange(second, counts.size, min(1 << steps, counts.size))))
        return first, np.add.reduceat(counts, begins, dtype=np.int64)


def bin_exponent(minimum: Number, maximum: Number, exact_range: int = EXACT_RANGE) -> int:
    """k of the bins' width 2**k: the smallest that keeps the number of bins within bounds; 0 for integers of at most ``exact_range``.

    Postcondition: a range inside this one has no larger k.

    >>> bin_exponent(-30000, 35536), bin_exponent(-30000, 35537), bin_exponent(0.0, 1.0)
    (0, 4, -12)
    """
    whole = not isinstance(minimum, float)
    if whole and maximum - minimum <= exact_range:
        return 0
    smallest = 0 if whole else -FLOAT_UNIT_BITS
    if minimum == maximum:
        return smallest
    span = Fraction(maximum) - Fraction(minimum)
    # A guess that is too small by 1 or 2, or right.
    guess = span.numerator.bit_length() - span.denominator.bit_length() - COARSE_BINS.bit_length() - 1
    exponent = max(guess, smallest)
    while bin_of(maximum, exponent) - bin_of(minimum, exponent) >= COARSE_BINS:
        exponent += 1
    return exponent


def bin_of(value: Number, exponent: int) -> int:
    """Floor of ``value / 2**exponent``, exact."""
    numerator, denominator = value.as_integer_ratio()
    return numerator // (denominator << exponent) if exponent >= 0 else (numerator << -exponent) // denominator
