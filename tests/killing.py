"""A process that runs writes in children of its own and kills them: started once, since imports take longer than a run.

``python -m tests.killing folder kind:kills,kind:kills seed [address]``: for each kill one child begins a write, is killed (SIGKILL) after a random time,
another one goes on with it; the result is compared with an uninterrupted file. Prints a line of JSON for each kill.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

import daskraster as dr
from daskraster.formats import geotiff
from daskraster.running import journal
from tests.conftest import ignoring_georeference

OPTIONS: dict[str, dict[str, Any]] = {
    "tif": {},
    "cog": {"driver": "COG"},
    "large cog": {"driver": "COG", "mask": True},
    "kea": {},
    "bilinear": {"overview_resampling": "bilinear"},
    "bands": {"interleave": "band", "compress": "zstd"},
}


def slow(block: NDArray[Any]) -> NDArray[Any]:
    """A median that takes its time."""
    time.sleep(0.008)
    return ndimage.median_filter(block, size=(1, 3, 3))


def write(source: str, target: Path, kind: str, address: str | None, *, resume: bool) -> dict[str, Any]:
    """One run; what its report tells."""
    result = dr.apply(slow, dr.open_raster(source, chunks=32), overlap=1, dtype="uint16", bands=2)
    options: dict[str, Any] = {"blocksize": 16, "progress": False, "resume": resume, **OPTIONS[kind]}
    if address is None:
        with dask.config.set(scheduler="threads", num_workers=2):
            report = dr.write_raster(result, target, **options)
    else:
        from distributed import Client

        with Client(address):
            report = dr.write_raster(result, target, **options)
    assert isinstance(report, dr.WriteReport)
    return {"blocks": report.blocks, "resumed": report.resumed_blocks, "statistics": repr(report.statistics)}


def contents(path: Path) -> list[tuple[Any, ...]]:
    """Everything that a reader finds: pixels and metadata of every level."""
    if path.suffix == ".kea":
        levels: list[int | None] = [None, *range(_overviews_of(path))]
        found = [dr.open_raster(path, overview_level=level) for level in levels]
        return [(image.values.tobytes(), repr(sorted(image.attrs.items()))) for image in found]
    with ignoring_georeference(), rasterio.open(path) as dataset:
        factors = dataset.overviews(1)
        told = [(dataset.read().tobytes(), dataset.tags(), [dataset.tags(band) for band in dataset.indexes], factors)]
    for level in range(len(factors)):
        with ignoring_georeference(), rasterio.open(path, overview_level=level) as dataset:
            told.append((dataset.read().tobytes(), dataset.shape))
    return told


def _overviews_of(path: Path) -> int:
    with h5py.File(path) as file:
        return sum(name.startswith("OVERVIEW") for name in file["BAND1/OVERVIEWS"])


def in_child(work: Callable[[], Any], answer: Path, *, kill: Callable[[Callable[[], bool]], None] | None = None) -> Any:
    """The result of ``work`` in a forked process, or None where it was killed: when ``kill``, told how to ask whether it has ended, returns."""
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            answer.write_text(json.dumps(work()))
            code = 0
        finally:
            os._exit(code)
    if kill is not None:
        kill(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError("the child failed")
    return json.loads(answer.read_text())


def finished_blocks(base: Path, name: str) -> int:
    """Blocks that the journal of a target tells of."""
    for path in base.glob(f".{name}.*.journal"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            story = journal.read_story(descriptor)
        finally:
            os.close(descriptor)
        return 0 if story is None else len(story.blocks)
    return 0


def some_moment(base: Path, name: str, seconds: float, *, anywhere: bool) -> Callable[[Callable[[], bool]], None]:
    """What waits for a random moment: behind the first finished block, or ``anywhere``."""

    def wait(has_ended: Callable[[], bool]) -> None:
        while not anywhere and not has_ended() and not finished_blocks(base, name):
            time.sleep(0.005)
        time.sleep(seconds)

    return wait


def kills(base: Path, kind: str, count: int, rng: random.Random, address: str | None) -> None:
    """Kill runs of one kind, go on with each, print what came of it."""
    source, suffix = str(base / "in.tif"), "kea" if kind == "kea" else "tif"
    whole = base / f"whole-{kind}.{suffix}"
    answer = base / "answer.json"
    geotiff.ORDERED_NBYTES = 0 if kind == "large cog" else 1 << 25
    begin = time.perf_counter()
    due = in_child(lambda: write(source, whole, kind, address, resume=False), answer)
    seconds = time.perf_counter() - begin
    due_contents = in_child(lambda: repr(contents(whole)), answer)
    for number in range(count):
        target = base / f"{kind}{number}.{suffix}"
        target.write_bytes(b"what stood there")
        anywhere = number % 4 == 3
        moment = some_moment(base, target.name, rng.uniform(0, 0.9 if anywhere else 0.3) * seconds, anywhere=anywhere)
        done = in_child(lambda target=target: write(source, target, kind, address, resume=False), answer, kill=moment)
        finished = finished_blocks(base, target.name)
        published = done is not None or not any(base.glob(f".{target.name}.*.part"))
        kept = target.read_bytes() == b"what stood there" or published
        again = in_child(lambda target=target: write(source, target, kind, address, resume=True), answer)
        line = {
            "kind": kind,
            "in the middle": done is None and 0 < finished < again["blocks"],
            "old target kept": kept,
            # A kill between the renaming and the removal of the journal leaves nothing to go on with, and a journal that tells of it.
            "resumed": again["resumed"] == (0 if published else finished),
            "same file": in_child(lambda target=target: repr(contents(target)), answer) == due_contents,
            "same statistics": again["statistics"] == due["statistics"],
            "left": sorted(path.name for path in base.glob(f".{target.name}.*")),
            "size": target.stat().st_size / whole.stat().st_size,
        }
        print(json.dumps(line), flush=True)  # noqa: T201 - its answer
        target.unlink()


def main() -> None:
    """See this module."""
    folder, wanted, seed, *rest = sys.argv[1:]
    address = rest[0] if rest else None
    journal.FLUSH_SECONDS = 0.02
    if address is not None:
        importlib.import_module("distributed")  # once, not in every child
    rng = random.Random(int(seed))
    for one in wanted.split(","):
        kind, count = one.split(":")
        kills(Path(folder), kind, int(count), rng, address)


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
