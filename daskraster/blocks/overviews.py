"""A block at half resolution: average, nearest, mode, bilinear; edges and nodata.

The rule is the plain one: a cell is the 2 x 2 pixels at rows ``2i, 2i + 1`` and columns ``2j, 2j + 1`` of the level above, and a
lone last row or column makes cells of what is there (GeoTIFF: sizes round up) or none (KEA: sizes round down)::

    a b | c d | e        average: mean of the pixels that are valid       nearest: a, c, e, i, k, m
    f g | h . | .        mode: the value that first reaches the largest count, read a b / f g
    ---------------
    i j | k l | m        5 columns make 3 cells (``partial_cells=True``) or 2

GDAL takes the ratio H/h instead: where a level's size is odd, every cell then is a little less than two pixels wide, and its
averages weigh 3 x 3 pixels, its nearest pixel drifts over the raster. That rule cannot be followed from blocks: a cell would need
pixels of neighbouring blocks, and rows below a block would change with the height of the whole raster. Where sizes are even at
every level both rules are the same, and so are the pixels (average, nearest, mode: bit for bit, ties included; floats but for the
last bit in the last columns, which GDAL adds up in another order). Elsewhere a cell lies less than one of its own pixels from
where GDAL's would, at the raster's far edge.

A block that starts at an even row and column gives its part of the level, whatever its neighbours hold, so any cut at even
offsets gives the same level. Only ``bilinear`` looks further, one pixel beyond the cell on each side: see ``margin`` of `halve`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.metadata import Number

RESAMPLINGS = ("average", "bilinear", "mode", "nearest")

type Margin = tuple[tuple[int, int], tuple[int, int]]
"""Rows (above, below) and columns (left, right) of a block that belong to its neighbours; each 0 or 1."""

NO_MARGIN: Margin = ((0, 0), (0, 0))

# Blocks are halved in strips that stay in the second-level cache. MB/s of averages, uint16 and float32, by pixels of a strip:
# 16 Ki 1500 and 2500, 64 Ki 2000 and 3400, 128 Ki 2700 and 5600, 256 Ki 2900 and 5400, 16 Mi 1200 and 1900.
STRIP_PIXELS = 1 << 17

# GDAL's triangle over four pixels at a factor of two: 1 - distance / 2 at distances 1.5, 0.5, 0.5, 1.5, halved.
BILINEAR_WEIGHTS = (0.125, 0.375, 0.375, 0.125)


def half_shape(shape_yx: tuple[int, int], *, partial_cells: bool = True) -> tuple[int, int]:
    """Rows and columns of the next level.

    >>> half_shape((931, 2)), half_shape((931, 2), partial_cells=False)
    ((466, 1), (465, 1))
    """
    extra = 1 if partial_cells else 0
    return (shape_yx[0] + extra) // 2, (shape_yx[1] + extra) // 2


def halve(
    block: NDArray[Any],
    nodata: Number | None,
    resampling: str,
    *,
    partial_cells: bool = True,
    margin: Margin = NO_MARGIN,
) -> NDArray[Any]:
    """A block at half resolution.

    Pixels that equal ``nodata`` and NaN are left out; a cell without any other pixel is nodata (NaN where there is no nodata).
    (GDAL lets NaN into averages unless the nodata is NaN.) Integer averages are rounded half away from zero, exactly for
    every type (GDAL goes through float64 and is off by up to 2122 in 64-bit integers). A valid mean that happens to equal nodata
    becomes the next value above it, below it at the top of the type, as in GDAL (which looks before it rounds in signed and 32-bit
    integers, so that cells with data come out as nodata there; here they never do).

    Parameters
    ----------
    block
        ``(band, y, x)``, any strides, integer or float. Its first pixel inside the margin lies at an even row and column of the
        raster; height and width are even, except where the raster ends. Not changed.
    nodata
        Of all bands, a value of the block's type (or NaN); None: none. Bands with several nodata values come one by one.
    resampling
        One of `RESAMPLINGS`. ``nearest`` takes the upper left pixel. ``mode`` takes the value that first reaches the largest
        count, read row by row. ``bilinear`` is GDAL's: a triangle over 4 x 4 pixels.
    partial_cells
        Whether a lone last row or column makes a cell (GeoTIFF) or is dropped (KEA).
    margin
        What of the block belongs to neighbouring blocks; only ``bilinear`` looks at it. Where it is 0, the raster ends:
        weights are those of the pixels that exist. A cut block without its margin gets seams one cell wide.

    Returns
    -------
    A new array of the same type. ``shape[1:] == half_shape(rows and columns without margin)``.

    Raises
    ------
    OptionError
        No such resampling.

    >>> halve(np.array([[[1, 2, 9], [4, 4, 9], [7, 7, 5]]], np.uint8), 9, "average").tolist()
    [[[3, 9], [7, 5]]]
    """
    if resampling not in RESAMPLINGS:
        raise OptionError(f"overview_resampling={resampling!r} is unknown; possible are {', '.join(RESAMPLINGS)}")
    if resampling == "bilinear":
        return _halve_bilinear(block, nodata, margin, partial_cells)
    (above, below), (left, right) = margin
    core = block[:, above : block.shape[1] - below, left : block.shape[2] - right]
    rows, cols = half_shape((core.shape[1], core.shape[2]), partial_cells=partial_cells)
    result = np.empty((core.shape[0], rows, cols), core.dtype)
    if resampling == "nearest":
        result[...] = core[:, : 2 * rows : 2, : 2 * cols : 2]
        return result
    kernel = _average if resampling == "average" else _mode
    for band, into in zip(core, result, strict=True):
        for start, stop in _strips(rows, 2 * cols):
            into[start:stop] = kernel(_even(band[2 * start : 2 * stop, : 2 * cols]), nodata)
    return result


def _strips(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """First and last cell row of strips of about `STRIP_PIXELS` pixels."""
    step = max(STRIP_PIXELS // max(2 * width, 1), 1)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _even(strip: NDArray[Any]) -> NDArray[Any]:
    """``strip`` with a lone last row or column doubled: mean, mode and count ratios of its cells stay as they are."""
    odd_rows, odd_cols = strip.shape[0] % 2, strip.shape[1] % 2
    if odd_rows or odd_cols:
        return np.pad(strip, ((0, odd_rows), (0, odd_cols)), mode="edge")
    return strip


def _average(strip: NDArray[Any], nodata: Number | None) -> NDArray[Any]:
    """Mean of the valid pixels of each cell; even shape."""
    if strip.dtype.kind == "f":
        return _average_floats(strip, nodata)
    value = _integer_nodata(nodata, strip.dtype)
    valid = None if value is None else strip != value
    if valid is None or valid.all():
        result = _mean_of_four(strip)
    else:
        count = _cell_sums(valid, np.dtype(np.uint8))
        result = _mean_of_some(strip, valid, count)
        result[result == value] = _beside(value, strip.dtype)
        result[count == 0] = value
        return result
    if value is not None and (hits := result == value).any():
        result[hits] = _beside(value, strip.dtype)
    return result


def _integer_nodata(nodata: Number | None, dtype: np.dtype[Any]) -> Any:
    """Nodata as a scalar of an integer type; None where no pixel can have it."""
    limits = np.iinfo(dtype)
    if (
        nodata is None or not limits.min <= nodata <= limits.max or int(nodata) != nodata
    ):  # NaN and infinities are outside
        return None
    return dtype.type(int(nodata))


def _beside(value: Any, dtype: np.dtype[Any]) -> Any:
    """The value next to nodata, above it where there is one."""
    if dtype.kind == "f":
        top = np.finfo(dtype).max
        return np.nextafter(value, dtype.type(np.inf if value < top else -np.inf))
    step = 1 if int(value) < np.iinfo(dtype).max else -1
    return dtype.type(int(value) + step)


def _cell_sums(strip: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    rows = np.add(strip[::2], strip[1::2], dtype=dtype)
    return np.asarray(rows[:, ::2] + rows[:, 1::2])


def _mean_of_four(strip: NDArray[Any]) -> NDArray[Any]:
    """Exact mean of cells of four integers, half away from zero."""
    dtype = strip.dtype
    if dtype.itemsize == 8:
        return _mean_of_wide(strip, np.full((strip.shape[0] // 2, strip.shape[1] // 2), 4, np.uint8))
    wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
    sums = _cell_sums(strip, wide)
    if dtype.kind == "i":
        sums += sums >> wide.type(8 * wide.itemsize - 1)  # 1 less where negative: half goes down there
    sums += wide.type(2)
    sums >>= wide.type(2)
    return sums.astype(dtype)


def _mean_of_some(strip: NDArray[Any], valid: NDArray[np.bool_], count: NDArray[np.uint8]) -> NDArray[Any]:
    """Mean of the valid integers of each cell, half away from zero; anything where there is none."""
    dtype = strip.dtype
    strip = strip * valid
    count = np.maximum(count, 1)
    if dtype.itemsize == 8:
        return _mean_of_wide(strip, count)
    sums = _cell_sums(strip, np.dtype(f"{dtype.kind}{2 * dtype.itemsize}"))
    # Quotients by 1, 2 and 4 are exact and thirds stay a sixth away from any tie, so floats with 8 spare bits round rightly.
    floating: type[np.floating[Any]] = np.float32 if dtype.itemsize <= 2 else np.float64
    mean = np.divide(sums, count, dtype=floating)
    half = np.copysign(floating(0.5), mean) if dtype.kind == "i" else floating(0.5)
    return np.asarray(mean + half).astype(dtype)


def _mean_of_wide(strip: NDArray[Any], count: NDArray[np.uint8]) -> NDArray[Any]:
    """As `_mean_of_some` for 64-bit integers, whose sums do not fit: quotients and remainders are added up apart."""
    divisor = count.astype(strip.dtype)
    quotient, remainder = np.zeros_like(divisor), np.zeros_like(divisor)
    for pixels in _corners(strip):
        whole = pixels // divisor
        quotient += whole
        remainder += pixels - whole * divisor
    whole = remainder // divisor
    quotient += whole
    remainder -= whole * divisor
    up = 2 * remainder >= divisor
    if strip.dtype.kind == "i":
        up = np.where(quotient < 0, 2 * remainder > divisor, up)
    return np.asarray(quotient + up.astype(strip.dtype))


def _corners(strip: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The four pixels of each cell, row by row."""
    return strip[::2, ::2], strip[::2, 1::2], strip[1::2, ::2], strip[1::2, 1::2]


