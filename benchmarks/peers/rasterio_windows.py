"""rasterio alone: one window after the other, GDAL's own threads for the codecs. No dask, no halo."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from benchmarks.peers.functions import OPERATIONS, REPEATED


def run(
    source: Path,
    target: Path,
    *,
    operation: str = "add",
    threads: int = 2,
    block: int = 2048,
    cache_mb: int = 256,
    compress: str = "deflate",
    predictor: int = 2,
) -> None:
    """
    Read, compute and write windows in row-major order.

    Parameters
    ----------
    source, target
        Two GeoTIFFs; the new one has the source's profile.
    operation
        One of `benchmarks.peers.functions.OPERATIONS` that needs no halo.
    threads
        GDAL's ``NUM_THREADS``, both for reading and for writing.
    block
        Pixels a side of a window; whole tiles.
    cache_mb
        Limit of GDAL's block cache. Its default, 5 % of the machine's memory (here of 23 GB), is no faster: at
        24576 x 24576, single runs, 19.0 s and 1359 MB with it, 17.1 s and 364 MB with 256 MB.
    compress, predictor
        As GDAL's options.

    Raises
    ------
    rasterio.errors.RasterioError
        If a file cannot be read or written.
    """
    os.environ["GDAL_CACHEMAX"] = str(cache_mb)
    wanted = OPERATIONS[operation]
    with rasterio.open(source, num_threads=threads) as old:
        profile = _profile(old.profile, compress, predictor, threads)
        profile |= {"dtype": wanted.dtype or old.dtypes[0], "count": wanted.bands or old.count}
        with rasterio.open(target, "w", **profile) as new:
            for window in _windows(old.height, old.width, block):
                new.write(wanted.function(old.read(window=window)), window=window)


def read(source: Path, target: Path, *, threads: int = 2, block: int = 2048, cache_mb: int = 256) -> None:
    """Read every pixel, keep none; the number of pixels goes into ``target``. Parameters and errors as of `run`."""
    os.environ["GDAL_CACHEMAX"] = str(cache_mb)
    with rasterio.open(source, num_threads=threads) as old:
        target.write_text(str(sum(old.read(window=window).size for window in _windows(old.height, old.width, block))))


def write(source: Path, target: Path, *, threads: int = 2, cache_mb: int = 256) -> None:
    """Write a piece of the source again and again until the raster is as large as the source. Parameters and errors as of `run`."""
    os.environ["GDAL_CACHEMAX"] = str(cache_mb)
    with rasterio.open(source) as old:
        piece = old.read(window=Window(0, 0, REPEATED, REPEATED))
        profile, shape = _profile(old.profile, "deflate", 2, threads), old.shape
    with rasterio.open(target, "w", **profile) as new:
        for window in _windows(*shape, REPEATED):
            new.write(piece[:, : window.height, : window.width], window=window)


def _profile(profile: Any, compress: str, predictor: int, threads: int) -> dict[str, Any]:
    made = dict(profile) | {"compress": compress, "bigtiff": "IF_SAFER", "num_threads": threads}
    return made | ({"predictor": 1} if compress == "none" else {"predictor": predictor})


def _windows(height: int, width: int, block: int) -> Iterator[Window]:
    for row in range(0, height, block):
        for column in range(0, width, block):
            yield Window(column, row, min(block, width - column), min(block, height - row))
