"""Everything side by side: jobs x tools -> seconds, ratio, peak memory, file size.

``python -m benchmarks.bench [--full] [--jobs WORD ...] [--repeat 3] [--json PATH]``

Repeats are interleaved - each tool once, then each once more - so that a slow minute of the machine hits all alike; times are medians, memory
is the worst. After each job the JSON is written anew, so that a run that is stopped leaves what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path

import daskraster as dr
from benchmarks.jobs import DATA, GOALS, JOBS, Job
from benchmarks.measure import Measurement, measure
from benchmarks.plot import plot
from benchmarks.table import Results, goals_told, table

RESULTS = Path(__file__).parent / "results"


def run(job: Job, *, repeat: int, threads: int) -> dict[str, list[Measurement]]:
    """
    Measure every row of a job, interleaved.

    Parameters
    ----------
    job
        What is done; its scenes are made first.
    repeat
        Runs of each row; a row that fails is not tried again.
    threads
        Threads each tool may use.

    Returns
    -------
    dict
        Name of the row -> its runs.

    Raises
    ------
    OSError
        If a scene cannot be made.
    """
    runs: dict[str, list[Measurement]] = {row.name: [] for row in job.rows}
    scenes = {row.name: (row.scene or job.scene).path() for row in job.rows}
    for turn in range(repeat):
        for row in job.rows:
            if runs[row.name] and runs[row.name][-1].failed:
                continue
            done = measure(
                row.tool, scenes[row.name], {"threads": threads} | row.options, scratch=DATA, suffix=row.suffix,
                check=row.check or job.check,
            )  # fmt: skip
            runs[row.name].append(done)
            said = done.failed or f"{done.seconds:.2f} s, {done.peak_mb:.0f} MB"
            print(f"{job.name}, run {turn + 1}, {row.name}: {said}", flush=True)
    return runs


def wanted(words: Sequence[str], *, full: bool) -> list[Job]:
    """
    The jobs to run.

    Parameters
    ----------
    words
        Only jobs whose names hold one of them; empty: all.
    full
        Whether the large ones are among them.

    Returns
    -------
    list of Job
        Without those that need what this daskraster has not. Raises nothing.
    """
    named = [job for job in JOBS if not words or any(word in job.name for word in words)]
    return [job for job in named if (full or not job.full) and (not job.needs or hasattr(dr, job.needs))]


def save(results: Results, path: Path) -> None:
    """
    Write every single run and the versions of what ran as JSON.

    Parameters
    ----------
    results
        Job -> row -> runs.
    path
        File to write; its folder is made too.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    versions = {"python": platform.python_version()}
    for package in ("daskraster", "dask", "imagecodecs", "numpy", "rasterio", "rioxarray", "xarray", "h5py"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    runs = {
        job: {name: [_without_nan(asdict(run)) for run in runs] for name, runs in rows.items()}
        for job, rows in results.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cores": os.cpu_count(), "versions": versions, "jobs": runs}, indent=1) + "\n")


def _without_nan(run: dict[str, object]) -> dict[str, object]:
    """NaN is no JSON."""
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in run.items()}


def main() -> None:
    """Measure, print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description="Everything side by side.")
    parser.add_argument("--full", action="store_true", help="the large jobs too")
    parser.add_argument("--jobs", nargs="+", default=[], help="only jobs whose names hold one of these words")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="results/bench.json, or bench_full.json, if not given")
    asked = parser.parse_args()
    path = asked.json or RESULTS / ("bench_full.json" if asked.full else "bench.json")
    results: Results = {}
    for job in wanted(asked.jobs, full=asked.full):
        results[job.name] = run(job, repeat=asked.repeat, threads=asked.threads)
        save(results, path)
    plot(results, path.with_suffix(".png"))
    print(f"\n{asked.threads} threads, {asked.repeat} runs\n\n{table(results)}\n\n{goals_told(results, GOALS)}")


if __name__ == "__main__":
    main()
