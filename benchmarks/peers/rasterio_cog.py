"""rasterio window by window, then GDAL's COG driver over the finished file."""

from pathlib import Path

import rasterio.shutil

from benchmarks.peers import rasterio_windows


def run(source: Path, target: Path, *, threads: int = 2) -> None:
    """
    Write a plain file as `benchmarks.peers.rasterio_windows` does, and copy it into a COG with statistics.

    Parameters
    ----------
    source, target
        Two GeoTIFFs.
    threads
        Threads of GDAL's codecs.

    Raises
    ------
    rasterio.errors.RasterioError
        Whatever GDAL refuses.
    """
    plain = target.with_name("plain.tif")
    rasterio_windows.run(source, plain, threads=threads)
    rasterio.shutil.copy(
        plain, target, driver="COG", compress="DEFLATE", predictor="YES", blocksize=512, num_threads=threads,
        overview_resampling="AVERAGE", bigtiff="YES", statistics="YES",
    )  # fmt: skip
    plain.unlink()
