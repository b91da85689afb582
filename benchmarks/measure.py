"""One tool, one job, one fresh process: seconds, peak memory, size of the output.

``python -m benchmarks.measure rasterio_windows benchmarks/data/scene_8192.tif '{"threads": 2}'``
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.checking import wrong_pixels

TIMEOUT_SECONDS = 1200
HERE = Path(__file__).parent
PEERS_PYTHON = HERE / ".venv-peers/bin/python"
"""Of the environment that ``make bench`` makes for the tools from the registry."""
PEERS = ("rioxarray_lock", "rasterio_windows", "rasterio_cog", "rasterio_merge", "recipe", "xarray_spatial", "raster_tools", "odc_cog")  # fmt: skip
"""Tools that run there, where it is made. `imports` runs in our own, so that both sides import the same versions."""
SAMPLE_SECONDS = 0.1

# BLAS and OpenMP have nothing to do in these jobs; left alone they start a thread pool and hold memory for it.
# Bytecode is kept, as it is of every installed package: where the shell forbids it, our 120 modules, and no peer's, were compiled anew in each run.
_ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one run gave. Where `failed` says something, the numbers are NaN."""

    seconds: float = float("nan")
    """Wall clock of the whole process, from its start to its end."""
    run_seconds: float = float("nan")
    """Wall clock of ``run`` alone: the tool is imported already, unless it puts imports off."""
    cpu_seconds: float = float("nan")
    """User and system time of all threads of the whole process, and of the processes it waited for."""
    flush_seconds: float = float("nan")
    """Time that ``fsync`` of the output took after the process had ended; not part of the others."""
    peak_mb: float = float("nan")
    """Peak resident memory of the process, 10**6 bytes."""
    children_peak_mb: float = 0.0
    """Largest sum of the resident memory of its own processes, sampled; 0 where there are none."""
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
    check: str | Callable[[Path], str] = "add",
) -> Measurement:
    """
    Run a tool once, with the source in the page cache and nothing waiting to be written.

    The output is checked in two windows, then deleted.

    Parameters
    ----------
    tool
        Name of a module in `benchmarks.peers`, or ``"module:function"``; the function is ``run`` if not given.
    source
        A raster, or a folder of rasters.
    job
        Keyword arguments of that function; must be possible in JSON.
    scratch
        Folder for the output.
    suffix
        Of the output; decides its format.
    check
        What the output must be; see `benchmarks.checking.wrong_pixels`; or what says of the output, in words, what is wrong with it.

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
        for file in sorted(source.iterdir()) if source.is_dir() else [source]:
            _warm(file)
        # What another run left to be written would take disk and CPU from this one.
        os.sync()
        command = [str(_python(tool)), "-m", "benchmarks.child", tool, str(source), str(target), json.dumps(dict(job))]
        command.append(str(report))
        start = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | _ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)  # fmt: skip
        watch = _Watch(process.pid)
        try:
            _, told_errors = process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Measurement(failed=f"no end after {TIMEOUT_SECONDS} s")
        finally:
            watch.stop()
        seconds = time.perf_counter() - start
        if process.returncode != 0:
            last = told_errors.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
            return Measurement(failed=last[0])
        wrong = check(target) if callable(check) else wrong_pixels(check, tool, source, target)
        if wrong:
            return Measurement(failed=wrong)
        told = json.loads(report.read_text())
        return Measurement(
            seconds=seconds, flush_seconds=_flush(target), output_mb=target.stat().st_size / 1e6,
            children_peak_mb=watch.peak_mb, **told,
        )  # fmt: skip


def _python(tool: str) -> Path | str:
    return PEERS_PYTHON if tool.partition(":")[0] in PEERS and PEERS_PYTHON.exists() else sys.executable


class _Watch:
    """Looks at the memory of a process's own processes, now and then, until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._children = Path(f"/proc/{pid}/task/{pid}/children")
        self._stopped = threading.Event()
        self.peak_mb = 0.0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            try:
                pids = self._children.read_text().split()
            except OSError:
                return
            self.peak_mb = max(self.peak_mb, sum(map(_resident_mb, pids)))

    def stop(self) -> None:
        """Look no longer."""
        self._stopped.set()
        self._thread.join()


def _resident_mb(pid: str) -> float:
    """Resident memory that a process shares with no other, 10**6 bytes; 0 when it is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 1e6


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


def main() -> None:
    """Measure one run and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description="Measure one tool once.")
    parser.add_argument("tool", help="a module of benchmarks.peers, or module:function")
    parser.add_argument("source", type=Path)
    parser.add_argument("job", nargs="?", default="{}", type=json.loads, help="keyword arguments as JSON")
    parser.add_argument("--suffix", default=".tif", help="of the output")
    parser.add_argument("--check", default="add", help="what the output must be")
    asked = parser.parse_args()
    done = measure(asked.tool, asked.source, asked.job, scratch=HERE / "data", suffix=asked.suffix, check=asked.check)
    print(json.dumps(asdict(done)))


if __name__ == "__main__":
    main()
