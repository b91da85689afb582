"""Arrays into files: check, plan, run, finish."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import xarray as xr
from dask.delayed import Delayed

from daskraster.errors import OptionError
from daskraster.formats.protocols import Receipt, Sink
from daskraster.lazy.arrays import as_raster
from daskraster.options import WriteKeywords, WriteOptions
from daskraster.running.delaying import delayed_run
from daskraster.running.engines import active_client, run, stop_writers, uses_other_processes
from daskraster.running.finishing import finish, reports
from daskraster.running.gathering import Gathering
from daskraster.running.limits import limited
from daskraster.running.outputs import Output, planned, receipts
from daskraster.running.progress import Progress
from daskraster.running.report import WriteReport
from daskraster.running.sharing import reachable


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
        publishes it in its last, whose value is the `WriteReport`. A block that raises removes the partial file.
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
    checked = WriteOptions.of(options)
    outputs = _plan({path: raster}, checked)
    return _run(outputs, progress=checked.progress)[0] if compute else delayed_run(outputs, single=True)


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
    return _run(outputs, progress=checked.progress) if compute else delayed_run(outputs, single=False)


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
        client = active_client()
        with limited(client), reachable(sinks, client) as posting:
            arrays = [receipts(output, sink) for output, sink in zip(outputs, posting, strict=True)]
            with Progress(name, sum(array.npartitions for array in arrays), wanted=progress) as line:

                def on_receipt(number: int, receipt: Receipt) -> None:
                    gatherings[number].add(receipt)
                    line.add(receipt.nbytes)

                run(arrays, on_receipt)
        finished = stop_writers([sink.partial.path for sink in sinks if sink.partial is not None])
        done = finish(sinks, gatherings, finished)
    return reports([output.metadata for output in outputs], done, time.perf_counter() - begin)


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