def _average_floats(strip: NDArray[Any], nodata: Number | None) -> NDArray[Any]:
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if nodata is not None:
            mean, _ = _mean_of_valid_floats(strip, strip.dtype.type(nodata))
            return mean
        # GDAL's order, where no pixel can be invalid: quarters first, so that no sum overflows, then columns, then rows.
        quarters = strip * strip.dtype.type(0.25)
        rows = quarters[::2] + quarters[1::2]
        fast = np.asarray(rows[:, ::2] + rows[:, 1::2])
        # NaN comes out where NaN went in (or opposite infinities); which cells are whole must not depend on the rest of the block.
        if not np.isnan(fast).any():
            return fast
        mean, count = _mean_of_valid_floats(strip, strip.dtype.type(np.nan))
        return np.where(count == 4, fast, mean)


def _mean_of_valid_floats(strip: NDArray[Any], nodata: Any) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Mean, summed up in float64 row by row as GDAL does, and number of the valid pixels of each cell."""
    valid = strip == strip  # noqa: PLR0124 - half the time of isnan and its inverse
    if not np.isnan(nodata):
        valid &= strip != nodata
    count = _cell_sums(valid, np.dtype(np.uint8))
    kept = np.where(valid, strip, strip.dtype.type(0)).astype(np.float64, copy=False)
    lines = kept[:, ::2] + kept[:, 1::2]
    total = lines[::2] + lines[1::2]
    mean = (total / np.maximum(count, 1)).astype(strip.dtype)
    mean[mean == nodata] = _beside(nodata, strip.dtype)
    mean[count == 0] = nodata
    return mean, count


def _mode(strip: NDArray[Any], nodata: Number | None) -> NDArray[Any]:
    """The value that first reaches the largest count among the valid pixels; even shape."""
    a, b, c, d = (np.ascontiguousarray(pixels) for pixels in _corners(strip))
    fill = _fill(nodata, strip.dtype)
    third, fourth = (c == a) | (c == b), (d == a) | (d == b) | (d == c)
    second = a == b
    result = a.copy()
    # NaN equals nothing, so only pairs of nodata have to be kept from counting.
    if fill is not None and not (valid := _valid(strip, fill)).all():
        a_valid, b_valid, c_valid, d_valid = _corners(valid)
        np.copyto(result, fill, where=~a_valid)
        for pixels, chosen in ((d, d_valid), (c, c_valid), (b, b_valid)):
            np.copyto(result, pixels, where=chosen & ~a_valid)
        second, third, fourth = second & a_valid, third & c_valid, fourth & d_valid
    # The latest rule that holds was reached first: a pair in the first row wins over one that the third pixel makes, and so on.
    for pixels, chosen in ((d, fourth), (c, third), (a, second)):
        np.copyto(result, pixels, where=chosen)
    return result


def _fill(nodata: Number | None, dtype: np.dtype[Any]) -> Any:
    """What a cell without valid pixels becomes; None where every pixel is valid."""
    if dtype.kind == "f":
        return dtype.type(np.nan if nodata is None else nodata)
    return _integer_nodata(nodata, dtype)


def _valid(pixels: NDArray[Any], fill: Any) -> NDArray[np.bool_]:
    valid = pixels == pixels if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)  # noqa: PLR0124 - NaN
    return np.asarray(valid & (pixels != fill))


def _halve_bilinear(block: NDArray[Any], nodata: Number | None, margin: Margin, partial_cells: bool) -> NDArray[Any]:
    (above, below), (left, right) = margin
    height, width = block.shape[1] - above - below, block.shape[2] - left - right
    rows, cols = half_shape((height, width), partial_cells=partial_cells)
    result = np.empty((block.shape[0], rows, cols), block.dtype)
    for band, into in zip(block, result, strict=True):
        for start, stop in _strips(rows, 2 * cols):
            # The rows of the strip's cells and one more on each side, where there is one.
            first, last = max(above + 2 * start - 1, 0), min(above + 2 * stop + 1, block.shape[1])
            strip = band[first:last, : left + 2 * cols + 1]
            into[start:stop] = _bilinear(strip, nodata, (stop - start, cols), (above + 2 * start - first, left))
    return result


def _bilinear(
    strip: NDArray[Any], nodata: Number | None, cells_yx: tuple[int, int], margin_yx: tuple[int, int]
) -> NDArray[Any]:
    """Bilinear cells of a strip that has ``margin_yx`` rows above and columns left of its first cell."""
    dtype, fill = strip.dtype, _fill(nodata, strip.dtype)
    valid: NDArray[np.bool_] | None = None
    if fill is not None:
        valid = _valid(strip, fill)
        if valid.all():
            valid = None
    values = (strip if valid is None else np.where(valid, strip, dtype.type(0))).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        values, valid = _convolve(values, valid, cells_yx[1], margin_yx[1])
        values, valid = _convolve(values.T, None if valid is None else valid.T, cells_yx[0], margin_yx[0])
        values, valid = values.T, None if valid is None else valid.T
        result = _round(values, dtype) if dtype.kind in "iu" else values.astype(dtype)
    if fill is not None:
        result[result == fill] = _beside(fill, dtype)
        if valid is not None:
            result[~valid] = fill
    return result


def _convolve(
    values: NDArray[np.float64], valid: NDArray[np.bool_] | None, cells: int, before: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Weighted means along the last axis, and where there was anything to weigh; ``valid`` None: everywhere.

    Invalid values are 0. Pixels beyond the array have no weight: they are padded as 0 and invalid.
    """
    missing = max(2 * cells + 2 - (values.shape[1] + 1 - before), 0)
    pads = (1 - before, missing)
    present = np.pad(np.ones(values.shape[1], bool), pads) if valid is None else np.pad(valid, ((0, 0), pads))
    values = np.pad(values, ((0, 0), pads))
    total = np.zeros((values.shape[0], cells))
    weight = np.zeros((*present.shape[:-1], cells))
    for tap, factor in enumerate(BILINEAR_WEIGHTS):
        total += factor * values[:, tap : tap + 2 * cells : 2]
        weight += factor * present[..., tap : tap + 2 * cells : 2]
    if valid is None:
        return total / weight, None
    anything = weight > 0
    return np.divide(total, weight, out=total, where=anything), anything


def _round(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Half away from zero; 64-bit values clamped to the last float64 inside the type."""
    limits = np.iinfo(dtype)
    rounded = np.trunc(values + np.copysign(0.5, values))
    top = float(limits.max) if dtype.itemsize < 8 else np.nextafter(float(limits.max), 0.0)
    return np.clip(rounded, float(limits.min), top).astype(dtype)
