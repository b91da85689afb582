"""What a block costs besides its pixels: blocks of 16 x 16 pixels, from a source without a file, into a sink that only counts.

Everything between is the real thing: the layers and their fusing, the halo, the function, the checks, the scheduler, the receipts.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import daskraster as dr
from benchmarks.peers.functions import add_one
from daskraster.formats.places import TilePlaces
from daskraster.formats.protocols import Receipt
from daskraster.grid import Window, split_axis
from daskraster.lazy.arrays import as_raster
from daskraster.lazy.sources import SourceView, source_array
from daskraster.options import WriteOptions
from daskraster.running.engines import run as run_blocks
from daskraster.running.gathering import Gathering
from daskraster.running.outputs import planned, receipts

SIDE = 16
BYTES = np.dtype(np.uint8)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NullSource:
    """A raster of ones that lies nowhere."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any] = BYTES
    tile_yx: tuple[int, int] = (SIDE, SIDE)
    token: str = "ones"
    name: str = "ones"

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """Ones."""
        return np.ones((len(bands), *window.shape_yx), self.dtype)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NullSink:
    """Takes blocks and keeps nothing but their number."""

    target: Path

    def no_places(self) -> TilePlaces:
        """Room for one tile."""
        return TilePlaces(1)

    def put(self, block: NDArray[Any], window: Window, band_off: int, index: Any, level: int = 0) -> Receipt:
        """A receipt as of a file with one tile a block."""
        one = np.zeros(1, np.int64)
        return Receipt(block=index, tiles=one, offsets=one, sizes=one, nbytes=block.nbytes)


def run(
    source: Path, target: Path, *, blocks: int = 4096, halo: int = 5, threads: int = 2, cluster: bool = False
) -> None:
    """
    Send square blocks through the whole machinery.

    Parameters
    ----------
    source
        Not used.
    target
        The number of blocks that came through goes there, as text.
    blocks
        How many; a square number.
    halo
        Pixels of overlap.
    threads
        Threads; or processes, where ``cluster``.
    cluster
        A LocalCluster instead of dask's threads. Its start is part of what is measured: compare two numbers of blocks.

    Raises
    ------
    Exception
        Whatever a block raised.
    """
    side = round(blocks**0.5)
    with contextlib.ExitStack() as stack:
        if cluster:
            from distributed import Client

            stack.enter_context(Client(n_workers=threads, threads_per_worker=1, dashboard_address=None))
        else:
            stack.enter_context(dask.config.set(scheduler="threads", num_workers=threads))
        shape = 1, side * SIDE, side * SIDE
        view = SourceView(NullSource(shape=shape), (1,), Window(0, 0, *shape[1:]))
        data = source_array(view, (split_axis(shape[1], SIDE), split_axis(shape[2], SIDE)))
        image = xr.DataArray(data, dims=("band", "y", "x"))
        result = dr.apply(add_one, image, overlap=halo, dtype="uint8", bands=1)
        options = WriteOptions.of({"blocksize": SIDE, "statistics": False, "overviews": False})
        output = planned(as_raster(result), target.with_suffix(".tif"), options)
        sink: Any = NullSink(target=target)
        gathering = Gathering(sink, None, 1, output.numblocks)
        run_blocks([receipts(output, sink)], lambda _, receipt: gathering.add(receipt))
        target.write_text(str(gathering.blocks))
