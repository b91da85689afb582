"""Workers that are killed while they write: their running blocks are done again, nothing else is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeRaster, pixels, read

import daskraster as dr
from daskraster import posting


def slow_add(block: Any) -> Any:
    """Long enough that a kill always meets a block at work."""
    time.sleep(0.02)
    return block + 1


def kill_workers(client: Any, times: int, seconds: float, random_: random.Random, stop: threading.Event) -> list[int]:
    """Kill one worker process after the other with SIGKILL; a nanny starts another one in its place."""
    killed: list[int] = []
    while len(killed) < times and not stop.is_set():
        time.sleep(random_.uniform(0.5, 1.5) * seconds)
        nannies = list(client.cluster.workers.values())
        pids = [nanny.pid for nanny in nannies if nanny.pid is not None and nanny.pid not in killed]
        # Only those that the scheduler knows are at work.
        known = len(client.cluster.scheduler_info["workers"])
        if pids and known == len(nannies):
            pid = random_.choice(pids)
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    return killed


@pytest.mark.parametrize("shared", [True, False], ids=["shared folder", "blocks travel"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ten_killed_workers_lose_nothing(make_raster: MakeRaster, tmp_path: Path, shared: bool) -> None:
    values = pixels((1, 1280, 1024))
    image = dr.open_raster(make_raster(values, tiled=True, blockxsize=64, blockysize=64), chunks=64)
    result = dr.apply(slow_add, image, overlap=2, dtype="uint16", bands=1)
    folder = tmp_path / "out"
    folder.mkdir()
    expected = dr.write_raster(dr.apply(slow_add, image, dtype="uint16", bands=1), tmp_path / "whole.tif", blocksize=64)
    with dr.cluster("local", n_workers=3, threads_per_worker=2, silence_logs=50) as client:
        if not shared:
            client.register_worker_callbacks(_blindfold)
        stop, killed = threading.Event(), list[int]()
        killer = threading.Thread(
            target=lambda: killed.extend(kill_workers(client, 10, 0.05, random.Random(int(shared)), stop))
        )
        killer.start()
        turns = 0
        while killer.is_alive() or not turns:
            report = dr.write_raster(result, folder / "out.tif", blocksize=64, progress=False)
            turns += 1
            np.testing.assert_array_equal(read(folder / "out.tif"), values + 1)
            assert report.blocks == expected.blocks == 320
            assert report.statistics == expected.statistics
            assert [path.name for path in folder.iterdir()] == ["out.tif"]
        stop.set()
        killer.join()
    assert len(killed) == 10
    # The extents of the dead, of 1 MiB here, are filled: this machine knows that they are dead.
    assert report.file_nbytes < 1.05 * expected.file_nbytes


def _blindfold() -> None:
    posting._meets = lambda *_: False
