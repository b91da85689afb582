"""Workers as jobs of a real SLURM. It is started by ``.ci/run`` with ``tests/slurm/start.sh``; where there is none, these tests skip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from conftest import MakeRaster, pixels, read

import daskraster as dr
from daskraster.running import batch, patience
from daskraster.running.keeping import is_batch

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    """The SLURM that was started for the tests, and no other."""
    conf = os.environ.get("DASKRASTER_TEST_SLURM")
    if not conf:
        pytest.skip(
            "no SLURM was started for the tests; .ci/run does, or DASKRASTER_TEST_SLURM=$(tests/slurm/start.sh DIR)"
        )
    pytest.importorskip("dask_jobqueue", reason="the extra jobqueue is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", conf)
        patch.setattr(batch, "WATCH_SECONDS", 0.5)
        with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
            yield
        # Jobs that are being cancelled take some seconds to be gone.
        for _ in range(50):
            left = ask("squeue", "--noheader")
            if not left:
                break
            time.sleep(0.2)
    assert not left, f"jobs are left: {left}"


def ask(*command: str) -> str:
    """What a command of SLURM says."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def slurm_cluster(**options: Any) -> Any:
    """Two small jobs on the loopback interface, which find the functions of this module."""
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    settings = {
        "threads_per_worker": 1,
        "memory": "700 MiB",
        "interface": "lo",
        "timeout": 60,
        "environment": environment,
    }
    return dr.cluster("slurm", **{**settings, **options})


