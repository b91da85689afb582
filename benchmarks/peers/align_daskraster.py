"""A raster onto the grid of another CRS by daskraster."""

from pathlib import Path

import dask

import daskraster as dr


def run(source: Path, target: Path, *, like: str, resampling: str, threads: int = 2) -> None:
    """
    Align one raster with another and write it.

    Parameters
    ----------
    source, target
        The raster and the file to be.
    like
        A raster on the grid wanted.
    resampling
        By GDAL's name.
    threads
        Threads of dask's threaded scheduler.

    Raises
    ------
    daskraster.errors.DaskRasterError
        Whatever the library raises.
    """
    with dask.config.set(scheduler="threads", num_workers=threads):
        aligned = dr.align(dr.open_raster(source), like=like, extent="like", resampling=resampling)
        dr.write_raster(aligned, target, progress=False, statistics=False, overviews=False)
