"""Limits of libraries while a run lasts."""

from __future__ import annotations

import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import dask
import pytest
import rasterio.env
from conftest import MakeRaster, pixels

import daskraster as dr
from daskraster.running import limits
from daskraster.running.sizing import THREAD_VARIABLES


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*THREAD_VARIABLES, "GDAL_CACHEMAX"):
        monkeypatch.delenv(name, raising=False)


def look(block: Any) -> Any:
    """The limits as a block sees them: GDAL's threads, and those of BLAS by its variable."""
    gdal = rasterio.env.get_gdal_config("GDAL_NUM_THREADS") or 0
    cache = int(rasterio.env.get_gdal_config("GDAL_CACHEMAX")) >> 20
    block[0] = int(gdal)
    block[1] = int(os.environ.get("NUMBA_NUM_THREADS", "0"))
    block[2] = min(cache, 60_000)
    return block


def seen(make_raster: MakeRaster, folder: Path) -> list[int]:
    image = dr.open_raster(make_raster(pixels((3, 64, 64))))
    dr.write_raster(dr.apply(look, image, dtype="uint16", bands=3), folder / "out.tif", progress=False)
    return list(dr.open_raster(folder / "out.tif").values[:, 0, 0])


def test_threads_see_limits_while_they_run_and_not_after(make_raster: MakeRaster, tmp_path: Path) -> None:
    with dask.config.set(scheduler="threads", num_workers=2):
        assert seen(make_raster, tmp_path)[0] == 1
    assert "GDAL_NUM_THREADS" not in os.environ


def test_what_the_user_set_stays(make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_NUM_THREADS", "3")
    with dask.config.set(scheduler="threads", num_workers=2):
        assert seen(make_raster, tmp_path)[0] == 3
    assert os.environ["GDAL_NUM_THREADS"] == "3"


def test_limits_are_lifted_after_an_exception(make_raster: MakeRaster, tmp_path: Path) -> None:
    def fails(_: Any) -> Any:
        raise ValueError("no")

    image = dr.open_raster(make_raster(pixels((1, 64, 64))))
    with dask.config.set(scheduler="threads"), pytest.raises(ValueError, match="no"):
        dr.write_raster(dr.apply(fails, image, dtype="uint16", bands=1), tmp_path / "out.tif", progress=False)
    assert "GDAL_NUM_THREADS" not in os.environ


def _state() -> tuple[str | None, str | None, int]:
    gdal = os.environ.get("GDAL_NUM_THREADS"), os.environ.get("NUMBA_NUM_THREADS")
    return *gdal, int(rasterio.env.get_gdal_config("GDAL_CACHEMAX"))


def test_workers_of_any_client_are_limited_for_the_run(client: Any, make_raster: MakeRaster, tmp_path: Path) -> None:
    before = client.run(_state)
    gdal, numba, cache = seen(make_raster, tmp_path)
    assert (gdal, numba) == (1, 1)
    assert 32 <= cache <= 512
    assert client.run(_state) == before
    # dask's own default for its nannies, which is not ours to take back.
    assert {threads for _, threads, _ in before.values()} <= {None, "1"}


def test_a_worker_that_joins_in_the_middle_is_limited_too() -> None:
    with dr.cluster("local", n_workers=1, threads_per_worker=1, environment={"GDAL_NUM_THREADS": ""}) as client:
        with limits.limited(client):
            client.cluster.scale(2)
            client.wait_for_workers(2)
            assert {state[2] for state in client.run(limits_held).values()} == {1}
        assert {state[2] for state in client.run(limits_held).values()} == {0}


def limits_held() -> tuple[None, None, int]:
    """How many runs hold limits in this process."""
    return None, None, limits._holders


def test_runs_at_the_same_time_share_limits() -> None:
    limits.set_limits({"GDAL_NUM_THREADS": "1"}, threads=1)
    limits.set_limits({"GDAL_NUM_THREADS": "1"}, threads=1)
    limits.lift_limits()
    assert os.environ["GDAL_NUM_THREADS"] == "1"
    limits.lift_limits()
    assert "GDAL_NUM_THREADS" not in os.environ


def test_limits_from_many_threads_balance() -> None:
    def hold() -> None:
        for _ in range(100):
            limits.set_limits({"GDAL_NUM_THREADS": "1"}, threads=1)
            limits.lift_limits()

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limits._holders == 0
    assert "GDAL_NUM_THREADS" not in os.environ


def test_pools_of_loaded_libraries_are_limited_where_threadpoolctl_is_there() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = threadpoolctl.threadpool_info()
    limits.set_limits({}, threads=1)
    try:
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} <= {1}
    finally:
        limits.lift_limits()
    assert threadpoolctl.threadpool_info() == before


def test_pools_are_looked_for_again_only_after_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    looked: list[object] = []
    look = threadpoolctl.ThreadpoolController

    def counted() -> object:
        looked.append(1)
        return look()

    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", counted)
    monkeypatch.setattr(limits, "_known", None)
    for due in (1, 1, 2, 2):
        if len(looked) == 1 < due:
            monkeypatch.setitem(sys.modules, "just_imported", types.ModuleType("just_imported"))
        limits.set_limits({}, threads=1)
        limits.lift_limits()
        assert len(looked) == due
