"""What statistics and overviews cost in the same pass: ``b1 + 1`` without a halo into GeoTIFF, COG and KEA, and how others make a COG.

``python -m benchmarks.products [--size 24576] [--repeat 3] [--odc-python PATH] [--only ROW ...]``

``--odc-python``: the Python of an environment that has odc-geo (``pip install odc-geo rioxarray dask``); without it that row is left out.
Repeats are interleaved, so that a slow minute of the machine hits all alike; times are medians of the run without imports.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import measure as measuring
from benchmarks.measure import Measurement, measure
from benchmarks.scene import make_scene

HERE = Path(__file__).parent
DATA, RESULTS = HERE / "data", HERE / "results"
BOTH = {"halo": 0, "statistics": True, "overviews": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    tool: str = "daskraster_job"
    job: dict[str, object] = field(default_factory=dict)
    suffix: str = ".tif"


ROWS = (
    Row(name="GeoTIFF", job={"halo": 0}),
    Row(name="GeoTIFF + both", job=BOTH),
    Row(name="COG + both", job={**BOTH, "driver": "COG"}),
    Row(name="COG + both + mask", job={**BOTH, "driver": "COG", "mask": True}),
    Row(name="KEA", job={"halo": 0}, suffix=".kea"),
    Row(name="KEA + both", job=BOTH, suffix=".kea"),
    Row(name="odc-geo COG", tool="odc_cog"),
    Row(name="rasterio, GDAL COG", tool="rasterio_cog"),
)
GOALS = (
    ("GeoTIFF + both", "GeoTIFF", 1.6, "at most"),
    ("odc-geo COG", "COG + both", 4.0, "at least"),
    ("rasterio, GDAL COG", "COG + both", 3.0, "at least"),
    ("KEA + both", "KEA", 1.6, "at most"),
)


def run(
    scene: Path, *, repeat: int, threads: int, odc_python: str | None, only: Sequence[str] = ()
) -> dict[str, list[Measurement]]:
    """
    Measure every row ``repeat`` times, interleaved.

    Parameters
    ----------
    scene
        A GeoTIFF with one band of uint16.
    repeat, threads
        Runs of each row; threads each tool may use.
    odc_python
        Python that has odc-geo; None: that row is left out.
    only
        Names of the rows wanted; none: all.

    Returns
    -------
    dict
        Name of the row -> runs.

    Raises
    ------
    OSError
        The scene or the folder for outputs cannot be used.
    """
    rows = [row for row in ROWS if (row.tool != "odc_cog" or odc_python) and (not only or row.name in only)]
    results: dict[str, list[Measurement]] = {row.name: [] for row in rows}
    for turn in range(repeat):
        for row in rows:
            measuring.PYTHON = odc_python if row.tool == "odc_cog" and odc_python else measuring.OWN_PYTHON
            done = measure(row.tool, scene, {"threads": threads} | row.job, scratch=DATA, suffix=row.suffix)
            results[row.name].append(done)
            print(
                f"run {turn + 1} {row.name}: {done.failed or f'{done.run_seconds:.2f} s, {done.peak_mb:.0f} MB'}",
                flush=True,
            )
    return results


def table(results: dict[str, list[Measurement]]) -> str:
    """
    The medians as a Markdown table, and below it what was to be shown.

    Parameters
    ----------
    results
        As `run` gives them.

    Returns
    -------
    str
        Lines. Raises nothing.
    """
    lines = ["| output | seconds | CPU s | peak MB | output MB |", "|---|---:|---:|---:|---:|"]
    seconds: dict[str, float] = {}
    for name, runs in results.items():
        good = [run for run in runs if not run.failed]
        if not good:
            lines.append(f"| {name} | {runs[0].failed} | | | |")
            continue
        seconds[name] = median(run.run_seconds for run in good)
        cpu, size = (median(getattr(run, key) for run in good) for key in ("cpu_seconds", "output_mb"))
        peak = max(run.peak_mb for run in good)
        lines.append(f"| {name} | {seconds[name]:.2f} | {cpu:.2f} | {peak:.0f} | {size:.1f} |")
    lines.append("")
    for name, other, goal, word in GOALS:
        if name in seconds and other in seconds:
            lines.append(f"- {name} / {other}: {seconds[name] / seconds[other]:.2f} ({word} {goal} wanted)")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.products", description="Statistics and overviews in one pass."
    )
    parser.add_argument("--size", type=int, default=24576)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scene", type=Path, help="a scene that is there already")
    parser.add_argument("--odc-python")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="ROW", help="these rows; the others stay as they are in the JSON"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "products.json")
    asked = parser.parse_args()
    scene = asked.scene or make_scene(DATA / f"scene_{asked.size}.tif", asked.size, asked.size, threads=asked.threads)
    results = run(scene, repeat=asked.repeat, threads=asked.threads, odc_python=asked.odc_python, only=asked.only)
    if asked.only and asked.json.exists():
        before = json.loads(asked.json.read_text())
        kept = {name: [Measurement(**one) for one in runs] for name, runs in before.items() if name not in results}
        results = {row.name: {**kept, **results}[row.name] for row in ROWS if row.name in {**kept, **results}}
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(
        json.dumps({name: [asdict(run) for run in runs] for name, runs in results.items()}, indent=1) + "\n"
    )
    print(f"\n{table(results)}")


if __name__ == "__main__":
    main()
