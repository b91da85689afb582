"""Files as lazy arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from daskraster.errors import OptionError
from daskraster.formats import choosing
from daskraster.grid import Window
from daskraster.lazy.arrays import new_array
from daskraster.lazy.sources import SourceView, auto_chunks, check_chunks, source_array


def open_raster(
    path: str | os.PathLike[str],
    *,
    chunks: Any = "auto",
    masked: bool = False,
    bands: int | Sequence[int] | None = None,
    overview_level: int | None = None,
) -> xr.DataArray:
    """A raster file as a lazy array; only its header is read.

    Parameters
    ----------
    path
        A file of any format GDAL reads: a path, a URL or ``/vsi`` name as rasterio takes them (``s3://``, ``zip://``), a VRT.
    chunks
        Block size in pixels. ``"auto"``: whole multiples of the file's tiles (full-width bands of rows where it has strips),
        about 16 MiB of pixels, all bands counted. Or an int, a pair ``(y, x)`` of ints or of tuples of sizes, a dict with ``y`` and
        ``x``. All bands of a pixel are always in one block.
    masked
        True: pixels are floats (float32 for 8 and 16 bits, else float64), NaN where the file says nodata or masks them, and the file's nodata
        value moves to ``encoding["_FillValue"]``. False: pixels are what the file holds. A file with a mask of its own keeps it in a copy
        that is opened with True and written with ``mask=True`` and the file's ``dtype=``; pixels under the mask then are nodata, or 0.
    bands
        Numbers, from 1, of the bands wanted, in any order; None: all.
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
    >>> image = open_raster("in.tif")  # doctest: +SKIP
    >>> image.rio.crs, image.chunksizes  # doctest: +SKIP
    """
    wanted = (bands,) if isinstance(bands, int) else None if bands is None else tuple(bands)
    name = os.fspath(path)
    if Path(name).exists():
        # Read later, perhaps by a worker or after a chdir.
        name = str(Path(name).absolute())
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
