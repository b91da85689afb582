"""What a LocalCluster costs and what it gives: ``python -m benchmarks.cluster``.

- overhead: job A (`b1+1`, halo 5, uint16) on two worker processes of one thread against two threads of this one; the start of the cluster
  is left out. 1.25 wanted at most.
- scaling: a function that computes in place, on one worker and on two. 1.8 wanted at least.
- allocating: the same for a function that makes three new arrays of 1 MB a step, and on one thread of this process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import Client
from numpy.typing import NDArray

import daskraster as dr
from benchmarks.jobs import Scene
from benchmarks.peers import daskraster_job
from benchmarks.scene import make_scene

DATA = Path(__file__).parent / "data"
RESULTS = Path(__file__).parent / "results"


def busy(block: NDArray[Any]) -> NDArray[Any]:
    """Computes in place on one array: bound by computing alone."""
    values = block.astype(np.float32)
    for _ in range(400):
        np.sqrt(np.add(np.multiply(values, values, out=values), np.float32(1), out=values), out=values)
    return values.astype(block.dtype)


def wasteful(block: NDArray[Any]) -> NDArray[Any]:
    """Makes three new arrays a step, as most functions do."""
    values = block.astype(np.float32)
    for _ in range(400):
        doubled = values * np.float32(0.5)
        added = doubled + values
        values = np.sqrt(added)
    return values.astype(block.dtype)


def _add(source: Path, target: Path) -> float:
    begin = time.perf_counter()
    image = dr.open_raster(source)
    result = dr.apply(daskraster_job.OPERATIONS["add"].function, image, overlap=5, dtype="uint16", bands=1)
    dr.write_raster(result, target, progress=False, statistics=False, overviews=False)
    return _done(begin, target)


def _computed(source: Path, target: Path, function: Callable[..., Any]) -> float:
    begin = time.perf_counter()
    image = dr.open_raster(source, chunks=512)
    result = dr.apply(function, image, dtype="uint16", bands=1)
    dr.write_raster(result, target, progress=False, statistics=False, overviews=False)
    return _done(begin, target)


def _done(begin: float, target: Path) -> float:
    seconds = time.perf_counter() - begin
    target.unlink()
    return seconds


def _client(workers: int) -> Any:
    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def overhead(repeat: int, size: int) -> dict[str, float]:
    """Seconds of job A on two threads and on two workers, medians of interleaved runs after one of each, and their ratio."""
    source = Scene(size_yx=(size, size)).path()
    seconds: dict[str, list[float]] = {"threads": [], "cluster": []}
    with tempfile.TemporaryDirectory(dir=DATA) as folder, _client(2) as client:
        target = Path(folder, "out.tif")
        for _ in range(repeat + 1):
            with client.as_current():
                seconds["cluster"].append(_add(source, target))
            with dask.config.set(scheduler="threads", num_workers=2):
                seconds["threads"].append(_add(source, target))
    found = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {**found, "ratio": found["cluster"] / found["threads"]}


def _on_workers(function: Callable[..., Any], repeat: int) -> dict[str, float]:
    """Seconds of a function on one worker and on two, medians after one run of each, and their ratio."""
    source = make_scene(DATA / "scene_4096.tif", 4096, 4096)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        for workers in (1, 2):
            with _client(workers):
                runs = [_computed(source, Path(folder, "out.tif"), function) for _ in range(repeat + 1)]
            found[f"{workers} worker"] = statistics.median(runs[1:])
    return {**found, "ratio": found["1 worker"] / found["2 worker"]}


def scaling(repeat: int, _size: int) -> dict[str, float]:
    """One worker against two, for a function that computes in place."""
    return _on_workers(busy, repeat)


def allocating(repeat: int, _size: int) -> dict[str, float]:
    """One thread of this process, one worker, and two, for a function that makes new arrays."""
    source = make_scene(DATA / "scene_4096.tif", 4096, 4096)
    with (
        tempfile.TemporaryDirectory(dir=DATA) as folder,
        dask.config.set(scheduler="threads", num_workers=1),
    ):
        runs = [_computed(source, Path(folder, "out.tif"), wasteful) for _ in range(repeat + 1)]
    return {"1 thread": statistics.median(runs[1:]), **_on_workers(wasteful, repeat)}


def main() -> None:
    """Measure, print it as JSON, and add it to the results."""
    known: dict[str, Callable[[int, int], dict[str, float]]] = {
        "overhead": overhead, "scaling": scaling, "allocating": allocating,
    }  # fmt: skip
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description="What a LocalCluster costs.")
    parser.add_argument("what", nargs="*", choices=[*known])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, besides the first one")
    parser.add_argument("--size", type=int, default=24_576, help="rows and columns of job A")
    asked = parser.parse_args()
    file = RESULTS / "cluster.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name in asked.what or known:
        found = known[name](asked.repeat, asked.size)
        label = f"{name}{f' {asked.size}' if name == 'overhead' else ''}"
        results[label] = {key: round(value, 3) for key, value in found.items()}
        print(label, json.dumps(results[label]), flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
