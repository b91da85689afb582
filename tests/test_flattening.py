"""Which tasks become flat, and what is large travels once: equal pixels on every engine, dead workers, few bytes, no warning."""

from __future__ import annotations

import os
import pickle
import signal
import warnings
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from conftest import MakeRaster, pixels, read
from dask._task_spec import Task
from dask.sizeof import sizeof
from numpy.typing import NDArray

import daskraster as dr
from daskraster.running import recipes, waves
from daskraster.running.flattening import Flattening, Travel
from daskraster.running.recipes import LARGE_NBYTES, Packed, Program, Recipe
from tests.test_recipes import graph_of, numbered

QUIET: Any = {"progress": False, "statistics": False, "overviews": False}
VALUES = pixels((1, 160, 160))


class Table:
    """A function that looks pixels up in a table of 12 MB, and says where it was unpickled."""

    def __init__(self, unpickled: Path, killing: Path | None = None) -> None:
        self.table = np.random.default_rng(0).integers(0, 60_000, 6_000_000, "uint16")
        self.unpickled, self.killing = unpickled, killing

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        if self.killing is not None and not self.killing.exists():
            self.killing.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.table[block]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.unpickled.joinpath(f"{os.getpid()}-{os.urandom(4).hex()}").touch()


@pytest.fixture
def table(tmp_path: Path) -> Table:
    (tmp_path / "unpickled").mkdir()
    return Table(tmp_path / "unpickled")


def tables(table: Table) -> int:
    """How often other processes unpickled it; dask, to name it, does in this one."""
    return sum(not path.name.startswith(f"{os.getpid()}-") for path in table.unpickled.iterdir())


@pytest.fixture
def image(make_raster: MakeRaster) -> xr.DataArray:
    return dr.open_raster(make_raster(VALUES, tiled=True, blockxsize=32, blockysize=32), chunks=32)


def with_halo(image: xr.DataArray, table: Table) -> xr.DataArray:
    return dr.apply(table, image, overlap=1, dtype="uint16", bands=1)


def exchanging(image: xr.DataArray, table: Table) -> xr.DataArray:
    """Neighbours are exchanged in the graph, and the function stands inside of tasks that are each of its own kind."""
    return dr.apply(table, image + 0, overlap=1, dtype="uint16", bands=1)


def cut_anew(image: xr.DataArray, table: Table) -> xr.DataArray:
    return dr.apply(table, image, dtype="uint16", bands=1).chunk({"y": 50, "x": 70})


@pytest.mark.parametrize("make", [with_halo, exchanging, cut_anew], ids=lambda make: make.__name__)
@pytest.mark.parametrize("compute", [True, False])
def test_what_is_large_gives_equal_pixels(
    engine: str, image: xr.DataArray, table: Table, make: Any, compute: bool
) -> None:
    target = table.unpickled.parent / "out.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if engine == "client" and not compute:
            warnings.filterwarnings("ignore", message="Sending large graph")  # which is sent by dask itself
        later = dr.write_raster(make(image, table), target, blocksize=32, compute=compute, **QUIET)
        if not compute:
            later.compute()  # type: ignore[union-attr]
    np.testing.assert_array_equal(read(target), table.table[VALUES])
    if engine in ("synchronous", "threads"):
        assert tables(table) == 0
    elif compute:
        # By each process once for each kind of task, not by each of 25 blocks.
        assert 1 <= tables(table) <= 4


@pytest.fixture
def waves_of_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "WAVE_BLOCKS", 10)
    monkeypatch.setattr(waves, "SHARING_WAVE_BLOCKS", 10)


@pytest.mark.usefixtures("waves_of_ten")
@pytest.mark.parametrize("make", [with_halo, exchanging], ids=lambda make: make.__name__)
def test_large_things_in_several_waves(
    client: Any, image: xr.DataArray, tmp_path: Path, table: Table, make: Any
) -> None:
    dr.write_raster(make(image, table), tmp_path / "out.tif", blocksize=32, **QUIET)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), table.table[VALUES])
    assert 1 <= tables(table) <= 2
    # Nothing of it stays: neither results nor what processes keep.
    assert set(client.run(lambda: sum(name.startswith("recipe-") for name in recipes._known)).values()) == {0}


