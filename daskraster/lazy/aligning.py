"""Rasters brought to one grid.

Strategy. The first raster, or ``like=``, gives CRS, pixel size and origin: an endless lattice of pixels, of which ``extent`` cuts a rectangle.
A raster that lies on this lattice already is moved by whole pixels; any other is warped. Either way it becomes a `WarpedSource` behind
one layer of the graph, so that a later `apply` reads it with its halo in the same task. The source reaches as far as any of the rasters
does, the array is a window of it: a halo with ``boundary="source"`` sees real pixels beyond the edge of an intersection.

A raster whose pixels are computed has no source. There each block of the result depends on the blocks its footprint touches, and the same
step makes the same pixels of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack, overload

import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from daskraster.errors import OptionError, RasterArrayError
from daskraster.formats.gdalwarp import warps
from daskraster.formats.warped import Nodata, Regrid, Warp, WarpedSource
from daskraster.grid import Grid, Window
from daskraster.lazy.arrays import Raster, as_raster, encoded_nodata, metadata_of, new_array
from daskraster.lazy.chunking import ChunksYX, auto_chunks, starts
from daskraster.lazy.gridding import (
    EXTENTS,
    TargetGrid,
    check_kernel,
    check_placed,
    regrid_for,
    target_grid,
    warn_of_invention,
)
from daskraster.lazy.opening import open_raster
from daskraster.lazy.sources import BlockWindows, SourceView, source_array
from daskraster.timing import stage


class AlignKeywords(TypedDict, total=False):
    """Keywords of `align`."""

    like: xr.DataArray | Grid | str | os.PathLike[str] | None
    extent: str
    resampling: str | Sequence[str]


@overload
def align(raster: xr.DataArray, /, **arguments: Unpack[AlignKeywords]) -> xr.DataArray: ...
@overload
def align(
    first: xr.DataArray, second: xr.DataArray, /, *others: xr.DataArray, **arguments: Unpack[AlignKeywords]
) -> tuple[xr.DataArray, ...]: ...
@overload
def align(*rasters: xr.DataArray, **arguments: Unpack[AlignKeywords]) -> xr.DataArray | tuple[xr.DataArray, ...]: ...
def align(
    *rasters: xr.DataArray,
    like: xr.DataArray | Grid | str | os.PathLike[str] | None = None,
    extent: str = "intersection",
    resampling: str | Sequence[str] = "nearest",
) -> xr.DataArray | tuple[xr.DataArray, ...]:
    """Rasters of other CRS, pixel size or offset on one grid; lazy.

    The result is that of ``gdalwarp -et 0`` on the whole raster (GDAL's warper with each pixel transformed exactly), whatever the blocks. A raster
    that lies on the grid's lattice already (same CRS and pixel size, offset within 0.01 pixel of whole pixels) is not warped: its pixels are
    moved, bit for bit.

    Where the grid is coarser than the raster, GDAL widens the kernel by XSCALE and YSCALE, which it takes from the extent at hand. Here they are
    fixed once, from the pixel sizes in the middle of the grid. To compare with gdalwarp where they are below 0.95, give it the same by
    ``-wo XSCALE=.. -wo YSCALE=..``.

    Parameters
    ----------
    *rasters
        DataArrays with CRS and transform; files, or computed, or NumPy. Rotated and south-up grids are possible.
    like
        What gives CRS, pixel size and origin: a DataArray, a `Grid`, the path of a raster. None: the first raster.
    extent
        ``"intersection"``: the pixels of the grid that lie wholly within every raster's bounding box and within ``like``;
        ``"union"``: the pixels that touch any of them; ``"like"``: exactly the grid of ``like`` (of the first raster without it).
    resampling
        One name, or one for each raster: nearest, bilinear, cubic, cubic_spline, lanczos, average, mode, min, max, med, q1, q3, sum, rms, as
        GDAL means them. For classes use nearest or mode.

    Returns
    -------
    xarray.DataArray for one raster, else a tuple of them in the order given
        ``(band, y, x)`` on one grid, each in its own dtype with its own names, nodata, scale and tags. Where a raster has no pixels its nodata
        stands (NaN where it is masked), 0 where it has none. Nodata takes no part in interpolation, band by band. Nothing is read
        until they are computed; a block of the result reads the pixels its kernel looks at, at most 64 MiB at once.

    Raises
    ------
    GridMismatchError
        The rasters have no pixel in common (``"intersection"``), or cannot be placed on the grid.
    RasterArrayError
        A raster has no CRS or no transform, or a dtype GDAL does not warp.
    OptionError
        ``like``, ``extent`` or ``resampling`` is not known.

    Warns
    -----
    DaskRasterWarning
        The grid goes beyond a raster that has no nodata value: its pixels are 0 there.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> def raster(size, step):
    ...     centres = step * (np.arange(size) + 0.5)
    ...     pixels = np.arange(size * size).reshape(1, size, size)
    ...     array = xr.DataArray(pixels, dims=("band", "y", "x"), coords={"y": 60 - centres, "x": centres})
    ...     return array.rio.write_crs("EPSG:32631")
    >>> fine, coarse = align(raster(6, 10.0), raster(2, 30.0))
    >>> coarse.values[0, 0]
    array([0, 0, 0, 1, 1, 1])
    """
    if not rasters:
        raise OptionError("align needs at least one raster, as in align(image, like=elevation)")
    if extent not in EXTENTS:
        raise OptionError(f"extent={extent!r} is not known; possible are {', '.join(EXTENTS)}")
    inputs = [as_raster(raster, f"raster {number} of align") for number, raster in enumerate(rasters, 1)]
    kernels = _kernels(resampling, inputs)
    for raster in inputs:
        check_placed(raster.grid, raster.name, has_transform=raster.has_transform)
    lattice = inputs[0].grid if like is None else _grid_like(like)
    target = target_grid(
        lattice, [(raster.name, raster.grid) for raster in inputs], extent, like_given=like is not None
    )
    aligned = tuple(_aligned(raster, target, kernel) for raster, kernel in zip(inputs, kernels, strict=True))
    return aligned if len(aligned) > 1 else aligned[0]


def _kernels(resampling: Any, inputs: Sequence[Raster]) -> list[str]:
    from_user = [resampling] * len(inputs) if isinstance(resampling, str) else resampling
    if not isinstance(from_user, list | tuple) or len(from_user) != len(inputs):
        raise OptionError(f"resampling={resampling!r} must be one name, or one for each of {len(inputs)} rasters")
    return [check_kernel(name) for name in from_user]


def _grid_like(like: Any) -> Grid:
    if isinstance(like, Grid):
        check_placed(like, "the grid given as like=", has_transform=not like.transform.is_identity)
        return like
    if isinstance(like, str | os.PathLike):
        like = open_raster(like)
    if not isinstance(like, xr.DataArray):
        raise OptionError(f"like= must be a DataArray, a Grid or the path of a raster, got {type(like).__name__}")
    raster = as_raster(like, "the raster given as like=")
    check_placed(raster.grid, raster.name, has_transform=raster.has_transform)
    return raster.grid


def _aligned(raster: Raster, target: TargetGrid, kernel: str) -> xr.DataArray:
    regrid = regrid_for(raster.grid, target, kernel)
    nodata = raster.nodata
    dtype = raster.data.dtype
    if isinstance(regrid, Warp) and not warps(dtype):
        raise RasterArrayError(
            f"{raster.name} has dtype {dtype}, which GDAL does not warp; convert it first, as in array.astype('uint8')"
        )
    warn_of_invention(raster.name, regrid, target, nodata)
    shape = (raster.data.shape[0], *target.grid.shape_yx)
    own = raster.grid.difference(target.grid) is None
    _, rows, cols = raster.data.chunks
    chunks_yx = (rows, cols) if own else auto_chunks(shape, dtype, (1, 1))
    if raster.view is None:
        data = _from_blocks(raster.data, regrid, target, chunks_yx, nodata)
    else:
        outer = (shape[0], *target.outer.shape_yx)
        view = raster.view
        source = WarpedSource(
            source=view.source, bands=view.bands, part_window=view.window, regrid=regrid, shape=outer, nodata=nodata
        )
        bands = tuple(range(1, shape[0] + 1))
        data = source_array(SourceView(source, bands, target.inner), chunks_yx)
    return _described(data, raster, target.grid)


def _described(data: da.Array, raster: Raster, grid: Grid) -> xr.DataArray:
    """The result with everything the raster says of itself but where it lies; control points lie elsewhere now."""
    metadata = replace(metadata_of(raster), grid=grid, has_transform=True, gcps=(), gcp_wkt="")
    bands = np.arange(1, data.shape[0] + 1)
    if "band" in raster.array.coords:
        labels = np.atleast_1d(raster.array.coords["band"].values)
        # One number for all where bands are of another dimension, as of scenes that were put together along time.
        bands = labels if labels.dtype.kind in "iu" and len(labels) == len(bands) else bands
    masked = encoded_nodata(raster.array) is not None
    return new_array(
        data,
        metadata,
        masked=masked,
        bands=bands.tolist(),
        name=None if raster.array.name is None else str(raster.array.name),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeBlock:
    """Step of a layer that makes blocks of the target from blocks of an array."""

    regrid: Regrid
    chunks_yx: ChunksYX
    """Of the array."""
    nodata: Nodata
    dtype: np.dtype[Any]

    def blocks_of(self, window: Window) -> list[tuple[int, int]]:
        """Row and column of each block of the array that a window of the target is made of."""
        found: set[tuple[int, int]] = set()
        for part in self.regrid.needs(window, pixel_nbytes=len(self.nodata) * self.dtype.itemsize):
            rows, cols = (
                np.flatnonzero((np.array(starts(sizes)) < start + size) & (np.cumsum(sizes) > start))
                for sizes, start, size in zip(self.chunks_yx, (part.row_off, part.col_off), part.shape_yx, strict=True)
            )
            found |= {(int(row), int(col)) for row in rows for col in cols}
        return sorted(found)

    def __call__(
        self, window: Window, places: Sequence[tuple[int, int]], blocks: Sequence[NDArray[Any]]
    ) -> NDArray[Any]:
        """The pixels of a window of the target."""
        windows = BlockWindows(self.chunks_yx, (0, 0), Window(0, 0, *map(sum, self.chunks_yx)))
        placed = [(windows.core(*place), block) for place, block in zip(places, blocks, strict=True)]

        def read(part: Window) -> NDArray[Any]:
            result = np.empty((len(self.nodata), *part.shape_yx), self.dtype)
            for core, block in placed:
                common = core.clip(part)
                if common.height and common.width:
                    result[(slice(None), *common.relative_to(part).slices)] = block[
                        (slice(None), *common.relative_to(core).slices)
                    ]
            return result

        with stage("function"):
            return self.regrid.made(window, read, self.dtype, self.nodata)


def _from_blocks(data: da.Array, regrid: Regrid, target: TargetGrid, chunks_yx: ChunksYX, nodata: Nodata) -> da.Array:
    """The raster on the target where its pixels are computed: each block from the blocks that its footprint touches."""
    data = data.rechunk({0: -1})
    _, rows, cols = data.chunks
    step = MakeBlock(regrid=regrid, chunks_yx=(rows, cols), nodata=nodata, dtype=data.dtype)
    name = f"align-{tokenize(data.name, repr(step), target, chunks_yx)}"
    windows = BlockWindows(chunks_yx, (0, 0), Window(0, 0, *target.grid.shape_yx))
    inner = target.inner
    layer: dict[Any, Any] = {}
    for row in range(len(chunks_yx[0])):
        for col in range(len(chunks_yx[1])):
            window = windows.core(row, col).shift(inner.row_off, inner.col_off)
            places = step.blocks_of(window)
            key = (name, 0, row, col)
            parts = List(*(TaskRef((data.name, 0, *place)) for place in places))
            layer[key] = Task(key, step, window, places, parts)
    parents: list[Any] = [data]
    graph = HighLevelGraph.from_collections(name, layer, dependencies=parents)
    meta = np.empty((0, 0, 0), dtype=data.dtype)
    return da.Array(graph, name, chunks=((data.shape[0],), *chunks_yx), meta=meta)
