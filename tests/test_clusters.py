"""Clusters sized for rasters, and what is refused before any worker starts. SLURM itself: test_slurm.py."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pytest
from conftest import MakeRaster, pixels, read

import daskraster as dr
from daskraster.running.keeping import is_batch
from daskraster.running.limits import is_news
from daskraster.running.queues import SYSTEMS, words_of
from daskraster.running.sizing import Lifetime, WorkerShape, format_walltime, parse_walltime
from tests.fakepbs import FakePbs


def test_workers_on_this_machine(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 200, 300))
    image = dr.open_raster(make_raster(values), chunks=64)
    with dr.cluster("local", n_workers=2, threads_per_worker=1, memory="1 GiB", environment={"MINE": "yes"}) as client:
        assert isinstance(client, distributed.Client)
        assert not is_batch(client)
        assert client.dashboard_link in repr(client)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert [(one["nthreads"], one["memory_limit"]) for one in workers] == [(1, 1 << 30)] * 2
        for variables in client.run(lambda: dict(os.environ)).values():
            assert (
                variables["OMP_NUM_THREADS"] == variables["GDAL_NUM_THREADS"] == variables["NUMBA_NUM_THREADS"] == "1"
            )
            assert variables["GDAL_CACHEMAX"] == "51"  # a twentieth of a GiB
            assert variables["MINE"] == "yes"
        spilling = client.run(
            lambda dask_worker: (
                dask_worker.memory_manager.memory_target_fraction,
                dask_worker.memory_manager.memory_spill_fraction,
            )
        )
        assert set(spilling.values()) == {(False, False)}
        dr.write_raster(image, tmp_path / "out.tif", blocksize=64, progress=False)
        cluster = client.cluster
    assert cluster.status.name == "closed"
    assert client.status == "closed"
    client.close()  # harmless
    assert "dashboard" not in repr(client)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), values)


def test_this_process_keeps_its_environment() -> None:
    before = {name: value for name, value in os.environ.items() if "GDAL" in name or "NUMBA" in name}
    client = dr.cluster(n_workers=1, threads_per_worker=1)
    client.close()
    assert {name: value for name, value in os.environ.items() if "GDAL" in name or "NUMBA" in name} == before


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        ("lsf", {}, "cluster\\('lsf'\\) is not known; there are 'local', 'slurm', 'pbs'"),
        ("local", {"n_workers": 0}, "n_workers=0"),
        ("local", {"threads_per_worker": -1}, "threads_per_worker=-1"),
        ("local", {"n_workers": 2, "adapt": (1, 2)}, "exclude each other"),
        ("local", {"adapt": (3, 2)}, r"adapt=\(3, 2\) is not"),
        ("local", {"memory": "lots"}, "memory='lots' is not understood"),
        ("local", {"memory": 5}, "64 MB or more"),
        ("local", {"walltime": "01:00:00"}, "walltime= goes with batch systems"),
        ("local", {"wait_for": 3, "n_workers": 2}, "wait_for=3"),
        ("local", {"threads_per_worker": 4, "cores_per_worker": 2}, "4 threads on 2 cores"),
        ("local", {"n_wrokers": 2}, "no option 'n_wrokers', nor has distributed.LocalCluster"),
        ("local", {"memory_limit": "1GB"}, "memory_limit= is not passed .* use memory="),
        ("slurm", {"walltime": "soon"}, "walltime='soon' is not understood"),
        ("slurm", {"walltime": timedelta(seconds=5)}, "shorter than a minute"),
        ("slurm", {"job_memory_factor": 0.5}, "job_memory_factor=0.5"),
        ("slurm", {"cores": 4}, "use threads_per_worker= and cores_per_worker="),
        ("slurm", {"resource_spec": "x"}, "no option 'resource_spec', nor has SLURMCluster"),
        ("slurm", {"timeout": -1}, "timeout=-1"),
    ],
)
def test_wrong_wishes_are_refused(kind: Any, options: dict[str, Any], match: str) -> None:
    if kind == "slurm":
        pytest.importorskip("dask_jobqueue")
    with pytest.raises(dr.OptionError, match=match):
        dr.cluster(kind, **options)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(dr.ClusterError, match=r"pip install 'daskraster\[jobqueue\]'"):
        dr.cluster("slurm")


@pytest.mark.parametrize(("kind", "program"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_a_machine_without_the_batch_system_is_told(
    kind: Any, program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(dr.ClusterError, match=f"there is no {program} here"):
        dr.cluster(kind)


def test_a_job_of_pbs(pbs: FakePbs) -> None:
    with dr.cluster(
        "pbs", threads_per_worker=2, memory="1000 MiB", walltime="02:00:00", queue="day", interface="lo", timeout=60
    ) as client:
        assert is_batch(client)
        assert list(client.nthreads().values()) == [2]
    script = (pbs.folder / "script").read_text()
    assert "#PBS -l select=1:ncpus=2:mem=1300MB" in script
    assert "#PBS -l walltime=02:00:00" in script
    assert "#PBS -q day" in script
    assert "--lifetime 6300s --lifetime-stagger 300s" in script
    assert "export GDAL_CACHEMAX=50" in script


def test_pbs_refuses_in_its_own_words(pbs: FakePbs) -> None:
    pbs.program("qsub", "echo 'qsub: Unknown queue MSG=cannot locate queue' >&2; exit 170")
    with pytest.raises(dr.ClusterError, match="PBS refused a job: qsub: Unknown queue MSG=cannot locate queue"):
        dr.cluster("pbs", interface="lo")


def test_what_a_site_says_is_the_default(pbs: FakePbs) -> None:
    import dask_jobqueue  # noqa: F401 - its import reads jobqueue.yaml, which would cover what is set here

    with (
        dask.config.set(
            {"jobqueue.pbs.cores": 3, "jobqueue.pbs.memory": "1300 MiB", "jobqueue.pbs.walltime": "04:00:00"}
        ),
        dr.cluster("pbs", interface="lo", wait_for=0) as client,
    ):
        script = client.cluster.job_script()
    assert "ncpus=3:mem=1300MB" in script
    assert "walltime=04:00:00" in script


def test_listings_are_read() -> None:
    slurm = SYSTEMS["slurm"]._parsed("12|PENDING|Resources\n13|CANCELLED by 0|None\n14_1|RUNNING|None\n")
    assert slurm == {"12": "PENDING Resources", "13": "CANCELLED None"}
    assert SYSTEMS["slurm"].is_over("CANCELLED None")
    assert SYSTEMS["slurm"].is_over(None)
    assert not SYSTEMS["slurm"].is_over("PENDING Resources")
    torque = "1001.head  dask-worker  me  00:00:10 R batch\n"
    openpbs = "1002.head  me  batch  dask-work*  --  1  4  8gb 01:00 Q  --\n"
    found = SYSTEMS["pbs"]._parsed("Job ID  Username Queue\n-----\n" + torque + openpbs)
    assert found == {"1001": "R", "1002": "Q"}


def test_words_of_other_errors_are_kept() -> None:
    assert words_of(RuntimeError("something else")) == "something else"


@pytest.mark.parametrize("minutes", [1, 2, 5, 30, 60, 24 * 60, 7 * 24 * 60])
def test_lifetimes_end_before_the_walltime(minutes: int) -> None:
    lifetime = Lifetime.within(timedelta(minutes=minutes))
    assert lifetime.seconds - lifetime.stagger_seconds > 0
    assert lifetime.seconds + lifetime.stagger_seconds < 60 * minutes - 15


@pytest.mark.parametrize(
    ("text", "seconds"), [("01:00:00", 3600), ("1-00:00:30", 86430), ("05:00", 300), ("100:00:00", 360_000)]
)
def test_walltimes(text: str, seconds: int) -> None:
    walltime = parse_walltime(text)
    assert walltime.total_seconds() == seconds
    assert parse_walltime(format_walltime(walltime)) == walltime


def test_cores_beyond_threads_go_to_libraries() -> None:
    shape = WorkerShape(threads=2, cores=8, memory_nbytes=64 << 30, variables={"OMP_NUM_THREADS": "7"})
    environment = shape.environment()
    assert environment["MKL_NUM_THREADS"] == "4"
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["GDAL_CACHEMAX"] == "512"


def _told_by_failing(script: str, folder: Path) -> str:
    """What a script that fails writes to standard error."""
    (folder / "script.py").write_text(script)
    run = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 1
    return run.stderr


UNGUARDED = """
import daskraster as dr

