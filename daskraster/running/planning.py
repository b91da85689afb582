"""The plan before the run: blocks, tasks, what is read and written, and whether it fits into memory."""

from __future__ import annotations

import math
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import dask.array as da
import xarray as xr

from daskraster.errors import OptionError, RasterMemoryError
from daskraster.lazy.anatomy import Anatomy, FunctionLayer, anatomy
from daskraster.lazy.arrays import as_raster
from daskraster.lazy.chunking import ChunksYX, auto_chunks
from daskraster.lazy.functions import function_name
from daskraster.lazy.schedulers import scheduler_in_use
from daskraster.lazy.sources import ReadBlock
from daskraster.options import WriteKeywords, WriteOptions
from daskraster.pictures.pages import same_rows
from daskraster.running.engines import uses_other_processes
from daskraster.running.memory import MemoryPlan, function_halo, memory_plan, read_nbytes
from daskraster.running.outputs import Output, planned, receipts
from daskraster.running.plan import Plan, mb, way_out
from daskraster.running.waves import WAVE_BLOCKS, waves
from daskraster.running.workers import workers

SCRATCH_TARGET = "plan.tif"  # what is planned where no path is given


def explain(
    raster: xr.DataArray,
    path: str | os.PathLike[str] | None = None,
    *,
    function_memory: int | None = None,
    **options: Unpack[WriteKeywords],
) -> Plan:
    """The plan of `write_raster`: blocks, bytes and memory. Nothing is written; to measure the function it is run on the first block.

    Parameters
    ----------
    raster
        As in `write_raster`.
    path
        The file to be; None: some GeoTIFF.
    function_memory
        Bytes that the function needs for the largest block, beside what it gets. None: the first block is read and the function runs on it
        once, here, and NumPy's memory is watched; memory that other libraries take for themselves is not seen, so give it then.
    **options
        As in `write_raster`.

    Returns
    -------
    Plan
        Prints as a few lines; ``plan.fits``, ``plan.peak_nbytes``, ``plan.to_dict()``.

    Raises
    ------
    OptionError, RasterArrayError, RasterWriteError
        As `write_raster` would.
    Exception
        Whatever the function raises on the first block.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = xr.DataArray(np.ones((1, 3000, 4000), "uint8"), dims=("band", "y", "x"))
    >>> plan = explain(image, driver="GTiff")
    >>> plan.shape, plan.fits
    ((1, 3000, 4000), True)
    """
    if function_memory is not None and (isinstance(function_memory, bool) or function_memory < 0):
        raise OptionError(f"function_memory={function_memory!r} must be a number of bytes not below 0")
    checked = WriteOptions.of(options)
    output = planned(as_raster(raster), Path(path if path is not None else SCRATCH_TARGET), checked)
    parts = anatomy(output.data)
    stage = _given_stage(parts, function_memory) if function_memory is not None else _measured_stage(output.data, parts)
    plan = memory_plan(output, parts, workers(), function_stage_nbytes=stage)
    chunks_yx = output.chunks[1], output.chunks[2]
    return Plan(
        path=None if path is None else Path(path),
        driver=output.sink.driver,
        shape=output.metadata.shape,
        dtype=str(output.metadata.dtype),
        chunks_yx=chunks_yx,
        blocks=math.prod(map(len, output.chunks)),
        tasks=_tasks(output),
        functions=(
            *(function_name(layer.step.func) for layer in reversed(parts.functions)),
            *dict.fromkeys(step.what for step in parts.steps),
        ),
        halo_yx=function_halo(parts),
        sources=tuple(dict.fromkeys(read.view.source.name for read in parts.reads)),
        source_nbytes=sum(_view_nbytes(read) for read in parts.reads),
        read_nbytes=sum(_asked_nbytes(read) for read in parts.reads),
        write_nbytes=_written_nbytes(output),
        processes=workers().processes,
        memory=plan,
        proposed_chunks_yx=_proposed(output, plan),
        view=same_rows([read.view for read in parts.reads], output.metadata.shape[1:]),
    )


