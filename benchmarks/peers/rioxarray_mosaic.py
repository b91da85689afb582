"""Mosaic of a folder of tiles by rioxarray, as its documentation shows."""

from pathlib import Path

import rioxarray
from rioxarray.merge import merge_arrays


def run(source: Path, target: Path, *, threads: int = 2) -> None:
    """
    Open every tile, ``merge_arrays``, ``to_raster``.

    Parameters
    ----------
    source, target
        Folder of GeoTIFFs and the file to be.
    threads
        Threads with which GDAL compresses.

    Raises
    ------
    rasterio.errors.RasterioError
        A file cannot be read or written.
    """
    tiles = [rioxarray.open_rasterio(path, chunks=True) for path in sorted(source.glob("*.tif"))]
    merged = merge_arrays(tiles)
    merged.rio.to_raster(
        target, tiled=True, blockxsize=512, blockysize=512, compress="deflate", predictor=2, num_threads=threads
    )
