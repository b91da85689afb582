"""Exact sums and counts of a block's pixels, in pieces that fit the cache: the arithmetic under `daskraster.blocks.statistics`.

Sums and sums of squares are Python integers: in units of 1 for whole numbers, of 2**-1074 (the smallest float64) for floats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.bins import FLOAT_UNIT_BITS
from daskraster.metadata import Number

# MB/s per core on float32, by pixels at once: 16 Ki 450, 64 Ki 670, 256 Ki 720, 16 Mi 290. `exact_sums` allows no more than 64 Ki.
CHUNK_PIXELS = 1 << 16
# MB/s of bincount on uint16: 64 Ki 800 (the 512 KB of counters are added up each time), 256 Ki 1300, 1 Mi 1100, 16 Mi 640.
COUNTING_PIXELS = 1 << 18


def matchable(nodata: Number | None, dtype: np.dtype[Any]) -> Number | None:
    """Nodata as the type holds it; None where no pixel can equal it (NaN never does)."""
    if nodata is None or math.isnan(nodata):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(nodata))
    limits = np.iinfo(dtype)
    return int(nodata) if limits.min <= nodata <= limits.max and int(nodata) == nodata else None


def _chunks(block: NDArray[Any], pixels: int) -> Iterator[NDArray[Any]]:
    """The block's pixels, flat, about ``pixels`` at once: what fits the cache is worked on several times faster."""
    rows = block.shape[0] if block.flags.c_contiguous else max(pixels // block.shape[1], 1)
    for top in range(0, block.shape[0], rows):
        # A column of a wider array stays a view with steps when it is flattened; the counting takes bytes in pairs.
        flat = np.ascontiguousarray(block[top : top + rows]).reshape(-1)
        for start in range(0, flat.size, pixels):
            yield flat[start : start + pixels]


def count_values(block: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """Number of pixels of each value that the type has, and the first value."""
    counts = np.zeros(1 << 16, np.int64)
    byte_counts = np.zeros(1 << 8, np.int64)
    for chunk in _chunks(block, COUNTING_PIXELS):
        bits = chunk.view(f"u{block.itemsize}")
        if block.itemsize == 1:
            # Bytes in pairs, as 16-bit values: half as many to count (330 -> 580 MB/s).
            byte_counts += np.bincount(bits[bits.size // 2 * 2 :], minlength=1 << 8)
            bits = bits[: bits.size // 2 * 2].view(np.uint16)
        counts += np.bincount(bits, minlength=1 << 16)
    if block.itemsize == 1:
        pairs = counts.reshape(1 << 8, 1 << 8)
        counts = byte_counts + pairs.sum(axis=0) + pairs.sum(axis=1)
    if block.dtype.kind == "i":
        half = counts.size // 2
        return np.concatenate([counts[half:], counts[:half]]), -half
    return counts, 0


def valid_integers(block: NDArray[Any], nodata: Number | None) -> Iterator[NDArray[Any]]:
    """The pixels that are not nodata, flat, in chunks that are not empty."""
    for chunk in _chunks(block, CHUNK_PIXELS):
        if nodata is None:
            yield chunk
            continue
        valid = chunk != nodata
        if valid.all():
            yield chunk
        elif valid.any():
            yield chunk.compress(valid)


def distance(chunk: NDArray[Any], low: int) -> NDArray[np.uint64]:
    """``chunk - low``, for ``low`` not above any pixel: modulo 2**64, so that no difference overflows."""
    wide = chunk.astype(np.int64 if chunk.dtype.kind == "i" else np.uint64).view(np.uint64)
    wide -= np.uint64(low % (1 << 64))
    return wide


def exact_sums(numbers: NDArray[np.uint64], largest: int) -> tuple[int, int]:
    """Sum and sum of squares of at most 2**16 numbers, without overflow: in limbs of 24 bits, whose products add up below 2**64."""
    limbs = [numbers]
    if largest >> 24:
        limbs = [(numbers >> np.uint64(low)) & np.uint64(0xFFFFFF) for low in range(0, largest.bit_length(), 24)]
    total = sum(int(limb.sum()) << (24 * place) for place, limb in enumerate(limbs))
    squares = sum(
        int((limbs[one] * limbs[other]).sum()) << (24 * (one + other) + (one != other))
        for one in range(len(limbs))
        for other in range(one, len(limbs))
    )
    return total, squares


def finite_floats(block: NDArray[Any], nodata: Number | None) -> Iterator[tuple[NDArray[Any], int]]:
    """Valid finite pixels, flat, in chunks that may be empty, and the number of infinities among the valid ones."""
    for chunk in _chunks(block, CHUNK_PIXELS):
        low, high = chunk.min(), chunk.max()  # NaN where there is any
        whole = not np.isnan(low)
        if nodata is not None and not (high < nodata or low > nodata):
            valid = chunk != nodata
            if not whole:
                valid &= ~np.isnan(chunk)
            chunk = chunk.compress(valid)  # noqa: PLW2901 - a third faster than chunk[valid]
        elif not whole:
            chunk = chunk.compress(~np.isnan(chunk))  # noqa: PLW2901
        infinite = 0
        if chunk.size and not (np.isfinite(chunk.min()) and np.isfinite(chunk.max())):
            finite = np.isfinite(chunk)
            infinite = chunk.size - int(np.count_nonzero(finite))
            chunk = chunk.compress(finite)  # noqa: PLW2901
        yield chunk, infinite


def float_sums(chunk: NDArray[Any], low: float, high: float) -> tuple[int, int]:
    """Sum and sum of squares in units of 2**-1074 and its square: exact but for the rounding of deviations from the mean."""
    # Squares of what is very large or very small leave float64: then everything is brought near 1 first, by a power of two.
    half_range = high / 2 - low / 2 or high - low
    bits = math.frexp(half_range)[1] if half_range else 0
    scale = bits if abs(bits) > 400 else 0
    values = np.ldexp(chunk.astype(np.float64), -scale) if scale else chunk.astype(np.float64)
    low, high = math.ldexp(low, -scale), math.ldexp(high, -scale)
    centre = low if low == high else min(max(float(values.mean()), low), high)
    values -= centre
    once = _scaled(float(values.sum()), FLOAT_UNIT_BITS + scale)
    values *= values
    twice = _scaled(float(values.sum()), 2 * (FLOAT_UNIT_BITS + scale))
    zero = _scaled(centre, FLOAT_UNIT_BITS + scale)
    return once + zero * chunk.size, twice + 2 * zero * once + zero * zero * chunk.size


def _scaled(value: float, bits: int) -> int:
    """``value * 2**bits``; exact, or rounded down where that is no whole number."""
    numerator, denominator = value.as_integer_ratio()
    return (numerator << bits) // denominator if bits >= 0 else numerator // (denominator << -bits)
