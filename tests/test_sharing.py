"""Workers that do not see the folder of the output."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
from conftest import MakeRaster, pixels, read
from machines import machine

import daskraster as dr
from daskraster.formats.protocols import Sink
from daskraster.running import sharing
from daskraster.running.sharing import CommPost, PostOffice


@pytest.fixture
def blind(blind_cluster: Any) -> Iterator[Any]:
    with distributed.Client(blind_cluster) as client:
        yield client


def add_one(block: Any) -> Any:
    return block + 1


def products(path: Path) -> tuple[Any, ...]:
    """Pixels and all that GDAL says of a file, but for where its bytes are."""
    import rasterio

    with rasterio.open(path) as file:
        tags = [file.tags(band) for band in file.indexes]
        factors = file.overviews(1)
    levels = []
    for level in range(len(factors)):
        with rasterio.open(path, overview_level=level) as file:
            levels.append(file.read())
    return read(path), tags, factors, levels


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_the_same_file_as_on_threads(
    blind: Any, make_raster: MakeRaster, tmp_path: Path, driver: str, interleave: str
) -> None:
    values = pixels((2, 301, 517))
    image = dr.open_raster(make_raster(values, nodata=0), chunks=128)
    options: Any = {"driver": driver, "interleave": interleave, "blocksize": 64, "progress": False}
    result = dr.apply(add_one, image, overlap=3, dtype="uint16", bands=2)
    report = dr.write_raster(result, tmp_path / "blind.tif", **options)
    with dask_threads():
        expected = dr.write_raster(result, tmp_path / "threads.tif", **options)
    np.testing.assert_array_equal(read(tmp_path / "blind.tif"), values + 1)
    for mine, theirs in zip(products(tmp_path / "blind.tif"), products(tmp_path / "threads.tif"), strict=True):
        np.testing.assert_equal(mine, theirs)
    assert report.statistics == expected.statistics
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blind.tif", "in.tif", "threads.tif"]
    if driver == "COG":
        from rio_cogeo import cog_validate

        assert cog_validate(tmp_path / "blind.tif", strict=True)[:2] == (True, [])


def dask_threads() -> Any:
    import dask

    return dask.config.set(scheduler="threads")


def test_kea_travels_too(blind: Any, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 300, 200), "int32")
    image = dr.open_raster(make_raster(values), chunks=64)
    report = dr.write_raster(image, tmp_path / "out.kea", blocksize=64, progress=False)
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "out.kea").values, values)
    assert report.statistics[0].mean == pytest.approx(values.mean())
    assert report.overviews


def test_it_is_said_once(blind: Any, make_raster: MakeRaster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = dr.open_raster(make_raster(pixels((1, 200, 200))), chunks=64)
    with caplog.at_level(logging.WARNING, logger="daskraster"):
        dr.write_raster(image, tmp_path / "out.tif", blocksize=64, progress=False)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(f"2 of 2 workers do not share the folder {tmp_path} with this process")


def test_nothing_is_said_and_nothing_travels_where_all_see_it(
    client: Any,
    make_raster: MakeRaster,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offices: list[PostOffice] = []
    start = PostOffice.start
    monkeypatch.setattr(PostOffice, "start", lambda office: offices.append(office) or start(office))
    image = dr.open_raster(make_raster(pixels((1, 200, 200))), chunks=64)
    with caplog.at_level(logging.INFO, logger="daskraster"):
        dr.write_raster(image, tmp_path / "out.tif", blocksize=64, progress=False)
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in warned if record.name.startswith("daskraster")]
    assert [office.nbytes for office in offices] == [0]


def test_a_full_disk_of_the_leading_process_is_told(
    blind: Any, make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daskraster import writers

    def full(*_: Any, **__: Any) -> None:
        raise dr.RasterWriteError("cannot write out.tif: no space left on device")

    image = dr.open_raster(make_raster(pixels((1, 200, 200))), chunks=64)
    monkeypatch.setattr(writers.Writer, "append", full)
    with pytest.raises(dr.RasterWriteError, match=r"did not write a block: cannot write out\.tif: no space left"):
        dr.write_raster(image, tmp_path / "out.tif", blocksize=64, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def fails(block: Any, where: Any) -> Any:
    if (where.window.row_off, where.window.col_off) == (64, 64):
        raise ValueError("this block is lost")
    return block


def test_a_block_that_fails_leaves_nothing(blind: Any, make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 300, 300))), chunks=64)
    result = dr.apply(fails, image, with_block=True, dtype="uint16", bands=1)
    with pytest.raises(ValueError, match="this block is lost"):
        dr.write_raster(result, tmp_path / "out.tif", blocksize=64, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_few_blocks_at_a_time_are_in_the_leading_process(
    blind: Any, make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daskraster import writers

    monkeypatch.setattr(sharing, "SLOTS", 1)
    append, at_once, most = writers.Writer.append, [0], [0]

    def slow(*arguments: Any, **keywords: Any) -> Any:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        try:
            return append(*arguments, **keywords)
        finally:
            at_once[0] -= 1

    monkeypatch.setattr(writers.Writer, "append", slow)
    values = pixels((1, 300, 300))
    image = dr.open_raster(make_raster(values), chunks=64)
    dr.write_raster(image, tmp_path / "out.tif", blocksize=64, progress=False, overviews=False)
    assert most[0] == 1
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), values)


class TestPostOffice:
    """The leading process's side, asked directly."""

    @pytest.fixture
    def office(
        self, client: Any, make_raster: MakeRaster, tmp_path: Path
    ) -> Iterator[tuple[CommPost, Sink, PostOffice]]:
        from daskraster.options import WriteOptions
        from daskraster.running.writing import _plan

        image = dr.open_raster(make_raster(pixels((1, 64, 64))))
        target = tmp_path / "out.tif"
        sink = _plan({target: image}, {target: WriteOptions.of({})})[0].sink.start(many_processes=True)
        assert sink.partial is not None
        office = PostOffice(client, [sink.partial])
        yield office.start(), sink, office
        office.stop()
        sink.discard()

    def test_parts_are_written_where_it_says(self, office: tuple[CommPost, Sink, PostOffice]) -> None:
        post, sink, counted = office
        assert sink.partial is not None
        offsets = post.deliver(sink.partial.path, [b"abc", memoryview(b"defg"), b""], reserved=False)
        assert [sink.partial.read(offset, size) for offset, size in zip(offsets, (3, 4, 0), strict=True)] == [
            b"abc",
            b"defg",
            b"",
        ]
        assert counted.nbytes == 7

    def test_it_sees_files_beside_the_output_only(self, office: tuple[CommPost, Sink, PostOffice]) -> None:
        post, sink, _ = office
        assert sink.partial is not None
        greeting = sink.partial.claims / "met-1"
        assert post.sees(greeting) is False
        greeting.touch()
        assert post.sees(greeting) is True
        assert post.sees(Path("/etc/passwd")) is False

    def test_strangers_are_turned_away(
        self, office: tuple[CommPost, Sink, PostOffice], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        post, sink, _ = office
        assert sink.partial is not None
        monkeypatch.setattr(sharing, "TRIES", 1)
        stranger = CommPost(address=post.address, secret="guessed")
        assert stranger.sees(sink.partial.claims) is None
        with pytest.raises(dr.RasterWriteError, match="cannot pass its block on"):
            stranger.deliver(sink.partial.path, [b"abc"], reserved=False)

    def test_another_file_is_refused(self, office: tuple[CommPost, Sink, PostOffice], tmp_path: Path) -> None:
        with pytest.raises(dr.RasterWriteError, match="it writes no such file"):
            office[0].deliver(tmp_path / "other", [b"abc"], reserved=False)

    def test_nothing_is_taken_after_the_run(
        self, office: tuple[CommPost, Sink, PostOffice], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        post, sink, own = office
        assert sink.partial is not None
        monkeypatch.setattr(sharing, "TRIES", 1)
        monkeypatch.setattr(sharing, "CONNECT_SECONDS", 1)
        own.stop()
        with pytest.raises(dr.RasterWriteError, match="write to a folder that all machines see"):
            post.deliver(sink.partial.path, [b"abc"], reserved=False)

    def test_the_secret_is_not_shown(self, office: tuple[CommPost, Sink, PostOffice]) -> None:
        assert office[0].secret not in repr(office[0])


@pytest.fixture
def empty_cluster() -> Iterator[Any]:
    """A scheduler without workers."""
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as local,
        distributed.Client(local) as client,
    ):
        yield client


def where_written(block: Any) -> Any:
    time.sleep(0.02)
    return block + 1


def test_machines_that_share_the_folder_only(empty_cluster: Any, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 400, 400))
    image = dr.open_raster(make_raster(values), chunks=64)
    (tmp_path / "shared").mkdir()
    target = tmp_path / "shared" / "out.tif"
    with machine(empty_cluster, tmp_path, "first"), machine(empty_cluster, tmp_path, "second"):
        pids = empty_cluster.run(os.getpid)
        assert len(set(pids.values())) == 1  # the same process number on two machines
        result = dr.apply(where_written, image, overlap=1, dtype="uint16", bands=1)
        dr.write_raster(result, target, blocksize=64, progress=False)
        assert set(itertools.chain(*[p.iterdir() for p in (tmp_path / "first", tmp_path / "second")]))
    np.testing.assert_array_equal(read(target), values + 1)
    assert list(target.parent.iterdir()) == [target]


