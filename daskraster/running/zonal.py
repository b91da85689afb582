"""Statistics of zones: each block gives partial results, which merge as they come; nothing else is held.

Results are merged in the order of the blocks, row by row, in a tree of equal parts, so that rounding is the same on every engine and merging
costs little however many zones there are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from daskraster.blocks.zones import ZoneStatistics, zone_statistics
from daskraster.errors import OptionError, RasterArrayError
from daskraster.formats import choosing
from daskraster.formats.polygons import OUTSIDE, Polygons, polygons_on
from daskraster.grid import Window
from daskraster.lazy.arrays import Raster, as_raster
from daskraster.lazy.broadcasting import shared
from daskraster.lazy.neighbourhood import check_same_grid
from daskraster.lazy.sources import BlockWindows, source_array
from daskraster.metadata import Number
from daskraster.running.engines import on_every_process, run
from daskraster.running.progress import Progress
from daskraster.timing import stage

COLUMNS = ("count", "min", "max", "mean", "stddev", "sum")


def zonal_statistics(
    values: xr.DataArray, zones: Any, *, column: str | None = None, progress: bool = True
) -> pd.DataFrame:
    """Statistics of a raster's pixels in each zone, in one pass over the blocks.

    Parameters
    ----------
    values
        ``(band, y, x)`` or ``(y, x)``, integers or floats. Nodata, NaN and infinities are left out, in each band by itself.
    zones
        A raster of integers of one band on the grid of ``values``, whose values are the zones and whose nodata is no zone; or polygons: a path of a
        vector file, a GeoDataFrame or a GeoSeries (with the extra ``vector``). Polygons in another CRS are reprojected. A pixel belongs to a
        polygon in which its centre lies; polygons that overlap count it each for itself; polygons of one name are one zone.
    column
        Of polygons: whose values name the zones; None: the index.
    progress
        One progress line on a terminal, a widget in Jupyter, elsewhere a line a minute through `logging`, as in `write_raster`.

    Returns
    -------
    pandas.DataFrame
        Index ``zone``, rising: every zone of a raster, every polygon. Columns ``count``, ``min``, ``max``, ``mean``, ``stddev`` (of
        the population), ``sum``; of several bands a MultiIndex ``(band, statistic)``, bands numbered as in ``values``: ``table[2]["mean"]``.
        Of integers ``min``, ``max`` and ``sum`` are exact integers (Python's where 64 bits do not hold them), mean and stddev rounded
        once. Of floats all are float64. A zone without a valid pixel has ``count`` 0, ``sum`` 0 and NaN in all other columns; ``min`` and ``max`` are floats then.

    Notes
    -----
    Memory depends on the block size and the number of zones, not on the raster. Of floats the last digit of mean, stddev and sum may
    depend on the block size, never on the engine.

    Raises
    ------
    RasterArrayError, OptionError
        No raster; zones that are no integers, of several bands; a column that is not there; geopandas is missing.
    GridMismatchError
        Values and zones lie on different grids.
    RasterNotFoundError, RasterFormatError
        A vector file that is missing, cannot be read, or holds no polygons.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = xr.DataArray(np.array([[[1, 2, 3], [4, 5, 6]]]), dims=("band", "y", "x"))
    >>> zones = xr.DataArray(np.array([[[7, 7, 9], [7, 9, 9]]]), dims=("band", "y", "x"))
    >>> table = zonal_statistics(image, zones)
    >>> table["sum"].to_dict(), table["max"].to_dict()
    ({7: 7, 9: 14}, {7: 4, 9: 6})
    """
    checked = as_raster(values, "the values of zonal_statistics")
    if checked.data.dtype.kind not in "biuf":
        raise OptionError(f"zonal_statistics works on numbers, {checked.name} has dtype {checked.data.dtype}")
    if isinstance(zones, xr.DataArray):
        if column is not None:
            raise OptionError(f"column={column!r} goes with polygons, not with a raster of zones")
        partials = _of_raster(checked, _zone_raster(zones, checked))
        return _table(_gathered(partials, progress=progress), checked, None)
    if not isinstance(zones, str | os.PathLike) and not hasattr(zones, "geometry"):
        raise OptionError(
            f"zones= is a {type(zones).__name__}; it must be a raster of integers, the path of a vector file, or a GeoDataFrame"
        )
    polygons = polygons_on(zones, checked.grid, column)
    partials = _of_polygons(checked, polygons)
    return _table(_gathered(partials, progress=progress), checked, polygons)


def _zone_raster(zones: xr.DataArray, values: Raster) -> Raster:
    raster = as_raster(zones, "the zones")
    if raster.data.dtype.kind not in "biu":
        raise RasterArrayError(
            f"{raster.name} has dtype {raster.data.dtype}; zones are integers: open them without masked=True, or convert with .astype"
        )
    if raster.data.shape[0] != 1:
        raise RasterArrayError(
            f"{raster.name} has {raster.data.shape[0]} bands; zones have one: choose it, as in zones.sel(band=[1])"
        )
    check_same_grid([values, raster])
    return raster


def _in_blocks(values: Raster, zones: Raster | None) -> tuple[da.Array, da.Array | None]:
    """Both in the same blocks, all bands in one: those of what is no plain file, where there is one."""
    leading = values if values.view is None or zones is None or zones.view is not None else zones
    chunks_yx = (leading.data.chunks[1], leading.data.chunks[2])

    def in_blocks(raster: Raster) -> da.Array:
        if raster.view is not None:
            return source_array(raster.view, chunks_yx)
        return raster.data.rechunk((-1, *chunks_yx))

    return in_blocks(values), None if zones is None else in_blocks(zones)


def _of_raster(values: Raster, zones: Raster) -> da.Array:
    pixels, of_pixels = _in_blocks(values, zones)
    step = _RasterZones(nodata=values.nodata, no_zone=zones.nodata[0])
    return _partials(step, pixels, of_pixels)


def _of_polygons(values: Raster, polygons: Polygons) -> da.Array:
    pixels, _ = _in_blocks(values, None)
    windows = BlockWindows((pixels.chunks[1], pixels.chunks[2]), (0, 0), Window(0, 0, *values.grid.shape_yx))
    return _partials(_PolygonZones(nodata=values.nodata, windows=windows), pixels, shared(polygons, "polygons"))


def _partials(step: Any, pixels: da.Array, zones: Any) -> da.Array:
    ones = ((1,), *((1,) * count for count in pixels.numblocks[1:]))
    return da.map_blocks(
        step,
        pixels,
        zones,
        chunks=ones,
        dtype=object,
        meta=np.empty((0, 0, 0), dtype=object),
        name=f"zonal-{tokenize(step, pixels.name, getattr(zones, 'name', getattr(zones, 'key', None)))}",
    )


type _Bands = tuple[ZoneStatistics, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _RasterZones:
    """Pixels and zones of a block -> statistics of each band."""

    nodata: tuple[Number | None, ...]
    no_zone: Number | None

    def __call__(self, block: NDArray[Any], zones: NDArray[Any], *, block_id: tuple[int, int, int]) -> _Partial:
        with stage("statistics"):
            found = tuple(
                zone_statistics(values, zones[0], nodata, self.no_zone)
                for values, nodata in zip(block, self.nodata, strict=True)
            )
        return _Partial(block_id, found, block.nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PolygonZones:
    """Pixels of a block, and all polygons -> statistics of each band; zones are numbers of polygons, from 1."""

    nodata: tuple[Number | None, ...]
    windows: BlockWindows

    def __call__(self, block: NDArray[Any], polygons: Polygons, *, block_id: tuple[int, int, int]) -> _Partial:
        window = self.windows.core(block_id[1], block_id[2])
        found: _Bands | None = None
        with stage("statistics"):
            for layer in range(max(polygons.layer_count, 1)):
                burnt = polygons.burn(window, layer)
                bands = tuple(
                    zone_statistics(values, burnt, nodata, OUTSIDE)
                    for values, nodata in zip(block, self.nodata, strict=True)
                )
                found = bands if found is None else _merged(found, bands)
        assert found is not None
        return _Partial(block_id, found, block.nbytes)


@dataclass(frozen=True, slots=True)
class _Partial:
    """What one block gave."""

    block: tuple[int, ...]
    bands: _Bands
    nbytes: int
    """Of the block's pixels."""


def _merged(one: _Bands, two: _Bands) -> _Bands:
    return tuple(first.merge(second) for first, second in zip(one, two, strict=True))


class _InOrder:
    """Merges the results of blocks in their order, whatever the order they come in."""

    def __init__(self, blocks_yx: tuple[int, int]) -> None:
        self._cols = blocks_yx[1]
        self._next = 0
        self._waiting: dict[int, _Bands] = {}
        self._merged: list[tuple[int, _Bands]] = []
        """Number of blocks, and what they gave; each fewer than the one before."""

    def add(self, partial: _Partial) -> None:
        """Take up one block."""
        self._waiting[partial.block[1] * self._cols + partial.block[2]] = partial.bands
        while self._next in self._waiting:
            size, bands = 1, self._waiting.pop(self._next)
            while self._merged and self._merged[-1][0] == size:
                bands = _merged(self._merged.pop()[1], bands)
                size *= 2
            self._merged.append((size, bands))
            self._next += 1

    def finish(self) -> _Bands:
        """All blocks."""
        bands = self._merged.pop()[1]
        while self._merged:
            bands = _merged(self._merged.pop()[1], bands)
        return bands


def _gathered(partials: da.Array, *, progress: bool) -> _Bands:
    gathering = _InOrder((partials.numblocks[1], partials.numblocks[2]))
    with Progress("zonal statistics", partials.npartitions, wanted=progress) as line:

        def on_partial(_: int, partial: Any) -> None:
            gathering.add(partial)
            line.add(partial.nbytes)

        try:
            run([partials], on_partial)
        finally:
            on_every_process(choosing.release)
    return gathering.finish()


def _table(bands: _Bands, values: Raster, polygons: Polygons | None) -> pd.DataFrame:
    tables = [_of_band(one, polygons) for one in bands]
    if len(tables) == 1:
        return tables[0]
    return pd.concat(tables, axis=1, keys=_band_numbers(values), names=["band", None])


def _of_band(found: ZoneStatistics, polygons: Polygons | None) -> pd.DataFrame:
    if polygons is None:
        return pd.DataFrame(found.finish(), index=pd.Index(found.zones, name="zone"), columns=list(COLUMNS))
    # Every polygon has its row; those of one name are one zone.
    names, of_polygon = np.unique(polygons.zones, return_inverse=True)
    named = found.renamed(of_polygon[found.zones - 1], len(names))
    return pd.DataFrame(named.finish(), index=pd.Index(names, name="zone"), columns=list(COLUMNS))


def _band_numbers(values: Raster) -> list[Any]:
    count = values.data.shape[0]
    # One number for all where bands are of another dimension, as of scenes that were put together along time.
    labels = (
        np.atleast_1d(values.array.coords["band"].values) if "band" in values.array.coords else np.arange(1, count + 1)
    )
    return labels.tolist() if len(set(labels.tolist())) == count else list(range(1, count + 1))
