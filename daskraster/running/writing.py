"""Arrays into files: check, plan, run, finish."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import xarray as xr
from dask.delayed import Delayed, delayed

from daskraster.blocks.results import BandStatistics
from daskraster.errors import OptionError
from daskraster.formats.protocols import Receipt, Sink
from daskraster.lazy.arrays import as_raster
from daskraster.metadata import RasterMetadata
from daskraster.options import WriteKeywords, WriteOptions
from daskraster.running.engines import run, uses_other_processes
from daskraster.running.gathering import Gathering, gathered
from daskraster.running.outputs import Output, planned, receipts
from daskraster.running.progress import Progress
from daskraster.running.pyramid import Pyramid
from daskraster.running.report import WriteReport, peak_nbytes


def write_raster(
    raster: xr.DataArray, path: str | os.PathLike[str], *, compute: bool = True, **options: Unpack[WriteKeywords]
) -> WriteReport | Delayed:
    """Stream a lazy raster into one file: each block is read, computed, encoded and written by one worker, in one pass.

    Parameters
    ----------
    raster
        Any DataArray ``(band, y, x)`` or ``(y, x)`` with ``.rio`` metadata, lazy or in memory, in any chunks.
    path
        The file to be; its suffix chooses the format unless ``driver`` does. It appears under its name when it is complete; until
        then what stands there stays, even where it is one of the inputs.
    compute
        False: nothing is done; a `dask.delayed.Delayed` comes back that holds every block, creates the file in its first task and
        publishes it in its last, whose value is the `WriteReport`.
    **options
        See `daskraster.options.WriteOptions`: ``driver``, ``compress``, ``level``, ``quality``, ``max_error``, ``predictor``, ``blocksize``, ``interleave``,
        ``bigtiff``, ``nodata``, ``dtype``, ``band_names``, ``tags``, ``colormap``, ``thematic``, ``attribute_table``, ``statistics``, ``overviews``,
        ``overview_resampling``, ``progress``.

    Returns
    -------
    WriteReport, or Delayed with ``compute=False``

    Raises
    ------
    OptionError
        Options that are unknown, out of range, clash, or cannot hold the raster; before anything is computed.
    RasterArrayError
        The array is no raster.
    RasterWriteError
        The folder is missing, the disk full, a tile lost. Nothing is left behind and what stood at ``path`` stays.
    Exception
        Whatever the function raised, with a note that names the block.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr
    >>> image = xr.DataArray(np.ones((1, 3, 4), "uint8"), dims=("band", "y", "x"))
    >>> report = write_raster(image, f"{tempfile.mkdtemp()}/ones.tif")
    >>> report.shape, report.tiles
    ((1, 3, 4), 1)
    """
    written = write_rasters({path: raster}, compute=compute, **options)
    return written if isinstance(written, Delayed) else written[0]


def write_rasters(
    rasters: Mapping[str | os.PathLike[str], xr.DataArray], *, compute: bool = True, **options: Unpack[WriteKeywords]
) -> list[WriteReport] | Delayed:
    """Several outputs in one pass: inputs and intermediate results they share are read and computed once.

    Parameters
    ----------
    rasters
        Path -> array, each as in `write_raster`.
    compute, **options
        As in `write_raster`; they hold for every output.

    Returns
    -------
    list of WriteReport in the order of ``rasters``, or one Delayed of that list with ``compute=False``

    Raises
    ------
    OptionError, RasterArrayError, RasterWriteError, Exception
        As `write_raster`; after any of them none of the files is published.
    """
    checked = WriteOptions.of(options)
    outputs = _plan(rasters, checked)
    if not compute:
        return _delayed(outputs)
    return _run(outputs, progress=checked.progress)


def _plan(rasters: Mapping[str | os.PathLike[str], xr.DataArray], options: WriteOptions) -> list[Output]:
    if not rasters:
        raise OptionError("write_rasters needs at least one output: {path: raster}")
    targets = [os.path.realpath(path) for path in rasters]
    if len(set(targets)) < len(targets):
        raise OptionError(f"two outputs go to one file: {', '.join(map(str, rasters))}")
    return [planned(as_raster(array), Path(path), options) for path, array in rasters.items()]


def _run(outputs: Sequence[Output], *, progress: bool) -> list[WriteReport]:
    begin = time.perf_counter()
    name = outputs[0].sink.target.name + (f" and {len(outputs) - 1} more" if len(outputs) > 1 else "")
    with _started(outputs) as sinks:
        gatherings = [
            Gathering(sink, output.pyramid, output.metadata.shape[0])
            for output, sink in zip(outputs, sinks, strict=True)
        ]
        arrays = [receipts(output, sink) for output, sink in zip(outputs, sinks, strict=True)]
        with Progress(name, sum(array.npartitions for array in arrays), wanted=progress) as line:

            def on_receipt(number: int, receipt: Receipt) -> None:
                gatherings[number].add(receipt)
                line.add(receipt.nbytes)

            run(arrays, on_receipt)
        finished = _finish(sinks, gatherings)
    return _reports([output.metadata for output in outputs], finished, time.perf_counter() - begin)


@contextlib.contextmanager
def _started(outputs: Sequence[Output]) -> Iterator[list[Sink]]:
    """The sinks with their partial files; whatever goes wrong, Ctrl-C too, none of those is left."""
    many = uses_other_processes()
    sinks: list[Sink] = []
    try:
        for output in outputs:
            sinks.append(output.sink.start(many_processes=many))
        yield sinks
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise


@dataclass(frozen=True, slots=True)
class _Finished:
    """A published output."""

    sink: Sink
    gathering: Gathering
    statistics: tuple[BandStatistics, ...]
    file_nbytes: int


def _finish(sinks: Sequence[Sink], gatherings: Sequence[Gathering]) -> list[_Finished]:
    """Complete every file before the first one gets its name."""
    statistics = [gathering.finish() for gathering in gatherings]
    return [
        _Finished(sink, gathering, of_sink, sink.publish())
        for sink, gathering, of_sink in zip(sinks, gatherings, statistics, strict=True)
    ]


def _reports(metadatas: Sequence[RasterMetadata], outputs: Sequence[_Finished], seconds: float) -> list[WriteReport]:
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
            stage_seconds=_stage_seconds(output.gathering.receipts),
        )
        for metadata, output in zip(metadatas, outputs, strict=True)
    ]


def _stage_seconds(taken: Sequence[Receipt]) -> dict[str, float]:
    stages: dict[str, float] = {}
    for receipt in taken:
        for name, spent in receipt.seconds.items():
            stages[name] = stages.get(name, 0.0) + spent
    return stages


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Started:
    """What the first task of a Delayed hands to the others."""

    sink: Sink
    at: float


def _delayed(outputs: Sequence[Output]) -> Delayed:
    """One Delayed: start -> every block -> finish. Which engine will run it is not known, so the sinks are ready for any."""
    token = uuid.uuid4().hex
    started = [
        delayed(_start, pure=False)(output.sink, dask_key_name=f"start-{output.sink.target.name}-{token}")
        for output in outputs
    ]
    gatherings = [_gathered(output, first, token) for output, first in zip(outputs, started, strict=True)]
    # Not the outputs themselves: dask would see the arrays in them and compute those too.
    metadatas = [output.metadata for output in outputs]
    return delayed(_finish_delayed, pure=False)(metadatas, started, gatherings, dask_key_name=f"finish-{token}")


def _gathered(output: Output, started: Delayed, token: str) -> Delayed:
    """The gathering of all blocks of an output. With overviews row by row of blocks, so that pieces do not pile up."""
    name = f"gather-{output.sink.target.name}-{token}"
    blocks = receipts(output, started).to_delayed()
    rows = [row.tolist() for band in blocks for row in band]
    if output.pyramid is None:
        rows = [[receipt for row in rows for receipt in row]]
    arguments = output.pyramid, output.metadata.shape[0]
    state = delayed(_gather, pure=False)(started, *arguments, rows[0], dask_key_name=f"{name}-0")
    for number, row in enumerate(rows[1:], 1):
        state = delayed(gathered, pure=False)(state, row, dask_key_name=f"{name}-{number}")
    return state


def _gather(started: _Started, pyramid: Pyramid | None, bands: int, taken: Sequence[Receipt]) -> Gathering:
    return gathered(Gathering(started.sink, pyramid, bands), taken)


def _start(sink: Sink) -> _Started:
    """A started sink whose partial file goes when the run fails, where this can be told.

    In one process the scheduler drops the sink when a block raises, and then the file goes with it. On a cluster copies of the sink come
    and go while the run is healthy, so there the hidden file of a failed run stays.
    """
    started = _Started(sink.start(many_processes=True), time.time())
    if multiprocessing.parent_process() is None and not _on_cluster_worker():
        weakref.finalize(started, started.sink.discard)
    return started


def _on_cluster_worker() -> bool:
    worker = sys.modules.get("distributed.worker")
    return worker is not None and hasattr(worker.thread_state, "execution_state")


def _finish_delayed(
    metadatas: Sequence[RasterMetadata], started: Sequence[_Started], gatherings: Sequence[Gathering]
) -> list[WriteReport]:
    sinks = [one.sink for one in started]
    try:
        finished = _finish(sinks, gatherings)
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise
    return _reports(metadatas, finished, time.time() - min(one.at for one in started))
