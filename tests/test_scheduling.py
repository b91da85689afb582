"""Which scheduler dask would use, asked without importing distributed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.threaded
import pytest
from dask.base import named_schedulers

from daskraster.lazy.scheduling import scheduler_in_use

WRITING = """
import sys
import numpy as np
import xarray as xr
import daskraster as dr

image = xr.DataArray(np.ones((1, 30, 40), "uint8"), dims=("band", "y", "x"))
dr.write_raster(dr.apply(np.negative, image, overlap=1), sys.argv[1])
back = dr.open_raster(sys.argv[1])
dr.write_raster(dr.calc("b1+1", back), sys.argv[1])
print("distributed" in sys.modules)
"""


@pytest.fixture(params=[True, False], ids=["imported", "not imported"])
def modules(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With distributed among the imported modules, which is the general path, and without."""
    importlib.import_module("distributed")
    if not request.param:
        monkeypatch.delitem(sys.modules, "distributed")


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize("name", [*named_schedulers, "Threads", "SYNC"])
def test_equals_dask_by_name(name: str) -> None:
    with dask.config.set(scheduler=name):
        assert scheduler_in_use() is named_schedulers[name.lower()]


@pytest.mark.usefixtures("modules")
def test_threads_where_nothing_is_set() -> None:
    assert scheduler_in_use() is dask.threaded.get


@pytest.mark.usefixtures("modules")
def test_a_function_is_itself() -> None:
    def own(graph: Any, keys: Any, **_: Any) -> Any:
        return dask.threaded.get(graph, keys)

    with dask.config.set(scheduler=own):
        assert scheduler_in_use() is own


@pytest.mark.parametrize(("name", "error", "says"), [
    ("nonsense", ValueError, "Expected one of"),
    ("distributed", RuntimeError, "no Client active"),
])  # fmt: skip
def test_what_dask_refuses(name: str, error: type[Exception], says: str) -> None:
    with dask.config.set(scheduler=name), pytest.raises(error, match=says):
        scheduler_in_use()


@pytest.mark.parametrize("suffix", ["tif", "kea"])
def test_a_run_in_threads_imports_no_distributed(tmp_path: Path, suffix: str) -> None:
    command = [sys.executable, "-c", WRITING, str(tmp_path / f"out.{suffix}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"], done.stdout