client = dr.cluster("local", n_workers=1, threads_per_worker=1)
"""


def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path: Path) -> None:
    told = _told_by_failing(UNGUARDED, tmp_path)
    last = told.strip().splitlines()[-1]
    assert last.startswith("daskraster.errors.ClusterError: the workers did not start")
    assert last.endswith('stands under if __name__ == "__main__":, since each worker imports the script')
    assert "a worker imports the script, which starts workers again" in told


FAILING = """
import daskraster as dr

def wrong(block):
    return block / undefined

if __name__ == "__main__":
    image = dr.open_raster(dr.example_scene("in.tif", 64), chunks=16)
    with dr.cluster("local", n_workers=1, threads_per_worker=1):
        dr.write_raster(dr.apply(wrong, image, dtype="float32", bands=2), "out.tif", progress=False)
"""


def test_a_bug_on_a_cluster_is_told_once(tmp_path: Path) -> None:
    told = _told_by_failing(FAILING, tmp_path)
    assert "name 'undefined' is not defined" in told
    assert "raised by wrong in Window" in told
    assert "Compute Failed" not in told


def test_other_lines_of_a_workers_log_stay() -> None:
    def record(message: str, *arguments: object) -> logging.LogRecord:
        return logging.LogRecord("distributed.worker", logging.ERROR, "", 1, message, arguments, None)

    assert is_news(record("Compute Failed\nKey: %s\nTask: %s", "inc-1", "<Task 'inc-1' inc()>"))
    assert not is_news(record("Compute Failed\nKey: %s\nTask: %s", "a", "<Task 'a' Telling(func=...)>"))
    assert is_news(record("Worker process died: %s", "Telling(func)"))
    assert is_news(record("no arguments"))
