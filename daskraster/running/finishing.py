"""The last steps of a run: complete the files, give them their names, say what was done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daskraster.formats.protocols import Receipt, Sink
from daskraster.metadata import RasterMetadata
from daskraster.running.report import WriteReport, peak_nbytes


def finish(sinks: Sequence[Sink], taken: Sequence[Sequence[Receipt]], finished: frozenset[str] | None) -> list[int]:
    """Complete every file, then give each its name; return their sizes in bytes.

    Parameters
    ----------
    sinks, taken
        The started sinks and the receipts of each.
    finished
        Names of the processes known to write no more; None: all.

    Raises
    ------
    RasterWriteError
        Tiles are missing, a target became impossible, or the disk refused: before any file got its name.
    """
    for sink, of_sink in zip(sinks, taken, strict=True):
        sink.finish(of_sink, finished=finished)
    return [sink.publish() for sink in sinks]


def reports(
    sinks: Sequence[Sink],
    metadatas: Sequence[RasterMetadata],
    taken: Sequence[Sequence[Receipt]],
    sizes: Sequence[int],
    seconds: float,
) -> list[WriteReport]:
    """What each finished output tells."""
    return [
        WriteReport(
            path=sink.target,
            driver=sink.driver,
            shape=metadata.shape,
            dtype=str(metadata.dtype),
            blocks=len({receipt.block for receipt in of_sink}),
            tiles=len(np.unique(np.concatenate([receipt.tiles for receipt in of_sink]))),
            seconds=seconds,
            nbytes=metadata.nbytes,
            file_nbytes=size,
            peak_nbytes=peak_nbytes(),
            stage_seconds=_stage_seconds(of_sink),
        )
        for sink, metadata, of_sink, size in zip(sinks, metadatas, taken, sizes, strict=True)
    ]


def _stage_seconds(taken: Sequence[Receipt]) -> dict[str, float]:
    stages: dict[str, float] = {}
    for receipt in taken:
        for name, spent in receipt.seconds.items():
            stages[name] = stages.get(name, 0.0) + spent
    return stages
