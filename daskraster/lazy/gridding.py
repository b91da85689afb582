"""The one grid of several rasters, and how each comes onto it: computed from grids alone, no pixel is looked at."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine

from daskraster.errors import DaskRasterWarning, GridMismatchError, OptionError, RasterArrayError
from daskraster.formats.gdalwarp import KERNELS, WarpPlan
from daskraster.formats.warped import (
    Nodata,
    Regrid,
    Shift,
    Warp,
    affine_points,
    area_of,
    kernel_scale,
    source_places,
    transformer,
)
from daskraster.grid import CORNER_TOLERANCE_PIXELS, Grid, Window

EXTENTS = ("intersection", "union", "like")
EDGE_POINTS = 1024  # steps along each edge of a raster when its outline is transformed
INNER_POINTS = 64  # and inside it, where a pole may lie
# How far beyond the grid the sources of aligned arrays reach at most, for the sake of a halo.
MOST_HALO = 1 << 20
MOST_PIXELS = 2**31 - 1  # of a side: GDAL counts them in 32 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetGrid:
    """The grid of the aligned rasters."""

    grid: Grid
    outer: Window
    """How far real pixels of any of the rasters go, in pixels of ``grid``; holds the grid."""

    @property
    def inner(self) -> Window:
        """The grid in pixels of ``outer``."""
        return Window(-self.outer.row_off, -self.outer.col_off, *self.grid.shape_yx)


@dataclass(frozen=True, slots=True)
class _Box:
    """Edges in pixels of a lattice; may cut pixels."""

    top: float
    left: float
    bottom: float
    right: float

    def inside(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the pixels wholly inside, but for 0.01 pixel."""
        slack = CORNER_TOLERANCE_PIXELS
        low = (math.ceil(self.top - slack), math.ceil(self.left - slack))
        return *low, math.floor(self.bottom + slack), math.floor(self.right + slack)

    def around(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the pixels touched, but for 0.01 pixel."""
        slack = CORNER_TOLERANCE_PIXELS
        low = (math.floor(self.top + slack), math.floor(self.left + slack))
        return *low, math.ceil(self.bottom - slack), math.ceil(self.right - slack)


def check_kernel(name: object) -> str:
    """The name of a kernel.

    Raises
    ------
    OptionError
        GDAL does not warp by it.
    """
    if not isinstance(name, str) or name not in KERNELS:
        raise OptionError(f"resampling={name!r} is not known; possible are {', '.join(KERNELS)}")
    return name


def check_placed(grid: Grid, name: str, *, has_transform: bool) -> None:
    """Refuse what has no place on the Earth.

    Raises
    ------
    RasterArrayError
        No CRS, no transform, or one that maps pixels onto a line.
    """
    if grid.crs is None:
        raise RasterArrayError(
            f"{name} has no CRS, so it cannot be aligned; say which with array.rio.write_crs('EPSG:...')"
        )
    if not has_transform or grid.transform.is_identity:
        raise RasterArrayError(
            f"{name} has no transform, so it cannot be aligned; give it x and y coordinates, or array.rio.write_transform(...)"
        )
    if grid.transform.is_degenerate:
        raise RasterArrayError(f"the transform of {name} maps all pixels onto a line: {grid}")


def target_grid(lattice: Grid, rasters: Sequence[tuple[str, Grid]], extent: str, *, like_given: bool) -> TargetGrid:
    """The grid that rasters are brought to.

    Parameters
    ----------
    lattice
        Gives CRS, pixel size and origin; with ``extent="like"`` also the extent.
    rasters
        Name and grid of each.
    extent
        One of `EXTENTS`.
    like_given
        Whether the lattice's own extent counts beside those of the rasters.

    Raises
    ------
    GridMismatchError
        Nothing in common, or a raster that has no place in the lattice's CRS.
    """
    boxes = [(name, grid, _footprint(lattice, grid)) for name, grid in rasters]
    own = _Box(0.0, 0.0, *map(float, lattice.shape_yx))
    if extent == "like":
        window = Window(0, 0, *lattice.shape_yx)
    else:
        for name, grid, box in boxes:
            if box is None:
                raise GridMismatchError(
                    f"{name} has no place in the CRS of the grid:\n  {name}: {grid}\n  grid: {lattice}"
                )
        counted = [box for _, _, box in boxes if box is not None] + ([own] if like_given else [])
        window = _intersection(counted) if extent == "intersection" else _union(counted)
    if not (window.height > 0 and window.width > 0):
        described = "\n".join(f"  {name}: {grid}" for name, grid, _ in boxes)
        places = "\n".join(f"  {name}: {_extent_text(lattice, box)}" for name, _, box in boxes)
        like = f"\n  like: {_extent_text(lattice, own)}" if like_given else ""
        raise GridMismatchError(
            f"the rasters have no pixel in common; their extents in the CRS of the grid:\n{places}{like}\n{described}\n"
            "use extent='union' or extent='like', or other rasters"
        )
    _check_size(window, lattice)
    touched = [box for _, _, box in boxes if box is not None]
    outer = _union([*touched, _Box(*map(float, (window.row_off, window.col_off, window.row_stop, window.col_stop)))])
    outer = outer.clip(window.grow((MOST_HALO, MOST_HALO))).shift(-window.row_off, -window.col_off)
    return TargetGrid(grid=lattice.window_grid(window), outer=outer)


def _intersection(boxes: Sequence[_Box]) -> Window:
    tops, lefts, bottoms, rights = zip(*(box.inside() for box in boxes), strict=True)
    return Window(max(tops), max(lefts), min(bottoms) - max(tops), min(rights) - max(lefts))


def _union(boxes: Sequence[_Box]) -> Window:
    tops, lefts, bottoms, rights = zip(*(box.around() for box in boxes), strict=True)
    return Window(min(tops), min(lefts), max(bottoms) - min(tops), max(rights) - min(lefts))


def _check_size(window: Window, lattice: Grid) -> None:
    if max(window.shape_yx) > MOST_PIXELS - 2 * MOST_HALO:
        raise GridMismatchError(
            f"the common grid would have {window.width} x {window.height} pixels of the grid {lattice}; give like= a grid with extent='like'"
        )


def _footprint(lattice: Grid, grid: Grid) -> _Box | None:
    """The box around a raster in pixels of the lattice, from its outline and some points inside; None where nothing transforms."""
    rows, cols = grid.shape_yx
    if grid.crs == lattice.crs:
        x, y = np.array([0.0, cols, 0.0, cols]), np.array([0.0, 0.0, rows, rows])
    else:
        along, across = np.linspace(0.0, 1.0, EDGE_POINTS + 1), np.array([0.0, 1.0])
        inner = np.linspace(0.0, 1.0, INNER_POINTS + 1)
        lines = [np.meshgrid(along, across), np.meshgrid(across, along), np.meshgrid(inner, inner)]
        x = np.concatenate([part.ravel() for part, _ in lines]) * cols
        y = np.concatenate([part.ravel() for _, part in lines]) * rows
    x, y = affine_points(grid.transform, x, y)
    if grid.crs != lattice.crs:
        assert grid.crs is not None
        assert lattice.crs is not None
        x, y = transformer(grid.crs.to_wkt(), lattice.crs.to_wkt()).transform(x, y)
    finite = np.isfinite(x) & np.isfinite(y)
    if not finite.any():
        return None
    x, y = affine_points(~lattice.transform, np.asarray(x)[finite], np.asarray(y)[finite])
    return _Box(float(y.min()), float(x.min()), float(y.max()), float(x.max()))


def _extent_text(lattice: Grid, box: _Box | None) -> str:
    if box is None:
        return "no place in this CRS"
    corners = [lattice.transform @ corner for corner in ((box.left, box.top), (box.right, box.bottom))]
    (x0, x1), (y0, y1) = (sorted(values) for values in zip(*corners, strict=True))
    return f"x {x0:.10g} to {x1:.10g}, y {y0:.10g} to {y1:.10g}"


def regrid_for(grid: Grid, target: TargetGrid, kernel: str) -> Regrid:
    """How a raster comes onto the target: moved by whole pixels where it lies on the same lattice, else warped."""
    shift = _whole_pixels(grid, target)
    if shift is not None:
        return shift
    assert grid.crs is not None
    assert target.grid.crs is not None
    wkt = grid.crs.to_wkt()
    outer = target.grid.window_grid(target.outer)
    same = grid.crs == target.grid.crs
    plan = WarpPlan(
        source_wkt=wkt,
        source_transform=grid.transform,
        source_shape_yx=grid.shape_yx,
        target_wkt=wkt if same else target.grid.crs.to_wkt(),
        target_transform=outer.transform,
        target_shape_yx=outer.shape_yx,
        kernel=kernel,
        scale_yx=(1.0, 1.0),
        area_of_interest=None if same else area_of(grid),
    )
    scale_yx = kernel_scale(plan, target.inner)
    return Warp(plan=replace(plan, scale_yx=scale_yx), core=target.inner, core_transform=target.grid.transform)


def _whole_pixels(grid: Grid, target: TargetGrid) -> Shift | None:
    if grid.crs != target.grid.crs:
        return None
    step: Affine = ~target.grid.transform @ grid.transform
    col, row = round(step.c), round(step.f)
    rows, cols = grid.shape_yx
    for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows)):
        x, y = step @ corner
        if math.dist((x, y), (corner[0] + col, corner[1] + row)) > CORNER_TOLERANCE_PIXELS:
            return None
    return Shift(row_off=target.outer.row_off - row, col_off=target.outer.col_off - col, source_shape_yx=grid.shape_yx)


def warn_of_invention(name: str, regrid: Regrid, target: TargetGrid, nodata: Nodata) -> None:
    """Say so where pixels that a raster does not have will be 0, for want of a nodata value."""
    if all(value is not None for value in nodata) or not _reaches_beyond(regrid, target):
        return
    warnings.warn(
        f"{name} has no nodata value: where the grid goes beyond it, its pixels become 0; set one with array.rio.write_nodata(...) before align",
        DaskRasterWarning,
        stacklevel=4,
    )


def _reaches_beyond(regrid: Regrid, target: TargetGrid) -> bool:
    inner = target.inner
    if isinstance(regrid, Shift):
        moved = inner.shift(regrid.row_off, regrid.col_off)
        return moved.clip(Window(0, 0, *regrid.source_shape_yx)) != moved
    rows, cols = (
        np.linspace(start + 0.5, start + size - 0.5, min(size, INNER_POINTS))
        for start, size in zip((inner.row_off, inner.col_off), inner.shape_yx, strict=True)
    )
    y, x = source_places(regrid.plan, rows, cols)
    height, width = regrid.plan.source_shape_yx
    slack = CORNER_TOLERANCE_PIXELS
    inside = (y >= -slack) & (y <= height + slack) & (x >= -slack) & (x <= width + slack)
    return not bool(inside.all())