def slow_smooth(block: Any, seconds: float = 0.1) -> Any:
    """A mean of 3 x 3 that takes its time."""
    time.sleep(seconds)
    padded = np.pad(block.astype("uint32"), ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows, cols = block.shape[1:]
    return (sum(padded[:, y : y + rows, x : x + cols] for y in range(3) for x in range(3)) // 9).astype("uint16")


class Run:
    """A write of 100 blocks in a thread of its own, so that something can happen meanwhile."""

    def __init__(self, client: Any, make_raster: MakeRaster, folder: Path, seconds: float = 0.1) -> None:
        values = pixels((1, 637, 640))
        self.expected = slow_smooth(values)
        image = dr.open_raster(make_raster(values, tiled=True, blockxsize=64, blockysize=64), chunks=64)
        self.result = dr.apply(slow_smooth, image, overlap=1, dtype="uint16", bands=1, kwargs={"seconds": seconds})
        self.target = folder / "run" / "out.tif"
        self.target.parent.mkdir()
        self.report: Any = None
        self.error: Any = None
        self.thread = threading.Thread(target=self._write, args=(client,))
        self.thread.start()

    def _write(self, client: Any) -> None:
        with client.as_current(), dask.config.set(scheduler=client.get):
            try:
                self.report = dr.write_raster(self.result, self.target, blocksize=64, progress=False)
            except dr.ClusterError as error:
                self.error = error

    def wait_for_bytes(self) -> None:
        """Return when several blocks are in the partial file."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            claims = list(self.target.parent.glob(".*.extents/[0-9]*"))
            if len(claims) >= 2:
                return
            time.sleep(0.05)
        raise AssertionError("no block was written within 30 s")

    def check(self) -> None:
        """Wait for the end; nothing is lost, and nothing left."""
        self.thread.join(120)
        assert self.report is not None
        assert self.report.blocks == 100
        np.testing.assert_array_equal(read(self.target), self.expected)
        assert list(self.target.parent.iterdir()) == [self.target]


def job_ids(client: Any) -> list[str]:
    return sorted(job.job_id for job in client.cluster.workers.values())


def wait_for_replacement(client: Any, gone: str) -> None:
    """Return when the place of a job is taken by another one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if client.watchdog.replaced and gone not in job_ids(client):
            client.wait_for_workers(2, timeout=30)
            return
        time.sleep(0.1)
    raise AssertionError(f"job {gone} was not replaced within 60 s")


def test_a_write_on_jobs_of_slurm(make_raster: MakeRaster, tmp_path: Path) -> None:
    with slurm_cluster(n_workers=2, wait_for=2, cores_per_worker=2) as client:
        assert is_batch(client)
        ids = client.run(lambda: os.environ["SLURM_JOB_ID"])
        assert len(set(ids.values())) == 2
        assert sorted(ids.values()) == job_ids(client)
        seen = client.run(lambda dask_worker: (dask_worker.state.nthreads, os.environ["OMP_NUM_THREADS"]))
        assert set(seen.values()) == {(1, "2")}
        # 700 MiB and three tenths more; SLURM was told, so it knows.
        assert "mem=910M" in ask("scontrol", "show", "job", job_ids(client)[0])
        logs = Path(client.cluster._dummy_job.log_directory)
        assert logs.is_dir()
        Run(client, make_raster, tmp_path).check()
    assert not logs.exists()
    assert client.status == "closed"


def test_a_refused_job_is_told_in_its_own_words_at_once() -> None:
    begin = time.monotonic()
    with pytest.raises(dr.ClusterError, match=r"(?s)SLURM refused a job.*invalid partition specified: nowhere"):
        slurm_cluster(queue="nowhere")
    assert time.monotonic() - begin < 10


def test_jobs_that_wait_are_told_with_the_queues_reason() -> None:
    with pytest.raises(dr.ClusterError, match=r"2 of 3 workers came within 4 s. SLURM says: .*PENDING Resources"):
        slurm_cluster(n_workers=3, wait_for=3, memory="4000 MiB", timeout=4)


def test_jobs_that_fail_are_told_with_the_end_of_their_log() -> None:
    with pytest.raises(dr.ClusterError, match=r"(?s)ended before a worker came.*FAILED.*/no/python: No such file"):
        slurm_cluster(python="/no/python")


def test_a_job_that_is_cancelled_in_the_middle_costs_nothing(make_raster: MakeRaster, tmp_path: Path) -> None:
    with slurm_cluster(n_workers=2, wait_for=2) as client:
        run = Run(client, make_raster, tmp_path)
        run.wait_for_bytes()
        gone = job_ids(client)[0]
        ask("scancel", gone)
        run.check()
        wait_for_replacement(client, gone)
        assert "CANCELLED" in ask("squeue", "--noheader", "--states=all", f"--jobs={gone}", "--format=%T")


def test_a_job_that_never_starts_is_replaced() -> None:
    # Three jobs of which the third finds no room: cancelled while it waits, as an administrator would.
    with slurm_cluster(n_workers=3, wait_for=2, memory="4000 MiB") as client:
        waiting = ask("squeue", "--noheader", "--states=PENDING", "--format=%i")
        assert waiting in job_ids(client)
        ask("scancel", waiting)
        deadline = time.monotonic() + 30
        while waiting in job_ids(client) or len(job_ids(client)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_walltime_that_ends_while_blocks_are_left(make_raster: MakeRaster, tmp_path: Path) -> None:
    with slurm_cluster(n_workers=2, wait_for=2) as client:
        # SLURM looks at time limits every 30 s, so 50 blocks of each worker must take longer.
        run = Run(client, make_raster, tmp_path, seconds=0.7)
        run.wait_for_bytes()
        gone = job_ids(client)[0]
        ask("scontrol", "update", f"JobId={gone}", "EndTime=now+1")
        wait_for_replacement(client, gone)
        assert run.thread.is_alive()
        run.check()
        assert "TIMEOUT" in ask("squeue", "--noheader", "--states=all", f"--jobs={gone}", "--format=%T")


def test_a_partition_that_is_closed_in_the_middle_ends_the_run(make_raster: MakeRaster, tmp_path: Path) -> None:
    with slurm_cluster(n_workers=2, wait_for=2) as client, dask.config.set({patience.NAME: "3s"}):
        run = Run(client, make_raster, tmp_path)
        run.wait_for_bytes()
        time.sleep(1.5)  # what is finished is written down every second
        ask("scontrol", "update", "PartitionName=main", "State=DOWN")
        try:
            ask("scancel", *job_ids(client))
            run.thread.join(60)
        finally:
            ask("scontrol", "update", "PartitionName=main", "State=UP")
    assert isinstance(run.error, dr.ClusterError)
    assert re.search("none is coming: SLURM says: job .*PENDING PartitionDown", str(run.error), re.DOTALL)
    report = dr.write_raster(run.result, run.target, blocksize=64, progress=False, resume=True)
    assert isinstance(report, dr.WriteReport)
    assert report.resumed_blocks > 0
    np.testing.assert_array_equal(read(run.target), run.expected)
    assert list(run.target.parent.iterdir()) == [run.target]


def test_workers_leave_before_the_walltime_and_others_come(make_raster: MakeRaster, tmp_path: Path) -> None:
    short = ["--lifetime", "4s", "--lifetime-stagger", "1s"]
    with slurm_cluster(n_workers=2, wait_for=2, worker_extra_args=short) as client:
        Run(client, make_raster, tmp_path).check()
        assert client.watchdog.replaced >= 1
        assert "Closing worker gracefully" in "".join(
            path.read_text() for path in Path(client.cluster._dummy_job.log_directory).iterdir()
        )


def test_adapt_asks_for_as_many_as_there_is_work_for(make_raster: MakeRaster, tmp_path: Path) -> None:
    with slurm_cluster(adapt=(1, 2)) as client:
        assert len(job_ids(client)) == 1
        run = Run(client, make_raster, tmp_path)
        most = 0
        while run.thread.is_alive():
            most = max(most, len(client.cluster.scheduler_info["workers"]))
            time.sleep(0.1)
        run.check()
        assert most == 2


def test_python_is_that_of_the_leading_process() -> None:
    with slurm_cluster() as client:
        assert set(client.run(lambda: sys.executable).values()) == {sys.executable}
