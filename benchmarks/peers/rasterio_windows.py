"""rasterio alone: one window after the other, GDAL's own threads for the codecs. No dask, no halo."""

import os
from pathlib import Path

import rasterio
from rasterio.windows import Window

from benchmarks.peers.functions import add_one


def run(source: Path, target: Path, *, threads: int = 2, block: int = 2048, cache_mb: int = 256) -> None:
    """
    Read, add and write windows in row-major order.

    Parameters
    ----------
    source, target
        Two GeoTIFFs; the new one has the source's profile.
    threads
        GDAL's ``NUM_THREADS``, both for reading and for writing.
    block
        Pixels a side of a window; whole tiles.
    cache_mb
        Limit of GDAL's block cache. Its default, 5 % of the machine's memory (here of 23 GB), is no faster: at
        24576 x 24576, single runs, 19.0 s and 1359 MB with it, 17.1 s and 364 MB with 256 MB.

    Raises
    ------
    rasterio.errors.RasterioError
        If a file cannot be read or written.
    """
    os.environ["GDAL_CACHEMAX"] = str(cache_mb)
    with rasterio.open(source, num_threads=threads) as old:
        profile = old.profile | {"predictor": 2, "bigtiff": "IF_SAFER", "num_threads": threads}
        with rasterio.open(target, "w", **profile) as new:
            for row in range(0, old.height, block):
                for column in range(0, old.width, block):
                    window = Window(column, row, min(block, old.width - column), min(block, old.height - row))
                    new.write(add_one(old.read(window=window)), window=window)
