"""Large runs go in waves: nothing is missing, nothing is computed twice, and only one wave exists at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

import daskraster as dr
from daskraster.grid import Window, split_axis
from daskraster.lazy.sources import SourceView, source_array
from daskraster.running import engines, waves
from tests.conftest import Counter, MakeRaster, pixels, read


@pytest.fixture
def small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wave is one row of blocks, whatever it shares."""
    monkeypatch.setattr(waves, "WAVE_BLOCKS", 1)
    monkeypatch.setattr(waves, "SHARING_WAVE_BLOCKS", 1)


@dataclass(frozen=True)
class Nothing:
    """A raster of zeros that takes no memory."""

    shape: tuple[int, int, int]
    name: str = "nothing"
    dtype: np.dtype[Any] = field(default=np.dtype("uint8"))
    tile_yx: tuple[int, int] = (512, 512)
    token: str = "nothing"

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        return np.broadcast_to(np.uint8(0), (len(bands), *window.shape_yx))


def largest(block: NDArray[Any]) -> NDArray[Any]:
    return maximum_filter(block, size=(1, 5, 5))


def noisy(block: NDArray[Any]) -> NDArray[Any]:
    """Another result with each call."""
    return block + np.float64(time.perf_counter_ns() % 1_000_003)


def one_value(block: NDArray[Any], block_id: tuple[int, ...]) -> Any:
    return block.reshape(-1)[0]


def values_of_blocks(array: da.Array) -> da.Array:
    """As an array of receipts: one object a block."""
    return da.map_blocks(
        one_value,
        array,
        chunks=tuple((1,) * count for count in array.numblocks),
        dtype=object,
        meta=np.empty((0, 0, 0), dtype=object),
    )


@pytest.mark.usefixtures("small_waves")
@pytest.mark.parametrize("chunks", [64, (33, 70)])
def test_a_file_in_waves_is_the_file(make_raster: MakeRaster, tmp_path: Path, engine: str, chunks: Any) -> None:
    values = pixels((2, 250, 190))
    image = dr.open_raster(make_raster(values), chunks=chunks)
    once = dr.apply(largest, image, overlap=2)
    twice = dr.apply(largest, once, overlap=2)
    due = largest(values), largest(largest(values))
    dr.write_rasters({tmp_path / "once.tif": once, tmp_path / "twice.tif": twice}, blocksize=32)
    assert (read(tmp_path / "once.tif") == due[0]).all()
    assert (read(tmp_path / "twice.tif") == due[1]).all()


@pytest.mark.usefixtures("small_waves")
@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "client"])
def test_what_waves_share_is_computed_once(request: pytest.FixtureRequest, scheduler: str) -> None:
    # A function that never gives the same twice: had a seam been computed again, sums over neighbours would not fit the pixels.
    import dask

    if scheduler == "client":
        request.getfixturevalue("client")
    base = da.zeros((1, 60, 40), chunks=(1, 10, 10)).map_blocks(noisy, dtype="f8", meta=np.empty((0, 0, 0)))
    shifted = da.overlap.overlap(base, {1: 1, 2: 1}, {0: "none", 1: "none", 2: "none"})
    sides = [values_of_blocks(base), values_of_blocks(shifted.map_blocks(lambda block: block[:, :1], dtype="f8"))]
    found: list[list[Any]] = [[], []]
    with dask.config.set({} if scheduler == "client" else {"scheduler": scheduler}):
        engines.run(sides, lambda number, value: found[number].append(value))
    # Upper left pixel of a haloed block: of its own block in the first row and column, else of the one above and to the left.
    own = set(found[0])
    assert len(found[0]) == len(found[1]) == 24
    assert set(found[1]) <= own


