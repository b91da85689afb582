"""A run that was begun by one engine is gone on with by another one, whatever is to come out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rio_cogeo import cog_validate

import daskraster as dr
from daskraster.files import Leftover, PartialFile
from daskraster.formats import geotiff
from daskraster.running import waves
from daskraster.running.journal import Journal
from daskraster.running.leftovers import remove_orphans
from tests.cog_files import check_cog
from tests.conftest import MakeRaster, pixels
from tests.killing import contents

QUIET: Any = {"progress": False, "blocksize": 16}
KINDS: dict[str, Any] = {
    "tif": {},
    "tif with mask and sidecar": {"mask": True, "sidecar": True, "categories": ["low", "high"], "thematic": True},
    "cog in order": {"driver": "COG"},
    "cog in order with mask": {"driver": "COG", "mask": True},
    "cog": {"driver": "COG"},
    "cog with mask and sidecar": {"driver": "COG", "mask": True, "sidecar": True},
    "kea with mask": {"driver": "KEA", "mask": True, "dtype": "float32", "nodata": None},
}
STOP = (3, 2)  # the last one of 4 x 3 blocks


class Work:
    """Stops at the last block while a file stands there, and leaves a file for each block it did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == STOP and (self.folder / "stop").exists():
            time.sleep(0.2)  # the receipts of the others are on their way
            raise ZeroDivisionError("stopped")
        (self.folder / f"done{where.index}").touch()
        return block * 2

    def __dask_tokenize__(self) -> Any:
        return "Work", str(self.folder)

    def done(self) -> int:
        """Blocks computed since it was asked last."""
        found = list(self.folder.glob("done*"))
        for path in found:
            path.unlink()
        return len(found)


@pytest.fixture
def image(make_raster: MakeRaster) -> Any:
    values = pixels((1, 128, 96))
    values[:, 40:70, 20:50] = 7
    path = make_raster(values, tiled=True, blockxsize=32, blockysize=32, nodata=7)
    return dr.open_raster(path, chunks=32, masked=True)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "work").mkdir()
    return Work(tmp_path / "work")


@pytest.fixture(params=["begun on threads", "begun on a cluster"])
def engines(request: pytest.FixtureRequest, client: Any) -> tuple[Any, Any]:
    """The scheduler that begins, and the one that goes on."""
    threads, cluster = {"scheduler": "threads", "num_workers": 2}, {"scheduler": client.get}
    return (threads, cluster) if request.param == "begun on threads" else (cluster, threads)


def all_of(path: Path, kind: str) -> Any:
    """All that is in a file and beside it."""
    beside = path.with_name(path.name + ".aux.xml")
    masks = None
    if not kind.startswith("kea"):
        with rasterio.open(path) as dataset:
            masks = dataset.dataset_mask().tobytes()
    return contents(path), masks, beside.read_text() if beside.exists() else None


