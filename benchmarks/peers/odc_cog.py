"""odc-geo: a COG with statistics, its own way."""

from pathlib import Path

import dask
import rioxarray
from odc.geo.cog import save_cog_with_dask


def run(source: Path, target: Path, *, threads: int = 2) -> None:
    """
    Read with rioxarray in odc-geo's own way, add one, write a COG with overviews and statistics.

    Parameters
    ----------
    source, target
        Two GeoTIFFs.
    threads
        Threads of dask's threaded scheduler.

    Raises
    ------
    Exception
        Whatever odc-geo raises.
    """
    with dask.config.set(scheduler="threads", num_workers=threads):
        image = rioxarray.open_rasterio(source, chunks={"x": 2048, "y": 2048}, lock=False).squeeze("band", drop=True)
        # The codec and the tile that the others write.
        save_cog_with_dask(
            image + image.dtype.type(1), str(target), compression="deflate", predictor=2, blocksize=512,
            overview_resampling="average", stats=True,
        ).compute()  # fmt: skip
