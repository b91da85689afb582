"""Mosaic of a folder of tiles by ``rasterio.merge``."""

from pathlib import Path

from rasterio.merge import merge


def run(source: Path, target: Path, *, threads: int = 2, mem_limit: int | None = None) -> None:
    """
    Merge every tile into one file.

    Parameters
    ----------
    source, target
        Folder of GeoTIFFs and the file to be.
    threads
        Threads with which GDAL compresses.
    mem_limit
        rasterio's bound on memory in MB; None: its default.

    Raises
    ------
    rasterio.errors.RasterioError
        A file cannot be read or written.
    """
    options = {} if mem_limit is None else {"mem_limit": mem_limit}
    profile = {
        "driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2,
        "num_threads": threads,
    }  # fmt: skip
    merge(sorted(source.glob("*.tif")), dst_path=target, dst_kwds=profile, **options)
