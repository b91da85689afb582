"""Seconds of stages: each its own, and none of an earlier computation."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import daskraster as dr
from daskraster import timing
from tests.conftest import MakeRaster, pixels


def test_a_stage_inside_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timing.begin_anew()
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    with timing.stage("read"), timing.stage("function"):
        pass
    assert timing.take() == {"function": 2.0, "read": 5.0}
    assert timing.take() == {}


def test_what_was_spent_before_a_run_is_not_its_own(make_raster: MakeRaster, tmp_path: Path) -> None:
    def slowly() -> None:
        with timing.stage("read"):
            time.sleep(2)

    # In this thread, in which the run is, and in one of its own.
    slowly()
    other = threading.Thread(target=slowly)
    other.start()
    other.join()
    image = dr.open_raster(make_raster(pixels((1, 64, 64))))
    import dask

    with dask.config.set(scheduler="synchronous"):
        report = dr.write_raster(image, tmp_path / "out.tif", progress=False)
    assert report.stage_seconds["read"] < 2