def test_a_machine_that_does_not_see_the_folder(
    empty_cluster: Any, make_raster: MakeRaster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = pixels((1, 400, 400))
    image = dr.open_raster(make_raster(values), chunks=64)
    folder = tmp_path / "shared"
    folder.mkdir()
    result = dr.apply(where_written, image, overlap=1, dtype="uint16", bands=1)
    with machine(empty_cluster, tmp_path, "seeing"), machine(empty_cluster, tmp_path, "blind", hidden=[folder]):
        dr.write_raster(result, folder / "out.tif", blocksize=64, progress=False)
        # A disk of its own under that name, and nothing on it.
        assert sorted(map(len, empty_cluster.run(os.listdir, str(folder)).values())) == [0, 1]
    np.testing.assert_array_equal(read(folder / "out.tif"), values + 1)
    assert "1 of 2 workers do not share the folder" in caplog.text
    assert list(folder.iterdir()) == [folder / "out.tif"]


def test_a_run_that_nobody_leads_is_refused_there(empty_cluster: Any, make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 400, 400))), chunks=64)
    folder = tmp_path / "shared"
    folder.mkdir()
    result = dr.apply(where_written, image, overlap=1, dtype="uint16", bands=1)
    later = dr.write_raster(result, folder / "out.tif", compute=False, progress=False)
    with machine(empty_cluster, tmp_path, "seeing"), machine(empty_cluster, tmp_path, "blind", hidden=[folder]):
        with pytest.raises(dr.RasterWriteError, match=r"compute=False: 1 of 2 workers .* do not share .* compute=True"):
            later.compute()
        assert sorted(map(len, empty_cluster.run(os.listdir, str(folder)).values())) == [0, 0]