def check_fits(outputs: Sequence[Output]) -> int:
    """The memory that a run of outputs together is known to need at least, in bytes for each worker process.

    Raises
    ------
    RasterMemoryError
        It is more than a worker may have.
    """
    where = workers()
    plans = [memory_plan(output, anatomy(output.data), where) for output in outputs]
    # Outputs of one pass share what they read; each adds what it makes of it.
    largest = max(plans, key=lambda plan: plan.peak_nbytes)
    needed = largest.peak_nbytes + sum(plan.block_nbytes // 2 * plan.threads for plan in plans if plan is not largest)
    many = uses_other_processes()
    needed += sum(
        output.sink.held_nbytes(many_processes=many)
        for output, plan in zip(outputs, plans, strict=True)
        if plan is not largest
    )
    if needed > where.limit_nbytes:
        output = outputs[plans.index(largest)]
        chunks_yx = output.chunks[1], output.chunks[2]
        raise RasterMemoryError(
            f"writing {output.sink.target} needs about {mb(needed)} in each worker process "
            f"({largest.threads} blocks of {max(chunks_yx[1])} x {max(chunks_yx[0])} pixels at a time, {mb(largest.block_nbytes)} each), "
            f"and a worker may have {mb(where.limit_nbytes)}; {way_out(_proposed(output, largest), chunks_yx)}"
        )
    return needed


def _proposed(output: Output, plan: MemoryPlan) -> ChunksYX:
    """The blocks in use where they fit, else the largest of whole tiles that do."""
    present = output.chunks[1], output.chunks[2]
    if plan.fits:
        return present
    room = max(plan.limit_nbytes - plan.base_nbytes - plan.shared_nbytes, 0) // plan.threads
    pixels = max(present[0]) * max(present[1])
    shape = output.metadata.shape
    budget = room * pixels // plan.block_nbytes * shape[0] * output.metadata.dtype.itemsize
    smaller = auto_chunks(shape, output.metadata.dtype, output.sink.block_multiple[1:], max(budget, 1))
    return smaller if max(smaller[0]) * max(smaller[1]) < pixels else present


def _view_nbytes(read: ReadBlock) -> int:
    window = read.view.window
    return len(read.view.bands) * window.height * window.width * read.view.source.dtype.itemsize


def _asked_nbytes(read: ReadBlock) -> int:
    rows, cols = (sum(sizes) for sizes in read.windows.haloed_chunks())
    return len(read.view.bands) * rows * cols * read.view.source.dtype.itemsize


def _written_nbytes(output: Output) -> int:
    pixels = sum(math.prod(level.shape) for level in output.sink.levels if level.stored)
    return pixels * output.metadata.dtype.itemsize


def _tasks(output: Output) -> int:
    """Tasks of a run: counted where it goes in one wave, else taken from the first one."""
    array = receipts(output, output.sink)
    first = next(waves([array]))
    return (
        round(len(first.graph) * array.npartitions / len(first.targets))
        if array.npartitions > WAVE_BLOCKS
        else len(first.graph)
    )


def _given_stage(parts: Anatomy, function_memory: int) -> int:
    return sum(read_nbytes(read) for read in parts.reads) + function_memory


def _measured_stage(data: da.Array, parts: Anatomy) -> int:
    """What the hungriest function holds and takes for its largest block, from a run on its first one."""
    return max((_measured(data, layer) for layer in parts.functions), default=0)


def _measured(data: da.Array, layer: FunctionLayer) -> int:
    """What one function holds and takes for its largest block; NumPy's memory, and Python's."""
    keys = layer.input_keys(0, 0)
    graph = dict(da.Array.__dask_optimize__(data.dask, keys))
    blocks = scheduler_in_use()(graph, keys)
    # Whoever traces already goes on.
    traced = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        layer.step(*blocks, block_id=(0, 0, 0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not traced:
            tracemalloc.stop()
    windows = layer.step.windows
    first = windows.haloed(0, 0)
    rows, cols = (max(sizes) for sizes in windows.haloed_chunks())
    return math.ceil(
        (sum(block.nbytes for block in blocks) + peak - before) * (rows * cols) / (first.height * first.width)
    )