@pytest.mark.usefixtures("small_waves", "client")
@pytest.mark.parametrize("fuse", [None, False])
def test_what_is_persisted_on_workers_in_waves(make_raster: MakeRaster, tmp_path: Path, fuse: bool | None) -> None:
    import dask

    values = pixels((2, 250, 190))
    held = dr.open_raster(make_raster(values), chunks=64).persist()
    (once,) = dask.persist(dr.apply(largest, held, overlap=2))
    twice = dr.apply(largest, once.chunk({"y": 100, "x": 100}), overlap=2)
    due = largest(values), largest(largest(values))
    with dask.config.set({"optimization.fuse.active": fuse}):
        files = {tmp_path / "held.tif": held, tmp_path / "once.tif": once, tmp_path / "twice.tif": twice}
        dr.write_rasters(files, blocksize=32)
    assert (read(tmp_path / "held.tif") == values).all()
    assert (read(tmp_path / "once.tif") == due[0]).all()
    assert (read(tmp_path / "twice.tif") == due[1]).all()


def test_skipped_blocks_are_not_computed() -> None:
    counter = Counter()

    def count(block: NDArray[Any], block_id: Any = None) -> NDArray[Any]:
        counter.add(block_id)
        return block

    array = da.zeros((1, 40, 40), chunks=(1, 10, 10)).map_blocks(count, dtype="f8", meta=np.empty((0, 0, 0)))
    done = {(0, row, col) for row in range(4) for col in range(4) if row != 2}
    found: list[int] = []
    engines.run([values_of_blocks(array)], lambda number, _: found.append(number), skip=[done])
    assert len(found) == 4
    assert sorted(counter.calls) == [(0, 2, col) for col in range(4)]


def test_all_blocks_skipped_runs_nothing() -> None:
    array = values_of_blocks(da.zeros((1, 20, 20), chunks=(1, 10, 10)))
    engines.run([array], lambda *_: pytest.fail("nothing was left"), skip=[{(0, r, c) for r in (0, 1) for c in (0, 1)}])


@pytest.mark.usefixtures("small_waves")
def test_the_first_failure_stops_the_rest(make_raster: MakeRaster, tmp_path: Path) -> None:
    counter = Counter()

    def fails_at_second_row(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        counter.add(where.index)
        if where.index[0] == 1:
            raise ZeroDivisionError("second row")
        return block

    image = dr.open_raster(make_raster(pixels((1, 160, 64))), chunks=32)
    result = dr.apply(fails_at_second_row, image, with_block=True, dtype="uint16", bands=1)
    with pytest.raises(ZeroDivisionError, match="second row"):
        dr.write_raster(result, tmp_path / "out.tif", blocksize=32)
    assert {index[0] for index in counter.calls} == {0, 1}


def test_a_million_blocks_begin_with_one_wave() -> None:
    # 2 million x 2 million pixels. Were all tasks made first, this test would take minutes and gigabytes.
    side = 2_000_000
    view = SourceView(Nothing((1, side, side)), (1,), Window(0, 0, side, side))
    array = source_array(view, (split_axis(side, 2000), split_axis(side, 2000)), halo_yx=(5, 5))
    made = waves.waves([values_of_blocks(array)])
    first = next(made)
    assert array.npartitions == 1_000_000
    assert waves.WAVE_BLOCKS // 2 <= len(first.graph) == len(first.targets) <= 2 * waves.WAVE_BLOCKS
    assert not first.kept
    assert {block for _, block in first.targets.values()} == {
        (0, row, col) for row in range(len(first.graph) // 1000) for col in range(1000)
    }


class EnoughError(Exception):
    """Stops a run."""


def test_a_million_blocks_deliver_at_once() -> None:
    side = 2_000_000
    view = SourceView(Nothing((1, side, side)), (1,), Window(0, 0, side, side))
    array = source_array(view, (split_axis(side, 2000), split_axis(side, 2000)))
    came: list[Any] = []

    def take(_: int, value: Any) -> None:
        came.append(value)
        if len(came) == 10_000:
            raise EnoughError

    with pytest.raises(EnoughError):
        engines.run([values_of_blocks(array)], take)
    assert not any(came)
