"""Flat tasks give what dask's fused ones give, on every engine, and carry what is common to all blocks as bytes made once."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import Task, _execute_subgraph
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

import daskraster as dr
from daskraster.grid import Window, split_axis
from daskraster.lazy.sources import SourceView, source_array
from daskraster.running import recipes
from daskraster.running.flattening import Flattening
from daskraster.running.recipes import Recipe, forget_recipes
from daskraster.running.waves import optimised, row_by_row, waves
from tests.conftest import MakeRaster, pixels, read
from tests.test_waves import Nothing, largest, values_of_blocks


def graph_of(array: da.Array) -> tuple[dict[str, Any], list[str]]:
    """The graph as a run has it, and the keys of the blocks."""
    keys = list(dask.core.flatten(array.__dask_keys__()))
    graph, names = row_by_row(optimised(array.dask, keys), "end")
    return graph, [names[key] for key in keys]


def flattened(graph: dict[str, Any], run: str = "") -> dict[str, Any]:
    return Flattening(run).flattened(graph)[0]


def numbered(block: NDArray[Any], block_id: tuple[int, ...] = ()) -> NDArray[Any]:
    """Tells which block it was called for."""
    return block * 100 + np.int64(10 * block_id[-2] + block_id[-1])


def both(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    return one * 2 - other


VALUES = pixels((1, 37, 41), "int64")


def plain() -> da.Array:
    return da.from_array(VALUES, chunks=(1, 10, 12))


def of_one_block() -> da.Array:
    return da.from_array(VALUES, chunks=-1).map_blocks(numbered, dtype="i8").map_blocks(numbered, dtype="i8")


def chained() -> da.Array:
    return (plain() + 1).map_blocks(numbered, dtype="i8").map_blocks(numbered, dtype="i8") * 3


def of_two() -> da.Array:
    other = da.from_array(VALUES[:, ::-1], chunks=(1, 10, 12)).map_blocks(numbered, dtype="i8")
    return da.map_blocks(both, chained(), other, dtype="i8").map_blocks(numbered, dtype="i8")


def shared_twice() -> da.Array:
    base = plain().map_blocks(numbered, dtype="i8")
    return (base + base.map_blocks(np.negative, dtype="i8")).map_blocks(numbered, dtype="i8") + base


def with_neighbours() -> da.Array:
    return (
        chained().map_overlap(largest, depth={1: 2, 2: 2}, boundary="none", dtype="i8").map_blocks(numbered, dtype="i8")
    )


def cut_anew() -> da.Array:
    return chained().rechunk((1, 7, 41)).map_blocks(numbered, dtype="i8")[:, 3:30].map_blocks(numbered, dtype="i8")


def joined() -> da.Array:
    """Blockwise that puts blocks of an axis together."""
    return da.blockwise(lambda block: block.sum(axis=2, keepdims=True), "byx", chained(), "byx", dtype="i8",
                        adjust_chunks={"x": 1}).map_blocks(numbered, dtype="i8")  # fmt: skip


ARRAYS = [plain, of_one_block, chained, of_two, shared_twice, with_neighbours, cut_anew, joined]


@pytest.mark.parametrize("make", ARRAYS, ids=lambda make: make.__name__)
def test_a_flat_graph_gives_what_dasks_gives(engine: str, make: Any) -> None:
    array = make()
    graph, keys = graph_of(array)
    flat = flattened(graph)
    assert set(flat) == set(graph)
    assert all(flat[key].dependencies == graph[key].dependencies for key in graph)
    assert not any(type(task) is Task and task.func is _execute_subgraph for task in flat.values())
    due = dask.get(graph, keys)  # type: ignore[attr-defined]
    if engine == "client":
        from distributed import get_client

        came = get_client().get(flat, keys)
    else:
        came = dask.base.get_scheduler(scheduler=dask.config.get("scheduler"))(flat, keys)
    for one, other in zip(came, due, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=25)
@given(
    rows=st.integers(1, 12),
    cols=st.integers(1, 12),
    steps=st.lists(st.sampled_from(["number", "add", "overlap", "rechunk", "slice", "twice"]), min_size=1, max_size=5),
)
def test_any_chain_of_steps(rows: int, cols: int, steps: list[str]) -> None:
    array = da.from_array(VALUES[:, :24, :24], chunks=(1, rows, cols))
    for step in steps:
        if step == "number":
            array = array.map_blocks(numbered, dtype="i8")
        elif step == "add":
            array = array + 1
        elif step == "overlap":
            array = array.map_overlap(largest, depth={1: 1, 2: 1}, boundary="reflect", dtype="i8")
        elif step == "rechunk":
            array = array.rechunk((1, cols, rows))
        elif step == "slice":
            array = array[:, :20, 1:]
        else:
            array = da.map_blocks(both, array, array.map_blocks(np.negative, dtype="i8"), dtype="i8")
    graph, keys = graph_of(array)
    came, due = dask.get(flattened(graph), keys), dask.get(graph, keys)  # type: ignore[attr-defined]
    for one, other in zip(came, due, strict=True):
        np.testing.assert_array_equal(one, other)


def large_raster(blocks: int) -> da.Array:
    side = blocks * 2000
    view = SourceView(Nothing((1, side, side)), (1,), Window(0, 0, side, side))
    chunks = split_axis(side, 2000)
    return values_of_blocks(source_array(view, (chunks, chunks), halo_yx=(5, 5)).map_blocks(numbered, dtype="i8"))


def test_tasks_of_a_wave_share_one_recipe_and_are_small() -> None:
    wave = next(waves([large_raster(1000)]))
    flat = flattened(wave.graph)
    (recipe,) = {task.func for task in flat.values()}
    assert isinstance(recipe, Recipe)
    # One number of its block each; of a million blocks no task carries their sizes as numbers.
    assert {task.args for task in flat.values()} == {(block,) for _, block in wave.targets.values()}
    assert all(len(pickle.dumps(task)) < 1500 for task in list(flat.values())[::500])


def test_no_order_is_sought_when_a_task_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = next(waves([large_raster(2)]))
    flat = flattened(wave.graph)
    monkeypatch.setattr("dask.order.order", lambda *_, **__: pytest.fail("dask orders the steps of a block"))
    assert [flat[key]() for key in sorted(flat)] == [0, 1, 10, 11]


UNPICKLED: list[int] = []


class Telltale:
    """A function that tells when it is unpickled."""

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        return block + 1

    def __reduce__(self) -> Any:
        return _telltale, ()


def _telltale() -> Telltale:
    UNPICKLED.append(1)
    return Telltale()


@pytest.fixture
def telltale() -> Iterator[list[Task]]:
    """Tasks as another process gets them, one by one; none has run there."""
    view = SourceView(Nothing((1, 60, 60)), (1,), Window(0, 0, 60, 60))
    array = source_array(view, ((20,) * 3, (20,) * 3)).map_blocks(Telltale(), dtype="i8")
    graph, _ = graph_of(array.map_blocks(numbered, dtype="i8"))
    flat = flattened(graph, "run")
    (recipe,) = {task.func for task in flat.values() if isinstance(getattr(task, "func", None), Recipe)}
    sent = [cloudpickle.dumps(task) for task in flat.values() if getattr(task, "func", None) is recipe]
    assert recipe.token.startswith("run")
    UNPICKLED.clear()
    yield [pickle.loads(content) for content in sent]
    forget_recipes("run")


def test_what_blocks_share_is_unpickled_once(telltale: list[Task]) -> None:
    assert len(telltale) > 4
    assert len({id(task.func) for task in telltale}) == 1
    assert not UNPICKLED  # a scheduler looks into none of it
    values = {key: np.zeros((1, 2, 2), "i8") for task in telltale for key in task.dependencies}
    threads = [threading.Thread(target=task, args=(values,)) for task in telltale]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(UNPICKLED) == 1


def test_what_ran_stays_until_its_run_is_forgotten(telltale: list[Task]) -> None:
    token = telltale[0].func.token
    telltale[0]({key: np.zeros((1, 2, 2), "i8") for key in telltale[0].dependencies})
    telltale.clear()
    gc.collect()
    assert token in recipes._kept
    forget_recipes("run")
    gc.collect()
    assert token not in recipes._kept
    assert token not in recipes._known


def test_what_never_ran_is_not_kept(telltale: list[Task]) -> None:
    token = telltale[0].func.token
    telltale.clear()
    gc.collect()
    assert token not in recipes._known


def fails(block: NDArray[Any]) -> NDArray[Any]:
    raise ZeroDivisionError(f"of {block.shape}")


def test_a_failing_step_raises_its_own(make_raster: MakeRaster, tmp_path: Path, engine: str) -> None:
    image = dr.open_raster(make_raster(pixels((1, 64, 64))), chunks=32)
    result = dr.apply(fails, image, dtype="uint16", bands=1)
    with pytest.raises(ZeroDivisionError, match=r"of \(1, 32, 32\)") as raised:
        dr.write_raster(result, tmp_path / "out.tif", blocksize=32)
    assert "Window(" in "".join(raised.value.__notes__)


def test_a_run_leaves_no_recipe_on_workers(make_raster: MakeRaster, tmp_path: Path, client: Any) -> None:
    client.run(forget_recipes, "")
    image = dr.open_raster(make_raster(pixels((1, 96, 96))), chunks=32)
    dr.write_raster(dr.apply(largest, image, overlap=2), tmp_path / "out.tif", blocksize=32)
    assert set(client.run(lambda: len(recipes._kept)).values()) == {0}


def test_no_name_is_used_in_two_runs() -> None:
    shared = [values_of_blocks(with_neighbours()), values_of_blocks(cut_anew())]
    first, second = (next(waves(shared)) for _ in range(2))
    assert set(first.graph).isdisjoint(second.graph)
    assert len(first.graph) == len(second.graph) > 50


@pytest.mark.usefixtures("client")
def test_two_runs_of_one_array_at_one_time(
    make_raster: MakeRaster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = pixels((1, 250, 190))
    once = dr.apply(largest, dr.open_raster(make_raster(values), chunks=32), overlap=2)
    twice = dr.apply(largest, once, overlap=2)  # exchanges neighbours: tasks that are no block's last
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            barrier.wait()
            dr.write_rasters({tmp_path / f"{name}-once.tif": once, tmp_path / f"{name}-twice.tif": twice}, blocksize=32)
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert "run_spec" not in caplog.text
    for name in "ab":
        assert (read(tmp_path / f"{name}-once.tif") == maximum_filter(values, size=(1, 5, 5))).all()
        assert (read(tmp_path / f"{name}-twice.tif") == maximum_filter(values, size=(1, 9, 9))).all()
