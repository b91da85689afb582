"""A very large run: 2 million x 2 million pixels that lie nowhere, through the real machinery, into a sink that only counts.

``python -m benchmarks.scale --blocks 1000 --part 1.0`` on threads, with ``--cluster`` on two processes. Prints the time to the first block, the milliseconds
of a block, and the resident memory of the leading process (on a LocalCluster the scheduler lives in it too) at 1, 10, 25, 50, 75 and 100 %.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import daskraster as dr
from benchmarks.peers.overhead import NullSource
from daskraster.formats.places import TilePlaces
from daskraster.formats.protocols import Receipt
from daskraster.grid import Window, split_axis
from daskraster.lazy.arrays import as_raster
from daskraster.lazy.sources import SourceView, source_array
from daskraster.options import WriteOptions
from daskraster.running.engines import run as run_blocks
from daskraster.running.gathering import Gathering
from daskraster.running.outputs import planned, receipts
from daskraster.running.progress import Progress

SIDE = 2048
TILES = 4
"""Along each side of a block: tiles of 512."""
MARKS = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlatSource(NullSource):
    """A raster of ones that takes no memory either: the pixels of a window are one pixel, shown again and again."""

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """Ones, read-only."""
        return np.broadcast_to(np.uint8(1), (len(bands), *window.shape_yx))


def flat(block: NDArray[Any]) -> NDArray[Any]:
    """The block as it came: only the machinery is measured."""
    return block


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CountingSink:
    """Takes blocks, keeps nothing, and says what a file would: offset, size and checksum of 16 tiles a block."""

    target: Path
    blocks: int
    """Along each side."""

    def no_places(self) -> TilePlaces:
        """Of all tiles."""
        return TilePlaces((self.blocks * TILES) ** 2)

    def put(self, block: NDArray[Any], window: Window, band_off: int, index: Any, level: int = 0) -> Receipt:
        """The receipt of a block in tiles of 512 x 512."""
        rows, cols = index[1] * TILES + np.arange(TILES), index[2] * TILES + np.arange(TILES)
        tiles = (rows[:, np.newaxis] * self.blocks * TILES + cols).ravel()
        sizes = np.full(tiles.size, 160_000)
        return Receipt(
            block=index, tiles=tiles, offsets=1024 + tiles * 160_000, sizes=sizes, nbytes=block.nbytes,
            checksums=np.zeros(tiles.size, np.uint32), seconds={"read": 0.0, "function": 0.0, "encode": 0.0, "write": 0.0},
        )  # fmt: skip


def resident_mb() -> float:
    """Memory of this process now, 10**6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no VmRSS")


class _PartDoneError(Exception):
    """The part asked for is done."""


def measured(blocks: int, part: float) -> dict[str, Any]:
    """Run a raster of ``blocks`` x ``blocks`` blocks, or the first ``part`` of it, on the engine that is active; what it took.

    Raises
    ------
    Exception
        Whatever a block raised.
    """
    begin = time.perf_counter()
    shape = 1, blocks * SIDE, blocks * SIDE
    view = SourceView(FlatSource(shape=shape, tile_yx=(512, 512)), (1,), Window(0, 0, *shape[1:]))
    chunks = split_axis(shape[1], SIDE)
    image = xr.DataArray(source_array(view, (chunks, chunks)), dims=("band", "y", "x"))
    result = dr.apply(flat, image, overlap=5, dtype="uint8", bands=1)
    options = WriteOptions.of({"statistics": False, "overviews": False, "bigtiff": True})
    output = planned(as_raster(result), Path("scale.tif").absolute(), options)
    sink: Any = CountingSink(target=output.sink.target, blocks=blocks)
    gathering = Gathering(sink, None, 1, output.numblocks)
    due = round(blocks * blocks * part)
    marks = {max(round(due * mark), 1): mark for mark in MARKS}
    found: dict[str, Any] = {"blocks": due, "of": blocks * blocks, "before_mb": resident_mb(), "resident_mb": {}}
    first = 0.0
    with Progress("scale", due, wanted=False) as line:

        def on_receipt(_: int, receipt: Receipt) -> None:
            nonlocal first
            gathering.add(receipt)
            line.add(receipt.nbytes)
            first = first or time.perf_counter() - begin
            if gathering.blocks in marks:
                found["resident_mb"][marks[gathering.blocks]] = round(resident_mb(), 1)
            if gathering.blocks == due:
                raise _PartDoneError

        with contextlib.suppress(_PartDoneError):
            run_blocks([receipts(output, sink)], on_receipt)
    seconds = time.perf_counter() - begin
    return {**found, "first_block_s": first, "seconds": seconds, "ms_a_block": (seconds - first) / due * 1e3}


def main() -> None:
    """Measure once and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="A very large run.")
    parser.add_argument("--blocks", type=int, default=1000, help="along each side; 1000 are 2,048,000 pixels")
    parser.add_argument("--part", type=float, default=1.0, help="stop after this share of the blocks")
    parser.add_argument("--cluster", action="store_true", help="a LocalCluster of two processes instead of two threads")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if asked.cluster:
            from distributed import Client

            stack.enter_context(Client(n_workers=2, threads_per_worker=1, dashboard_address=None))
        else:
            stack.enter_context(dask.config.set(scheduler="threads", num_workers=2))
        print(json.dumps(measured(asked.blocks, asked.part), indent=1))


if __name__ == "__main__":
    main()
