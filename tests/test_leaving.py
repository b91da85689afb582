"""Schedulers that die, clients that are closed, users who press Ctrl-C twice: while blocks are under way on a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import distributed
import numpy as np
import pytest

import daskraster as dr
from daskraster.running import engines
from tests.conftest import MakeRaster, pixels, read

ROOT = Path(__file__).parents[1]
VALUES = pixels((1, 640, 640))


def slow_add(block: Any) -> Any:
    """100 of these take some seconds."""
    time.sleep(0.05)
    return block + 1


@pytest.fixture
def result(make_raster: MakeRaster) -> Any:
    image = dr.open_raster(make_raster(VALUES, tiled=True, blockxsize=64, blockysize=64), chunks=64)
    return dr.apply(slow_add, image, overlap=1, dtype="uint16", bands=1)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "out.tif"


@contextmanager
def meanwhile(target: Path, happens: Callable[[], None]) -> Iterator[None]:
    """When the first blocks are in the file, something happens, in a thread of its own."""

    def wait() -> None:
        while not list(target.parent.glob(".*.extents/[0-9]*")):
            time.sleep(0.01)
        time.sleep(0.2)
        happens()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def test_a_scheduler_that_dies(result: Any, target: Path, tmp_path: Path) -> None:
    where = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    quiet: Any = {"stderr": subprocess.DEVNULL, "env": environment}
    common = ["--no-dashboard", "--scheduler-file", str(where)]
    of_worker = ["--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path)]
    with (
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", *common], **quiet
        ) as scheduler,
        subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", *common, *of_worker], **quiet) as worker,
    ):
        try:
            while not where.exists():
                time.sleep(0.05)
            # So long a client tries to reach a scheduler again that is gone; half a minute otherwise.
            with distributed.Client(scheduler_file=str(where), timeout=3) as client:
                client.wait_for_workers(1, timeout=30)
                with (
                    meanwhile(target, scheduler.kill),
                    pytest.raises(dr.WorkerError, match="its scheduler is gone") as caught,
                ):
                    dr.write_raster(result, target, blocksize=64, progress=False, keep_partial=True)
        finally:
            scheduler.kill()
            worker.kill()
    assert "resume=True goes on" in " ".join(caught.value.__notes__)
    report = dr.write_raster(result, target, blocksize=64, progress=False, resume=True)
    assert isinstance(report, dr.WriteReport)
    np.testing.assert_array_equal(read(target), VALUES + 1)
    assert list(target.parent.iterdir()) == [target]


def test_a_client_that_is_closed(cluster: Any, result: Any, target: Path) -> None:
    with (
        distributed.Client(cluster) as client,
        meanwhile(target, client.close),
        pytest.raises(dr.WorkerError, match="the client was closed"),
    ):
        dr.write_raster(result, target, blocksize=64, progress=False)
    assert list(target.parent.iterdir()) == []


def test_ctrl_c_twice(client: Any, result: Any, target: Path) -> None:
    def presses() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.03)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), meanwhile(target, presses):
        try:
            dr.write_raster(result, target, blocksize=64, progress=False)
        finally:
            time.sleep(0.1)  # for the second one, where the first one was through before
    assert list(target.parent.iterdir()) == []
    dr.write_raster(result, target, blocksize=64, progress=False)
    np.testing.assert_array_equal(read(target), VALUES + 1)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("travel", [False, True], ids=["shared folder", "blocks travel"])
def test_folders_with_any_name(request: pytest.FixtureRequest, result: Any, tmp_path: Path, travel: bool) -> None:
    folder = tmp_path / "Karten für 'Öst' 日本 100%"
    folder.mkdir()
    with distributed.Client(request.getfixturevalue("blind_cluster" if travel else "cluster")):
        dr.write_raster(result, folder / "b é.tif", blocksize=64, progress=False)
    np.testing.assert_array_equal(read(folder / "b é.tif"), VALUES + 1)
    assert [path.name for path in folder.iterdir()] == ["b é.tif"]


def test_a_client_that_is_closed_while_receipts_are_fetched() -> None:
    """distributed then raises whatever comes of a scheduler that is None."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()

    class Client:
        status = "running"
        loop = SimpleNamespace(asyncio_loop=running)

        async def gather(self, *_: Any, **__: Any) -> None:
            self.status = "closed"
            raise AttributeError("'NoneType' object has no attribute 'gather'")

    class Finished:
        def has_ready(self) -> bool:
            return self.ready.pop()

        def __next__(self) -> Any:
            return SimpleNamespace(key="block")

        ready: ClassVar = [False, True]

    try:
        with pytest.raises(dr.WorkerError, match=r"results of 1 blocks cannot be fetched .* the client was closed"):
            engines._fetched(Client(), Finished(), None)
    finally:
        running.call_soon_threadsafe(running.stop)
        thread.join()
        running.close()
