"""What a LocalCluster costs and what it gives: ``python -m benchmarks.cluster``.

- overhead: job A (`b1+1`, halo 5, 24,576 x 24,576 uint16) on two worker processes of one thread against two threads of this one; the start of the cluster
  is left out. 1.25 wanted at most.
- scaling: a function that only computes, on one worker and on two. 1.8 wanted at least.
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


def busy(block: NDArray[Any]) -> NDArray[Any]:
    """Half a microsecond of one core for each pixel, nothing read twice: bound by computing alone."""
    values = block.astype(np.float32)
    for _ in range(60):
        values = np.sqrt(values * values + np.float32(1))
    return values.astype(block.dtype)


def _add(source: Path, target: Path) -> float:
    begin = time.perf_counter()
    image = dr.open_raster(source)
    result = dr.apply(daskraster_job.OPERATIONS["add"].function, image, overlap=5, dtype="uint16", bands=1)
    dr.write_raster(result, target, progress=False, statistics=False, overviews=False)
    return _done(begin, target)


def _busy(source: Path, target: Path) -> float:
    begin = time.perf_counter()
    image = dr.open_raster(source, chunks=512)
    result = dr.apply(busy, image, dtype="uint16", bands=1)
    dr.write_raster(result, target, progress=False, statistics=False, overviews=False)
    return _done(begin, target)


def _done(begin: float, target: Path) -> float:
    seconds = time.perf_counter() - begin
    target.unlink()
    return seconds


def _client(workers: int) -> Any:
    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def overhead(repeat: int) -> dict[str, float]:
    """Seconds of job A on two threads and on two workers, medians of interleaved runs after one of each, and their ratio."""
    source = Scene(size_yx=(24_576, 24_576)).path()
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


def scaling(repeat: int) -> dict[str, float]:
    """Seconds of a function that only computes on one worker and on two, medians after one run of each, and their ratio."""
    source = make_scene(DATA / "scene_4096.tif", 4096, 4096)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        for workers in (1, 2):
            with _client(workers):
                runs = [_busy(source, Path(folder, "out.tif")) for _ in range(repeat + 1)]
            found[f"{workers} worker"] = statistics.median(runs[1:])
    return {**found, "ratio": found["1 worker"] / found["2 worker"]}


def main() -> None:
    """Measure and print it as JSON."""
    known: dict[str, Callable[[int], dict[str, float]]] = {"overhead": overhead, "scaling": scaling}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description="What a LocalCluster costs.")
    parser.add_argument("what", nargs="*", choices=[*known], default=[*known])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, besides the first one")
    asked = parser.parse_args()
    print(json.dumps({name: known[name](asked.repeat) for name in asked.what}, indent=1))


if __name__ == "__main__":
    main()
