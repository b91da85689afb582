"""The scheduler in use, told without importing distributed: always what dask itself would choose."""

import json
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from dask.base import get_scheduler
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
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        assert scheduler_in_use() == client.get
        with dask.config.set(scheduler="threads"):
            assert scheduler_in_use() is dask.threaded.get
    assert scheduler_in_use() is dask.threaded.get


def test_a_scheduler_that_there_is_not_is_refused() -> None:
    with dask.config.set(scheduler="clouds"), pytest.raises(ValueError, match="Expected one of"):
        scheduler_in_use()
