"""Pixels of a made-up landscape, cell by cell, each cell a pure function of its place and the seed.

A cell is 512 x 512 pixels. Whatever the block a caller asks for, whole cells are computed and cropped, so a pixel
depends on ``(seed, band, row, column)`` alone: not on the block, not on the size of the scene. Relief and plant cover
are fractal noise; how it is made stands at `_noise`. On top lie ploughed parcels with sharp edges, tracks between them,
lakes, the shade of the relief, and sensor noise that grows with brightness.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELL = 512
"""Height and width of a cell in pixels."""

_ORIGIN = 1 << 20
"""Added to each coordinate, so that no node of the noise lattice has a negative index."""

# Fixed point with 10 bits, so that turned coordinates stay exact int32 up to scenes of 500,000 pixels a side.
_COS, _SIN = 979, 299  # 17 degrees: parcel edges cross the pixel grid, as they do outside
_PARCEL_HEIGHT, _PARCEL_WIDTH = 43 << 10, 71 << 10
_TRACK = 2 << 10

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What a cell consists of before a sensor looks at it; each array is float32 (512, 512)."""

    relief: Floats
    """Height, roughly -1 to 1."""
    shade: Floats
    """Slope towards the sun, roughly -1 to 1."""
    cover: Floats
    """Fine texture of plants and soil, roughly -1 to 1."""
    parcel: Floats
    """Brightness of the field a pixel lies in, 0 to 1, constant inside a field."""
    farmed: Floats
    """1 where the land is farmed, 0 in forest and on mountains, in between at the edge."""
    water: NDArray[np.bool_]
    """True in lakes."""


# Gains of relief, shade, cover, farmland; base; brightness of water. One row a band, used in turn.
_BANDS = np.array(
    [
        (1900.0, 450.0, 240.0, 3600.0, 7200.0, 900.0),
        (900.0, 330.0, 150.0, -2100.0, 5200.0, 1300.0),
        (700.0, 270.0, 126.0, -1200.0, 4600.0, 1900.0),
        (500.0, 210.0, 105.0, -700.0, 4100.0, 2300.0),
        (1300.0, 480.0, 270.0, -1500.0, 6100.0, 600.0),
        (1000.0, 420.0, 210.0, -1900.0, 5400.0, 400.0),
    ],
    dtype=np.float32,
)

# Sensor noise: a floor and a share of the signal. Sets how well it compresses: to 0.63 of the raw size with GDAL's
# DEFLATE and predictor 2; four times the noise makes it 0.71.
_NOISE_FLOOR, _NOISE_SHARE = 7.0, 0.002


def cell(row: int, column: int, *, bands: int, seed: int) -> Floats:
    """
    Brightness of one cell in every band.

    Parameters
    ----------
    row, column
        Index of the cell; it covers rows ``[512 * row, 512 * (row + 1))`` of the scene, and columns likewise.
    bands
        Number of bands. Band ``k`` is the same whatever their number.
    seed
        Two seeds give two landscapes.

    Returns
    -------
    numpy.ndarray
        float32 (bands, 512, 512), 1 to 60000.

    Raises
    ------
    ValueError
        If ``row``, ``column`` or ``seed`` is negative, from NumPy's generator.
    """
    fields = _fields(row * CELL, column * CELL, seed)
    out = np.empty((bands, CELL, CELL), dtype=np.float32)
    for band in range(bands):
        noise = np.random.Generator(np.random.SFC64([seed, band, row, column]))
        _sense(fields, _BANDS[band % len(_BANDS)], noise.standard_normal((CELL, CELL), dtype=np.float32), out[band])
    return out


def clouds(row: int, column: int, *, seed: int) -> NDArray[np.bool_]:
    """
    Where clouds hide the land: about an eighth of the pixels, in patches.

    Parameters
    ----------
    row, column, seed
        As for `cell`.

    Returns
    -------
    numpy.ndarray
        bool (512, 512), True under a cloud.
    """
    cloud = _noise(_key(seed, 3), row * CELL, column * CELL, CELL, CELL, coarsest=9, finest=2, roughness=0.5)
    return cloud > 0.71  # the 87th percentile


