"""Vector polygons as a raster of zones, block by block.

Polygons that overlap go on layers of their own, so that each is counted whole: on a layer no two share ground. A polygon takes the pixels
whose centres lie in it, as GDAL and rasterstats have it. Everything is put into pixels of the whole raster once, so that a block only shifts
by whole pixels and the same centres fall inside whatever the blocks.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.features
from affine import Affine
from numpy.typing import NDArray

from daskraster.errors import OptionError, RasterFormatError, RasterNotFoundError
from daskraster.formats.gdal_handles import is_local, quiet_gdal
from daskraster.grid import Grid, Window
from daskraster.hints import missing_file

OUTSIDE = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Polygons:
    """Polygons in pixels of one raster, on layers; picklable."""

    geometries: NDArray[np.object_]
    """shapely geometries, in (column, row)."""
    bounds: NDArray[np.float64]
    """``(n, 4)``: first column and row, last column and row."""
    layers: NDArray[np.int64]
    """The layer of each, from 0."""
    zones: NDArray[Any]
    """What each is called: the value of its column, or its index."""

    @property
    def layer_count(self) -> int:
        """Number of layers; 1 where no two polygons overlap."""
        return int(self.layers.max(initial=-1)) + 1

    def burn(self, window: Window, layer: int) -> NDArray[np.int32]:
        """Number of the polygon of each pixel ``(y, x)`` of a window, from 1; `OUTSIDE` where there is none."""
        left, top, right, bottom = self.bounds.T
        near = (left < window.col_stop) & (right > window.col_off) & (top < window.row_stop) & (bottom > window.row_off)
        chosen = np.flatnonzero(near & (self.layers == layer))
        if not chosen.size:
            return np.full(window.shape_yx, OUTSIDE, np.int32)
        # rasterio silences a warning of its own on the way, process-wide: one thread at a time.
        with quiet_gdal():
            burnt: NDArray[np.int32] = rasterio.features.rasterize(
                [(self.geometries[number], number + 1) for number in chosen.tolist()],
                out_shape=window.shape_yx,
                fill=OUTSIDE,
                transform=Affine.translation(window.col_off, window.row_off),
                dtype=np.int32,
            )
        return burnt


def polygons_on(vector: Any, grid: Grid, column: str | None) -> Polygons:
    """Polygons of a file or GeoDataFrame on the grid of a raster.

    Parameters
    ----------
    vector
        A path of any format that pyogrio reads, a GeoDataFrame or a GeoSeries.
    grid
        Of the raster; polygons in another CRS are reprojected, vertex by vertex.
    column
        Whose values name the zones; None: the index.

    Raises
    ------
    OptionError
        geopandas is missing; there is no such column; names are missing; one of vector and raster has a CRS and the other has not.
    RasterNotFoundError, RasterFormatError
        There is no such file; it cannot be read, or holds something else than polygons.
    """
    geopandas, shapely = _library("geopandas"), _library("shapely")
    frame = _read(geopandas, vector) if isinstance(vector, str | os.PathLike) else vector
    name = os.fspath(vector) if isinstance(vector, str | os.PathLike) else "the zones"
    zones = _zones(frame, column, name)
    series = frame.geometry
    if (series.crs is None) != (grid.crs is None):
        without = name if series.crs is None else "the raster"
        raise OptionError(f"{without} has no CRS, so the zones cannot be placed; set it with set_crs or .rio.write_crs")
    if series.crs is not None and series.crs != grid.crs:
        series = series.to_crs(grid.crs)
    geometries = np.asarray(series.array)
    filled = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    geometries, zones = geometries[filled], zones[filled]
    kinds = set(shapely.get_type_id(geometries).tolist()) - {3, 6}  # Polygon, MultiPolygon
    if kinds:
        raise RasterFormatError(f"{name} holds {series.geom_type[filled].unique().tolist()}; zones are polygons")
    to_pixels = ~grid.transform
    geometries = shapely.transform(
        geometries, lambda points: np.stack(to_pixels @ (points[:, 0], points[:, 1]), axis=1)
    )
    return Polygons(
        geometries=geometries,
        bounds=shapely.bounds(geometries).reshape(-1, 4),
        layers=_layers(shapely, geometries),
        zones=zones,
    )


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OptionError(
            f"vector zones need {name}, which is not installed; it comes with daskraster[vector]: pip install 'daskraster[vector]'"
        ) from error


def _read(geopandas: Any, path: str | os.PathLike[str]) -> Any:
    name = os.fspath(path)
    if is_local(name) and not os.path.exists(name):  # noqa: PTH110 - may be no path at all
        raise RasterNotFoundError(missing_file(name))
    try:
        return geopandas.read_file(name, engine="pyogrio")
    except (RuntimeError, ValueError) as error:  # pyogrio's errors are RuntimeErrors
        raise RasterFormatError(f"{name} cannot be read as a vector file: {error}") from error


def _zones(frame: Any, column: str | None, name: str) -> NDArray[Any]:
    if column is None:
        return np.asarray(frame.index)
    if column not in getattr(frame, "columns", ()):
        raise OptionError(
            f"column={column!r}: {name} has the columns {', '.join(map(str, getattr(frame, 'columns', ())))}"
        )
    if frame[column].isna().any():
        raise OptionError(
            f"column={column!r}: {int(frame[column].isna().sum())} polygons of {name} have no value there"
        )
    return np.asarray(frame[column])


def _layers(shapely: Any, geometries: Sequence[Any]) -> NDArray[np.int64]:
    """The first layer on which each polygon overlaps none of those before it."""
    tree = shapely.STRtree(geometries)
    one, other = tree.query(geometries, predicate="intersects")
    before = other < one
    one, other = one[before], other[before]
    touches = shapely.touches(tree.geometries[one], tree.geometries[other])
    one, other = one[~touches], other[~touches]
    layers = np.zeros(len(geometries), np.int64)
    order = np.argsort(one, kind="stable")
    one, other = one[order], other[order]
    firsts = np.concatenate(([0], np.flatnonzero(one[1:] != one[:-1]) + 1)) if one.size else np.empty(0, np.int64)
    for start, stop in zip(firsts, np.append(firsts[1:], one.size)[: firsts.size], strict=True):
        taken = set(layers[other[start:stop]].tolist())
        layers[one[start]] = next(layer for layer in range(len(taken) + 1) if layer not in taken)
    return layers
