"""daskraster itself, through its public interface."""

from pathlib import Path

import dask

import daskraster as dr
from benchmarks.peers.functions import add_one


def run(source: Path, target: Path, *, halo: int = 5, threads: int = 2, **options: object) -> None:
    """
    Run the three lines of the README, without overviews and statistics unless asked for, since few peers make them.

    Parameters
    ----------
    source, target
        Two GeoTIFFs.
    halo
        Pixels of overlap.
    threads
        Threads of dask's threaded scheduler.
    **options
        Options of `daskraster.write_raster`, for example ``compress="ZSTD", level=1``.

    Raises
    ------
    daskraster.errors.DaskRasterError
        Whatever the library raises.
    """
    with dask.config.set(scheduler="threads", num_workers=threads):
        image = dr.open_raster(source)
        result = dr.apply(add_one, image, overlap=halo, dtype="uint16", bands=1)
        dr.write_raster(result, target, **({"progress": False, "statistics": False, "overviews": False} | options))
