"""rioxarray and dask as their documentation joins them: ``map_overlap``, then ``to_raster`` with a lock."""

import os
import threading
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import rioxarray

from benchmarks.peers.functions import add_one


def _add_one_with_halo(pixels: Any, halo: int, boundary: str) -> Any:
    """Add one through ``map_overlap``; dtype and meta are given, else dask calls the function on an empty array."""
    depth = {0: 0, 1: halo, 2: halo}
    return da.map_overlap(  # type: ignore[no-untyped-call]
        add_one,
        pixels,
        depth=depth,
        boundary={0: "none", 1: boundary, 2: boundary},
        dtype=pixels.dtype,
        meta=pixels._meta,
    )


def run(
    source: Path,
    target: Path,
    *,
    halo: int = 5,
    threads: int = 2,
    block: int = 2048,
    boundary: str = "none",
    read_lock: bool = False,
    codec_threads: int = 2,
    cache_mb: int = 256,
) -> None:
    """
    Open in chunks, add one with a halo, store.

    Parameters
    ----------
    source, target
        Two GeoTIFFs.
    halo
        Depth of ``map_overlap``.
    threads
        Threads of dask's threaded scheduler.
    block
        Pixels a side of a chunk; whole tiles, else the file grows.
    boundary
        As in ``dask.array.map_overlap``.
    read_lock
        True: rioxarray's default, reading under one lock. False: a handle per thread.
    codec_threads
        ``GDAL_NUM_THREADS``, for the compression under the lock. As an option of ``to_raster`` it has no effect,
        because rioxarray opens the new file again for every block, without options. At 24576 x 24576, single runs:
        31.8 s with 1, 21.0 s with 2.
    cache_mb
        Limit of GDAL's block cache. Its default, 5 % of the machine's memory (here of 23 GB), is no faster: at
        24576 x 24576, single runs, 34.6 s and 1769 MB with it, 31.8 s and 995 MB with 256 MB.

    Raises
    ------
    rasterio.errors.RasterioError
        If a file cannot be read or written.
    """
    os.environ |= {"GDAL_NUM_THREADS": str(codec_threads), "GDAL_CACHEMAX": str(cache_mb)}
    chunks = {"band": 1, "y": block, "x": block}
    with dask.config.set(scheduler="threads", num_workers=threads):
        image: Any = rioxarray.open_rasterio(source, chunks=chunks, lock=None if read_lock else False)
        result = image.copy(data=_add_one_with_halo(image.data, halo, boundary))
        result.rio.to_raster(
            target, lock=threading.Lock(), tiled=True, compress="DEFLATE", predictor=2,
            blockxsize=512, blockysize=512, bigtiff="IF_SAFER",
        )  # fmt: skip
