"""Ctrl-C in the middle of a run: it ends in seconds, and leaves what was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask
import pytest

import daskraster as dr
from daskraster.formats.tiles import TileSink
from tests.conftest import MakeRaster, pixels

SECONDS = 20  # of which the cluster's workers take some to be stopped
ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys, time
import dask
import daskraster as dr

def slow(block):
    time.sleep(0.05)
    return block + 1

if __name__ == "__main__":
    source, target, engine, keep = sys.argv[1:]
    result = dr.apply(slow, dr.open_raster(source, chunks=32), dtype="uint16", bands=1)
    options = dict(blocksize=16, progress=False, keep_partial=keep == "keep", name="mine")
    if engine == "threads":
        with dask.config.set(scheduler="threads", num_workers=2):
            dr.write_raster(result, target, **options)
    else:
        with dr.cluster("local", n_workers=2, threads_per_worker=1):
            dr.write_raster(result, target, **options)
"""


@pytest.mark.parametrize("keep", ["keep", "remove"])
@pytest.mark.parametrize("engine", ["threads", "cluster"])
def test_ctrl_c(engine: str, keep: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 480, 480))
    source = make_raster(values, tiled=True, blockxsize=32, blockysize=32)
    (tmp_path / "script.py").write_text(SCRIPT)
    target = tmp_path / "out" / "out.tif"
    target.parent.mkdir()
    target.write_bytes(b"what stood there")
    run = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", source, target, engine, keep],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends Ctrl-C to all of a session
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 3000 for path in target.parent.glob(".*.journal")):
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    begin = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    _, told = run.communicate(timeout=60)
    assert time.monotonic() - begin < SECONDS
    assert run.returncode != 0
    assert "KeyboardInterrupt" in told
    assert target.read_bytes() == b"what stood there"
    left = sorted(path.name for path in target.parent.iterdir() if path != target)
    if keep == "remove":
        assert left == []
        return
    assert "resume=True goes on with" in told
    assert any(name.endswith(".journal") for name in left)
    # Another function in this process does the same, as name= says.
    result = dr.apply(lambda block: block + 1, dr.open_raster(source, chunks=32), dtype="uint16", bands=1)
    options: Any = {"blocksize": 16, "progress": False, "name": "mine"}
    report = dr.write_raster(result, target, resume=True, **options)
    assert isinstance(report, dr.WriteReport)
    assert 0 < report.resumed_blocks < report.blocks
    assert (dr.open_raster(target).values == values + 1).all()
    assert list(target.parent.iterdir()) == [target]


def test_a_second_one_in_the_cleaning_up(
    make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dr.open_raster(make_raster(pixels((1, 64, 64))), chunks=16)

    def pressed(block: Any) -> Any:
        raise KeyboardInterrupt

    discard = TileSink.discard

    def pressed_again(sink: TileSink) -> None:
        discard(sink)
        raise KeyboardInterrupt

    monkeypatch.setattr(TileSink, "discard", pressed_again)
    result = dr.apply(pressed, image, dtype="uint16", bands=1)
    (tmp_path / "out").mkdir()
    with dask.config.set(scheduler="synchronous"), pytest.raises(KeyboardInterrupt):
        dr.write_rasters({tmp_path / "out" / "a.tif": result, tmp_path / "out" / "b.kea": result}, sidecar=False)
    assert os.listdir(tmp_path / "out") == []
