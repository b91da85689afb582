"""Many overlapping tiles into one GeoTIFF, and opening ten thousand.

``python -m benchmarks.mosaic [--side 20] [--repeat 2] [--many 10000]``

The tiles are cut from one synthetic scene, 1024 x 1024 with 64 pixels of overlap, tiled 512 and deflated; every output is checked against
the scene in windows across tile borders. Repeats are interleaved; times are medians of the run without imports.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
from rasterio.windows import Window

from benchmarks.scene import make_scene

HERE = Path(__file__).parent
DATA, RESULTS = HERE / "data", HERE / "results"
TILE, OVERLAP = 1024, 64
ROWS = (
    ("daskraster", "daskraster_mosaic"),
    ("rioxarray merge_arrays + to_raster", "rioxarray_mosaic"),
    ("rasterio merge to a file", "rasterio_mosaic"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one tool."""

    run_seconds: float
    cpu_seconds: float
    peak_mb: float
    output_mb: float
    wrong: str
    """Why the output is wrong, or why there is none; empty where it is right."""


def make_tiles(side: int) -> tuple[Path, Path]:
    """
    Cut a scene into ``side * side`` overlapping tiles, once.

    Parameters
    ----------
    side
        Rows and columns of tiles.

    Returns
    -------
    tuple of Path
        The scene and the folder.

    Raises
    ------
    OSError
        The folder cannot be written to.
    """
    step = TILE - OVERLAP
    size = (side - 1) * step + TILE
    scene = make_scene(DATA / f"mosaic_scene_{size}.tif", size, size, threads=2)
    folder = DATA / f"mosaic_tiles_{side}"
    if folder.is_dir() and len(list(folder.glob("*.tif"))) == side * side:
        return scene, folder
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(scene) as file:
        for number in range(side * side):
            window = Window(number % side * step, number // side * step, TILE, TILE)
            profile = {
                "driver": "GTiff", "width": TILE, "height": TILE, "count": 1, "dtype": file.dtypes[0], "crs": file.crs,
                "transform": file.window_transform(window), "tiled": True, "blockxsize": 512, "blockysize": 512,
                "compress": "deflate", "predictor": 2, "zlevel": 1, "nodata": 0,
            }  # fmt: skip
            with rasterio.open(folder / f"{number:04d}.tif", "w", **profile) as tile:
                tile.write(file.read(window=window))
    return scene, folder


def measure(tool: str, folder: Path, scene: Path) -> Run:
    """
    Run a tool in a process of its own and check what it wrote.

    Parameters
    ----------
    tool
        A module of `benchmarks.peers`.
    folder, scene
        The tiles and what they were cut from.

    Returns
    -------
    Run

    Raises
    ------
    OSError
        The folder for outputs cannot be used.
    """
    nothing = float("nan")
    for path in folder.glob("*.tif"):
        path.read_bytes()
    os.sync()
    with tempfile.TemporaryDirectory(dir=DATA) as scratch:
        target, report = Path(scratch, "output.tif"), Path(scratch, "report.json")
        command = [sys.executable, "-m", "benchmarks.child", tool, str(folder), str(target), "{}", str(report)]
        quiet = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
        if done.returncode:
            failed = (done.stderr.strip().splitlines() or ["failed"])[-1]
            return Run(run_seconds=nothing, cpu_seconds=nothing, peak_mb=nothing, output_mb=nothing, wrong=failed)
        told = json.loads(report.read_text())
        return Run(**told, output_mb=target.stat().st_size / 1e6, wrong=_wrong(target, scene))


def _wrong(target: Path, scene: Path) -> str:
    with rasterio.open(target) as new, rasterio.open(scene) as old:
        if (new.shape, new.crs) != (old.shape, old.crs):
            return f"another grid: {new.shape}"
        for row, col in ((900, 900), (old.height // 2, old.width // 2), (old.height - 700, old.width - 700)):
            window = Window(col, row, 700, 700)
            if not np.array_equal(new.read(window=window), old.read(window=window)):
                return f"wrong pixels at row {row}, column {col}"
    return ""


OPENING = """
import sys, time, json, pickle
from pathlib import Path
import daskraster as dr
from daskraster.lazy.slicing import source_of
def peak():
    return next(int(l.split()[1]) * 1024 / 1e6 for l in open("/proc/self/status") if l.startswith("VmHWM"))
paths = sorted(Path(sys.argv[1]).glob("*.tif"))[: int(sys.argv[2])]
dr.open_raster(paths[0])
before, begin = peak(), time.perf_counter()
image = dr.mosaic(paths)
opened = time.perf_counter() - begin
begin = time.perf_counter()
result = dr.apply(abs, image, overlap=5, dtype=image.dtype, bands=1)
graph = dict(result.data.__dask_optimize__(result.data.dask, result.data.__dask_keys__()))
print(json.dumps({"inputs": len(paths), "open_seconds": opened, "build_seconds": time.perf_counter() - begin,
    "added_peak_mb": peak() - before, "blocks": image.data.npartitions, "tasks": len(graph),
    "table_bytes": len(pickle.dumps(source_of(image.data).source)),
    "largest_task_bytes": max(len(pickle.dumps(task)) for task in graph.values())}))
"""


def open_many(counts: Sequence[int]) -> list[dict[str, float]]:
    """
    Open this many tiny files as one mosaic, each count in a process of its own.

    Parameters
    ----------
    counts
        How many.

    Returns
    -------
    list of dict
        Seconds, memory and sizes of each.

    Raises
    ------
    OSError, subprocess.CalledProcessError
        The files cannot be written, or opening failed.
    """
    results = []
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        profile = {"driver": "GTiff", "width": 128, "height": 128, "count": 1, "dtype": "uint16", "crs": "EPSG:32630"}
        for number in range(max(counts)):
            left, top = 3e5 + number % 100 * 1200, 6e6 - number // 100 * 1200
            transform = rasterio.Affine(10, 0, left, 0, -10, top)
            with rasterio.open(
                Path(folder, f"{number:05d}.tif"), "w", transform=transform, nodata=0, **profile
            ) as file:
                file.write(np.full((1, 128, 128), number % 60_000 + 1, "uint16"))
        for count in counts:
            command = [sys.executable, "-c", OPENING, folder, str(count)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}
            )
            results.append(json.loads(done.stdout))
    return results


def table(results: dict[str, list[Run]]) -> str:
    """
    The medians as a Markdown table.

    Parameters
    ----------
    results
        Name of the tool -> runs.

    Returns
    -------
    str
        Lines. Raises nothing.
    """
    lines = ["| tool | seconds | ratio | CPU s | peak MB | ratio | output MB |", "|---|---:|---:|---:|---:|---:|---:|"]
    ours: Run | None = None
    for name, runs in results.items():
        if runs[0].wrong:
            lines.append(f"| {name} | {runs[0].wrong} | | | | | |")
            continue
        seconds, cpu = (median(getattr(run, key) for run in runs) for key in ("run_seconds", "cpu_seconds"))
        one = Run(
            run_seconds=seconds, cpu_seconds=cpu, peak_mb=max(run.peak_mb for run in runs), output_mb=runs[0].output_mb,
            wrong="",
        )  # fmt: skip
        ours = ours or one
        lines.append(
            f"| {name} | {seconds:.1f} | {seconds / ours.run_seconds:.2f} | {cpu:.1f} | {one.peak_mb:.0f} | "
            f"{one.peak_mb / ours.peak_mb:.1f} | {one.output_mb:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mosaic", description="Many tiles into one file.")
    parser.add_argument("--side", type=int, default=20, help="rows and columns of tiles: 20 makes 400")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--many", type=int, default=10_000, help="tiny files to open; 0: none")
    parser.add_argument("--make-only", action="store_true", help="make the tiles and stop")
    parser.add_argument("--json", type=Path, default=RESULTS / "mosaic.json")
    asked = parser.parse_args()
    scene, folder = make_tiles(asked.side)
    if asked.make_only:
        return
    results: dict[str, list[Run]] = {name: [] for name, _ in ROWS}
    begin = time.perf_counter()
    for turn in range(asked.repeat):
        for name, tool in ROWS:
            done = measure(tool, folder, scene)
            results[name].append(done)
            print(
                f"run {turn + 1} {name}: {done.wrong or f'{done.run_seconds:.1f} s, {done.peak_mb:.0f} MB'}", flush=True
            )
    print(f"\n{table(results)}\n\n{time.perf_counter() - begin:.0f} s")
    many = open_many([asked.many // 10, asked.many]) if asked.many else []
    for one in many:
        print(one)
    told = {"tiles": asked.side**2, "runs": {name: [asdict(run) for run in runs] for name, runs in results.items()}}
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps({**told, "opening": many}, indent=1) + "\n")


if __name__ == "__main__":
    main()
