"""rioxarray and dask as their documentation joins them: ``map_overlap``, then ``to_raster`` with a lock."""

import os
import threading
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.threaded
import numpy as np
import rioxarray

from benchmarks.peers.functions import OPERATIONS, Operation


def _with_halo(pixels: Any, wanted: Operation, halo: int, boundary: str) -> Any:
    """The operation through ``map_overlap``; dtype and meta are given, else dask calls the function on an empty array."""
    chunks = None if wanted.bands is None else ((wanted.bands,), *pixels.chunks[1:])
    dtype = wanted.dtype or pixels.dtype
    if not halo:
        return da.map_blocks(wanted.function, pixels, dtype=dtype, chunks=chunks, meta=pixels._meta.astype(dtype))  # type: ignore[no-untyped-call]
    return da.map_overlap(  # type: ignore[no-untyped-call]
        wanted.function,
        pixels,
        depth={0: 0, 1: halo, 2: halo},
        boundary={0: "none", 1: boundary, 2: boundary},
        dtype=dtype,
        meta=pixels._meta.astype(dtype),
    )


def run(
    source: Path,
    target: Path,
    *,
    operation: str = "add",
    halo: int = 5,
    threads: int = 2,
    block: int = 2048,
    boundary: str = "none",
    read_lock: bool = False,
    codec_threads: int = 2,
    cache_mb: int = 256,
    compress: str = "deflate",
    predictor: int = 2,
) -> None:
    """
    Open in chunks, compute with a halo, store.

    Parameters
    ----------
    source, target
        Two GeoTIFFs.
    operation
        One of `benchmarks.peers.functions.OPERATIONS`.
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
    compress, predictor
        As GDAL's options.

    Raises
    ------
    rasterio.errors.RasterioError
        If a file cannot be read or written.
    """
    os.environ |= {"GDAL_NUM_THREADS": str(codec_threads), "GDAL_CACHEMAX": str(cache_mb)}
    # All bands in one chunk: one band a chunk, rioxarray's default, decodes a file of pixel-interleaved bands once for each.
    chunks = {"band": -1, "y": block, "x": block}
    with dask.config.set(scheduler="threads", num_workers=threads):
        image: Any = rioxarray.open_rasterio(source, chunks=chunks, lock=None if read_lock else False)
        wanted = OPERATIONS[operation]
        data = _with_halo(image.data, wanted, halo, boundary)
        result = image[: data.shape[0]].copy(data=data)
        result.rio.to_raster(
            target, lock=threading.Lock(), tiled=True, compress=compress, predictor=1 if compress == "none" else predictor,
            blockxsize=512, blockysize=512, bigtiff="IF_SAFER",
        )  # fmt: skip


def read(source: Path, target: Path, *, threads: int = 2, block: int = 2048, cache_mb: int = 256) -> None:
    """Read every pixel, keep none, a handle per thread; the number of pixels goes into ``target``."""
    os.environ["GDAL_CACHEMAX"] = str(cache_mb)
    # As daskraster's row: its name would make dask import distributed.
    with dask.config.set(scheduler=dask.threaded.get, num_workers=threads):
        image: Any = rioxarray.open_rasterio(source, chunks={"band": -1, "y": block, "x": block}, lock=False)
        counts = image.data.map_blocks(
            lambda pixels: np.full((1, 1, 1), pixels.size), dtype=np.int64, meta=np.empty((0, 0, 0), np.int64),
            chunks=tuple((1,) * count for count in image.data.numblocks),
        )  # fmt: skip
        target.write_text(str(counts.compute().sum()))
