"""Nearest pixels of a raster on another grid, picked by NumPy where GDAL's own choice is certain.

Strategy. GDAL transforms each pixel exactly (232 ns between UTM zones) and then takes the pixel it falls into. Which one that is, needs no exact
place unless it lies at the very border of two. So GDAL is asked for the places of a lattice of 17 x 17 pixels of the window, a polynomial goes through
every second of them, and the others tell how far it is off. Is that less than `MEASURED_PIXELS`, then a pixel whose place is farther than
`BORDER_PIXELS`, ten times as much, from a border is picked as GDAL does; the few others (3 of 2048 x 2048) are given to GDAL one by one. ::

    o . o . o     o  the polynomial of degree 8 goes through these
    . . . . .     .  here it is compared with GDAL; between UTM zones it is off by 1e-9 pixels
    o . o . o

Where it does not hold (poles, the antimeridian, datum grids with kinks, projections that iterate to less than 1e-8 pixels, many places at borders), GDAL does all.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from daskraster.formats.gdalwarp import SourcePart, WarpPlan, fits, warp
from daskraster.grid import Window

STEPS = 16  # of the lattice along each side of a window
MEASURED_PIXELS = 2e-8
BORDER_PIXELS = 2e-7
GDAL_SHIFT_PIXELS = 1e-10  # what GDAL adds to a place before it rounds down
SMALLEST = 64  # pixels along a side: below that the lattice costs more than it saves
MOST_AT_BORDERS = 1 / 65536  # share of pixels given to GDAL one by one, 4 ms each, before it is given all
STRIP_PIXELS = 1 << 16  # places of a strip, 1 MB, stay in the cache
COARSE, BEYOND = 8, 40  # pixels of the ramp along the source's longer side, and beyond it on each side


def nearest(part: SourcePart, wanted: Window, plan: WarpPlan, extra: int) -> NDArray[Any]:
    """A window of the target by nearest neighbours; see `gdalwarp.warp`, whose pixels these are.

    Raises
    ------
    RasterReadError
        GDAL fails.
    """
    places = _places(part, wanted, plan) if _can_pick(part, wanted, plan) else None
    if places is None:
        return warp(part, wanted, plan, extra)
    result, doubtful = _picked(part, wanted, *places)
    if len(doubtful) > max(wanted.height * wanted.width * MOST_AT_BORDERS, 1):
        return warp(part, wanted, plan, extra)
    for row, col in doubtful:
        one = Window(wanted.row_off + int(row), wanted.col_off + int(col), 1, 1)
        result[:, row, col] = warp(part, one, plan, extra)[:, 0, 0]
    return result


def _can_pick(part: SourcePart, wanted: Window, plan: WarpPlan) -> bool:
    """Whether picking may pay, and gives GDAL's very bits."""
    if plan.source_wkt == plan.target_wkt or min(wanted.shape_yx) < SMALLEST or part.pixels.dtype.kind == "c":
        return False
    if part.pixels.dtype.kind != "f":
        return True
    # GDAL takes floats a few digits off the nodata value for nodata too.
    for band, value in zip(part.pixels, part.nodata, strict=True):
        if value is not None and math.isfinite(value):
            near = np.abs(band - band.dtype.type(value)) <= 1e-5 * abs(value)
            if not (band[near] == band.dtype.type(value)).all():
                return False
    return True


