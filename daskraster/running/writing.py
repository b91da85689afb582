"""Arrays into files: check, plan, run, finish."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Unpack, overload

import xarray as xr
from dask.delayed import Delayed

from daskraster import timing
from daskraster.errors import OptionError
from daskraster.formats.protocols import Receipt
from daskraster.lazy.arrays import as_raster
from daskraster.options import WriteKeywords, WriteOptions
from daskraster.running.agreeing import check_versions
from daskraster.running.blocksets import BlockSet
from daskraster.running.confirming import syncing, until_there
from daskraster.running.delaying import delayed_run
from daskraster.running.engines import run, stop_writers, uses_other_processes
from daskraster.running.facts import Beginning
from daskraster.running.failures import Trying
from daskraster.running.finishing import finish, reports
from daskraster.running.gathering import Gathering
from daskraster.running.keeping import keeps_partial, retries_of
from daskraster.running.limits import limited
from daskraster.running.news import Listening
from daskraster.running.outputs import Output, planned, receipts
from daskraster.running.planning import check_fits
from daskraster.running.progress import Progress
from daskraster.running.report import WriteReport
from daskraster.running.resuming import Begun, begun, taken_up
from daskraster.running.sharing import reachable
from daskraster.running.workers import active_client

logger = logging.getLogger("daskraster")


@overload
def write_raster(
    raster: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    compute: Literal[True] = True,
    **options: Unpack[WriteKeywords],
) -> WriteReport: ...
@overload
def write_raster(
    raster: xr.DataArray, path: str | os.PathLike[str], *, compute: Literal[False], **options: Unpack[WriteKeywords]
) -> Delayed: ...
@overload
def write_raster(
    raster: xr.DataArray, path: str | os.PathLike[str], *, compute: bool, **options: Unpack[WriteKeywords]
) -> WriteReport | Delayed: ...
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
        ``bigtiff``, ``nodata``, ``mask``, ``dtype``, ``band_names``, ``tags``, ``colormap``, ``categories``, ``thematic``, ``attribute_table``,
        ``sidecar``, ``statistics``, ``overviews``, ``overview_resampling``, ``progress``, ``provenance``, ``resume``, ``keep_partial``, ``retries``, ``name``.

    Until it is complete, ``out.tif`` is a hidden file ``.out.tif.<token>.part`` beside its place, with a journal of finished blocks; both are private to
    the user. A run that is killed leaves the two, and ``resume=True`` goes on with them: every finished block's bytes are checked (CRC32), and
    computed again only where they are wrong. A run that raises or is interrupted removes them, unless ``resume`` or ``keep_partial`` is given, or
    the workers are jobs of a batch system.

    Returns
    -------
    WriteReport, or Delayed with ``compute=False``

    Raises
    ------
    OptionError
        Options that are unknown, out of range, clash, or cannot hold the raster; or with ``resume`` the run differs from the one that was
        killed: in inputs, function, options, grid or blocks, as the message says. Before anything is computed.
    FunctionPicklingError
        The function cannot be sent to worker processes; before anything is computed.
    WorkerError
        Workers died with a block, again and again, or lack a package.
    RasterArrayError
        The array is no raster.
    RasterMemoryError
        Its blocks cannot fit into a worker's memory; before anything is computed.
    RasterWriteError
        The folder is missing, the disk full, a tile lost; what is to be resumed is being written by another run. What stood at ``path`` stays.
    Exception
        Whatever the function raised, with notes that name the block and how often it was tried.

    Warns
    -----
    DaskRasterWarning
        An earlier run has left a partial file of this target, which is not used.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr
    >>> image = xr.DataArray(np.ones((1, 3, 4), "uint8"), dims=("band", "y", "x"))
    >>> report = write_raster(image, f"{tempfile.mkdtemp()}/ones.tif")
    >>> report.shape, report.tiles
    ((1, 3, 4), 1)
    """
    checked = WriteOptions.of(options)
    _check_compute(checked, compute=compute)
    if not isinstance(path, str | os.PathLike):
        raise OptionError(
            f"the second argument of write_raster must be the path, got a {type(path).__name__}; as in write_raster(raster, 'out.tif')"
        )
    outputs = _plan({path: raster}, {path: checked})
    return _run(outputs, checked)[0] if compute else delayed_run(outputs, single=True)


