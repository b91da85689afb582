"""A run that was killed is gone on with, and its file is that of an uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import daskraster as dr
from daskraster.files import PartialFile
from daskraster.formats import geotiff
from daskraster.running import writing
from daskraster.running.leftovers import remains_of
from tests.conftest import TRANSFORM, Counter, MakeRaster, pixels, read
from tests.killing import contents

QUIET: Any = {"progress": False, "blocksize": 16}
ROOT = Path(__file__).parents[1]


def leftovers(folder: Path, *known: str) -> list[str]:
    return sorted(set(os.listdir(folder)) - set(known))


class Stops:
    """Stops the run after some blocks, where a number is given; counts them."""

    def __init__(self, after: int | None, *, factor: int = 1) -> None:
        self.after = after
        self.factor = factor
        self.done = Counter()

    def __call__(self, block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if self.after is not None and len(self.done.calls) >= self.after:
            raise ZeroDivisionError("of this block")
        self.done.add(where.index)
        return block * np.uint16(self.factor)

    def __dask_tokenize__(self) -> Any:
        return "Stops", self.factor

    def __reduce__(self) -> Any:
        return Stops, (self.after,)


def stopped(image: Any, target: Path, after: int = 10, **options: Any) -> None:
    """Leave a partial file."""
    import dask

    result = dr.apply(Stops(after), image, with_block=True, dtype="uint16", bands=1)
    with dask.config.set(scheduler="synchronous"), pytest.raises(ZeroDivisionError) as caught:
        dr.write_raster(result, target, keep_partial=True, **{**QUIET, **options})
    assert "resume=True goes on" in " ".join(caught.value.__notes__)


@pytest.fixture
def image(make_raster: MakeRaster) -> Any:
    return dr.open_raster(make_raster(pixels((1, 128, 96)), tiled=True, blockxsize=32, blockysize=32), chunks=32)


def check_kills(tmp_path: Path, wanted: str, *address: str) -> None:
    """Kills by `tests.killing`, and what came of each."""
    import rasterio

    with rasterio.open(
        tmp_path / "in.tif", "w", driver="GTiff", count=2, height=250, width=270, dtype="uint16", crs="EPSG:32755",
        transform=TRANSFORM, tiled=True, blockxsize=32, blockysize=32,
    ) as dataset:  # fmt: skip
        dataset.write(pixels((2, 250, 270)))
    command = [sys.executable, "-m", "tests.killing", str(tmp_path), wanted, "7", *address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    due = sum(int(one.partition(":")[2]) for one in wanted.split(","))
    assert len(lines) == due
    for line in lines:
        assert line["old target kept"], line
        assert line["same file"], line
        assert line["same statistics"], line
        assert line["resumed"], line
        assert line["left"] == [], line
    assert sum(line["in the middle"] for line in lines) >= 0.7 * due - 1, lines


def test_ten_kills_on_threads_and_gone_on_with(tmp_path: Path) -> None:
    check_kills(tmp_path, "tif:3,cog:2,large cog:1,kea:2,bilinear:1,bands:1")


def test_ten_kills_on_a_cluster_and_gone_on_with(cluster: Any, tmp_path: Path) -> None:
    """The leading process dies; the workers live, and may still write what they were at."""
    check_kills(tmp_path, "tif:3,large cog:4,kea:3", cluster.scheduler_address)


def test_the_leading_process_is_killed_while_blocks_travel(blind_cluster: Any, tmp_path: Path) -> None:
    """What the journal tells of was written and flushed by the process that died; the workers, which live, have nothing to add."""
    check_kills(tmp_path, "tif:1,kea:1", blind_cluster.scheduler_address)


@pytest.mark.parametrize("options", [{}, {"driver": "COG"}, {"overview_resampling": "nearest", "interleave": "band"}])
def test_finished_blocks_are_not_computed_again(image: Any, tmp_path: Path, options: Any) -> None:
    target = tmp_path / "out.tif"
    stopped(image, target, **options)
    again = Stops(None)
    result = dr.apply(again, image, with_block=True, dtype="uint16", bands=1)
    report = dr.write_raster(result, target, resume=True, **QUIET, **options)
    assert isinstance(report, dr.WriteReport)
    assert (report.blocks, report.resumed_blocks) == (12, 10)
    assert "10 of them resumed" in str(report)
    assert len(again.done.calls) == 2
    dr.write_raster(image, tmp_path / "whole.tif", **QUIET, **options)
    assert contents(target) == contents(tmp_path / "whole.tif")
    assert target.stat().st_size <= (tmp_path / "whole.tif").stat().st_size * 1.1 + 8192
    assert leftovers(tmp_path, "in.tif", "out.tif", "whole.tif") == []


def test_damaged_bytes_are_computed_again(image: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    stopped(image, target)
    (partial,) = tmp_path.glob(".out.tif.*.part")
    content = bytearray(partial.read_bytes())
    content[-300] ^= 255
    partial.write_bytes(content)
    again = Stops(None)
    dr.write_raster(dr.apply(again, image, with_block=True, dtype="uint16", bands=1), target, resume=True, **QUIET)
    assert len(again.done.calls) == 3
    assert (read(target) == image.values).all()


def test_from_threads_to_a_cluster_and_back(client: Any, image: Any, tmp_path: Path) -> None:
    import dask

    target = tmp_path / "out.tif"
    with dask.config.set(scheduler="threads"):
        stopped(image, target)
    with pytest.raises(ZeroDivisionError):
        dr.write_raster(
            dr.apply(Stops(0), image, with_block=True, dtype="uint16", bands=1), target, resume=True, **QUIET
        )
    with dask.config.set(scheduler="threads"):
        again = dr.apply(Stops(None), image, with_block=True, dtype="uint16", bands=1)
        report = dr.write_raster(again, target, resume=True, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.resumed_blocks >= 10
    assert (read(target) == image.values).all()
    assert leftovers(tmp_path, "in.tif", "out.tif") == []


def test_several_outputs_resume_together(image: Any, tmp_path: Path) -> None:
    import dask

    def both(stop: Stops) -> dict[Any, Any]:
        one = dr.apply(stop, image, with_block=True, dtype="uint16", bands=1)
        return {tmp_path / "a.tif": one, tmp_path / "b.kea": one + 1}

    with dask.config.set(scheduler="synchronous"), pytest.raises(ZeroDivisionError):
        dr.write_rasters(both(Stops(6)), keep_partial=True, **QUIET)
    again = Stops(None)
    dr.write_rasters(both(again), resume=True, **QUIET)
    assert len(again.done.calls) == len(set(again.done.calls)) == 6
    assert (read(tmp_path / "a.tif") == image.values).all()
    assert (dr.open_raster(tmp_path / "b.kea").values == image.values + 1).all()
    assert leftovers(tmp_path, "in.tif", "a.tif", "b.kea") == []


@pytest.mark.parametrize(
    ("step", "driver"),
    [
        *(("publish", driver) for driver in ("GTiff", "COG", "ordered COG", "KEA")),
        *(("close_gaps", driver) for driver in ("GTiff", "COG", "KEA")),
        ("rewrite", "ordered COG"),
    ],
)
def test_stopped_while_it_was_finishing(
    driver: str, step: str, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is in the header, regions have moved: what is not where it was is computed again."""
    monkeypatch.setattr(geotiff, "ORDERED_NBYTES", 1 << 30 if driver == "ordered COG" else 0)
    driver = driver.removeprefix("ordered ")
    original = getattr(PartialFile, step)

    def stops(self: PartialFile, *arguments: Any, **keywords: Any) -> Any:
        if step != "publish":
            original(self, *arguments, **keywords)
        raise KeyboardInterrupt

    monkeypatch.setattr(PartialFile, step, stops)
    with pytest.raises(KeyboardInterrupt):
        dr.write_raster(image, tmp_path / "out.tif", driver=driver, keep_partial=True, **QUIET)
    monkeypatch.setattr(PartialFile, step, original)
    dr.write_raster(image, tmp_path / "out.tif", driver=driver, resume=True, **QUIET)
    dr.write_raster(image, tmp_path / "whole.tif", driver=driver, **QUIET)
    found, due = (dr.open_raster(tmp_path / name).values for name in ("out.tif", "whole.tif"))
    assert (found == due).all()
    assert abs((tmp_path / "out.tif").stat().st_size - (tmp_path / "whole.tif").stat().st_size) < 8192
    if driver != "KEA":
        assert contents(tmp_path / "out.tif") == contents(tmp_path / "whole.tif")


