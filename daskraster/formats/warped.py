"""A raster on another grid, as a Source: shifted by whole pixels, or warped.

Any source can be put on another grid, not files alone: its windows are read as always, and GDAL's warper gets them as arrays. A window
of the target asks for as much of the source as the kernel looks at; where that is much (strong reduction, the antimeridian, a pole) the window
is cut, so that at most `PIECE_NBYTES` of the source are in memory at once, as long as more than one pixel is asked for.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.enums import TransformDirection

from daskraster.errors import RasterReadError
from daskraster.formats.gdalwarp import KERNELS, SourcePart, WarpPlan, fits, warp
from daskraster.formats.picking import nearest
from daskraster.formats.protocols import Narrowing, Source, narrowed
from daskraster.grid import Grid, Window
from daskraster.metadata import Number

type ReadWindow = Callable[[Window], NDArray[Any]]

PIECE_NBYTES = 64 << 20
SAMPLES = 32  # steps along each side of a window at which the source's place is computed
MOST_BEND = 16.0  # source pixels by which a step may bend before the window is cut
SMALL = 32  # a window of at most so many pixels a side has a sample at each pixel's corner
MOST_EXTRA = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Onto the same lattice of pixels: a window moved by whole pixels, filled where the source does not reach."""

    row_off: int
    col_off: int
    """Row and column of the source under the target's upper left pixel."""
    source_shape_yx: tuple[int, int]

    def needs(self, window: Window, *, pixel_nbytes: int) -> list[Window]:
        """The windows of the source that a window of the target is made of."""
        part = self._part(window)
        return [part] if part.height and part.width else []

    def made(self, window: Window, read: ReadWindow, dtype: np.dtype[Any], nodata: Nodata) -> NDArray[Any]:
        """A window of the target ``(band, y, x)``, from what ``read`` gives of the source."""
        part = self._part(window)
        inside = bool(part.height and part.width)
        if inside and part.shape_yx == window.shape_yx:
            return read(part)
        result = filled(window, dtype, nodata)
        if inside:
            target = part.shift(-self.row_off, -self.col_off).relative_to(window)
            result[(slice(None), *target.slices)] = read(part)
        return result

    def _part(self, window: Window) -> Window:
        return window.shift(self.row_off, self.col_off).clip(Window(0, 0, *self.source_shape_yx))


