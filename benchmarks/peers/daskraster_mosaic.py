"""Mosaic of a folder of tiles by daskraster."""

from pathlib import Path

import dask

import daskraster as dr


def run(source: Path, target: Path, *, threads: int = 2, **options: object) -> None:
    """
    Mosaic every GeoTIFF of a folder into one.

    Parameters
    ----------
    source
        The folder.
    target
        The file to be.
    threads
        Threads of dask's threaded scheduler.
    **options
        Of `daskraster.write_raster`.

    Raises
    ------
    daskraster.errors.DaskRasterError
        Whatever the library raises.
    """
    with dask.config.set(scheduler="threads", num_workers=threads):
        result = dr.mosaic(sorted(source.glob("*.tif")))
        dr.write_raster(result, target, **({"progress": False, "statistics": False, "overviews": False} | options))
