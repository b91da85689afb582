"""The scheduler in use, told without importing distributed: always what dask itself would choose."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from dask.base import get_scheduler
from dask.callbacks import Callback
from distributed import Client, LocalCluster

import daskraster as dr
from daskraster.lazy.schedulers import scheduler_in_use

NAMES = (None, "threads", "Threading", "sync", "synchronous", "single-threaded", "processes", "multiprocessing")

SCRIPT = """
import sys, json, dask, daskraster as dr
from daskraster.lazy.schedulers import scheduler_in_use
found = []
for name in {names!r}:
    with dask.config.set(scheduler=name):
        scheduler = scheduler_in_use()
    found.append(scheduler.__module__ + "." + scheduler.__name__)
result = dr.apply(lambda block: block + 1, dr.open_raster({source!r}), overlap=2)
with dask.config.set(scheduler={name!r}):
    dr.write_raster(result, {target!r}, progress=False)
print(json.dumps([found, "distributed" in sys.modules]))
"""


def _named(scheduler: object) -> str:
    return f"{scheduler.__module__}.{scheduler.__name__}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [None, "threads"])
def test_a_script_on_threads_never_imports_distributed(tmp_path: Path, name: str | None) -> None:
    source = tmp_path / "in.tif"
    dr.write_raster(xr.DataArray(np.ones((1, 30, 40), "uint8"), dims=("band", "y", "x")), source, progress=False)
    script = SCRIPT.format(names=NAMES, source=str(source), target=str(tmp_path / "out.tif"), name=name)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found, imported = json.loads(done.stdout)
    expected = []
    for one in NAMES:
        with dask.config.set(scheduler=one):
            expected.append(_named(get_scheduler(collections=[]) or dask.threaded.get))
    assert found == expected
    assert not imported


def test_an_active_client_is_what_dask_chooses() -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        assert scheduler_in_use() == client.get
        with dask.config.set(scheduler="threads"):
            assert scheduler_in_use() is dask.threaded.get
    assert scheduler_in_use() is dask.threaded.get


def test_a_scheduler_that_there_is_not_is_refused() -> None:
    with dask.config.set(scheduler="clouds"), pytest.raises(ValueError, match="Expected one of"):
        scheduler_in_use()


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_threads_that_write_at_one_time_each_get_their_own_blocks(tmp_path: Path, scheduler: str) -> None:
    image = xr.DataArray(np.arange(48 * 48, dtype="uint16").reshape(1, 48, 48), dims=("band", "y", "x"))
    image = image.chunk({"y": 16, "x": 16})

    def write(thread: int) -> list[int]:
        return [
            dr.write_raster(image + 1, tmp_path / f"{thread}-{number}.tif", blocksize=16, progress=False).blocks
            for number in range(6)
        ]

    with dask.config.set(scheduler=scheduler), ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [[9] * 6] * 4


def test_a_scheduler_that_calls_no_one_back_gives_the_same_file(tmp_path: Path) -> None:
    def get(graph: Any, keys: Any, **_: Any) -> Any:
        # As another thread's run of dask does at just this moment.
        callbacks, Callback.active = Callback.active, set()
        try:
            return dask.threaded.get(graph, keys)
        finally:
            Callback.active = callbacks

    values = np.arange(48 * 40, dtype="uint16").reshape(1, 48, 40)
    image = xr.DataArray(values, dims=("band", "y", "x")).chunk({"y": 16, "x": 16})
    with dask.config.set(scheduler=get):
        report = dr.write_raster(image, tmp_path / "out.tif", blocksize=16, progress=False)
    assert report.blocks == 9
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "out.tif").values, values)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_users_own_callbacks_are_called_and_kept(tmp_path: Path, scheduler: str) -> None:
    image = xr.DataArray(np.ones((1, 48, 40), "uint8"), dims=("band", "y", "x")).chunk({"y": 16, "x": 16})
    seen: list[Any] = []
    with dask.config.set(scheduler=scheduler), Callback(posttask=lambda key, *_: seen.append(key)) as own:
        dr.write_raster(image, tmp_path / "out.tif", blocksize=16, progress=False)
        assert Callback.active == {own._callback}
    assert len(seen) >= 9
    assert Callback.active == set()