def _sense(fields: Fields, gains: Floats, noise: Floats, out: Floats) -> None:
    """Mix the fields of a cell into one band, in ``out``; ``noise`` is standard normal and is used up."""
    relief, shade, cover, farm, base, wet = gains
    np.multiply(fields.parcel - np.float32(0.5), farm, out=out)
    out *= fields.farmed
    out += relief * fields.relief
    out += shade * fields.shade
    out += cover * fields.cover
    out += base
    np.maximum(out, np.float32(300.0), out=out)
    out[fields.water] = wet
    noise *= np.float32(_NOISE_SHARE) * out + np.float32(_NOISE_FLOOR)
    out += noise
    np.clip(out, 1.0, 60000.0, out=out)


def _fields(top: int, left: int, seed: int) -> Fields:
    """Everything about the cell whose first pixel is (``top``, ``left``), bands and noise left out."""
    # One pixel more on two sides, for the slope.
    relief = _noise(_key(seed, 1), top, left, CELL + 1, CELL + 1, coarsest=10, finest=2, roughness=0.5)
    slope = (relief[1:, :-1] - relief[:-1, :-1]) + (relief[:-1, 1:] - relief[:-1, :-1])
    relief = relief[:-1, :-1]
    cover = _noise(_key(seed, 2), top, left, CELL, CELL, coarsest=6, finest=1, roughness=0.8)
    return Fields(
        relief=relief,
        shade=np.clip(slope * np.float32(50.0), -1.0, 1.0),
        cover=cover,
        parcel=_parcels(top, left, seed),
        farmed=np.clip(np.float32(2.0) - np.float32(5.0) * np.abs(relief + np.float32(0.1)), 0.0, 1.0),
        water=relief < np.float32(-0.85),
    )


def _parcels(top: int, left: int, seed: int) -> Floats:
    """
    Brightness of fields: strips of parcels, each strip shifted by its own amount, tracks in between.

    ::

        +-----+-----+-----+--     strip k
        ---+-----+-----+-----+    strip k + 1, shifted
    """
    y = np.arange(top, top + CELL, dtype=np.int32)[:, np.newaxis]
    x = np.arange(left, left + CELL, dtype=np.int32)[np.newaxis, :]
    across = y * np.int32(_COS) - x * np.int32(_SIN)
    along = x * np.int32(_COS) + y * np.int32(_SIN)
    shifts, levels = _parcel_tables(seed)
    strip = across // np.int32(_PARCEL_HEIGHT)
    along += np.take(shifts, strip & 255)
    parcel = along // np.int32(_PARCEL_WIDTH)
    out = np.take(levels, ((strip & 255) << 8) | (parcel & 255))
    track = (across - strip * np.int32(_PARCEL_HEIGHT) < _TRACK) | (along - parcel * np.int32(_PARCEL_WIDTH) < _TRACK)
    out[track] = 0.9
    return out


@lru_cache(maxsize=4)
def _parcel_tables(seed: int) -> tuple[NDArray[np.int32], Floats]:
    """Shift of each of 256 strips, and brightness of each of 256 x 256 parcels; beyond that they repeat."""
    random = np.random.Generator(np.random.SFC64([seed, 1 << 16]))
    shifts = random.integers(0, _PARCEL_WIDTH, 256, dtype=np.int32)
    return shifts, random.random(256 * 256, dtype=np.float32)


