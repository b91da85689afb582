"""What a LocalCluster costs and what it gives: ``python -m benchmarks.cluster``.

- overhead: job A (`b1+1`, halo 5, uint16) on two worker processes of one thread against two threads of this one; the start of the cluster
  is left out. 1.25 wanted at most.
- scaling: a function that computes in place, on one worker and on two. 1.8 wanted at least.
- allocating: the same for a function that makes three new arrays of 1 MB a step, and on one thread of this process; and what this machine gives
  at most: the same work by one plain process and by two, without dask, rasters or anything else.
- first: the first run on new workers of `dr.cluster`, at once and two seconds after their start, and a later one.
- model: a function that holds a table of 200 MB, 256 blocks on two workers: seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
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
    bare = {f"{count} plain": statistics.median(_bare(count) for _ in range(repeat)) for count in (1, 2)}
    limit = {**bare, "plain ratio": bare["1 plain"] / bare["2 plain"]}
    return {"1 thread": statistics.median(runs[1:]), **_on_workers(wasteful, repeat), **limit}


def _bare(processes: int) -> float:
    """Seconds of `wasteful` on 64 blocks of 512 x 512 in plain processes, from when all are there until all are done."""
    spawning = multiprocessing.get_context("spawn")
    barrier, spans = spawning.Barrier(processes), spawning.Queue()
    running = [spawning.Process(target=_bare_part, args=(64 // processes, barrier, spans)) for _ in range(processes)]
    for process in running:
        process.start()
    found = [spans.get() for _ in running]
    for process in running:
        process.join()
    return float(max(end for _, end in found) - min(begin for begin, _ in found))


def _bare_part(blocks: int, barrier: Any, spans: Any) -> None:
    block = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)
    wasteful(block)
    barrier.wait()
    begin = time.monotonic()
    for _ in range(blocks):
        wasteful(block)
    spans.put((begin, time.monotonic()))


def first(repeat: int, _size: int) -> dict[str, float]:
    """The first run on workers that have just started, or have been there for two seconds, and the run after it."""
    source = make_scene(DATA / "scene_4096.tif", 4096, 4096)
    found: dict[str, list[float]] = {"start": [], "at once": [], "after 2 s": [], "later run": []}
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        target = Path(folder, "out.tif")
        _add(source, target)
        for name, wait in [("at once", 0), ("after 2 s", 2)] * repeat:
            begin = time.perf_counter()
            with dr.cluster("local", n_workers=2, threads_per_worker=1):
                found["start"].append(time.perf_counter() - begin)
                time.sleep(wait)
                found[name].append(_add(source, target))
                found["later run"].append(_add(source, target))
    return {name: statistics.median(values) for name, values in found.items()}


class Table:
    """A function that holds a large table."""

    def __init__(self, nbytes: int) -> None:
        self.values = np.random.default_rng(0).integers(0, 60_000, nbytes // 2, np.uint16)

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        return self.values[block]


def model(repeat: int, _size: int) -> dict[str, float]:
    """A table of 200 MB in a function, and one of 0.1 MB, 256 blocks of 256 x 256."""
    source = make_scene(DATA / "scene_4096.tif", 4096, 4096)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=DATA) as folder, _client(2):
        for name, nbytes in [("0.13 MB", 1 << 17), ("200 MB", 200_000_000)]:
            image = dr.open_raster(source, chunks=256)
            runs = []
            for _ in range(repeat):
                result = dr.apply(Table(nbytes), image, dtype="uint16", bands=1)
                begin = time.perf_counter()
                dr.write_raster(result, Path(folder, "out.tif"), progress=False, statistics=False, overviews=False)
                runs.append(_done(begin, Path(folder, "out.tif")))
            found[name] = statistics.median(runs)
    return found


def main() -> None:
    """Measure, print it as JSON, and add it to the results."""
    known: dict[str, Callable[[int, int], dict[str, float]]] = {
        "overhead": overhead, "scaling": scaling, "allocating": allocating, "first": first, "model": model,
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
