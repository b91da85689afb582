"""KEA against HDF5's own filters and against GeoTIFF, one process a run, all in one go.

``python -m benchmarks.kea [--size 10000] [--rounds 3]`` prints a table and writes ``benchmarks/results/kea.json``.

The job is ``b1+1`` on an int32 scene: read by windows, add, write. h5py stands for the real library, which reads and writes through the same
filters (shuffle, gzip 1); it does so in one thread, since HDF5 has one lock. Unlike in `benchmarks.bench` the header is read before: reading is
compared, not the first use of PROJ.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.child import run
from benchmarks.scene import make_scene

DATA = Path("benchmarks/data")
RESULTS = Path("benchmarks/results/kea.json")
THREADS = 2

RUNS: dict[str, tuple[str, dict[str, object], str]] = {
    "read, h5py": ("hdf5_filters:read", {}, "kea"),
    "read, daskraster": ("daskraster_job:read", {}, "kea"),
    "b1+1 KEA to KEA, h5py": ("hdf5_filters", {}, "kea"),
    "b1+1 KEA to KEA, daskraster": ("daskraster_job", {"halo": 0}, "kea"),
    "b1+1 KEA to KEA, daskraster, halo 5": ("daskraster_job", {"halo": 5}, "kea"),
    "b1+1 GeoTIFF to GeoTIFF, daskraster": ("daskraster_job", {"halo": 0}, "tif"),
    "b1+1 GeoTIFF to GeoTIFF, daskraster, halo 5": ("daskraster_job", {"halo": 5}, "tif"),
}
"""Name -> tool in `benchmarks.peers`, its options, the format."""


def child(name: str, source: Path, target: Path) -> dict[str, float]:
    """One run in this process: seconds without imports, peak memory in 10**6 bytes, size of the output."""
    import dask.array as da

    import daskraster as dr

    # Imports are not what is measured, nor what dask imports with its first task and PROJ reads with its first CRS (60 ms once a
    # process); h5py's run carries the same memory for them.
    da.zeros(1).map_blocks(abs).compute(scheduler="threads")
    dr.open_raster(source)
    tool, options, _ = RUNS[name]
    told = run(tool, source, target, {"threads": THREADS, **options})
    size = target.stat().st_size / 1e6
    return {"seconds": told["run_seconds"], "peak_mb": told["peak_mb"], "output_mb": size}


def measure(name: str, sources: dict[str, Path]) -> dict[str, float]:
    """One run in a process of its own; its output is removed."""
    suffix = RUNS[name][2]
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
    for name, one in result["runs"].items():
        print(f"{name:45} {one['seconds']:6.2f} s {one['peak_mb']:6.0f} MB peak {one['output_mb']:7.1f} MB")
    for name in ("reading, times h5py", "writing, times h5py", "KEA by GeoTIFF"):
        print(f"{name:45} {result[name]:6.2f}")


if __name__ == "__main__":
    main()