type Nodata = tuple[Number | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warp:
    """Onto any grid, by GDAL's warper."""

    plan: WarpPlan
    core: Window
    """The grid that was asked for, in pixels of the target, which may reach beyond it for the sake of a halo."""
    core_transform: Affine
    """Its own transform: pixels inside it are those of a warp onto exactly that grid, to the last bit of a coordinate."""

    def needs(self, window: Window, *, pixel_nbytes: int) -> list[Window]:
        """The windows of the source that a window of the target is made of; see `Shift.needs`."""
        parts = [part for _, part, _ in self._pieces(window, pixel_nbytes)]
        return [part for part in parts if part.height and part.width]

    def made(self, window: Window, read: ReadWindow, dtype: np.dtype[Any], nodata: Nodata) -> NDArray[Any]:
        """A window of the target ``(band, y, x)``, from what ``read`` gives of the source.

        Raises
        ------
        RasterReadError
            GDAL cannot warp it; see `gdalwarp.warp`.
        """
        pieces = self._pieces(window, len(nodata) * dtype.itemsize)
        if len(pieces) == 1:
            return self._piece(pieces[0], read, dtype, nodata)
        result = np.empty((len(nodata), *window.shape_yx), dtype)
        for cut in pieces:
            result[(slice(None), *cut[0].relative_to(window).slices)] = self._piece(cut, read, dtype, nodata)
        return result

    def _piece(
        self, cut: tuple[Window, Window, int], read: ReadWindow, dtype: np.dtype[Any], nodata: Nodata
    ) -> NDArray[Any]:
        piece, needed, extra = cut
        if not (needed.height and needed.width):
            return filled(piece, dtype, nodata)
        plan = self.plan
        if piece.clip(self.core) == piece:
            plan = replace(plan, target_transform=self.core_transform, target_shape_yx=self.core.shape_yx)
            piece = piece.relative_to(self.core)
        make = nearest if plan.kernel == "nearest" else warp
        return make(SourcePart(pixels=read(needed), placed=needed, nodata=nodata), piece, plan, extra)

    def _pieces(self, window: Window, pixel_nbytes: int) -> list[tuple[Window, Window, int]]:
        """The window in pieces, each with the window of the source it needs and what the warper is to look at beyond its own estimate."""
        part, extra, smooth = self._needed(window)
        small = max(window.shape_yx) <= SMALL
        large = part.height * part.width * pixel_nbytes > PIECE_NBYTES
        if (smooth or small) and not (large and max(window.shape_yx) > 1):
            return [(window, part, extra)]
        return [piece for half in _halves(window) for piece in self._pieces(half, pixel_nbytes)]

    def _needed(self, window: Window) -> tuple[Window, int, bool]:
        """The source's window, the warper's extra pixels, and whether the samples tell all."""
        rows, cols = (
            np.linspace(start, start + size, min(size, SAMPLES) + 1)
            for start, size in zip((window.row_off, window.col_off), window.shape_yx, strict=True)
        )
        y, x = source_places(self.plan, rows, cols)
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.any():
            return Window(0, 0, 0, 0), 0, False
        # Between samples a curve leaves the chord by an eighth of its second difference, beyond the last one by less than a whole.
        bend = max(_bend(x), _bend(y))
        reach = [math.ceil(KERNELS[self.plan.kernel][1] / min(scale, 1.0)) + 2 for scale in self.plan.scale_yx]
        outer = self.plan.source_shape_yx
        spans = []
        for values, size, radius in zip((y[finite], x[finite]), outer, reach, strict=True):
            margin = radius + math.ceil(min(bend, float(size)))
            low, high = np.clip((values.min() - margin, values.max() + margin), 0, size)
            spans.append((math.floor(low), math.ceil(high)))
        (top, bottom), (left, right) = spans
        smooth = bool(finite.all()) and bend <= MOST_BEND
        return Window(top, left, bottom - top, right - left), min(max(reach) + math.ceil(bend), MOST_EXTRA), smooth


type Regrid = Shift | Warp


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpedSource:
    """A part of a source on another grid; see `daskraster.formats.protocols.Source`.

    Holds the description alone: no handle, no transformer. Each window is made by the thread that reads it.
    """

    source: Source
    bands: tuple[int, ...]
    """Those of the source that become bands 1, 2, .. here."""
    part_window: Window
    """What of the source counts; beyond it there is nothing, even if the source goes on."""
    regrid: Regrid
    shape: tuple[int, int, int]
    nodata: Nodata
    """One for each band; stands where the part does not reach, 0 where it is None."""

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    @property
    def dtype(self) -> np.dtype[Any]:
        """The source's."""
        return self.source.dtype

    @property
    def tile_yx(self) -> tuple[int, int]:
        """Windows are made to measure."""
        return 1, 1

    @property
    def token(self) -> str:
        """From everything the pixels depend on, the source's own token among it."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    @property
    def inner_sources(self) -> tuple[Source, ...]:
        """The one that is warped."""
        return (self.source,)

    def part(self, window: Window) -> WarpedSource:
        """The same, with as much of its source as ``window`` is made of; a file goes along whole, it is a path."""
        if not isinstance(self.source, Narrowing):
            return self
        needs = self.regrid.needs(window, pixel_nbytes=len(self.nodata) * self.dtype.itemsize)
        if not needs:
            needs = [Window(0, 0, 1, 1)]
        top, left = min(one.row_off for one in needs), min(one.col_off for one in needs)
        bottom, right = max(one.row_stop for one in needs), max(one.col_stop for one in needs)
        # A smaller window inside may be cut in other pieces, with other margins.
        grown = Window(top, left, bottom - top, right - left).grow((MOST_EXTRA, MOST_EXTRA))
        inside = grown.shift(self.part_window.row_off, self.part_window.col_off).clip(self.part_window)
        return replace(self, source=narrowed(self.source, inside))

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """Pixels ``(band, y, x)`` of a window; see `Source.read`.

        Raises
        ------
        RasterReadError
            The source cannot be read, or GDAL cannot warp it here.
        """
        numbers = tuple(self.bands[band - 1] for band in bands)
        nodata = tuple(self.nodata[band - 1] for band in bands)

        def read(part: Window) -> NDArray[Any]:
            return self.source.read(part.shift(self.part_window.row_off, self.part_window.col_off), numbers)

        try:
            return self.regrid.made(window, read, self.dtype, nodata)
        except RasterReadError as error:
            error.add_note(f"while {self.name} was brought to another grid, in {window} of that grid")
            raise


def source_places(plan: WarpPlan, rows: NDArray[Any], cols: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where a lattice of points of the target lies in the source: rows and columns ``(len(rows), len(cols))``, infinite where nowhere."""
    x, y = np.meshgrid(cols, rows)
    x, y = affine_points(plan.target_transform, x, y)
    if plan.source_wkt != plan.target_wkt:
        x, y = transformer(plan.source_wkt, plan.target_wkt).transform(x, y, direction=TransformDirection.INVERSE)
    with np.errstate(invalid="ignore"):
        x, y = affine_points(~plan.source_transform, x, y)
    return y, x


def transformer(source_wkt: str, target_wkt: str) -> pyproj.Transformer:
    """From one CRS to another, x before y; one for each thread."""
    return _transformer(source_wkt, target_wkt, threading.get_ident())


@lru_cache(maxsize=64)
def _transformer(source_wkt: str, target_wkt: str, thread: int) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(source_wkt), pyproj.CRS.from_wkt(target_wkt), always_xy=True)


