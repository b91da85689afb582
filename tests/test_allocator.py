"""Arrays come from memory that is there: on workers for as long as a run lasts, on those of dr.cluster always."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import distributed
import numpy as np
import pytest

import daskraster as dr
from daskraster.running import allocator
from daskraster.running.allocator import DASKS_TRIM, MMAP, TRIM, VARIABLES
from daskraster.running.limits import limited
from daskraster.running.sizing import WorkerShape

pytestmark = pytest.mark.skipif(sys.platform != "linux" or allocator._glibc() is None, reason="glibc's allocator alone")

STEPS = 20
PAGES = 256  # of 1 MB


def faults() -> float:
    """Pages that the system had to give for each new array of 1 MB, after some."""
    values = np.ones(1 << 18, np.float32)
    for number in range(3 * STEPS):
        if number == 2 * STEPS:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        values = values * 1
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / STEPS


def resident(nbytes: int) -> int:
    """Resident bytes of this process after arrays of ``nbytes`` in all have been given back."""
    held = [np.ones(1 << 20, np.uint8) for _ in range(nbytes >> 20)]
    del held
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


TAUGHT = """
import resource, sys, threading
import numpy as np
from daskraster.running.allocator import teach

def work():
    for number in range(60):
        if number == 40:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [np.ones(1 << 20, np.uint8) for _ in range(6)]
        del held
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)

if sys.argv[1] == "taught":
    teach()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_small_arrays_of_threads_come_from_memory_that_is_there() -> None:
    """Six arrays of 1 MB, given back together, again and again: 1536 pages."""
    plain = {name: value for name, value in os.environ.items() if name not in VARIABLES}

    def faults_a_round(*, taught: bool) -> float:
        command = [sys.executable, "-c", TAUGHT, "taught" if taught else "plain"]
        return float(subprocess.run(command, env=plain, capture_output=True, text=True, check=True).stdout)

    assert faults_a_round(taught=False) > 6 * PAGES / 2
    assert faults_a_round(taught=True) < 6 * PAGES / 8


def on(client: Any, function: Any, *arguments: Any) -> Any:
    """What a function gives in a thread of a worker that runs tasks."""
    return client.submit(function, *arguments, pure=False).result()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A worker as dask starts it, whose heap holds nothing of other tests: arrays would come from there without a fault."""
    # A Nanny leaves what it starts a worker with in the environment of its own process, and the next one takes it from there.
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as local,
        distributed.Client(local) as client,
    ):
        yield client


def test_any_workers_keep_memory_for_the_run_alone(fresh: Any) -> None:
    assert set(fresh.run(lambda: os.environ.get(TRIM)).values()) == {DASKS_TRIM}
    assert on(fresh, faults) > PAGES / 2
    with limited(fresh):
        assert on(fresh, faults) < PAGES / 8
        assert set(fresh.run(lambda: MMAP in os.environ).values()) == {False}
    assert on(fresh, faults) > PAGES / 2


def test_what_is_kept_does_not_grow_and_is_given_back() -> None:
    with dr.cluster("local", n_workers=1, threads_per_worker=1) as started:
        first, *others = [on(started, resident, 200 << 20) for _ in range(5)]
    # 64 MB at the end of what is kept may be there or not, as it falls; 200 MB would be added each time.
    assert max(others) < first + (96 << 20)


def test_what_is_kept_is_given_back_after_the_run(fresh: Any) -> None:
    (before, *_) = fresh.run(resident, 0).values()
    with limited(fresh):
        fresh.run(resident, 200 << 20)
    (after, *_) = fresh.run(resident, 0).values()
    assert after < before + (32 << 20)


@pytest.mark.parametrize(
    ("environment", "keeps"),
    [({}, True), ({"MALLOC_MMAP_THRESHOLD_": "200000"}, False)],
)
def test_workers_of_dr_cluster_start_so_unless_a_user_says_else(environment: dict[str, str], keeps: bool) -> None:
    with dr.cluster("local", n_workers=1, threads_per_worker=1, environment=environment) as client:
        assert (on(client, faults) < PAGES / 8) == keeps
        with limited(client):  # changes nothing that was chosen
            assert (on(client, faults) < PAGES / 8) == keeps
        (variables,) = client.run(lambda: dict(os.environ)).values()
    assert {name: variables[name] for name in VARIABLES} == {**VARIABLES, **environment}


def test_jobs_start_so_too_and_a_user_decides() -> None:
    shape = WorkerShape(threads=1, cores=1, memory_nbytes=1 << 30, variables={TRIM: "1"})
    assert {name: shape.environment()[name] for name in VARIABLES} == {TRIM: "1", MMAP: VARIABLES[MMAP]}


@pytest.mark.parametrize("environ", [{}, {TRIM: "1000000"}, {TRIM: DASKS_TRIM, MMAP: "1000000"}])
def test_what_a_user_decided_is_left_alone(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: pytest.fail("the allocator was looked for"))
    allocator.keep_freed(environ)()
