"""The process that is measured: import one tool, run it, tell what it took.

Imports nothing but the standard library, so that seconds and memory are the tool's own.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from benchmarks.peers import Run


def run(tool: str, source: Path, target: Path, job: Mapping[str, object]) -> dict[str, float]:
    """
    Run a tool in this process.

    Parameters
    ----------
    tool
        Name of a module in `benchmarks.peers`, or ``"module:function"``.
    source, target
        What it reads and writes.
    job
        Keyword arguments of its ``run``.

    Returns
    -------
    dict
        ``run_seconds``: wall clock without the imports; ``cpu_seconds``: user and system time of the process;
        ``peak_mb``: peak resident memory in 10**6 bytes.

    Raises
    ------
    Exception
        Whatever the tool raises.
    """
    module, _, name = tool.partition(":")
    tool_run = cast(Run, getattr(importlib.import_module(f"benchmarks.peers.{module}"), name or "run"))
    start = time.perf_counter()
    tool_run(source, target, **job)
    run_seconds = time.perf_counter() - start
    times = os.times()
    cpu_seconds = times.user + times.system + times.children_user + times.children_system
    return {"run_seconds": run_seconds, "cpu_seconds": cpu_seconds, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    """Peak resident memory of this process. Not ``ru_maxrss``: that one starts at the parent's peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    _tool, _source, _target, _job, _report = sys.argv[1:]
    Path(_report).write_text(json.dumps(run(_tool, Path(_source), Path(_target), json.loads(_job))))
