"""What a finished write tells."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskraster.blocks.results import BandStatistics
from daskraster.pictures.timelines import timeline
from daskraster.spans import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """One output of one run."""

    path: Path
    """The finished file."""
    driver: str
    """GDAL's name of its format."""
    shape: tuple[int, int, int]
    """Bands, rows, columns."""
    dtype: str
    """Pixel type of the file."""
    blocks: int
    """Blocks in the file."""
    tiles: int
    """Tiles of full resolution in the file."""
    overviews: tuple[int, ...]
    """Factors of the overviews in the file."""
    statistics: tuple[BandStatistics, ...]
    """Of each band; empty where they were not wanted."""
    seconds: float
    """Wall time of the run, from the plan to the finished file."""
    nbytes: int
    """Size of the pixels in memory."""
    file_nbytes: int
    """Size of the file."""
    peak_nbytes: int | None
    """Largest memory of this process since it started; None where the platform does not tell. Workers elsewhere not counted."""
    planned_nbytes: int | None
    """What the plan allowed each worker process; None where the run was planned elsewhere (``compute=False``)."""
    stage_seconds: Mapping[str, float]
    """Seconds all threads together spent reading, in the function, with statistics, overviews, encoding, writing."""
    resumed_blocks: int = 0
    """Those of the blocks that an earlier run had finished."""

    timeline: Timeline = field(default_factory=Timeline, compare=False, repr=False)
    """When each worker thread was in which stage; what `plot` draws."""

    @property
    def mb_per_second(self) -> float:
        """Pixels, in 10^6 bytes in memory, per second."""
        return self.nbytes / 1e6 / self.seconds if self.seconds else float("inf")

    def plot(self, ax: Any | None = None) -> Any:
        """Draw the run as a timeline of stages, one line a worker thread; needs the extra ``plot``.

        Times are of each worker's own clock: on a cluster whose clocks differ, lines are shifted against one another. Of more than
        4,096 blocks every second, fourth ... is drawn. ``ax``: matplotlib Axes; None: a new figure's. Returns them.

        Raises
        ------
        OptionError
            matplotlib is missing, or no block was computed in this run.
        """
        return timeline(self.timeline, f"{self.path.name}: {self.blocks} blocks in {self.seconds:.2f} s", ax)

    def __str__(self) -> str:
        """One short summary."""
        bands, rows, cols = self.shape
        size = f"{self.nbytes / 1e6:.1f} MB of pixels in {self.file_nbytes / 1e6:.1f} MB"
        peak = "" if self.peak_nbytes is None else f", peak memory {self.peak_nbytes / 1e6:.0f} MB"
        resumed = f", {self.resumed_blocks} of them resumed" if self.resumed_blocks else ""
        return (
            f"{self.path}: {self.driver}, {cols} x {rows} x {bands} {self.dtype}, {size}; "
            f"{self.blocks} blocks{resumed} in {self.seconds:.2f} s, {self.mb_per_second:.0f} MB/s{peak}"
        )


def peak_nbytes() -> int | None:
    """Largest resident memory of this process so far.

    From VmHWM where there is /proc: ``ru_maxrss`` of a child begins at its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
