"""The last steps of a run: complete the files, give them their names, say what was done."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from daskraster.blocks.results import BandStatistics
from daskraster.files import process_name
from daskraster.formats.protocols import Sink
from daskraster.metadata import RasterMetadata
from daskraster.running.facts import RunFacts
from daskraster.running.gathering import Gathering
from daskraster.running.memorypeak import peak_nbytes
from daskraster.running.report import WriteReport


@dataclass(frozen=True, slots=True)
class Finished:
    """A published output."""

    sink: Sink
    gathering: Gathering
    statistics: tuple[BandStatistics, ...]
    file_nbytes: int


def finish(sinks: Sequence[Sink], gatherings: Sequence[Gathering], finished: frozenset[str] | None) -> list[Finished]:
    """Complete every file, then give each its name.

    Parameters
    ----------
    sinks, gatherings
        The started sinks and what the blocks of each left behind.
    finished
        Names of the processes known to write no more, besides this one; None: all.

    Raises
    ------
    RasterWriteError
        Tiles are missing, a target became impossible, or the disk refused: before any file got its name.
    """
    if finished is not None:
        finished |= {process_name()}
    statistics = [gathering.finish(finished) for gathering in gatherings]
    return [
        Finished(sink, gathering, of_sink, sink.publish())
        for sink, gathering, of_sink in zip(sinks, gatherings, statistics, strict=True)
    ]


def reports(
    metadatas: Sequence[RasterMetadata],
    outputs: Sequence[Finished],
    seconds: float,
    *,
    planned_nbytes: int | None = None,
    resumed: Sequence[int] = (),
    runs: Sequence[RunFacts] = (),
) -> list[WriteReport]:
    """What each finished output tells; ``resumed``: blocks of each that an earlier run had finished; ``runs``: facts of each."""
    return [
        WriteReport(
            path=output.sink.target,
            driver=output.sink.driver,
            shape=metadata.shape,
            dtype=str(metadata.dtype),
            blocks=output.gathering.blocks,
            tiles=output.sink.levels[0].count,
            overviews=tuple(2**number for number, level in enumerate(output.sink.levels) if number and level.stored),
            statistics=output.statistics,
            seconds=seconds,
            nbytes=metadata.nbytes,
            file_nbytes=output.file_nbytes,
            peak_nbytes=peak_nbytes(),
            planned_nbytes=planned_nbytes,
            stage_seconds=output.gathering.seconds,
            resumed_blocks=count,
            timeline=output.gathering.timeline,
            run=run,
        )
        for metadata, output, count, run in zip(
            metadatas, outputs, resumed or [0] * len(outputs), runs or itertools.repeat(None, len(outputs)), strict=True
        )
    ]