# A Mapping's keys are of one type exactly: each type of path has a name of its own here.
type Rasters = Mapping[str, xr.DataArray] | Mapping[Path, xr.DataArray] | Mapping[str | os.PathLike[str], xr.DataArray]
type OwnOptions = (
    Mapping[str, WriteKeywords] | Mapping[Path, WriteKeywords] | Mapping[str | os.PathLike[str], WriteKeywords]
)


@overload
def write_rasters(
    rasters: Rasters,
    *,
    compute: Literal[True] = True,
    output_options: OwnOptions | None = None,
    **options: Unpack[WriteKeywords],
) -> list[WriteReport]: ...
@overload
def write_rasters(
    rasters: Rasters,
    *,
    compute: Literal[False],
    output_options: OwnOptions | None = None,
    **options: Unpack[WriteKeywords],
) -> Delayed: ...
@overload
def write_rasters(
    rasters: Rasters,
    *,
    compute: bool,
    output_options: OwnOptions | None = None,
    **options: Unpack[WriteKeywords],
) -> list[WriteReport] | Delayed: ...
def write_rasters(
    rasters: Rasters,
    *,
    compute: bool = True,
    output_options: OwnOptions | None = None,
    **options: Unpack[WriteKeywords],
) -> list[WriteReport] | Delayed:
    """Several outputs in one pass: inputs and intermediate results they share are read and computed once.

    Parameters
    ----------
    rasters
        Path -> array, each as in `write_raster`.
    compute, **options
        As in `write_raster`; they hold for every output.
    output_options
        Path -> further options of that output alone, which go before those for all: ``{"classes.kea": {"thematic": True}}``.

    Returns
    -------
    list of WriteReport in the order of ``rasters``, or one Delayed of that list with ``compute=False``

    Raises
    ------
    OptionError
        As `write_raster`; or there is no output, two outputs are one file, or ``output_options`` names a path that is no output.
    RasterArrayError, RasterMemoryError, RasterWriteError, FunctionPicklingError, WorkerError, Exception
        As `write_raster`; after any of them none of the files is published.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = xr.DataArray(np.ones((1, 30, 40), "uint8"), dims=("band", "y", "x"))
    >>> reports = write_rasters({"one.tif": image, "two.kea": image + 1})
    >>> [(report.driver, report.statistics[0].mean) for report in reports]
    [('GTiff', 1.0), ('KEA', 2.0)]
    """
    checked = WriteOptions.of(options)
    _check_compute(checked, compute=compute)
    arrays: dict[str | os.PathLike[str], xr.DataArray] = dict(rasters.items())
    own: dict[str | os.PathLike[str], WriteKeywords] = dict((output_options or {}).items())
    unknown = [str(path) for path in own if path not in arrays]
    if unknown:
        raise OptionError(
            f"output_options= names {', '.join(unknown)}, which is no output; those are {', '.join(map(str, arrays))}"
        )
    outputs = _plan(arrays, {path: WriteOptions.of({**options, **own.get(path, {})}) for path in arrays})
    return _run(outputs, checked) if compute else delayed_run(outputs, single=False)


def _check_compute(options: WriteOptions, *, compute: bool) -> None:
    if compute:
        return
    asked = [name for name, wish in (("resume", options.resume), ("keep_partial", options.keep_partial)) if wish]
    if asked:
        raise OptionError(
            f"{asked[0]}=True does not go with compute=False: no process leads such a run, so no journal is kept; leave one of the two out"
        )
    if options.retries is not None:
        raise OptionError(
            "retries= does not go with compute=False: a block that raises removes the file under way, so that no other try can write to it; leave it out, "
            "or try again in the function"
        )


