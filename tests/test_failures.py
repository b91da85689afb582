"""Whatever fails, one clear exception says so, and the target stays what it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
from numpy.typing import NDArray

import daskraster as dr
from daskraster.running.keeping import is_batch, keeps_partial
from tests.conftest import MakeRaster, pixels, read

QUIET: Any = {"progress": False, "blocksize": 32}


def leftovers(folder: Path, *known: str) -> list[str]:
    return sorted(set(os.listdir(folder)) - set(known))


@pytest.fixture
def image(make_raster: MakeRaster) -> Any:
    return dr.open_raster(make_raster(pixels((1, 128, 128)), tiled=True, blockxsize=32, blockysize=32), chunks=32)


def applied(func: Any, image: Any) -> Any:
    return dr.apply(func, image, with_block=True, dtype="uint16", bands=1)


def failing(folder: Path, times: int) -> Any:
    """A function that raises so often at block (1, 2), in whichever process."""

    def fails(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (1, 2):
            for number in range(times):
                try:
                    os.close(os.open(folder / f"try{number}", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                raise ConnectionError("the disk hiccuped")
        return block

    return fails


def test_a_block_that_raises_is_tried_again(engine: str, image: Any, tmp_path: Path) -> None:
    (tmp_path / "tries").mkdir()
    result = applied(failing(tmp_path / "tries", 2), image)
    dr.write_raster(result, tmp_path / "out.tif", retries=2, **QUIET)
    assert (read(tmp_path / "out.tif") == image.values).all()


@pytest.mark.parametrize("options", [{"retries": 1}, {}])
def test_then_it_stops_the_run(engine: str, options: Any, image: Any, tmp_path: Path) -> None:
    (tmp_path / "tries").mkdir()
    with pytest.raises(ConnectionError, match="the disk hiccuped") as caught:
        dr.write_raster(applied(failing(tmp_path / "tries", 99), image), tmp_path / "out.tif", **options, **QUIET)
    notes = " ".join(caught.value.__notes__)
    assert "Window(row_off=32, col_off=64, height=32, width=32)" in notes
    tries = 2 if options else 3 if engine == "client" else 1
    assert len(os.listdir(tmp_path / "tries")) == tries
    assert (f"tried {tries} times" in notes) == (tries > 1)
    assert leftovers(tmp_path, "in.tif", "tries") == []


def test_a_plain_step_names_its_block_too(image: Any, tmp_path: Path) -> None:
    def fails(block: NDArray[Any]) -> NDArray[Any]:
        raise ZeroDivisionError("here")

    bad = image.copy(data=image.data.map_blocks(fails, dtype="uint16", meta=np.empty((0, 0, 0), "uint16")))
    with pytest.raises(ZeroDivisionError) as caught:
        dr.write_raster(bad, tmp_path / "out.tif", **QUIET)
    assert "while computing Window(" in " ".join(caught.value.__notes__)
    assert "of " + str(tmp_path / "out.tif") in " ".join(caught.value.__notes__)


def test_what_cannot_be_sent_is_said_before_anything_runs(client: Any, image: Any, tmp_path: Path) -> None:
    lock = threading.Lock()

    def holds(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        with lock:
            return block

    for scheduler in (None, "processes"):
        with (
            dask.config.set({} if scheduler is None else {"scheduler": scheduler}),
            pytest.raises(dr.FunctionPicklingError, match=r"the function holds cannot be sent .*lock"),
        ):
            dr.write_raster(applied(holds, image), tmp_path / "out.tif", **QUIET)
    assert leftovers(tmp_path, "in.tif") == []
    with dask.config.set(scheduler="threads"):
        dr.write_raster(applied(holds, image), tmp_path / "out.tif", **QUIET)


@pytest.fixture(scope="module")
def mortal() -> Any:
    """A cluster whose workers may die, one with a block at most twice."""
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None, silence_logs=50
        ) as cluster,
    ):
        yield cluster


def test_a_dead_worker_costs_its_blocks_only(mortal: Any, image: Any, tmp_path: Path) -> None:
    from distributed import Client

    (tmp_path / "tries").mkdir()

    def dies(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (2, 1):
            try:
                os.close(os.open(tmp_path / "tries" / "first", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return block
            os.kill(os.getpid(), 9)
        return block

    with Client(mortal):
        report = dr.write_raster(applied(dies, image), tmp_path / "out.tif", **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.blocks == 16
    assert (read(tmp_path / "out.tif") == image.values).all()
    assert leftovers(tmp_path, "in.tif", "out.tif", "tries") == []


def test_a_block_that_kills_workers_is_given_up(mortal: Any, image: Any, tmp_path: Path) -> None:
    from distributed import Client

    def dies(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (2, 1):
            os.kill(os.getpid(), 9)
        return block

    (tmp_path / "out.tif").write_bytes(b"what stood there")
    with Client(mortal) as client:
        with pytest.raises(dr.WorkerError, match=r"Window\(.* 2 workers died .*memory"):
            dr.write_raster(applied(dies, image), tmp_path / "out.tif", **QUIET)
        client.wait_for_workers(2)
    assert (tmp_path / "out.tif").read_bytes() == b"what stood there"
    assert leftovers(tmp_path, "in.tif", "out.tif") == []


def test_a_worker_without_a_package(mortal: Any, image: Any, tmp_path: Path) -> None:
    from distributed import Client

    def wants(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        import no_such_package_anywhere  # type: ignore[import-not-found]

        return no_such_package_anywhere.work(block)

    with (
        Client(mortal),
        pytest.raises(dr.WorkerError, match=r"No module named .*; install there what is installed here"),
    ):
        dr.write_raster(applied(wants, image), tmp_path / "out.tif", retries=0, **QUIET)


def test_the_folder_is_gone_meanwhile(engine: str, image: Any, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()

    def removes(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (1, 1):
            shutil.rmtree(folder, ignore_errors=True)
        return block

    with pytest.raises(dr.RasterWriteError, match="results"):
        dr.write_raster(applied(removes, image), folder / "out.tif", retries=0, **QUIET)
    assert leftovers(tmp_path, "in.tif", "results") == []


@pytest.mark.parametrize("harm", ["vanished", "truncated"])
def test_the_input_goes_meanwhile(harm: str, image: Any, tmp_path: Path) -> None:
    def harms(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (1, 1):
            (tmp_path / "in.tif").unlink() if harm == "vanished" else os.truncate(tmp_path / "in.tif", 100)
        return block

    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(dr.RasterReadError, match=r"is gone|changed after it was opened"),
    ):
        dr.write_raster(applied(harms, image), tmp_path / "out.tif", **QUIET)
    assert leftovers(tmp_path, "in.tif") == []


@pytest.mark.parametrize("suffix", ["tif", "kea"])
def test_the_disk_is_full_at_any_point(suffix: str, small_disk: Path, make_raster: MakeRaster) -> None:
    """Five times each: so much is taken that the run stops anywhere between its header and its last bytes."""
    noise = np.random.default_rng(0).integers(0, 65535, (1, 512, 512), "uint16")
    image = dr.open_raster(make_raster(noise, "noise.tif"), chunks=64)
    target = small_disk / f"out.{suffix}"
    target.write_bytes(b"what stood there")
    rng = np.random.default_rng(1)
    for number in range(5):
        filler = small_disk / "filler"
        room = int(rng.integers(4096, 600_000))
        filler.write_bytes(b"x" * max(8 * 2**20 - 16_384 - room, 0))
        with pytest.raises(dr.RasterWriteError, match=r"No space left|too large"):
            dr.write_raster(image, target, progress=False, blocksize=64, keep_partial=bool(number % 2))
        assert target.read_bytes() == b"what stood there"
        if not number % 2:
            assert leftovers(small_disk, target.name, "filler") == []
        filler.unlink()
        if number % 2:
            report = dr.write_raster(image, target, progress=False, blocksize=64, resume=True)
            assert isinstance(report, dr.WriteReport)
            assert (dr.open_raster(target).values == noise).all()
            target.write_bytes(b"what stood there")
        assert leftovers(small_disk, target.name) == []


def test_a_disk_that_may_only_be_read(small_disk: Path, image: Any) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(dr.RasterWriteError, match="cannot"):
        dr.write_raster(image, small_disk / "out.tif", **QUIET)


def test_batch_clusters_keep_what_is_finished(client: Any) -> None:
    from daskraster.options import WriteOptions

    assert not is_batch(None)
    assert not is_batch(client)
    assert not keeps_partial(WriteOptions(), client)
    jobs = type("SLURMCluster", (), {"__module__": "dask_jobqueue.slurm"})
    on_jobs = SimpleNamespace(cluster=type("OwnCluster", (jobs,), {})())
    assert keeps_partial(WriteOptions(), on_jobs)
    assert not keeps_partial(WriteOptions(keep_partial=False), on_jobs)
    assert keeps_partial(WriteOptions(resume=True), None)