def _places(part: SourcePart, wanted: Window, plan: WarpPlan) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Coefficients ``(9, 9)`` of rows and columns in the part's pixels: places at every second point of the lattice. None where they do not tell all."""
    steps_yx = [(size - 1) / STEPS for size in wanted.shape_yx]
    corner = (wanted.col_off + 0.5 - steps_yx[1] / 2, wanted.row_off + 0.5 - steps_yx[0] / 2)
    # A raster of huge pixels whose values are their own places: between their centres bilinear interpolation is exact.
    size = max(*part.placed.shape_yx, COARSE) / COARSE
    shape_yx = tuple(math.ceil(pixels / size) + 2 * BEYOND for pixels in part.placed.shape_yx)
    rows, cols = ((np.arange(count) - BEYOND + 0.5) * size for count in shape_yx)
    ramp = np.stack(np.broadcast_arrays(rows[:, np.newaxis], cols[np.newaxis]))
    origin = (part.placed.col_off - BEYOND * size, part.placed.row_off - BEYOND * size)
    lattice = replace(
        plan,
        kernel="bilinear",
        scale_yx=(1.0, 1.0),
        source_transform=plan.source_transform @ Affine.translation(*origin) @ Affine.scale(size),
        source_shape_yx=(len(rows), len(cols)),
        target_transform=plan.target_transform @ Affine.translation(*corner) @ Affine.scale(steps_yx[1], steps_yx[0]),
        target_shape_yx=(STEPS + 1, STEPS + 1),
    )
    whole = Window(0, 0, len(rows), len(cols))
    source = SourcePart(pixels=ramp, placed=whole, nodata=(math.nan, math.nan))
    exact = warp(source, Window(0, 0, STEPS + 1, STEPS + 1), lattice, STEPS)
    if not np.isfinite(exact).all():
        return None
    weights = _weights(STEPS + 1)
    known = exact[:, ::2, ::2]
    if np.abs(weights @ known @ weights.T - exact).max() > MEASURED_PIXELS:
        return None
    return known[0], known[1]


def _weights(count: int) -> NDArray[np.float64]:
    """``(count, 9)``: what each of 9 values at even distances gives to a polynomial through them, at ``count`` even distances over the same length."""
    nodes = np.arange(STEPS // 2 + 1, dtype=float)
    points = np.linspace(0.0, STEPS // 2, count)
    weights = np.ones((count, len(nodes)))
    for node in range(len(nodes)):
        for other in range(len(nodes)):
            if other != node:
                weights[:, node] *= (points - nodes[other]) / (nodes[node] - nodes[other])
    return weights


def _picked(
    part: SourcePart, wanted: Window, rows: NDArray[Any], cols: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The window, and row and column ``(n, 2)`` of the pixels whose place is too near a border to be sure."""
    pixels = part.pixels
    bands, height, width = pixels.shape
    flat = np.ascontiguousarray(pixels).reshape(bands, -1)
    fills = [value if value is not None and fits(value, pixels.dtype) else 0 for value in part.nodata]
    result = np.empty((bands, *wanted.shape_yx), pixels.dtype)
    down, across = _weights(wanted.height), _weights(wanted.width).T
    at_row, at_col = rows @ across, cols @ across
    step = max(STRIP_PIXELS // wanted.width, 1)
    doubtful = []
    for top in range(0, wanted.height, step):
        strip = slice(top, min(top + step, wanted.height))
        y, x = down[strip] @ at_row, down[strip] @ at_col
        whole_y, whole_x = np.floor(y + GDAL_SHIFT_PIXELS), np.floor(x + GDAL_SHIFT_PIXELS)
        places = np.argwhere(_near_border(y, whole_y) | _near_border(x, whole_x))
        if len(places):
            doubtful.append(places + np.array((top, 0)))
        outside = (whole_y < 0) | (whole_y >= height) | (whole_x < 0) | (whole_x >= width)
        whole_y *= width
        whole_y += whole_x
        some = bool(outside.any())
        if some:
            whole_y[outside] = 0
        index = whole_y.astype(np.intp)
        for band in range(bands):
            np.take(flat[band], index, out=result[band, strip], mode="clip")
            if some:
                result[band, strip][outside] = fills[band]
    return result, np.concatenate(doubtful) if doubtful else np.empty((0, 2), np.intp)


def _near_border(places: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.bool_]:
    """Where places are so near a whole number that another digit may tell otherwise; overwrites ``places``."""
    places -= whole
    places -= 0.5
    np.abs(places, out=places)
    near: NDArray[np.bool_] = places > 0.5 - BORDER_PIXELS
    return near
