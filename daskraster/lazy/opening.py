"""Files as lazy arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from daskraster.errors import OptionError
from daskraster.formats import choosing
from daskraster.grid import Window, tile_table
from daskraster.hints import near
from daskraster.lazy.arrays import as_raster, new_array
from daskraster.lazy.chunking import auto_chunks, check_chunks
from daskraster.lazy.headers import absolute
from daskraster.lazy.sources import SourceView, source_array


def open_raster(
    path: str | os.PathLike[str],
    *,
    chunks: Any = "auto",
    masked: bool = False,
    bands: int | str | Sequence[int | str] | None = None,
    overview_level: int | None = None,
) -> xr.DataArray:
    """A raster file as a lazy array; only its header is read.

    Parameters
    ----------
    path
        A file of any format GDAL reads: a path, a URL or ``/vsi`` name as rasterio takes them (``s3://``, ``zip://``), a VRT.
    chunks
        Block size in pixels. ``"auto"``: whole multiples of the file's tiles (full-width bands of rows where it has strips),
        about 8 MiB of pixels, all bands counted. Or an int, a pair ``(y, x)`` of ints or of tuples of sizes, a dict with ``y`` and
        ``x``, or a table of `tile_windows`, whose cores the blocks then are, whatever its overlap. All bands of a pixel are always in one block.
    masked
        True: pixels are floats (float32 for 8 and 16 bits, else float64), NaN where the file says nodata or masks them, and the file's nodata
        value moves to ``encoding["_FillValue"]``. False: pixels are what the file holds. A file with a mask of its own keeps it in a copy
        that is opened with True and written with ``mask=True`` and the file's ``dtype=``; pixels under the mask then are nodata, or 0.
    bands
        Numbers, from 1, or names of the bands wanted, in any order; None: all.
    overview_level
        0 for the first overview; None: the full resolution.

    Returns
    -------
    xarray.DataArray
        Dims ``(band, y, x)``, dask inside, in the file's dtype. Coordinates are pixel centres in units of the CRS (pixel numbers
        where the grid is rotated or there is none); ``.rio`` gives CRS, transform and nodata; ``long_name`` the band names;
        ``scale_factor``, ``add_offset`` and ``units`` are carried along, not applied; tags are attrs. Scale is never applied.

    Raises
    ------
    RasterNotFoundError
        There is no such file.
    RasterFormatError
        GDAL cannot read it, it holds subdatasets, or the bands wanted differ in dtype.
    OptionError
        A band, overview or chunk size that it cannot have.

    Examples
    --------
    >>> image = open_raster("in.tif", chunks=64)
    >>> image.shape, image.dtype, image.rio.crs.to_epsg()
    ((2, 100, 100), dtype('uint16'), 32630)
    >>> image.chunks
    ((2,), (64, 36), (64, 36))
    """
    name = absolute(path)
    wanted = _band_numbers(name, bands)
    source, metadata, numbers = choosing.describe(name, bands=wanted, masked=masked, overview_level=overview_level)
    shape = metadata.shape
    if isinstance(chunks, str):
        if chunks != "auto":
            raise OptionError(f"chunks={chunks!r} must be 'auto', a number, a pair (y, x), or a dict with y and x")
        chunks_yx = auto_chunks(shape, source.dtype, source.tile_yx)
    else:
        try:
            chunks_yx = check_chunks(chunks, shape[1:])
        except ValueError as error:
            raise OptionError(f"{path}: {error}") from error
    view = SourceView(source, numbers, Window(0, 0, *shape[1:]))
    return new_array(
        source_array(view, chunks_yx), metadata, masked=masked, bands=numbers, name=Path(source.name).stem or None
    )


def _band_numbers(path: str, bands: Any) -> tuple[int, ...] | None:
    """Numbers of the bands asked for by number or name; whether there are such numbers is left to the format.

    Raises
    ------
    OptionError
        A name that no band has, or several; something that is neither number nor name.
    """
    if bands is None:
        return None
    asked = (bands,) if isinstance(bands, int | str | np.integer) else tuple(bands)
    if any(isinstance(one, bool) or not isinstance(one, int | str | np.integer) for one in asked):
        raise OptionError(f"bands={bands!r} must be numbers, from 1, or names of bands; as in bands=[4, 3, 2]")
    if not any(isinstance(one, str) for one in asked):
        return tuple(int(one) for one in asked)
    names = _band_names(path)
    for one in asked:
        if isinstance(one, str) and names.count(one) != 1:
            listed = ", ".join(f"{number} {name!r}" if name else str(number) for number, name in enumerate(names, 1))
            what = (
                "several bands have that name"
                if one in names
                else "no band has that name" + near(one, filter(None, names))
            )
            raise OptionError(f"bands={bands!r}: of {path} {what}; its bands are {listed}")
    return tuple(names.index(one) + 1 if isinstance(one, str) else int(one) for one in asked)


def _band_names(path: str) -> list[str]:
    """Of all bands, one by one: those of one file may differ in dtype, which cannot be described together."""
    source, _, _ = choosing.describe(path, bands=(1,), masked=False, overview_level=None)
    found = [
        choosing.describe(path, bands=(number,), masked=False, overview_level=None)[1].bands[0].name
        for number in range(1, source.shape[0] + 1)
    ]
    return [name or "" for name in found]


def tile_windows(
    raster: xr.DataArray | str | os.PathLike[str], width: int, height: int, overlap: int = 0, offset: bool = False
) -> list[Window]:
    """The table of tiles that a raster would be cut into: windows, no files.

    The cores of the tiles cut the raster up exactly: full tiles from the top left, then what is left. Each window is its core with
    ``overlap`` more pixels on every side, as far as the raster goes. ::

        width=100, overlap=5, 250 columns                      the same with offset=True
        0         100       200  250                           0    50        150       250
        |---------|---------|----|  cores                      |----|---------|---------|
        [=========.=]               [0, 105)                   [====.=]                    [0, 55)
                [=.=========.=]     [95, 205)                     [=.=========.=]          [45, 155)
                          [=.====]  [195, 250)                              [=.=========]  [145, 250)

    Parameters
    ----------
    raster
        A DataArray, or the path of a file, whose header is read.
    width, height
        Columns and rows of a tile.
    overlap
        Pixels added on every side.
    offset
        True: the first column of tiles is ``width // 2`` wide and the first row ``height // 2`` high, so that cuts lie where the other table has
        the middles of its tiles.

    Returns
    -------
    list of Window
        Row by row from the top left, overlap included. ``open_raster(path, chunks=table)`` makes blocks of its cores.

    Raises
    ------
    OptionError
        Width or height below 1, or overlap below 0.
    RasterArrayError
        The array is no raster.
    RasterNotFoundError, RasterFormatError
        There is no such file, or it is no raster.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = xr.DataArray(np.zeros((120, 250), "uint8"), dims=("y", "x"))
    >>> for window in tile_windows(image, 100, 100, overlap=5)[:4]:
    ...     print(window)
    Window(row_off=0, col_off=0, height=105, width=105)
    Window(row_off=0, col_off=95, height=105, width=110)
    Window(row_off=0, col_off=195, height=105, width=55)
    Window(row_off=95, col_off=0, height=25, width=105)
    """
    for name, value, least in (("width", width, 1), ("height", height, 1), ("overlap", overlap, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise OptionError(f"{name}={value!r} must be a number of pixels, {least} at least")
    if isinstance(raster, xr.DataArray):
        shape_yx = as_raster(raster).grid.shape_yx
    else:
        _, metadata, _ = choosing.describe(absolute(raster), bands=(1,), masked=False, overview_level=None)
        shape_yx = metadata.grid.shape_yx
    return tile_table(shape_yx, (int(height), int(width)), overlap=int(overlap), offset=bool(offset))
