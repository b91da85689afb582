"""Job A: ``b1 + 1`` with a halo of 5 on a uint16 scene, every tool side by side.

``python -m benchmarks.job_a [--size 24576] [--small 8192] [--repeat 3] [--tools daskraster rasterio_windows ...]``

Repeats are interleaved - each tool once, then each once more - so that a slow minute of the machine hits all alike;
times are medians, memory is the worst. The smaller scene is there to show whether memory grows with the raster.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path
from statistics import median

from benchmarks.measure import Measurement, measure
from benchmarks.scene import make_scene

HERE = Path(__file__).parent
DATA, RESULTS = HERE / "data", HERE / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    tool: str
    """Module in `benchmarks.peers`."""
    job: dict[str, object] = field(default_factory=dict)


ROWS = (
    Row(name="daskraster", tool="daskraster_job", job={"halo": 5}),
    Row(name="daskraster_halo0", tool="daskraster_job", job={"halo": 0}),
    Row(name="daskraster_zstd1", tool="daskraster_job", job={"halo": 5, "compress": "ZSTD", "level": 1}),
    # As its documentation has it, and with the setting that suits it best.
    Row(name="rioxarray_lock", tool="rioxarray_lock", job={"halo": 5, "codec_threads": 1}),
    Row(name="rioxarray_lock_tuned", tool="rioxarray_lock", job={"halo": 5, "codec_threads": 2}),
    Row(name="rasterio_windows", tool="rasterio_windows"),
    Row(name="handwritten", tool="handwritten"),
)
"""The first one is what the others are compared with."""

Results = dict[str, dict[int, list[Measurement]]]
"""Name of the row -> size of the scene -> its runs."""


def run(rows: Sequence[Row], sizes: Sequence[int], *, repeat: int, threads: int = 2) -> Results:
    """
    Measure every row on every size, ``repeat`` times, interleaved.

    Parameters
    ----------
    rows
        What to measure.
    sizes
        Height and width of the scenes, made first where they are missing.
    repeat
        Runs of each; a row that fails on a size is not tried on it again.
    threads
        Threads each tool may use.

    Returns
    -------
    dict
        Name of the row -> size -> runs.

    Raises
    ------
    OSError
        If the scenes cannot be made.
    """
    scenes = {size: make_scene(DATA / f"scene_{size}.tif", size, size, threads=threads) for size in sizes}
    results: Results = {row.name: {size: [] for size in sizes} for row in rows}
    for size, scene in scenes.items():
        for turn in range(repeat):
            for row in rows:
                runs = results[row.name][size]
                if runs and runs[-1].failed:
                    continue
                runs.append(measure(row.tool, scene, {"threads": threads} | row.job, scratch=DATA))
                said = runs[-1].failed or f"{runs[-1].seconds:.2f} s, {runs[-1].peak_mb:.0f} MB"
                print(f"{size} run {turn + 1} {row.name}: {said}", flush=True)
    return results


def table(results: Results, sizes: Sequence[int]) -> str:
    """
    Lay out the results as a Markdown table, a block of rows for each size, largest first.

    Parameters
    ----------
    results
        As `run` gives them; ratios are to the first row.
    sizes
        The sizes in them.

    Returns
    -------
    str
        Lines; a row with a failed run shows its reason instead of numbers. Raises nothing.
    """
    head = "tool", "seconds", "ratio", "run only", "ratio", "CPU s", "flush s", "peak MB", "grows", "output MB", "ratio"
    lines = [head, tuple("---" if n == 0 else "---:" for n in range(len(head)))]
    smallest, first = min(sizes), next(iter(results))
    notes = []
    for size in sorted(sizes, reverse=True):
        lines.append((f"**{size} x {size}**", *[""] * (len(head) - 1)))
        for name, by_size in results.items():
            if failed := [run.failed for run in by_size[size] if run.failed]:
                lines.append((name, "failed", *[""] * (len(head) - 2)))
                notes.append(f"{name} at {size} failed: {failed[0]}")
                continue
            lines.append((name, *_numbers(by_size[size], results[first][size], by_size[smallest])))
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    laid = [
        "| "
        + " | ".join(c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True)))
        + " |"
        for line in lines
    ]
    return "\n".join(laid + (["", *notes] if notes else []))


def _numbers(runs: list[Measurement], first: list[Measurement], small: list[Measurement]) -> tuple[str, ...]:
    """Format one row: medians, and the worst memory; ratios to the first row and, for memory, to the small scene."""
    seconds, run_seconds = _median(runs, "seconds"), _median(runs, "run_seconds")
    output, peak = _median(runs, "output_mb"), max(run.peak_mb for run in runs)
    return (
        f"{seconds:.2f}", _ratio(seconds, _median(first, "seconds")),
        f"{run_seconds:.2f}", _ratio(run_seconds, _median(first, "run_seconds")),
        f"{_median(runs, 'cpu_seconds'):.2f}", f"{_median(runs, 'flush_seconds'):.2f}",
        f"{peak:.0f}", _ratio(peak, max(run.peak_mb for run in small)),
        f"{output:.1f}", _ratio(output, _median(first, "output_mb")),
    )  # fmt: skip


def _median(runs: list[Measurement], name: str) -> float:
    """Median of one number of the runs."""
    return float(median(getattr(run, name) for run in runs))


def _ratio(value: float, reference: float) -> str:
    """How many times the reference, or nothing where one of the two is missing."""
    return "" if isnan(value) or isnan(reference) or not reference else f"{value / reference:.2f}"


def save(results: Results, path: Path) -> None:
    """
    Write every single run and the versions of what ran as JSON.

    Parameters
    ----------
    results
        As `run` gives them.
    path
        File to write; its folder is made too.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    versions = {"python": platform.python_version()}
    for package in ("daskraster", "dask", "imagecodecs", "numpy", "rasterio", "rioxarray", "xarray"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = ""
    runs = {
        name: {str(size): [_without_nan(asdict(run)) for run in runs] for size, runs in by_size.items()}
        for name, by_size in results.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cores": os.cpu_count(), "versions": versions, "runs": runs}, indent=1) + "\n")


def _without_nan(run: dict[str, object]) -> dict[str, object]:
    """NaN is no JSON."""
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in run.items()}


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job_a", description="b1+1 with a halo, side by side.")
    parser.add_argument("--size", type=int, default=24576)
    parser.add_argument("--small", type=int, default=8192, help="second scene, for memory; 0 for none")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tools", nargs="+", choices=[row.name for row in ROWS], help="some rows only")
    parser.add_argument("--json", type=Path, default=RESULTS / "job_a.json")
    asked = parser.parse_args()
    rows = [row for row in ROWS if asked.tools is None or row.name in asked.tools]
    sizes = sorted({asked.size, asked.small} - {0})
    results = run(rows, sizes, repeat=asked.repeat, threads=asked.threads)
    save(results, asked.json)
    print(f"\nJob A: b1+1 on uint16, {asked.threads} threads, {asked.repeat} runs\n\n{table(results, sizes)}")


if __name__ == "__main__":
    main()
