"""Workers of `daskraster.cluster` have imported what their first block needs, and what users preload besides."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import dask
import pytest

import daskraster as dr
from daskraster.running.warming import MODULES, PRELOAD, preloads
from tests.fakepbs import FakePbs

ROOT = Path(__file__).parents[1]


def imported() -> list[str]:
    return list(sys.modules)


def wait_until_warm(client: Any) -> set[str]:
    """All that both workers have; a worker joins before its thread is through."""
    for _ in range(600):
        found = set.intersection(*map(set, client.run(imported).values()))
        if found >= set(MODULES):
            break
        time.sleep(0.05)
    return found


def test_workers_import_before_their_first_block(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.py"
    theirs.write_text("def dask_setup(worker):\n    worker.theirs = True\n")
    with dr.cluster("local", n_workers=2, threads_per_worker=1, preload=str(theirs)) as client:
        assert wait_until_warm(client) >= set(MODULES)
        assert set(client.run(lambda dask_worker: dask_worker.theirs).values()) == {True}


def test_jobs_import_too(pbs: FakePbs) -> None:
    options: Any = {"threads_per_worker": 1, "memory": "700 MiB", "interface": "lo", "timeout": 60}
    options["environment"] = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with dr.cluster("pbs", n_workers=1, **options) as client:
        assert wait_until_warm(client) >= set(MODULES)


@pytest.mark.parametrize("words", ["def dask_setup", "threading.Thread"])
def test_the_text_is_a_text(words: str) -> None:
    assert words in PRELOAD
    assert " " in PRELOAD  # else dask took it for a module's name


def test_what_users_preload() -> None:
    assert preloads({}) == {"preload": [PRELOAD]}
    assert preloads({"preload": "a.py"}) == {"preload": [PRELOAD, "a.py"]}
    with dask.config.set({"distributed.worker.preload": ["b.py", "c.py"]}):
        assert preloads({}) == {"preload": [PRELOAD, "b.py", "c.py"]}
        assert preloads({"preload_argv": ["--x"]}) == {"preload": [PRELOAD, "b.py", "c.py"]}
        argv = preloads({"preload_argv": [["--x"], []]})
        assert argv == {"preload": [PRELOAD, "b.py", "c.py"], "preload_argv": [[], ["--x"], []]}
