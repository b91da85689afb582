"""A raster onto the grid of another CRS by rasterio, file to file."""

from pathlib import Path

import rasterio
from rasterio.enums import Resampling
from rasterio.warp import reproject


def run(source: Path, target: Path, *, like: str, resampling: str, threads: int = 2, exact: bool = False) -> None:
    """
    ``rasterio.warp.reproject`` between two bands of open files.

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
    exact
        Each pixel transformed by itself, as ``gdalwarp -et 0``, instead of to an eighth of a pixel.

    Raises
    ------
    rasterio.errors.RasterioError
        A file cannot be read or written.
    """
    with rasterio.open(like) as grid, rasterio.open(source) as image:
        profile = {
            "driver": "GTiff", "width": grid.width, "height": grid.height, "count": 1, "dtype": image.dtypes[0],
            "crs": grid.crs, "transform": grid.transform, "tiled": True, "blockxsize": 512, "blockysize": 512,
            "compress": "deflate", "predictor": 2, "num_threads": threads,
        }  # fmt: skip
        with rasterio.open(target, "w", **profile) as new:
            reproject(
                rasterio.band(image, 1), rasterio.band(new, 1), resampling=Resampling[resampling], num_threads=threads,
                tolerance=0 if exact else 0.125,
            )  # fmt: skip
