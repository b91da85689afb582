"""KEA against HDF5's own filters and against GeoTIFF, one process a run, all in one go.

``python -m benchmarks.kea [--size 10000] [--rounds 3]`` prints a table and writes ``benchmarks/results/kea.json``.

The job is ``b1+1`` on an int32 scene: read by windows, add, write. h5py stands for the real library, which reads and writes through the same
filters (shuffle, gzip 1); it does so in one thread, since HDF5 has one lock.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.scene import make_scene

DATA = Path("benchmarks/data")
RESULTS = Path("benchmarks/results/kea.json")
THREADS = 2
ROWS = 512  # read and written at once by h5py: a row of chunks, its best case


def read_by_h5py(source: Path, target: Path) -> None:
    """All pixels through HDF5's filters, a row of chunks at a time."""
    import h5py

    with h5py.File(source) as file:
        data = file["BAND1/DATA"]
        for row in range(0, data.shape[0], ROWS):
            data[row : row + ROWS]


def write_by_h5py(source: Path, target: Path) -> None:
    """The job through HDF5's filters."""
    import h5py

    with h5py.File(source) as file, h5py.File(target, "w", libver=("earliest", "v110")) as out:
        data = file["BAND1/DATA"]
        made = out.create_dataset(
            "BAND1/DATA",
            data.shape,
            data.dtype,
            chunks=data.chunks,
            shuffle=True,
            compression="gzip",
            compression_opts=1,
        )
        for row in range(0, data.shape[0], ROWS):
            made[row : row + ROWS] = data[row : row + ROWS] + 1


def read(source: Path, target: Path) -> None:
    """All pixels by daskraster."""
    import dask
    import numpy as np

    import daskraster as dr

    with dask.config.set(scheduler="threads", num_workers=THREADS):
        data = dr.open_raster(source).data
        corner = np.empty((0, 0, 0), data.dtype)
        ones = tuple((1,) * count for count in data.numblocks)
        data.map_blocks(lambda block: block[:1, :1, :1].copy(), chunks=ones, dtype=data.dtype, meta=corner).compute()


def write(source: Path, target: Path, *, overlap: int = 0) -> None:
    """The job by daskraster."""
    import dask

    import daskraster as dr

    with dask.config.set(scheduler="threads", num_workers=THREADS):
        result = dr.apply(lambda block: block + 1, dr.open_raster(source), overlap=overlap, dtype="int32", bands=1)
        dr.write_raster(result, target, statistics=False, overviews=False, progress=False)


def write_with_halo(source: Path, target: Path) -> None:
    """The job with a halo of 5 pixels."""
    write(source, target, overlap=5)


RUNS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "read, h5py": (read_by_h5py, "kea"),
    "read, daskraster": (read, "kea"),
    "b1+1 KEA to KEA, h5py": (write_by_h5py, "kea"),
    "b1+1 KEA to KEA, daskraster": (write, "kea"),
    "b1+1 KEA to KEA, daskraster, halo 5": (write_with_halo, "kea"),
    "b1+1 GeoTIFF to GeoTIFF, daskraster": (write, "tif"),
    "b1+1 GeoTIFF to GeoTIFF, daskraster, halo 5": (write_with_halo, "tif"),
}


def child(name: str, source: Path, target: Path) -> dict[str, float]:
    """One run in this process: seconds without imports, peak memory in 10**6 bytes, size of the output."""
    import dask.array as da

    import daskraster as dr

    # Imports are not what is measured, nor what dask imports with its first task and PROJ reads with its first CRS (60 ms once a
    # process); h5py's run carries the same memory for them.
    da.zeros(1).map_blocks(abs).compute(scheduler="threads")
    dr.open_raster(source)
    run, _ = RUNS[name]
    start = time.perf_counter()
    run(source, target)
    seconds = time.perf_counter() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))
    return {"seconds": seconds, "peak_mb": peak, "output_mb": target.stat().st_size / 1e6 if target.exists() else 0.0}


def measure(name: str, sources: dict[str, Path]) -> dict[str, float]:
    """One run in a process of its own; its output is removed."""
    suffix = RUNS[name][1]
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        command = [
            sys.executable,
            "-m",
            "benchmarks.kea",
            "--child",
            name,
            str(sources[suffix]),
            f"{folder}/out.{suffix}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def compare(size: int, rounds: int) -> dict[str, Any]:
    """Every run ``rounds`` times, in turns, so that a noisy moment hits all alike; medians."""
    import daskraster as dr

    tif = make_scene(DATA / f"scene_int32_{size}.tif", size, size, dtype="int32")
    kea = tif.with_suffix(".kea")
    if not kea.exists():
        dr.write_raster(dr.open_raster(tif), kea, progress=False)
    sources = {"tif": tif, "kea": kea}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for _ in range(rounds):
        for name, runs in taken.items():
            runs.append(measure(name, sources))
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in taken.items()
    }
    seconds = {name: run["seconds"] for name, run in medians.items()}
    job = "b1+1 KEA to KEA"
    return {
        "size": size,
        "rounds": rounds,
        "threads": THREADS,
        "runs": medians,
        "reading, times h5py": seconds["read, h5py"] / seconds["read, daskraster"],
        "writing, times h5py": seconds[f"{job}, h5py"] / seconds[f"{job}, daskraster"],
        "KEA by GeoTIFF": seconds[f"{job}, daskraster"] / seconds["b1+1 GeoTIFF to GeoTIFF, daskraster"],
    }


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kea", description="Compare KEA with h5py and GeoTIFF.")
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        name, source, target = asked.child
        print(json.dumps(child(name, Path(source), Path(target))))
        return
    result = compare(asked.size, asked.rounds)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    for name, run in result["runs"].items():
        print(f"{name:45} {run['seconds']:6.2f} s {run['peak_mb']:6.0f} MB peak {run['output_mb']:7.1f} MB")
    for name in ("reading, times h5py", "writing, times h5py", "KEA by GeoTIFF"):
        print(f"{name:45} {result[name]:6.2f}")


if __name__ == "__main__":
    main()