def other_function(image: Any) -> Any:
    return dr.apply(Stops(None, factor=2), image, with_block=True, dtype="uint16", bands=1)


def same(image: Any) -> Any:
    return dr.apply(Stops(None), image, with_block=True, dtype="uint16", bands=1)


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (same, {"compress": "zstd"}, "option compress: 'deflate' then, 'zstd' now"),
        (same, {"dtype": "float32"}, "dtype: uint16 then, float32 now"),
        (same, {"statistics": False}, "option statistics: True then, False now"),
        (same, {"nodata": 7}, "option nodata: INHERIT then, 7 now"),
        (other_function, {}, "function Stops: .* then, .* now"),
        (lambda image: same(image) + 1, {}, "steps: .* then, .* now"),
        (lambda image: same(dr.open_raster(image.encoding["source"], chunks=64)), {}, "blocks: 4 x 3 .* then, 2 x 2"),
    ],
)
def test_another_plan_is_refused(image: Any, tmp_path: Path, change: Any, options: Any, match: str) -> None:
    stopped(image, tmp_path / "out.tif")
    image.encoding["source"] = str(tmp_path / "in.tif")
    kept = leftovers(tmp_path, "in.tif")
    with pytest.raises(dr.OptionError, match=match):
        dr.write_raster(change(image), tmp_path / "out.tif", resume=True, **QUIET, **options)
    assert leftovers(tmp_path, "in.tif") == kept


