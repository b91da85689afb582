"""daskraster itself, through its public interface.

Its names are imported here: daskraster imports a module when one of its names is first asked for, and imports are no part of the run.
"""

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.threaded
import numpy as np
import rasterio
import xarray as xr
from rasterio.windows import Window

import daskraster as dr
from benchmarks.peers.functions import OPERATIONS, REPEATED

dr.open_raster, dr.apply, dr.write_raster  # noqa: B018 - imports what the run needs
_PLAIN: dict[str, Any] = {"progress": False, "statistics": False, "overviews": False}


def run(source: Path, target: Path, *, operation: str = "add", halo: int = 5, threads: int = 2, **options: Any) -> None:
    """
    Run the three lines of the README, without overviews and statistics unless asked for, since few peers make them.

    Parameters
    ----------
    source, target
        Two rasters.
    operation
        One of `benchmarks.peers.functions.OPERATIONS`.
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
    wanted = OPERATIONS[operation]
    with dask.config.set(scheduler="threads", num_workers=threads):
        image = dr.open_raster(source)
        dtype, bands = wanted.dtype or str(image.dtype), wanted.bands or image.shape[0]
        result = dr.apply(wanted.function, image, overlap=halo, dtype=dtype, bands=bands)
        dr.write_raster(result, target, **(_PLAIN | options))


def calc(source: Path, target: Path, *, expression: str, dtype: str, threads: int = 2) -> None:
    """Compute an expression, such as ``"(b2-b1)/(b2+b1)"``; parameters and errors as of `run`."""
    with dask.config.set(scheduler="threads", num_workers=threads):
        result = dr.calc(expression, dr.open_raster(source), dtype=dtype)  # type: ignore[attr-defined,unused-ignore]
        dr.write_raster(result, target, **_PLAIN)


def mosaic(source: Path, target: Path, *, threads: int = 2) -> None:
    """Join the tiles in the folder ``source``; errors as of `run`."""
    with dask.config.set(scheduler="threads", num_workers=threads):
        tiles = [dr.open_raster(path) for path in sorted(source.iterdir())]
        dr.write_raster(dr.mosaic(tiles), target, **_PLAIN)  # type: ignore[attr-defined,unused-ignore]


def read(source: Path, target: Path, *, threads: int = 2) -> None:
    """Read every pixel, keep none; the number of pixels goes into ``target``."""
    # The scheduler itself, not its name: to find that, dask imports distributed, 0.2 s, which it does not use then.
    with dask.config.set(scheduler=dask.threaded.get, num_workers=threads):
        data = dr.open_raster(source).data
        counts = data.map_blocks(
            lambda block: np.full((1, 1, 1), block.size), dtype=np.int64, meta=np.empty((0, 0, 0), np.int64),
            chunks=tuple((1,) * count for count in data.numblocks),
        )  # fmt: skip
        target.write_text(str(counts.compute().sum()))


def write(source: Path, target: Path, *, threads: int = 2, **options: Any) -> None:
    """Write a piece of the source, held in memory, again and again until the raster is as large as the source."""
    with rasterio.open(source) as file:
        piece = file.read(window=Window(0, 0, REPEATED, REPEATED))
        rows, cols = file.height // REPEATED, file.width // REPEATED
        transform, crs = file.transform, file.crs
    data = da.tile(da.from_array(piece, chunks=piece.shape), (1, rows, cols))
    image = xr.DataArray(data, dims=("band", "y", "x")).rio.write_crs(crs).rio.write_transform(transform)
    with dask.config.set(scheduler="threads", num_workers=threads):
        dr.write_raster(image, target, **(_PLAIN | options))
