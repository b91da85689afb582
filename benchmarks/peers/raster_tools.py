"""raster-tools: its Raster, its arithmetic, its writer."""

from pathlib import Path
from typing import Any

import dask
import numpy as np
from raster_tools import Raster, surface


def run(source: Path, target: Path, *, operation: str = "add", threads: int = 2) -> None:
    """
    Open, compute, save with DEFLATE and a predictor in tiles of 512. Its arithmetic has no halo.

    Parameters
    ----------
    source, target
        Two GeoTIFFs of one band.
    operation
        "add" or "slope".
    threads
        Threads of dask's threaded scheduler.

    Raises
    ------
    Exception
        Whatever raster-tools raises.
    """
    with dask.config.set(scheduler="threads", num_workers=threads):
        image: Any = Raster(str(source))
        if operation == "slope":
            result, predictor = surface.slope(image).astype("float32"), "float"
        else:
            result, predictor = image + np.dtype(image.dtype).type(1), "horizontal"
        result.save(str(target), compress="deflate", predictor=predictor, blocksize=512)
