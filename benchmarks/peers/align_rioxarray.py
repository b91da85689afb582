"""A raster onto the grid of another CRS by rioxarray, as its documentation shows."""

import threading
from pathlib import Path

import rasterio
import rioxarray
from rasterio.enums import Resampling


def run(source: Path, target: Path, *, like: str, resampling: str, threads: int = 2) -> None:
    """
    ``reproject_match`` and ``to_raster(lock=...)``; the pixels are in memory in between, it has no lazy way.

    Parameters
    ----------
    source, target
        The raster and the file to be.
    like
        A raster on the grid wanted.
    resampling
        By GDAL's name.
    threads
        Threads of GDAL's warper and codec.

    Raises
    ------
    rasterio.errors.RasterioError
        A file cannot be read or written.
    """
    with rasterio.open(like) as grid, rioxarray.open_rasterio(source, chunks=2048) as image:
        warped = image.rio.reproject(
            grid.crs, transform=grid.transform, shape=grid.shape, resampling=Resampling[resampling], num_threads=threads
        )
        warped.rio.to_raster(
            target, lock=threading.Lock(), tiled=True, blockxsize=512, blockysize=512, compress="deflate", predictor=2,
            num_threads=threads,
        )  # fmt: skip