def test_a_changed_input_is_refused_and_a_name_vouches(image: Any, make_raster: MakeRaster, tmp_path: Path) -> None:
    stopped(image, tmp_path / "out.tif", name="mine")
    renamed = other_function(image)
    with pytest.raises(dr.OptionError, match="name: mine then, other now"):
        dr.write_raster(renamed, tmp_path / "out.tif", resume=True, name="other", **QUIET)
    report = dr.write_raster(renamed, tmp_path / "out.tif", resume=True, name="mine", **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.resumed_blocks == 10
    stopped(image, tmp_path / "out.tif", name="mine")
    changed = make_raster(pixels((1, 128, 96), seed=1), tiled=True, blockxsize=32, blockysize=32)
    with pytest.raises(dr.OptionError, match=r"input .*in.tif: .* bytes, modified at .* then, .* now"):
        dr.write_raster(
            same(dr.open_raster(changed, chunks=32)), tmp_path / "out.tif", resume=True, name="mine", **QUIET
        )


def test_what_is_left_is_reported_and_stays(image: Any, tmp_path: Path) -> None:
    stopped(image, tmp_path / "out.tif")
    kept = leftovers(tmp_path, "in.tif")
    with pytest.warns(dr.DaskRasterWarning, match=r"an earlier run has left .*MB, last written less than a minute ago"):
        dr.write_raster(image, tmp_path / "out.tif", **QUIET)
    assert leftovers(tmp_path, "in.tif", "out.tif") == kept


def test_with_nothing_to_resume_it_starts_afresh(image: Any, tmp_path: Path) -> None:
    report = dr.write_raster(image, tmp_path / "out.tif", resume=True, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.resumed_blocks == 0


def test_a_failing_run_keeps_only_what_was_asked_for(image: Any, tmp_path: Path) -> None:
    for options, kept in (({}, False), ({"keep_partial": False}, False), ({"resume": True}, True)):
        result = dr.apply(Stops(5), image, with_block=True, dtype="uint16", bands=1)
        with pytest.raises(ZeroDivisionError):
            dr.write_raster(result, tmp_path / "out.tif", **QUIET, **options)
        assert bool(leftovers(tmp_path, "in.tif")) == kept


def test_nothing_is_kept_where_nothing_is_finished(image: Any, tmp_path: Path) -> None:
    import dask

    result = dr.apply(Stops(0), image, with_block=True, dtype="uint16", bands=1)
    with dask.config.set(scheduler="synchronous"), pytest.raises(ZeroDivisionError):
        dr.write_raster(result, tmp_path / "out.tif", keep_partial=True, **QUIET)
    assert leftovers(tmp_path, "in.tif") == []


def test_two_runs_at_once(image: Any, tmp_path: Path) -> None:
    def inner(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (0, 0):
            with pytest.raises(dr.RasterWriteError, match=f": process {os.getpid()} on .* is writing it"):
                dr.write_raster(image, tmp_path / "out.tif", resume=True, **QUIET)
            dr.write_raster(image + 1, tmp_path / "out.tif", **QUIET)  # a file of its own
        return block

    dr.write_raster(dr.apply(inner, image, with_block=True, dtype="uint16", bands=1), tmp_path / "out.tif", **QUIET)
    assert (read(tmp_path / "out.tif") == image.values).all()
    assert leftovers(tmp_path, "in.tif", "out.tif") == []


@pytest.mark.parametrize("options", [{"resume": True}, {"keep_partial": True}, {"retries": 1}])
def test_not_with_delayed(image: Any, tmp_path: Path, options: Any) -> None:
    with pytest.raises(dr.OptionError, match="does not go with compute=False"):
        dr.write_raster(image, tmp_path / "out.tif", compute=False, **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"resume": 1}, "must be bool"),
        ({"retries": -1}, "out of range"),
        ({"resume": True, "keep_partial": False}, "does not go with"),
    ],
)
def test_options_that_cannot_be(image: Any, tmp_path: Path, options: Any, match: str) -> None:
    with pytest.raises(dr.OptionError, match=match):
        dr.write_raster(image, tmp_path / "out.tif", **options)