def test_a_worker_that_joins_a_run_that_nobody_leads(
    blind_cluster: Any, make_raster: MakeRaster, tmp_path: Path
) -> None:
    """The first task has asked those that were there; these take the folder for another one only later."""
    from distributed import Client

    image = dr.open_raster(make_raster(pixels((1, 100, 100))), chunks=64)
    later = dr.write_raster(image, tmp_path / "out.tif", compute=False, progress=False)
    with (
        Client(blind_cluster),
        pytest.raises(dr.RasterWriteError, match=r"joined when the run had begun.* compute=True"),
    ):
        later.compute()
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_a_blind_machine_that_joins_in_the_middle(empty_cluster: Any, make_raster: MakeRaster, tmp_path: Path) -> None:
    import threading

    values = pixels((1, 640, 640))
    image = dr.open_raster(make_raster(values), chunks=64)
    folder = tmp_path / "shared"
    folder.mkdir()
    result = dr.apply(where_written, image, overlap=1, dtype="uint16", bands=1)
    reports: list[Any] = []

    def write() -> None:
        with empty_cluster.as_current():
            import dask

            with dask.config.set(scheduler=empty_cluster.get):
                reports.append(dr.write_raster(result, folder / "out.tif", blocksize=64, progress=False))

    with machine(empty_cluster, tmp_path, "seeing"):
        thread = threading.Thread(target=write)
        thread.start()
        while not list(folder.glob(".*.extents/[0-9]*")):
            time.sleep(0.01)
        with machine(empty_cluster, tmp_path, "blind", hidden=[folder]):
            thread.join(60)
    assert reports
    np.testing.assert_array_equal(read(folder / "out.tif"), values + 1)
    assert list(folder.iterdir()) == [folder / "out.tif"]


def test_a_disk_that_is_full_where_blocks_arrive(blind: Any, make_raster: MakeRaster, small_disk: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65535, (1, 512, 512), "uint16")  # half a MB that does not shrink
    image = dr.open_raster(make_raster(values), chunks=64)
    target = small_disk / "out.tif"
    target.write_bytes(b"what stood there")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(8 * 2**20 - 300_000))
    with pytest.raises(dr.RasterWriteError, match=r"did not write a block: cannot write .*: No space left on device"):
        dr.write_raster(image, target, blocksize=64, progress=False, keep_partial=True)
    assert target.read_bytes() == b"what stood there"
    filler.unlink()
    report = dr.write_raster(image, target, blocksize=64, progress=False, resume=True)
    assert isinstance(report, dr.WriteReport)
    np.testing.assert_array_equal(read(target), values)
    assert list(small_disk.iterdir()) == [target]
