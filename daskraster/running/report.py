"""What a finished write tells."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from daskraster.blocks.results import BandStatistics
from daskraster.pictures.timelines import timeline
from daskraster.running.facts import RunFacts, plain
from daskraster.spans import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """One output of one run. Prints as a few lines; in a notebook it shows as a table."""

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
    """Largest memory of this process since it started; None where the platform does not tell. Others: ``run.worker_peak_nbytes``."""
    planned_nbytes: int | None
    """What the plan allowed each worker process; None where the run was planned elsewhere (``compute=False``)."""
    stage_seconds: Mapping[str, float]
    """Seconds all threads together spent reading, in the function, with statistics, overviews, encoding, writing."""
    resumed_blocks: int = 0
    """Those of the blocks that an earlier run had finished."""
    run: RunFacts | None = None
    """When, where and with what; with ``compute=False`` what the blocks themselves tell, as each of its facts says."""

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

    @property
    def output(self) -> str:
        """What Python code printed in the blocks of the run, block by block as they finished, at most 10,000 characters of each and a million in all.

        Empty where nothing was printed, with ``progress=False`` and with ``compute=False``: it went where print sends it. What C libraries
        and threads of the function's own print, and what handlers of `logging` write, is not here either.
        """
        return "" if self.run is None else self.run.printed

    @property
    def retries(self) -> int:
        """Tasks of the run that raised and were tried again."""
        return 0 if self.run is None else self.run.retries

    def to_dict(self) -> dict[str, Any]:
        """Everything, of values that JSON knows: paths as text, of histograms their range, NaN as ``"NaN"``."""
        told = {
            one.name: plain(getattr(self, one.name))
            for one in fields(self)
            if one.name not in ("statistics", "run", "timeline")
        }
        if self.run is not None:
            told["run"] = {one.name: plain(getattr(self.run, one.name)) for one in fields(self.run)}
            told["stage_seconds"]["wait"] = self.run.wait_seconds
        else:
            told["run"] = None
        told["statistics"] = [_statistics(band) for band in self.statistics]
        told["mb_per_second"] = plain(self.mb_per_second)
        return told

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """`to_dict` as text, indented; with ``path`` written there too, in UTF-8.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def __str__(self) -> str:
        """A few aligned lines."""
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join([str(self.path), *(f"  {name:<{width}}  {text}" for name, text in rows)])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython shows, also of a list of reports: as it prints."""
        printer.text("..." if cycle else str(self))

    def _repr_html_(self) -> str:
        """The same as a small table."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th><td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self._rows()
        )
        return f"<table><caption>{html.escape(str(self.path))}</caption><tbody>{rows}</tbody></table>"

    def _rows(self) -> list[tuple[str, str]]:
        bands, rows, cols = self.shape
        raster = f"{self.driver}, {cols} x {rows} x {bands} {self.dtype}"
        size = f"{self.nbytes / 1e6:.1f} MB of pixels in {self.file_nbytes / 1e6:.1f} MB"
        resumed = f", {self.resumed_blocks} of them resumed" if self.resumed_blocks else ""
        tries = f", {self.retries} tried again" if self.retries else ""
        levels = f", overviews {' '.join(map(str, self.overviews))}" if self.overviews else ""
        found = [
            ("raster", f"{raster}; {size}"),
            ("blocks", f"{self.blocks}{resumed}{tries}; {self.tiles} tiles{levels}"),
            ("time", f"{self.seconds:.2f} s, {self.mb_per_second:.0f} MB/s"),
            ("stages", self._stages()),
            ("memory", self._memory()),
        ]
        if self.run is not None:
            where = f"{self.run.engine}, {self.run.processes} x {self.run.threads} threads on {self.run.host}"
            found.append(("engine", f"{where}, from {self.run.begun} to {self.run.ended}"))
        if self.output:
            found.append(("printed", f"{self.output.count(chr(10))} lines in report.output"))
        return [(name, text) for name, text in found if text]

    def _stages(self) -> str:
        stages = [f"{name} {spent:.2f}" for name, spent in self.stage_seconds.items()]
        if self.run is not None and self.run.wait_seconds is not None:
            stages.append(f"wait {self.run.wait_seconds:.2f}")
        return f"{', '.join(stages)} s of all threads" if stages else ""

    def _memory(self) -> str:
        if self.peak_nbytes is None:
            return ""
        planned = "" if self.planned_nbytes is None else f", {self.planned_nbytes / 1e6:.0f} MB planned for each worker"
        workers = None if self.run is None else self.run.worker_peak_nbytes
        others = "" if workers is None else f", {workers / 1e6:.0f} MB in the largest worker"
        return f"peak {self.peak_nbytes / 1e6:.0f} MB here{others}{planned}"


def _statistics(band: BandStatistics) -> dict[str, Any]:
    told = {one.name: plain(getattr(band, one.name)) for one in fields(band) if one.name != "histogram"}
    told["valid_percent"] = band.valid_percent
    if band.histogram is not None:
        told["histogram"] = {
            "minimum": plain(band.histogram.minimum),
            "maximum": plain(band.histogram.maximum),
            "function": band.histogram.function,
            "bins": len(band.histogram.counts),
        }
    return told