def test_finished_blocks_outlive_a_run_that_cannot_begin(
    image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.tif"
    stopped(image, target, sidecar=True)
    again = dr.apply(Stops(None), image, with_block=True, dtype="uint16", bands=1)

    def full(*_: Any) -> None:
        raise dr.RasterWriteError("cannot write: No space left on device")

    with monkeypatch.context() as patched, pytest.raises(dr.RasterWriteError, match="No space left"):
        patched.setattr(geotiff.GeoTiffSink, "_write_sidecar", full)
        dr.write_raster(again, target, resume=True, sidecar=True, **QUIET)
    report = dr.write_raster(again, target, resume=True, sidecar=True, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.resumed_blocks == 10
    assert (read(target) == image.values).all()


def test_retries_are_no_way_out_of_what_is_computed_later(image: Any, tmp_path: Path) -> None:
    # The first failure removes the file under way, wherever it is: another try by the scheduler has nothing to write to.
    with pytest.raises(dr.OptionError, match="a block that raises removes the file under way"):
        dr.write_raster(image, tmp_path / "out.tif", compute=False, retries=2)


def test_a_run_that_is_being_finished_is_not_taken_up(
    image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.tif"
    finish = writing.finish
    seen: list[Any] = []

    def looked_at(*arguments: Any) -> Any:
        # The last flush of a large file takes as long as the disk.
        seen.append(remains_of(target))
        if len(seen) == 1:
            with pytest.raises(dr.RasterWriteError, match="is writing it; wait for that run"):
                dr.write_raster(image, target, resume=True, **QUIET)
        return finish(*arguments)

    monkeypatch.setattr(writing, "finish", looked_at)
    dr.write_raster(image, target, **QUIET)
    ((remains, busy),) = seen
    assert remains == []
    assert len(busy) == 1
    assert (read(target) == image.values).all()
    assert leftovers(tmp_path, "in.tif", "out.tif") == []
