"""NDVI of two files through daskraster's public interface."""

from pathlib import Path

import dask

import daskraster as dr


def run(source: Path, target: Path, *, other: str, threads: int = 2, **options: object) -> None:
    """
    Compute NDVI of two bands as float32, without overviews and statistics, which the peer does not make.

    Parameters
    ----------
    source, other
        Near infrared and red, GeoTIFFs of one band.
    target
        The GeoTIFF to be.
    threads
        Threads of dask's threaded scheduler.
    **options
        Options of `daskraster.write_raster`.

    Raises
    ------
    daskraster.errors.DaskRasterError
        Whatever the library raises.
    """
    with dask.config.set(scheduler="threads", num_workers=threads):
        nir, red = dr.open_raster(source), dr.open_raster(other)
        ndvi = dr.calc("(nir-red)/(nir+red)", nir=nir, red=red, dtype="float32")
        dr.write_raster(ndvi, target, **({"progress": False, "statistics": False, "overviews": False} | options))