def _noise(
    key: int, top: int, left: int, height: int, width: int, *, coarsest: int, finest: int, roughness: float
) -> Floats:
    """
    Fractal noise, each window equal to the same window of the endless field.

    A lattice with a node every ``2 ** coarsest`` pixels holds random numbers. It is refined to half the spacing by
    cubic B-spline subdivision, finer random numbers of ``roughness`` times the size are added, and so on down to
    ``2 ** finest`` pixels; from there on it is only refined. Subdivision looks at direct neighbours alone, so a window
    needs two or three nodes around it on each level; and it is plain element-wise arithmetic, so no BLAS and no thread
    count changes a bit.

    Returns
    -------
    numpy.ndarray
        float32 (height, width), about -1 to 1, mean 0.
    """
    # Sum of the octaves' variances, so that every choice of octaves has the same spread.
    octaves = coarsest - finest + 1
    scale = 1.0 / float(np.sqrt(sum(roughness ** (2 * k) for k in range(octaves))))
    return _level(
        0, _ORIGIN + top, _ORIGIN + left, height, width,
        key=key, coarsest=coarsest, finest=finest, roughness=roughness, scale=scale,
    )  # fmt: skip


def _level(level: int, row: int, column: int, height: int, width: int, **how: Any) -> Floats:
    """Nodes ``[row, row + height) x [column, column + width)`` of the lattice with spacing ``2 ** level``."""
    coarsest, finest = how["coarsest"], how["finest"]
    fresh: Floats | None = None
    if level >= finest:
        amplitude = how["scale"] * how["roughness"] ** (coarsest - level)
        fresh = _random(how["key"] + level, row, column, height, width)
        fresh *= np.float32(amplitude)
    if level == coarsest:
        assert fresh is not None
        return fresh
    # The node 2i needs i-1, i, i+1; the node 2i+1 needs i, i+1.
    top, left = row // 2 - 1, column // 2 - 1
    rows, columns = (row + height - 1) // 2 + 2 - top, (column + width - 1) // 2 + 2 - left
    coarse = _level(level + 1, top, left, rows, columns, **how)
    fine = _refine(_refine(coarse).T).T
    # The first node of `fine` is the node 2 * (top + 1).
    row_start, column_start = row - 2 * (top + 1), column - 2 * (left + 1)
    out = fine[row_start : row_start + height, column_start : column_start + width]
    return np.ascontiguousarray(out) if fresh is None else np.add(out, fresh, out=fresh)


def _refine(nodes: Floats) -> Floats:
    """
    Cubic B-spline subdivision along the first axis: ``n`` rows in, ``2 * (n - 2)`` out.

    Row ``2j`` is ``(n[j] + 6 n[j+1] + n[j+2]) / 8``, row ``2j + 1`` is ``(n[j+1] + n[j+2]) / 2``: the weights
    (1, 4, 6, 4, 1) / 8.
    """
    out = np.empty((2 * (nodes.shape[0] - 2), nodes.shape[1]), dtype=np.float32)
    here, after = nodes[1:-1], nodes[2:]
    out[1::2] = (here + after) * np.float32(0.5)
    out[0::2] = (nodes[:-2] + after) * np.float32(0.125) + here * np.float32(0.75)
    return out


def _random(key: int, row: int, column: int, height: int, width: int) -> Floats:
    """Uniform numbers in [-2, 2), a hash of key and place (the finaliser of MurmurHash3, 32 bits)."""
    rows = np.arange(row, row + height, dtype=np.uint32) * np.uint32(0x9E3779B1)
    columns = np.arange(column, column + width, dtype=np.uint32) * np.uint32(0x85EBCA77)
    columns += np.array([key & 0xFFFFFFFF], dtype=np.uint32)
    columns = _mix(columns)  # else rows and columns would add up to diagonal stripes
    hashed = _mix(rows[:, np.newaxis] + columns[np.newaxis, :])
    out = hashed.view(np.int32).astype(np.float32)
    out *= np.float32(2.0**-30)
    return out


def _mix(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Scramble in place; each bit of the result depends on each bit of the value."""
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values


def _key(seed: int, field: int) -> int:
    """One key for each field of a seed, 64 apart, which leaves room for its levels."""
    return (seed * 8 + field) * 64