def kernel_scale(plan: WarpPlan, window: Window) -> tuple[float, float]:
    """How many pixels of the target one of the source is, along the source's rows and columns, in the middle of a window of the target.

    The median over points that lie in the source; (1, 1) where there are none.
    """
    if plan.source_wkt == plan.target_wkt:
        step = ~plan.source_transform @ plan.target_transform
        return 1.0 / math.hypot(step.d, step.e), 1.0 / math.hypot(step.a, step.b)
    rows = np.linspace(window.row_off, window.row_stop, 34)[1:-1]
    cols = np.linspace(window.col_off, window.col_stop, 34)[1:-1]
    pairs = [np.stack((middle - 0.5, middle + 0.5), -1).ravel() for middle in (rows, cols)]
    y, x = source_places(plan, *pairs)
    inside = (y >= 0) & (y <= plan.source_shape_yx[0]) & (x >= 0) & (x <= plan.source_shape_yx[1])
    inside = inside[::2, ::2] & inside[1::2, 1::2]
    scales = []
    for values in (y, x):
        with np.errstate(invalid="ignore"):
            lengths = np.hypot(values[1::2, ::2] - values[::2, ::2], values[::2, 1::2] - values[::2, ::2])[inside]
        lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
        scales.append(1.0 / float(np.median(lengths)) if len(lengths) else 1.0)
    return scales[0], scales[1]


def area_of(grid: Grid) -> tuple[float, float, float, float] | None:
    """West, south, east, north of a grid in degrees; None where it has no such place."""
    if grid.crs is None:
        return None
    rows, cols = grid.shape_yx
    corners = [grid.transform @ corner for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    degrees = pyproj.Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True)
    bounds = degrees.transform_bounds(min(xs), min(ys), max(xs), max(ys))
    if not all(map(math.isfinite, bounds)):
        return None
    west, south, east, north = map(float, bounds)
    return (west, south, east, north) if west < east else None


def filled(window: Window, dtype: np.dtype[Any], nodata: Nodata) -> NDArray[Any]:
    """A window where nothing is."""
    result = np.zeros((len(nodata), *window.shape_yx), dtype)
    for band, value in enumerate(nodata):
        if value is not None and fits(value, dtype):
            result[band] = value
    return result


def affine_points(transform: Affine, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Points mapped, as arrays of any shape."""
    t = transform
    return t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f


def _bend(values: NDArray[Any]) -> float:
    """The largest second difference of neighbouring finite samples."""
    most = 0.0
    for axis in (0, 1):
        with np.errstate(invalid="ignore"):
            bends = np.abs(np.diff(values, 2, axis=axis))
        bends = bends[np.isfinite(bends)]
        most = max(most, float(bends.max(initial=0.0)))
    return most


def _halves(window: Window) -> tuple[Window, Window]:
    """A window cut across its longer side."""
    row, col, height, width = window.row_off, window.col_off, window.height, window.width
    if height >= width:
        half = height // 2
        return Window(row, col, half, width), Window(row + half, col, height - half, width)
    half = width // 2
    return Window(row, col, height, half), Window(row, col + half, height, width - half)
