"""rasterio's own mosaic, a strip at a time into a file."""

from pathlib import Path

from rasterio.merge import merge


def run(source: Path, target: Path, *, threads: int = 2, memory_mb: int = 64) -> None:
    """
    Join the tiles in the folder ``source``.

    Parameters
    ----------
    source
        Folder of GeoTIFFs.
    target
        A GeoTIFF.
    threads
        Threads of GDAL's codecs.
    memory_mb
        Its ``mem_limit``.

    Raises
    ------
    rasterio.errors.RasterioError
        If a file cannot be read or written.
    """
    profile = {
        "driver": "GTiff", "compress": "DEFLATE", "predictor": 2, "tiled": True, "blockxsize": 512, "blockysize": 512,
        "num_threads": threads, "bigtiff": "IF_SAFER",
    }  # fmt: skip
    merge(sorted(source.iterdir()), method="last", dst_path=target, dst_kwds=profile, mem_limit=memory_mb)
