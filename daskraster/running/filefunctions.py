"""Functions that take a file and return a file, on every block of a raster."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import cloudpickle
import xarray as xr
from numpy.typing import NDArray

from daskraster.errors import BlockResultError, OptionError, RasterFormatError, RasterNotFoundError
from daskraster.formats.tilefiles import SUFFIXES, read_tile_file, tile_driver, write_tile_file
from daskraster.grid import Grid, window_transform
from daskraster.lazy.arrays import as_raster, band_attrs, like, metadata_of
from daskraster.lazy.functions import Block, function_name
from daskraster.lazy.neighbourhood import apply
from daskraster.lazy.opening import open_raster
from daskraster.metadata import Number, RasterMetadata, without_derived
from daskraster.options import WriteKeywords
from daskraster.running.engines import on_every_process
from daskraster.running.isolation import Call, close_run, processes
from daskraster.running.report import WriteReport
from daskraster.running.writing import write_raster


def process_files(
    func: Callable[..., Any],
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    overlap: int | tuple[int, int] = 0,
    boundary: str | Number = "none",
    format: str = "GTiff",
    scratch: str | os.PathLike[str] | None = None,
    chunks: Any = "auto",
    kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[WriteKeywords],
) -> WriteReport:
    """A function that takes a file and returns a file, unchanged, on every block of a raster, into one file without seams.

    Each block with its halo is written as a small file into memory-backed storage, ``func`` is called with its path in a process of
    its own, the file whose path it returns is read, its halo is cut off, and the block streams on into ``output``. Both files, and all
    else that ``func`` left beside them, are removed whatever happens.

    Parameters
    ----------
    func
        ``out_path = func(in_path)``. The file it returns has the rows and columns of the one it gets, and the same dtype and number of
        bands for every block. It runs in processes, one for each thread of dask and one call at a time in each. So it may print, change the
        working folder and start programs, and need not be safe in threads. It must be picklable by cloudpickle (functions of a script or notebook are).
        What it and its programs print is kept, and shown with the error when it fails.
    input
        A raster file, as in `open_raster`.
    output
        The file to be, as in `write_raster`.
    overlap, boundary
        As in `apply`.
    format
        Of the small files: ``"GTiff"`` or ``"KEA"``, uncompressed, with CRS, transform, nodata, band names, colours, tags.
    scratch
        Folder for the small files; None: the RAM disk (``/dev/shm``) where there is one with room, else the folder for temporary files. Each process
        has a folder of its own in it, with a name that nobody can guess, mode 0700.
    chunks
        As in `open_raster`; ``chunks=1000`` gives the recipe's tiles.
    kwargs
        Further keyword arguments of ``func``.
    **options
        As in `write_raster`.

    Returns
    -------
    WriteReport

    Notes
    -----
    The function is run once beforehand, on the smallest block, to learn dtype, bands, and what its file says: nodata, names and colours of that
    file go before those of ``input``, which are kept as in `apply`. Whether a returned file has the right place on the map is not checked, only
    its size in pixels. A file returned from elsewhere than the private folder is removed only when it was written during the call. On a RAM disk
    the small files of all threads take memory: for each thread twice a block with its halo.

    Raises
    ------
    OptionError
        An argument is out of range, the function cannot be pickled, ``scratch`` is no folder; before anything is run.
    RasterNotFoundError, RasterFormatError
        ``input`` is missing or no raster.
    BlockResultError
        The function returned no path, wrote no raster, or one of another size, dtype or band count; its process died. The message names the window.
    RasterWriteError
        The disk refused a small file or the output.
    Exception
        Whatever the function raised, with notes that name the block, its traceback and what it printed.

    Examples
    --------
    >>> def add_one(tile):  # in its place a program that takes a file and makes one
    ...     import rasterio
    ...     out = tile.replace(".tif", "_1.tif")
    ...     with rasterio.open(tile) as source, rasterio.open(out, "w", **source.profile) as target:
    ...         target.write(source.read() + 1)
    ...     return out
    >>> process_files(add_one, "in.tif", "out.kea", overlap=5, chunks=64).shape
    (2, 100, 100)
    """
    run = uuid.uuid4().hex
    raster = as_raster(open_raster(input, chunks=chunks), "the input")
    step = FileFunction(
        call=_call(func, kwargs, scratch, run), driver=tile_driver(format), metadata=metadata_of(raster)
    )
    try:
        return write_raster(_lazy(step, raster.array, overlap, boundary), output, **options)
    finally:
        on_every_process(close_run, run)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFunction:
    """A function on files as `apply` wants one: arrays in, arrays out."""

    call: Call
    driver: str
    """Format of the files it gets."""
    metadata: RasterMetadata
    """Of the raster."""

    @property
    def __name__(self) -> str:
        return self.call.name

    def __call__(self, block: NDArray[Any], where: Block) -> NDArray[Any]:
        """Pixels ``(band, y, x)`` of the file that the function wrote for one block."""
        return self.run(block, where)[0]

    def run(self, block: NDArray[Any], where: Block) -> tuple[NDArray[Any], RasterMetadata]:
        """The pixels, and what the file says.

        Raises
        ------
        BlockResultError
            There is no file, no raster, or one of another size.
        """
        window = where.window_with_halo
        metadata = replace(
            self.metadata,
            grid=Grid(self.metadata.grid.crs, window_transform(self.metadata.grid.transform, window), window.shape_yx),
        )
        with processes.borrow(self.call, block.nbytes) as process:
            # The numbers of the block: a name that was there before might be in somebody's cache.
            path = process.folder / f"block_{where.index[0]}_{where.index[1]}{SUFFIXES[self.driver]}"
            write_tile_file(path, self.driver, block, metadata)
            before = path.stat().st_ctime_ns
            returned = process.call(path)
            try:
                pixels, found = self._read(returned, block.shape[1:], process.printed)
            finally:
                _remove(Path(returned), process.folder, before)
        return pixels, found

    def _read(
        self, path: str, due_yx: tuple[int, ...], printed: Callable[[], str]
    ) -> tuple[NDArray[Any], RasterMetadata]:
        try:
            pixels, found = read_tile_file(path)
        except RasterNotFoundError as error:
            wrong = BlockResultError(f"{self.call.name} returned {path}, but wrote no file there")
            wrong.__cause__ = error
        except RasterFormatError as error:
            wrong = BlockResultError(f"{self.call.name} returned {path}, which is no raster: {error}")
            wrong.__cause__ = error
        else:
            if pixels.shape[1:] == due_yx:
                return pixels, found
            wrong = BlockResultError(
                f"{self.call.name} wrote a file of {pixels.shape[2]} x {pixels.shape[1]} pixels; it must have the {due_yx[1]} x {due_yx[0]} "
                "of the file it got, halo included"
            )
        if printed():
            wrong.add_note(f"{self.call.name} had printed:\n{printed()}")
        raise wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """A file function that keeps what its file said, for the block that `apply` runs at once."""

    step: FileFunction
    found: list[RasterMetadata]

    @property
    def __name__(self) -> str:
        return self.step.call.name

    def __call__(self, block: NDArray[Any], where: Block) -> NDArray[Any]:
        pixels, found = self.step.run(block, where)
        self.found.append(found)
        return pixels


def _lazy(step: FileFunction, image: xr.DataArray, overlap: Any, boundary: Any) -> xr.DataArray:
    """The function on every block, with what the file of the smallest block says."""
    found: list[RasterMetadata] = []
    apply(_Probe(step=step, found=found), image, overlap=overlap, boundary=boundary, with_block=True)
    said = found[0]
    result: xr.DataArray = apply(
        step,
        image,
        overlap=overlap,
        boundary=boundary,
        dtype=said.dtype,
        bands=len(said.bands),
        with_block=True,
    )
    bands = [replace(band, tags=without_derived(band.tags)) for band in said.bands]
    attrs, _ = band_attrs(replace(said, bands=bands, tags=without_derived(said.tags)), masked=False)
    if "_FillValue" in attrs:
        result.attrs.pop("nodatavals", None)
    return like(result.data, as_raster(image), {**result.attrs, **attrs}, result.encoding)


def _call(func: Any, kwargs: Mapping[str, Any] | None, scratch: Any, run: str) -> Call:
    if not callable(func):
        raise OptionError(f"the first argument of process_files must be the function, got {func!r}")
    if scratch is not None and not (Path(scratch).is_dir() and os.access(scratch, os.W_OK)):
        raise OptionError(f"scratch={os.fspath(scratch)!r} is no folder that can be written to")
    name = function_name(func)
    try:
        pickled = cloudpickle.dumps((func, dict(kwargs or {})))
    except Exception as error:
        raise OptionError(
            f"{name} cannot be sent to another process ({type(error).__name__}: {error}); it must not hold open files, locks or connections"
        ) from error
    folder = None if scratch is None else str(Path(scratch).absolute())
    return Call(run=run, name=name, pickled=pickled, scratch=folder)


def _remove(path: Path, folder: Path, since_ns: int) -> None:
    """Remove a returned file that lies outside the private folder, with its sidecar, if it was written by the call."""
    if folder in path.parents:
        return  # goes with all that lies there
    for one in (path, path.with_name(path.name + ".aux.xml")):
        if one.is_file() and one.stat().st_ctime_ns >= since_ns:
            one.unlink()
