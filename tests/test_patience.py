"""Runs whose workers have all gone: what may still come is waited for, what will not is told."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pytest
from conftest import MakeRaster, pixels, read

import daskraster as dr
from daskraster.running import batch, patience
from daskraster.running.queues import SYSTEMS
from tests.fakepbs import FakePbs
from tests.killing import finished_blocks

ROOT = Path(__file__).parents[1]
VALUES = pixels((1, 640, 640))
SHORT = {patience.NAME: "2s", "distributed.deploy.lost-worker-timeout": "0.5s"}


def slow_add(block: Any) -> Any:
    """100 of these take some seconds."""
    time.sleep(0.05)
    return block + 1


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that waits waits less."""
    monkeypatch.setattr(batch, "WATCH_SECONDS", 0.3)
    monkeypatch.setattr(batch, "WALLTIME", "00:10:00")
    with dask.config.set(SHORT):
        yield


def one_job(**options: Any) -> Any:
    """A small job, which finds the functions of this module."""
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    settings = {"n_workers": 1, "threads_per_worker": 1, "memory": "700 MiB", "interface": "lo", "timeout": 60}
    return dr.cluster("pbs", **{**settings, "environment": environment, **options})


@pytest.fixture
def result(make_raster: MakeRaster) -> Any:
    image = dr.open_raster(make_raster(VALUES, tiled=True, blockxsize=64, blockysize=64), chunks=64)
    return dr.apply(slow_add, image, overlap=1, dtype="uint16", bands=1)


def write_while(client: Any, result: Any, target: Path, happens: Callable[[], None]) -> Any:
    """Write; when some blocks are in the file something happens. The report, or what was raised."""
    outcome: list[Any] = []

    def write() -> None:
        try:
            with client.as_current(), dask.config.set(scheduler=client.get):
                outcome.append(dr.write_raster(result, target, blocksize=64, progress=False))
        except dr.DaskRasterError as error:
            outcome.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive() and not finished_blocks(target.parent, target.name):  # the journal is written every second
        time.sleep(0.02)
    happens()
    thread.join(90)
    assert outcome, "the run did not end"
    return outcome[0]


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "out.tif"


def goes_on(result: Any, target: Path) -> None:
    """What was finished is kept, and the rest can be done."""
    report = dr.write_raster(result, target, blocksize=64, progress=False, resume=True)
    assert isinstance(report, dr.WriteReport)
    assert 0 < report.resumed_blocks < report.blocks == 100
    np.testing.assert_array_equal(read(target), VALUES + 1)
    assert list(target.parent.iterdir()) == [target]


def test_jobs_that_are_refused_in_the_middle_end_the_run(
    pbs: FakePbs, short: None, result: Any, tmp_path: Path
) -> None:
    target = folder_of(tmp_path)

    def closes() -> None:
        pbs.refuse("qsub: account science has expired")
        pbs.kill(17)

    with one_job() as client:
        raised = write_while(client, result, target, closes)
    assert isinstance(raised, dr.ClusterError)
    assert "none is coming: PBS refused a job: qsub: account science has expired" in str(raised)
    assert patience.NAME in str(raised)
    assert "resume=True goes on with them" in " ".join(raised.__notes__)
    goes_on(result, target)


def test_jobs_that_wait_are_waited_for(
    pbs: FakePbs,
    short: None,
    result: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = folder_of(tmp_path)

    def has_a_queue() -> None:
        pbs.hold("Q")
        pbs.kill(17)
        time.sleep(5)  # more than twice as long as is waited where nothing comes
        pbs.start_waiting()

    with caplog.at_level(logging.WARNING, logger="daskraster"), one_job(n_workers=None, adapt=(0, 1)) as client:
        report = write_while(client, result, target, has_a_queue)
    assert isinstance(report, dr.WriteReport)
    np.testing.assert_array_equal(read(target), VALUES + 1)
    assert [record for record in caplog.records if "the run waits. PBS says: job 18: Q" in record.getMessage()]


def test_workers_of_any_cluster_that_have_all_gone(short: None, result: Any, tmp_path: Path) -> None:
    target = folder_of(tmp_path)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as local,
        distributed.Client(local) as client,
    ):
        raised = write_while(client, result, target, lambda: local.scale(0))
    assert isinstance(raised, dr.WorkerError)
    assert "nothing is known that starts one" in str(raised)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("said", ["soon", "0s", -1])
def test_a_time_that_is_none(client: Any, said: Any) -> None:
    with dask.config.set({patience.NAME: said}), pytest.raises(dr.OptionError, match="no-workers-timeout"):
        patience.Patience(client)


def test_none_waits_for_ever() -> None:
    class Nobody:
        status = "running"

        def nthreads(self) -> Any:
            raise AssertionError("nobody is asked")

    with dask.config.set({patience.NAME: None}):
        patience.Patience(Nobody()).check()


@pytest.mark.parametrize(
    ("state", "stuck"),
    [
        ("PENDING Priority", False),
        ("PENDING Resources", False),
        ("PENDING AssocGrpCpuLimit", False),
        ("PENDING QOSMaxJobsPerUserLimit", False),
        ("PENDING Reservation", False),
        ("RUNNING None", False),
        ("PENDING PartitionDown", True),
        ("PENDING AssocGrpCPUMinutesLimit", True),
        ("PENDING InvalidAccount", True),
        ("PENDING JobHeldAdmin", True),
        ("PENDING PartitionTimeLimit", True),
        (None, False),
    ],
)
def test_what_no_time_will_bring(state: str | None, stuck: bool) -> None:
    assert SYSTEMS["slurm"].is_stuck(state) is stuck
