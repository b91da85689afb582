"""What all tests share: real data where it lies beside the project, small rasters made by GDAL, one cluster for all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from daskraster import posting
from tests.fakepbs import FakePbs

# A busy machine is slow, and no fault of the code: nothing is timed in a test.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# What a shell without job control starts with "&" ignores Ctrl-C, and so does every process that it starts: tests of Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(__file__).parents[2] / "shared" / "data"
TRANSFORM = from_origin(300_000, 6_000_000, 10, 10)

type MakeRaster = Callable[..., Path]


@pytest.fixture(scope="session")
def landsat() -> Path:
    """Three bands of uint8, nodata 0, strips."""
    return _real("landsat/RGB.byte.tif")


@pytest.fixture(scope="session")
def sentinel() -> Path:
    """Ten bands of uint16."""
    return _real("sen2/sen2_20210527_aber_subset.tif")


def _real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real data is not here: {path}")
    return path


def pixels(shape: tuple[int, int, int], dtype: Any = "uint16", seed: int = 0) -> NDArray[Any]:
    """Noise on a slope: every pixel differs from its neighbours, over the whole range a scene has in ``dtype``."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(shape[1]), np.arange(shape[2])) / (shape[1] + shape[2])
    values = rng.normal(0.5, 0.15, shape) + slope / 4
    if kind.kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind)
    return (values.clip(0, 1) * min(limits.max, 50_000)).astype(kind) - (100 if limits.min < 0 else 0)


@pytest.fixture
def make_raster(tmp_path: Path) -> MakeRaster:
    """Write an array with GDAL and return the path."""

    def make(values: NDArray[Any], name: str = "in.tif", **profile: Any) -> Path:
        path = tmp_path / name
        options = {"crs": "EPSG:32755", "transform": TRANSFORM, "driver": "GTiff", **profile}
        with (
            ignoring_georeference(),
            rasterio.open(
                path,
                "w",
                count=values.shape[0],
                height=values.shape[1],
                width=values.shape[2],
                dtype=values.dtype,
                **options,
            ) as dataset,
        ):
            dataset.write(values)
        return path

    return make


class ignoring_georeference:  # noqa: N801 - reads as a phrase
    """GDAL's warning about rasters without a georeference, off."""

    def __enter__(self) -> None:
        self._context = warnings.catch_warnings()
        self._context.__enter__()
        warnings.simplefilter("ignore", NotGeoreferencedWarning)

    def __exit__(self, *args: object) -> None:
        self._context.__exit__(*args)


def read(path: Path) -> NDArray[Any]:
    """All pixels of a file, by GDAL."""
    with ignoring_georeference(), rasterio.open(path) as dataset:
        return dataset.read()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two worker processes of two threads."""
    distributed = pytest.importorskip("distributed")
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", memory_limit=None) as local,
    ):
        warnings.simplefilter("ignore")
        yield local


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    """A client that is active while the test runs."""
    from distributed import Client

    with Client(cluster) as active:
        yield active


@pytest.fixture(params=["synchronous", "threads", "processes", "client"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each way to run a graph."""
    import dask

    if request.param == "client":
        request.getfixturevalue("client")
        yield request.param
        return
    with dask.config.set(scheduler=request.param, num_workers=2):
        yield request.param


@pytest.fixture
def pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePbs:
    """Commands of a PBS, found first."""
    pytest.importorskip("dask_jobqueue")
    folder = tmp_path / "pbs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return FakePbs(folder)


@pytest.fixture(scope="module")
def blind_cluster() -> Iterator[Any]:
    """Two worker processes that take every folder for one they do not share."""
    distributed = pytest.importorskip("distributed")
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", memory_limit=None) as local,
    ):
        warnings.simplefilter("ignore")
        # Closed again: no test of the module is to run on it unless it says so.
        with distributed.Client(local) as client:
            client.register_worker_callbacks(_blindfold)
        yield local


def _blindfold() -> None:
    posting._meets = lambda *_: False


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A disk of 8 MB, remounted as a test likes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if mount is None or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes root; RLIMIT_FSIZE is tried in test_writing")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class Counter:
    """Counts calls from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: list[Any] = []

    def add(self, what: Any = None) -> None:
        """One more call."""
        with self._lock:
            self.calls.append(what)


@pytest.fixture
def nothing_runs() -> Iterator[None]:
    """A scheduler that refuses to run anything."""
    import dask

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was computed while a lazy array was built")

    with dask.config.set(scheduler=refuse):
        yield
