"""Arrays into files: check, plan, run, finish.

Strategy. Every output is cut into blocks that begin where the file's tiles begin. One more Blockwise step turns a block into its receipt:
convert, encode, write. dask fuses it with the steps before it, so that for file -> apply -> file there is one task a block and no
pixel leaves the thread that read it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import sys
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray

from daskraster.blocks.conversion import convert
from daskraster.errors import OptionError, RasterWriteError
from daskraster.formats import choosing
from daskraster.formats.protocols import Receipt, Sink
from daskraster.grid import Window, round_up, split_axis
from daskraster.lazy.arrays import Raster, as_raster, encoded_nodata, metadata_of
from daskraster.lazy.sources import auto_chunks, source_array, starts
from daskraster.metadata import BandMetadata, Number, RasterMetadata
from daskraster.options import Inherit, WriteKeywords, WriteOptions, check_nodata, pixel_type
from daskraster.running.engines import run, uses_other_processes
from daskraster.running.progress import Progress
from daskraster.running.report import WriteReport, peak_nbytes
from daskraster.timing import stage


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """One file to be written."""

    sink: Sink
    data: da.Array
    """``(band, y, x)``, in blocks that begin where the file's tiles begin."""
    metadata: RasterMetadata
    fill: Number | None
    """What NaN becomes: the nodata value of an array that was opened masked, or of an integer file."""
    fill_nan: bool
    """Whether NaN in float pixels is to be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _WriteBlock:
    """Last step of every block: pixels -> receipt. Travels with every task, so it holds only small things."""

    sink: Sink | None
    """None where the started sink comes with each call, from the graph."""
    dtype: np.dtype[Any]
    fill: Number | None
    fill_nan: bool
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """First band, row and column of each block."""

    def __call__(self, block: NDArray[Any], sink: Sink | None = None, *, block_id: tuple[int, int, int]) -> Receipt:
        """Convert, encode, write.

        Raises
        ------
        RasterWriteError
            With the block's window.
        """
        sink = sink or self.sink
        assert sink is not None
        band, row, col = (axis[number] for axis, number in zip(self.starts, block_id, strict=True))
        window = Window(row, col, *block.shape[1:])
        with stage("encode"):
            if self.fill_nan and self.fill is not None:
                block = np.where(np.isnan(block), block.dtype.type(self.fill), block)
            block = convert(block, self.dtype, self.fill)
        try:
            return sink.put(block, window, band, block_id)
        except RasterWriteError as error:
            error.add_note(f"while writing {window}, block {block_id[1:]} of {sink.target}")
            raise


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
        ``bigtiff``, ``nodata``, ``dtype``, ``band_names``, ``tags``, ``colormap``, ``thematic``, ``attribute_table``, ``progress``.

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


def _plan(rasters: Mapping[str | os.PathLike[str], xr.DataArray], options: WriteOptions) -> list[_Output]:
    if not rasters:
        raise OptionError("write_rasters needs at least one output: {path: raster}")
    targets = [os.path.realpath(path) for path in rasters]
    if len(set(targets)) < len(targets):
        raise OptionError(f"two outputs go to one file: {', '.join(map(str, rasters))}")
    return [_planned(as_raster(array), Path(path), options) for path, array in rasters.items()]


def _planned(raster: Raster, path: Path, options: WriteOptions) -> _Output:
    metadata = output_metadata(raster, options)
    sink = choosing.sink(options.driver_for(path), path, metadata, options)
    nodata = metadata.bands[0].nodata
    masked = encoded_nodata(raster.array) is not None
    return _Output(
        sink=sink,
        data=aligned(raster, sink.block_multiple),
        metadata=metadata,
        fill=nodata,
        fill_nan=masked and nodata is not None and metadata.dtype.kind == "f",
    )


def output_metadata(raster: Raster, options: WriteOptions) -> RasterMetadata:
    """What the file is to say: the array's own words, changed where an option says so.

    Raises
    ------
    OptionError
        A nodata value, name list or colour table that does not fit.
    """
    metadata = metadata_of(raster)
    dtype = pixel_type(options.dtype if options.dtype is not None else metadata.dtype)
    count = len(metadata.bands)
    if options.band_names is not None and len(options.band_names) != count:
        raise OptionError(f"band_names= has {len(options.band_names)} names for {count} bands")
    if options.colormap is not None and (count != 1 or dtype not in (np.dtype(np.uint8), np.dtype(np.uint16))):
        raise OptionError(f"colormap= goes with one band of uint8 or uint16, not with {count} of {dtype}")
    bands = [_output_band(band, number, dtype, options) for number, band in enumerate(metadata.bands)]
    tags = {**metadata.tags, **{str(key): str(value) for key, value in (options.tags or {}).items()}}
    return dataclasses.replace(metadata, dtype=dtype, bands=bands, tags=tags)


def _output_band(band: BandMetadata, number: int, dtype: np.dtype[Any], options: WriteOptions) -> BandMetadata:
    nodata = band.nodata if isinstance(options.nodata, Inherit) else options.nodata
    colormap = options.colormap if options.colormap is not None else band.colormap
    if dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        colormap = None
    color = "palette" if colormap else None if band.color == "palette" else band.color
    return dataclasses.replace(
        band,
        nodata=check_nodata(nodata, dtype),
        name=options.band_names[number] if options.band_names is not None else band.name,
        colormap=colormap,
        color=color,
        thematic=band.thematic if options.thematic is None else options.thematic,
    )


def aligned(raster: Raster, multiple: tuple[int, int, int]) -> da.Array:
    """The raster's pixels in blocks that begin at multiples of the file's tiles.

    Blocks that do already are kept. A plain piece of a source is simply read in other blocks; anything else is re-chunked by dask, to
    the next multiple above its largest block.
    """
    data = raster.data
    chunks_yx = tuple(
        sizes
        if all(start % step == 0 for start in starts(sizes))
        else split_axis(sum(sizes), round_up(max(sizes), step))
        for sizes, step in zip(data.chunks[1:], multiple[1:], strict=True)
    )
    bands = data.chunks[0]
    if any(start % multiple[0] for start in starts(bands)):
        bands = split_axis(sum(bands), round_up(max(bands), multiple[0]))
    chunks = (bands, *chunks_yx)
    if chunks == data.chunks:
        return data
    if raster.view is not None:
        tile_yx = tuple(math.lcm(a, b) for a, b in zip(raster.view.source.tile_yx, multiple[1:], strict=True))
        rows, cols = auto_chunks(data.shape, data.dtype, (tile_yx[0], tile_yx[1]))
        return source_array(raster.view, (rows, cols))
    return data.rechunk(chunks)


def _receipts(output: _Output, sink: Sink | Delayed) -> da.Array:
    """An array with one receipt a block; ``sink`` is started, or will be when its Delayed has run."""
    data = output.data
    later = isinstance(sink, Delayed)
    step = _WriteBlock(
        sink=None if later else sink,
        dtype=output.metadata.dtype,
        fill=output.fill,
        fill_nan=output.fill_nan,
        starts=(starts(data.chunks[0]), starts(data.chunks[1]), starts(data.chunks[2])),
    )
    return da.map_blocks(
        step,
        data,
        *([sink] if later else []),
        chunks=tuple((1,) * count for count in data.numblocks),
        dtype=object,
        meta=np.empty((0, 0, 0), dtype=object),
        # Never the same twice: a cluster must not take the receipt of an earlier run for this one's.
        name=f"write-{output.sink.target.name}-{uuid.uuid4().hex}",
    )


def _run(outputs: Sequence[_Output], *, progress: bool) -> list[WriteReport]:
    begin = time.perf_counter()
    name = outputs[0].sink.target.name + (f" and {len(outputs) - 1} more" if len(outputs) > 1 else "")
    receipts: list[list[Receipt]] = [[] for _ in outputs]
    with _started(outputs) as sinks:
        arrays = [_receipts(output, sink) for output, sink in zip(outputs, sinks, strict=True)]
        with Progress(name, sum(array.npartitions for array in arrays), wanted=progress) as line:

            def on_receipt(number: int, receipt: Receipt) -> None:
                receipts[number].append(receipt)
                line.add(receipt.nbytes)

            run(arrays, on_receipt)
        sizes = _finish(sinks, receipts)
    seconds = time.perf_counter() - begin
    return [_report(output, taken, size, seconds) for output, taken, size in zip(outputs, receipts, sizes, strict=True)]


@contextlib.contextmanager
def _started(outputs: Sequence[_Output]) -> Iterator[list[Sink]]:
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


def _finish(sinks: Sequence[Sink], receipts: Sequence[Sequence[Receipt]]) -> list[int]:
    """Complete every file before the first one gets its name."""
    for sink, taken in zip(sinks, receipts, strict=True):
        sink.finish(taken)
    return [sink.publish() for sink in sinks]


def _report(output: _Output, receipts: Sequence[Receipt], file_nbytes: int, seconds: float) -> WriteReport:
    stages: dict[str, float] = {}
    for receipt in receipts:
        for name, spent in receipt.seconds.items():
            stages[name] = stages.get(name, 0.0) + spent
    return WriteReport(
        path=output.sink.target,
        driver=output.sink.driver,
        shape=output.metadata.shape,
        dtype=str(output.metadata.dtype),
        blocks=len({receipt.block for receipt in receipts}),
        tiles=sum(len(receipt.tiles) for receipt in receipts),
        seconds=seconds,
        nbytes=output.metadata.nbytes,
        file_nbytes=file_nbytes,
        peak_nbytes=peak_nbytes(),
        stage_seconds=stages,
    )


def _delayed(outputs: Sequence[_Output]) -> Delayed:
    """One Delayed: start -> every block -> finish. Which engine will run it is not known, so the sinks are ready for any."""
    begin = time.perf_counter()
    token = uuid.uuid4().hex
    started = [
        delayed(_start_guarded, pure=False)(output.sink, dask_key_name=f"start-{output.sink.target.name}-{token}")
        for output in outputs
    ]
    receipts = [
        _receipts(output, sink).to_delayed().reshape(-1).tolist() for output, sink in zip(outputs, started, strict=True)
    ]
    return delayed(_finish_delayed, pure=False)(outputs, started, receipts, begin, dask_key_name=f"finish-{token}")


def _start_guarded(sink: Sink) -> Sink:
    """A started sink whose partial file goes when the run fails, where this can be told.

    In one process the scheduler drops the sink when a block raises, and then the file goes with it. On a cluster copies of the sink come
    and go while the run is healthy, so there the hidden file of a failed run stays.
    """
    started = sink.start(many_processes=True)
    if multiprocessing.parent_process() is None and not _on_cluster_worker():
        weakref.finalize(started, started.discard_later())
    return started


def _on_cluster_worker() -> bool:
    worker = sys.modules.get("distributed.worker")
    return worker is not None and hasattr(worker.thread_state, "execution_state")


def _finish_delayed(
    outputs: Sequence[_Output], sinks: Sequence[Sink], receipts: Sequence[Sequence[Receipt]], begin: float
) -> list[WriteReport]:
    try:
        sizes = _finish(sinks, receipts)
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise
    seconds = time.perf_counter() - begin
    return [_report(output, taken, size, seconds) for output, taken, size in zip(outputs, receipts, sizes, strict=True)]
