"""xarray-spatial: its own lazy reader, dask's ``map_overlap`` or its own slope, its own streaming writer."""

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import xrspatial
from xrspatial.geotiff import open_geotiff, to_geotiff

from benchmarks.peers.functions import OPERATIONS


def run(
    source: Path, target: Path, *, operation: str = "add", halo: int = 5, threads: int = 2, block: int = 2048
) -> None:
    """
    Open in chunks, compute, store with DEFLATE and predictor 2 in tiles of 512.

    Parameters
    ----------
    source, target
        Two GeoTIFFs of one band.
    operation
        One of `benchmarks.peers.functions.OPERATIONS`; "slope" is its own.
    halo
        Depth of ``map_overlap``.
    threads
        Threads of dask's threaded scheduler.
    block
        Pixels a side of a chunk.

    Raises
    ------
    Exception
        Whatever xarray-spatial raises.
    """
    with dask.config.set(scheduler="threads", num_workers=threads):
        image: Any = open_geotiff(str(source), chunks=block)
        if operation == "slope":
            result = xrspatial.slope(image)
        else:
            function = OPERATIONS[operation].function
            result = image.copy(
                data=da.map_overlap(function, image.data, depth=halo, boundary="none", dtype=image.dtype, meta=image.data._meta)  # type: ignore[no-untyped-call]
            )  # fmt: skip
        to_geotiff(
            result, str(target), compression="deflate", tile_size=512, predictor=2 if operation != "slope" else 3
        )
