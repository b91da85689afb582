"""Workers with other versions than the leading process, which daskraster and what handles pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import daskraster as dr
from daskraster.running.agreeing import check_versions

IMAGE = xr.DataArray(np.ones((1, 32, 32), "uint8"), dims=("band", "y", "x")).chunk({"y": 16, "x": 16})


@contextmanager
def _worker_with(tmp_path: Path, **versions: str) -> Iterator[Client]:
    """A worker, alone on its cluster, that finds packages of other versions first."""
    folder = tmp_path / "others"
    for name, version in versions.items():
        (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    paths = [str(folder), str(Path(dr.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster) as client:
        command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            cluster.scheduler_address,
            "--no-nanny",
            "--nthreads",
            "1",
        ]
        worker = subprocess.Popen(
            [*command, "--no-dashboard", "--local-directory", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,  # the package's own metadata may lie in this folder
        )
        try:
            client.wait_for_workers(1, timeout=60)
            yield client
        finally:
            worker.terminate()
            worker.wait(30)


def test_another_daskraster_on_a_worker_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with (
        _worker_with(tmp_path, daskraster="9.9.9"),
        pytest.raises(dr.WorkerError, match=r"but 1 of 1 workers have 9\.9\.9 .*install one version on all machines"),
    ):
        dr.write_raster(IMAGE, tmp_path / "out.tif", blocksize=16, progress=False)
    assert sorted(path.name for path in tmp_path.glob("*out.tif*")) == []


@pytest.mark.filterwarnings("ignore:Mismatched versions found")
def test_another_rasterio_on_a_worker_is_told_once(tmp_path: Path) -> None:
    with (
        _worker_with(tmp_path, rasterio="0.0.1"),
        pytest.warns(dr.DaskRasterWarning, match=r"has rasterio .* but 1 of 1 workers have 0\.0\.1") as caught,
    ):
        dr.write_raster(IMAGE, tmp_path / "out.tif", blocksize=16, progress=False)
    assert len([one for one in caught if "rasterio" in str(one.message)]) == 1
    assert (dr.open_raster(tmp_path / "out.tif").values == 1).all()


def test_what_is_run_from_its_sources_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answering:
        """A Client whose workers tell of no daskraster, or of one where this process has none."""

        class scheduler:  # noqa: N801 - as distributed's attribute
            address = "tcp://127.0.0.1:1"

        def __init__(self, here: str | None, there: str | None) -> None:
            self._here, self._there = here, there

        def get_versions(self, **_: Any) -> dict[str, Any]:
            return {
                "client": {"packages": {"daskraster": self._here}},
                "workers": {"tcp://a:1": {"packages": {"daskraster": self._there}}, "tcp://b:1": None},
            }

    check_versions(Answering(None, "1"))
    check_versions(Answering("1", None))
    check_versions(Answering("1", "1"))
    check_versions(None)
    with pytest.raises(dr.WorkerError, match="1 of 1 workers have 2"):
        check_versions(Answering("1", "2"))
