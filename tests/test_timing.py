"""Seconds of stages: each its own, and none of an earlier computation."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import daskraster as dr
from daskraster import timing
from tests.conftest import MakeRaster, pixels


def test_a_stage_inside_another_counts_once() -> None:
    timing.begin_anew()
    with timing.stage("read"):
        time.sleep(0.02)
        with timing.stage("function"):
            time.sleep(0.02)
    spent = timing.take()
    assert 0.02 <= spent["read"] < 0.04
    assert 0.02 <= spent["function"] < 0.04
    assert timing.take() == {}


def test_what_was_spent_before_a_run_is_not_its_own(make_raster: MakeRaster, tmp_path: Path) -> None:
    def slowly() -> None:
        with timing.stage("read"):
            time.sleep(0.5)

    # In this thread, in which the run is, and in one of its own.
    slowly()
    other = threading.Thread(target=slowly)
    other.start()
    other.join()
    image = dr.open_raster(make_raster(pixels((1, 64, 64))))
    import dask

    with dask.config.set(scheduler="synchronous"):
        report = dr.write_raster(image, tmp_path / "out.tif", progress=False)
    assert report.stage_seconds["read"] < 0.4