def _plan(
    rasters: Mapping[str | os.PathLike[str], xr.DataArray], options: Mapping[str | os.PathLike[str], WriteOptions]
) -> list[Output]:
    if not rasters:
        raise OptionError("write_rasters needs at least one output: {path: raster}")
    targets = [os.path.realpath(path) for path in rasters]
    if len(set(targets)) < len(targets):
        raise OptionError(f"two outputs go to one file: {', '.join(map(str, rasters))}")
    return [planned(as_raster(array), Path(path), options[path]) for path, array in rasters.items()]


def _run(outputs: Sequence[Output], options: WriteOptions) -> list[WriteReport]:
    begin, beginning = time.perf_counter(), Beginning.now()
    timing.begin_anew()
    listening = Listening(capture=options.progress)
    planned_nbytes = check_fits(outputs)
    client = active_client()
    check_versions(client)
    keep, retries = keeps_partial(options, client), retries_of(options, client)
    trying = Trying(retries=retries, outputs=[output.place for output in outputs])
    name = _name(outputs)
    with begun(outputs, options, many_processes=uses_other_processes(), keep=keep) as under_way:
        sinks = [one.sink for one in under_way]
        gatherings = [
            Gathering(sink, output.pyramid, output.metadata.shape[0], output.numblocks)
            for output, sink in zip(outputs, sinks, strict=True)
        ]
        resumed = [_take_up(one, gathering) for one, gathering in zip(under_way, gatherings, strict=True)]
        for one in under_way:
            one.journal.follow(syncing(one.sink, client))
        stage_seconds = 0.0
        logger.info("%s: begun, %d processes of %d threads", name, beginning.processes, beginning.threads)
        with limited(client), reachable(sinks, client) as posting:
            arrays = [receipts(output, sink) for output, sink in zip(outputs, posting, strict=True)]
            with Progress(name, sum(array.npartitions for array in arrays), wanted=options.progress) as line:
                line.skip(sum(map(len, resumed)))

                def on_receipt(number: int, receipt: Receipt) -> None:
                    nonlocal stage_seconds
                    gatherings[number].add(receipt)
                    under_way[number].journal.add(receipt)
                    line.add(receipt.nbytes)
                    stage_seconds += sum(receipt.seconds.values())
                    logger.debug("written: %s", trying.describe(number, receipt.block))

                compute = partial(run, arrays, on_receipt, trying=trying, listening=listening)
                until_there(lambda skip: compute(skip=skip), under_way, gatherings, client, again=line.again)
        finished = stop_writers([sink.partial.path for sink in sinks if sink.partial is not None])
        for one in under_way:
            one.journal.finish()
        done = finish(sinks, gatherings, finished)
        for one in under_way:
            one.journal.remove()
    seconds = time.perf_counter() - begin
    logger.info("%s: finished in %.1f s", name, seconds)
    facts = beginning.end(listening, seconds=seconds, stage_seconds=stage_seconds)
    return reports(
        [output.metadata for output in outputs],
        done,
        seconds,
        planned_nbytes=planned_nbytes,
        resumed=[len(blocks) for blocks in resumed],
        runs=[
            replace(facts, options=output.options, inputs=one.inputs)
            for output, one in zip(outputs, under_way, strict=True)
        ],
    )


def _take_up(one: Begun, gathering: Gathering) -> BlockSet:
    """Give the gathering what an earlier run has finished; those blocks."""
    for receipt in taken_up(one):
        gathering.add(receipt)
    return gathering.done()


def _name(outputs: Sequence[Output]) -> str:
    return outputs[0].sink.target.name + (f" and {len(outputs) - 1} more" if len(outputs) > 1 else "")