@pytest.mark.usefixtures("waves_of_ten")
def test_bytes_that_are_sent(table: Table, image: xr.DataArray) -> None:
    array = with_halo(image, table).data.map_blocks(numbered, dtype="i8")
    flattening = Flattening("run", Travel.LARGE_ONCE)
    graphs = [flattening.flattened(wave.graph) for wave in waves.waves([array])]
    assert len(graphs) == 3
    assert [len(names) for _, names in graphs] == [1, 0, 0]
    (name,) = graphs[0][1]
    for graph, names in graphs:
        blocks = [task for key, task in graph.items() if key not in names]
        assert all(task.dependencies == {name} for task in blocks)
        assert all(len(pickle.dumps(task)) < 1500 for task in blocks)
    content = cloudpickle.dumps(graphs[0][0])
    assert 12_000_000 < len(content) < 12_100_000
    assert sizeof(graphs[0][0][name].args[0]) > 12_000_000  # what dask's workers count as memory
    beside: list[Any] = []
    assert len(pickle.dumps(graphs[0][0][name], protocol=5, buffer_callback=beside.append)) < 10_000
    assert sum(buffer.raw().nbytes for buffer in beside) > 12_000_000


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_dies_with_the_only_copy(image: xr.DataArray, tmp_path: Path, table: Table) -> None:
    table.killing = tmp_path / "killed"
    with dr.cluster("local", n_workers=1, threads_per_worker=1, silence_logs=50):
        dr.write_raster(with_halo(image, table), tmp_path / "out.tif", blocksize=32, **QUIET)
    assert table.killing.exists()
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), table.table[VALUES])


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("large", [True, False])
def test_arrays_arrive_as_they_were(protocol: int, large: bool) -> None:
    values = np.arange(LARGE_NBYTES if large else 10)
    values[3] = -1
    fixed = values.copy()
    fixed.flags.writeable = False
    packed = Packed.of(Program(steps=(), out="value", shared={"value": (values, fixed)}, own=()))
    assert packed.compressed is not large
    came, came_fixed = pickle.loads(pickle.dumps(packed, protocol=protocol)).program()()
    np.testing.assert_array_equal(came, values)
    np.testing.assert_array_equal(came_fixed, values)
    assert came.flags.writeable


@pytest.mark.parametrize("function", [lambda block: block + 1, dask.utils.M.copy], ids=["one step", "by name"])
def test_tasks_of_one_step(engine: str, function: Any) -> None:
    """As a persisted array has them, which is in no graph any more."""
    persisted = da.from_array(VALUES, chunks=(1, 32, 32)).map_blocks(numbered, dtype="i8").persist()
    array = persisted.map_blocks(function, dtype="i8")
    graph, keys = graph_of(array)
    flat, _ = Flattening().flattened(graph)
    assert all(flat[key].dependencies == graph[key].dependencies for key in graph)
    if engine == "client":
        from distributed import get_client

        came = get_client().get(flat, keys)
    else:
        came = dask.base.get_scheduler(scheduler=dask.config.get("scheduler"))(flat, keys)
    due = [
        function(part) for part in dask.compute(*[persisted.blocks[block] for block in np.ndindex(persisted.numblocks)])
    ]
    for one, other in zip(came, due, strict=True):
        np.testing.assert_array_equal(one, other)


def test_persisted_blocks_are_written_by_flat_tasks(client: Any, image: xr.DataArray, tmp_path: Path) -> None:
    image = image.persist()
    seen: list[Any] = []
    original = Flattening.flattened

    def watched(self: Flattening, graph: Any) -> Any:
        seen.append(original(self, graph))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flattening, "flattened", watched)
        dr.write_raster(image, tmp_path / "out.tif", blocksize=32, **QUIET)
    ((graph, _),) = seen
    funcs = {task.func for task in graph.values() if type(task) is Task}
    assert len(funcs) == 1
    assert isinstance(funcs.pop(), Recipe)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), VALUES)
