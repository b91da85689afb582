"""One tool, one job, one fresh process: seconds, peak memory, size of the output.

``python -m benchmarks.measure rasterio_windows benchmarks/data/scene_8192.tif '{"threads": 2}'``
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from benchmarks.peers.handwritten import read_window

TIMEOUT_SECONDS = 600
OWN_PYTHON = PYTHON = sys.executable
"""PYTHON runs the tool: another one's, where the tool lives in an environment of its own."""

# BLAS and OpenMP have nothing to do in these jobs; left alone they start a thread pool and hold memory for it.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one run gave. Where `failed` says something, the numbers are NaN."""

    seconds: float = float("nan")
    """Wall clock of the whole process, from its start to its end."""
    run_seconds: float = float("nan")
    """Wall clock of ``run`` alone: the tool is imported already, unless it puts imports off."""
    cpu_seconds: float = float("nan")
    """User and system time of all threads of the whole process."""
    flush_seconds: float = float("nan")
    """Time that ``fsync`` of the output took after the process had ended; not part of the others."""
    peak_mb: float = float("nan")
    """Peak resident memory, 10**6 bytes."""
    output_mb: float = float("nan")
    """Size of the output, 10**6 bytes."""
    failed: str = ""
    """Why there is no result; empty if there is one."""


def measure(
    tool: str,
    source: Path,
    job: Mapping[str, object],
    *,
    scratch: Path,
    suffix: str = ".tif",
    check: Callable[[Path], str] | None = None,
) -> Measurement:
    """
    Run a tool once, with the source in the page cache and nothing waiting to be written.

    The output is checked against the source in two windows, then deleted.

    Parameters
    ----------
    tool
        Name of a module in `benchmarks.peers`.
    source
        A GeoTIFF with one band.
    job
        Keyword arguments of the tool's ``run``; must be possible in JSON.
    scratch
        Folder for the output.
    suffix
        Of the output; a KEA file is read by our own reader.
    check
        What is wrong with the output, in words, or nothing; None: it must be the source plus one.

    Returns
    -------
    Measurement
        A tool that is missing, raises, is killed or writes wrong pixels gives one with `Measurement.failed`.

    Raises
    ------
    OSError
        If ``source`` or ``scratch`` cannot be used.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        target, report = Path(folder, f"output{suffix}"), Path(folder, "report.json")
        _warm(source)
        # What another run left to be written would take disk and CPU from this one.
        os.sync()
        command = [PYTHON, "-m", "benchmarks.child", tool, str(source), str(target), json.dumps(dict(job))]
        command.append(str(report))
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, env=os.environ | _ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Measurement(failed=f"no end after {TIMEOUT_SECONDS} s")
        seconds = time.perf_counter() - start
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            return Measurement(failed=last[0])
        if wrong := check(target) if check else _check(tool, source, target):
            return Measurement(failed=wrong)
        told = json.loads(report.read_text())
        flush_seconds = _flush(target)
        return Measurement(seconds=seconds, flush_seconds=flush_seconds, output_mb=target.stat().st_size / 1e6, **told)


def _warm(path: Path) -> None:
    """Read a file once, so that its bytes come from memory later."""
    buffer = bytearray(1 << 24)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _flush(path: Path) -> float:
    """Seconds until the output is on the disk."""
    start = time.perf_counter()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - start


def _check(tool: str, source: Path, target: Path) -> str:
    """Why the output is wrong, or nothing: it must be the source plus one, in the middle and in the last corner."""
    with rasterio.open(source) as file:
        for row, column in ((file.height // 2, file.width // 2), (file.height - 1, file.width - 1)):
            # From the border of a tile, across three more.
            top, left = row // 512 * 512, column // 512 * 512
            height, width = min(600, file.height - top), min(600, file.width - left)
            window = Window(left, top, width, height)
            expected = file.read(1, window=window) + 1
            if tool == "handwritten":
                written = read_window(target, (top, left), (height, width), file.dtypes[0])
            elif target.suffix == ".kea":
                written = _read_kea(target, (top, left), (height, width))
            else:
                with rasterio.open(target) as new:
                    if (new.shape, new.crs, new.transform) != (file.shape, file.crs, file.transform):
                        return "wrong pixels: the output has another grid"
                    written = new.read(1, window=window)
            if written.dtype != expected.dtype or not np.array_equal(written, expected):
                return f"wrong pixels in the window at row {top}, column {left}"
    return ""


def _read_kea(path: Path, corner: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A window by HDF5, which is not what wrote it."""
    import h5py

    with h5py.File(path) as file:
        rows, columns = (slice(start, start + count) for start, count in zip(corner, size, strict=True))
        return np.asarray(file["BAND1/DATA"][rows, columns])


def main() -> None:
    """Measure one run and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description="Measure one tool once.")
    parser.add_argument("tool", help="a module of benchmarks.peers")
    parser.add_argument("source", type=Path)
    parser.add_argument("job", nargs="?", default="{}", type=json.loads, help="keyword arguments as JSON")
    asked = parser.parse_args()
    print(json.dumps(asdict(measure(asked.tool, asked.source, asked.job, scratch=Path("benchmarks/data")))))


if __name__ == "__main__":
    main()
