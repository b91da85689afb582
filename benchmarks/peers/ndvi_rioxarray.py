"""NDVI of two files by xarray's arithmetic, stored with a lock, as rioxarray's documentation has it."""

import os
import threading
from pathlib import Path
from typing import Any

import dask
import rioxarray


def run(
    source: Path,
    target: Path,
    *,
    other: str,
    threads: int = 2,
    block: int = 2048,
    codec_threads: int = 2,
    cache_mb: int = 256,
) -> None:
    """
    Open in chunks, convert, divide, store.

    Parameters
    ----------
    source, other
        Near infrared and red, GeoTIFFs of one band.
    target
        The GeoTIFF to be.
    threads
        Threads of dask's threaded scheduler.
    block
        Pixels a side of a chunk; whole tiles.
    codec_threads, cache_mb
        As in `benchmarks.peers.rioxarray_lock`, which says what they do; 1 is GDAL's default.

    Raises
    ------
    rasterio.errors.RasterioError
        If a file cannot be read or written.
    """
    os.environ |= {"GDAL_NUM_THREADS": str(codec_threads), "GDAL_CACHEMAX": str(cache_mb)}
    chunks = {"band": 1, "y": block, "x": block}
    with dask.config.set(scheduler="threads", num_workers=threads):
        nir, red = (
            rioxarray.open_rasterio(path, chunks=chunks, lock=False).astype("float32") for path in (source, other)
        )
        ndvi: Any = (nir - red) / (nir + red)
        ndvi.rio.to_raster(
            target, lock=threading.Lock(), tiled=True, compress="DEFLATE", predictor=3,
            blockxsize=512, blockysize=512, bigtiff="IF_SAFER",
        )  # fmt: skip