@contextlib.contextmanager
def stopping(work: Work) -> Iterator[None]:
    (work.folder / "stop").touch()
    with pytest.raises(ZeroDivisionError):
        yield
    (work.folder / "stop").unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_one_engine_goes_on_where_another_stopped(  # noqa: PLR0917 - fixtures
    kind: str, engines: Any, image: Any, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = kind.startswith("cog in order")
    monkeypatch.setattr(geotiff, "ORDERED_NBYTES", 1 << 25 if in_order else 0)
    first, second = engines
    result = dr.apply(work, image, with_block=True, dtype="float32", bands=1)
    options = {"dtype": "uint16", "nodata": 7, "retries": 0, **QUIET, **KINDS[kind]}
    suffix = "kea" if kind.startswith("kea") else "tif"
    target, whole = tmp_path / "out" / f"out.{suffix}", tmp_path / f"whole.{suffix}"
    target.parent.mkdir()
    with dask.config.set(second if in_order and first["scheduler"] != "threads" else first):
        dr.write_raster(result, whole, **options)
    with dask.config.set(first), stopping(work):
        dr.write_raster(result, target, keep_partial=True, **options)
    work.done()
    with dask.config.set(second):
        report = dr.write_raster(result, target, resume=True, **options)
    assert isinstance(report, dr.WriteReport)
    assert report.resumed_blocks >= 1
    assert work.done() == 12 - report.resumed_blocks
    assert all_of(target, kind) == all_of(whole, kind)
    if kind.startswith("cog") and first["scheduler"] == "threads":
        check_cog(target, ordered=in_order, masked="mask" in kind)  # the layout is that of the run that began it
    elif kind.startswith("cog"):
        # Workers of the cluster are alive, and threads cannot ask them to write no more: their extents stay.
        assert cog_validate(target, strict=True, quiet=True)[0]
    beside = {target.name + ".aux.xml"} if "sidecar" in kind else set()
    assert set(os.listdir(target.parent)) == {target.name} | beside


def test_several_outputs_from_one_engine_to_another(engines: Any, image: Any, work: Work, tmp_path: Path) -> None:
    result = dr.apply(work, image, with_block=True, dtype="float32", bands=1)
    (tmp_path / "out").mkdir()
    names = {"a.tif": {"driver": "COG", "mask": True}, "b.kea": {}, "c.tif": {"sidecar": True}}

    def write(folder: Path, **options: Any) -> Any:
        rasters = {folder / name: result for name in names}
        own: Any = {folder / name: wishes for name, wishes in names.items()}
        return dr.write_rasters(rasters, output_options=own, retries=0, **QUIET, **options)

    first, second = engines
    with dask.config.set(first):
        write(tmp_path)
        with stopping(work):
            write(tmp_path / "out", keep_partial=True)
    work.done()
    with dask.config.set(second):
        reports = write(tmp_path / "out", resume=True)
    assert all(report.resumed_blocks >= 1 for report in reports)
    assert work.done() == 12 - min(report.resumed_blocks for report in reports)
    for name in names:
        assert all_of(tmp_path / "out" / name, name.split(".")[1]) == all_of(tmp_path / name, name.split(".")[1])
    assert set(os.listdir(tmp_path / "out")) == {*names, "c.tif.aux.xml"}


class Hiccups:
    """Blocks of one column raise once each; the last block raises as long as a file stands there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == STOP and (self.folder / "stop").exists():
            time.sleep(0.2)
            raise ZeroDivisionError("stopped")
        if where.index[1] == 1:
            with contextlib.suppress(FileExistsError):
                (self.folder / f"tried{where.index}").touch(exist_ok=False)
                raise ConnectionError("once")
        return block + 1

    def __dask_tokenize__(self) -> Any:
        return "Hiccups", str(self.folder)


@pytest.mark.parametrize("overlap", [0, 1])
def test_waves_retries_and_resume_together(
    overlap: int, image: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """What a wave keeps for the next one is there, though blocks are skipped and others are tried again."""
    monkeypatch.setattr(waves, "WAVE_BLOCKS", 3)
    monkeypatch.setattr(waves, "SHARING_WAVE_BLOCKS", 3)
    folder = tmp_path / "tries"
    folder.mkdir()
    base = image.copy(data=image.data.map_blocks(lambda block: block * 2, dtype="float32"))
    result = dr.apply(Hiccups(folder), base, overlap=overlap, with_block=True, dtype="float32", bands=1)
    (folder / "stop").touch()
    with pytest.raises(ZeroDivisionError):
        dr.write_raster(result, tmp_path / "out.tif", keep_partial=True, retries=1, **QUIET)
    (folder / "stop").unlink()
    for tried in folder.iterdir():
        tried.unlink()
    report = dr.write_raster(result, tmp_path / "out.tif", resume=True, retries=1, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.resumed_blocks >= 1
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "out.tif", masked=True).values, image.values * 2 + 1)
    assert set(os.listdir(tmp_path)) == {"in.tif", "out.tif", "tries"}


def test_extents_of_workers_that_agree_are_filled(client: Any, image: Any, work: Work, tmp_path: Path) -> None:
    """Begun and gone on with on one cluster: its workers say that they write no more, so nothing of theirs is left empty."""
    result = dr.apply(work, image, with_block=True, dtype="float32", bands=1)
    with stopping(work):
        dr.write_raster(result, tmp_path / "out.tif", keep_partial=True, retries=0, **QUIET)
    dr.write_raster(result, tmp_path / "out.tif", resume=True, **QUIET)
    dr.write_raster(result, tmp_path / "whole.tif", **QUIET)
    assert contents(tmp_path / "out.tif") == contents(tmp_path / "whole.tif")
    assert (tmp_path / "out.tif").stat().st_size <= (tmp_path / "whole.tif").stat().st_size * 1.1 + 8192


def test_a_block_left_over_claims_nothing_in_the_next_run(tmp_path: Path) -> None:
    """The leading process was killed, a worker is at work, and fills its extent when another run has gone on."""
    header = b"h" * 4096
    first = PartialFile.create(tmp_path / "out.bin", header, extent_nbytes=4096)
    late = first.append([b"a" * 3000])
    runs = [first.geometry]
    leftover = Leftover(path=first.path, runs=runs, offsets=np.array(late), sizes=np.array([3000]))
    second = PartialFile.reopen(tmp_path / "out.bin", leftover, extent_nbytes=4096)
    assert [(begin, size) for begin, size, _ in second.fenced] == [(4096, 4096)]
    first.append([b"a" * 1000])  # fits into its own extent
    own = second.append([b"b" * 4000])
    with pytest.raises(dr.RasterWriteError, match="cannot claim room"):
        first.append([b"a" * 3000])
    assert second.read(own[0], 4000) == b"b" * 4000
    second.discard()
    assert os.listdir(tmp_path) == []


def test_what_lies_beside_an_orphan_is_removed(tmp_path: Path) -> None:
    """Killed between the names of the file and of its sidecar."""
    partial = PartialFile.create(tmp_path / "out.tif", b"header", extent_nbytes=4096)
    start = {"target": "out.tif", "plan": {}}
    Journal.create(partial.path, partial.target, start, partial.geometry).close(flush=True)
    partial.path.with_name(partial.path.name + ".aux.xml").write_text("<PAMDataset/>")
    (tmp_path / ".out.tif.0123456789abcdef.part.aux.xml").write_text("of another run")
    partial.path.replace(partial.target)
    remove_orphans(tmp_path / "out.tif")
    assert set(os.listdir(tmp_path)) == {"out.tif", ".out.tif.0123456789abcdef.part.aux.xml"}
