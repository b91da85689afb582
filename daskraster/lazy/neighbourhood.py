"""The user's function on every block and its halo.

Strategy. Each raster becomes an array of haloed blocks in one of two ways: read with the halo, where its pixels still are a rectangle
of a source, or by `dask.array.overlap`, which exchanges neighbours in the graph. From there on both are the same: one Blockwise
step pads what leaves the raster, calls the function, checks and trims the result. dask fuses that step with the reading before it
and the writing after it into one task a block. ::

    +-------------------+        the function gets block + halo,
    |  halo             |        (band, y, x) in the raster's dtype;
    |   +-----------+   |        its result has the same height and width;
    |   |   block   |   |        the halo is cut off.
    |   +-----------+   |
    +-------------------+
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, Unpack, overload

import dask.array as da
import numpy as np
import xarray as xr
from dask.array.overlap import ensure_minimum_chunksize
from dask.array.overlap import overlap as exchange_halos
from dask.base import tokenize

from daskraster.errors import GridMismatchError, OptionError
from daskraster.grid import Window
from daskraster.hints import near
from daskraster.lazy.arrays import (
    BAND_ATTRS,
    FILL_ATTRS,
    Raster,
    as_raster,
    band_attrs,
    encoded_nodata,
    like,
    metadata_of,
)
from daskraster.lazy.chunking import ChunksYX
from daskraster.lazy.functions import DueOutput, Fill, FunctionStep, Nodata, Pick, function_name
from daskraster.lazy.schedulers import scheduler_in_use
from daskraster.lazy.sources import BlockWindows, source_array
from daskraster.metadata import DERIVED_TAG_PREFIXES, Number
from daskraster.pixeltypes import PIXEL_TYPES, check_nodata

BOUNDARIES = ("none", "nearest", "reflect", "nodata", "source")


class ApplyKeywords(TypedDict, total=False):
    """Those keywords of `apply` that say nothing of how many arrays come out."""

    overlap: int | tuple[int, int]
    boundary: str | Number
    dtype: Any
    bands: int | Sequence[int] | None
    with_block: bool
    kwargs: Mapping[str, Any] | None


@overload
def apply(  # type: ignore[overload-overlap]  # a number that is known only at run time is taken for several
    func: Callable[..., Any],
    *rasters: xr.DataArray,
    outputs: Literal[1] = 1,
    **arguments: Unpack[ApplyKeywords],
) -> xr.DataArray: ...
@overload
def apply(
    func: Callable[..., Any], *rasters: xr.DataArray, outputs: int, **arguments: Unpack[ApplyKeywords]
) -> tuple[xr.DataArray, ...]: ...
def apply(
    func: Callable[..., Any],
    *rasters: xr.DataArray,
    overlap: int | tuple[int, int] = 0,
    boundary: str | Number = "none",
    dtype: Any = None,
    bands: int | Sequence[int] | None = None,
    outputs: int = 1,
    with_block: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Your function on every block of one or several rasters, with a halo; lazy.

    Parameters
    ----------
    func
        Called as ``func(block, ...)`` with one NumPy array ``(band, y, x)`` for each raster, in its own dtype, halo included (and a
        `Block` behind them, with ``with_block``). Returns ``(band, y, x)`` or ``(y, x)`` of the same height and width. It runs in
        several threads at once; it must not change what it shares with other calls. It is never called with an empty or invented array.
    *rasters
        DataArrays on one grid, band counts and dtypes as they like.
    overlap
        How far, in pixels, the function looks beyond a pixel: one number, or (y, x). The result equals the function on the whole
        raster for every function that looks no further.
    boundary
        What stands where the halo leaves the raster. ``"none"``: nothing; the block ends there, as the whole image does. ``"nearest"``: the
        edge pixel again; ``"reflect"``: the mirror image, edge pixel included; ``"nodata"``: the raster's
        nodata value; a number: that number, in the raster's dtype. ``"source"``: the real pixels of the file beyond a crop's edge, and beyond
        the file as "none".
    dtype, bands
        Dtype and number of bands of the result; one for all outputs, or a list with one for each. With both given nothing is run now. Else the
        smallest block is read and the function run on it once, now, to learn them.
    outputs
        How many arrays ``func`` returns, as a tuple. Written together (`write_rasters`), each block is still read and run once.
    with_block
        Whether ``func`` also gets a `Block`: window, transform, CRS, nodata, index.
    kwargs
        Further keyword arguments of ``func``.

    Returns
    -------
    xarray.DataArray, or a tuple of them with ``outputs`` > 1
        Lazy, ``(band, y, x)`` on the grid of the first raster, in its blocks. (Where a raster is no plain file, in the blocks of the first such;
        blocks smaller than the halo are joined then.) Names, nodata, scale, colours and tags of the first raster are kept where
        dtype and band count stay; statistics never are.

    Raises
    ------
    GridMismatchError
        The rasters lie on different grids.
    OptionError
        An argument is out of range, or ``boundary`` is not possible with these rasters.
    RasterArrayError
        An argument is no raster.
    BlockResultError
        The function returned a wrong shape or dtype: now for the probed block, later for others.
    Exception
        Whatever the function raises, with a note that names the block: now for the probed block, later for others.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = xr.DataArray(np.arange(12).reshape(1, 3, 4), dims=("band", "y", "x"))
    >>> apply(lambda block: block + 1, image).values[0, 0]
    array([1, 2, 3, 4])
    """
    if not callable(func):
        raise OptionError(
            f"the first argument of apply must be the function, got a {type(func).__name__}; as in apply(smooth, image, overlap=5)"
        )
    if not rasters:
        raise OptionError("apply needs at least one raster, as in apply(smooth, image, overlap=5)")
    inputs = [as_raster(raster, f"raster {number} of apply") for number, raster in enumerate(rasters, 1)]
    check_same_grid(inputs)
    halo_yx = halo_of(overlap)
    due = _due(dtype, bands, outputs)
    fills = _fills(inputs, boundary)
    mode = boundary if isinstance(boundary, str) else "value"
    haloed, windows = _haloed(inputs, halo_yx, with_source=mode == "source")
    first = inputs[0]
    step = FunctionStep(
        func=func,
        kwargs=dict(kwargs or {}),
        windows=windows,
        boundary=mode if any(halo_yx) else "none",
        fills=fills,
        outputs=due,
        several=outputs > 1,
        names=tuple(raster.name for raster in inputs),
        place=(first.grid.transform, first.grid.crs, tuple(one_nodata(raster) for raster in inputs))
        if with_block
        else None,
    )
    if any(one.bands is None or one.dtype is None for one in due):
        step = _probed(step, haloed)
    arrays = _results(step, haloed)
    results = tuple(like(array, first, *_kept(first, array)) for array in arrays)
    return results if outputs > 1 else results[0]


def check_same_grid(rasters: Sequence[Raster]) -> None:
    """Refuse rasters that do not share one grid.

    Raises
    ------
    GridMismatchError
        With both grids in its message.
    """
    first = rasters[0]
    for other in rasters[1:]:
        difference = first.grid.difference(other.grid)
        if difference:
            raise GridMismatchError(
                f"{first.name} and {other.name} lie on different grids ({difference}):\n"
                f"  {first.name}: {first.grid}\n  {other.name}: {other.grid}\n"
                "bring them to one grid first: use dr.align"
            )


def halo_of(overlap: Any) -> tuple[int, int]:
    """Rows and columns of an overlap as users give it.

    Raises
    ------
    OptionError
        It is no number of pixels, and no pair of them.
    """
    pair = tuple(overlap) if isinstance(overlap, list | tuple) else (overlap, overlap)
    if len(pair) != 2 or any(
        isinstance(part, bool) or not isinstance(part, int | np.integer) or part < 0 for part in pair
    ):
        raise OptionError(f"overlap={overlap!r} must be a whole number of pixels not below 0, or a pair of them (y, x)")
    return int(pair[0]), int(pair[1])


def _due(dtype: Any, bands: Any, outputs: int) -> tuple[DueOutput, ...]:
    if isinstance(outputs, bool) or not isinstance(outputs, int) or outputs < 1:
        raise OptionError(f"outputs={outputs!r} must be the number of arrays the function returns")
    dtypes = list(dtype) if isinstance(dtype, list | tuple) else [dtype] * outputs
    counts = list(bands) if isinstance(bands, list | tuple) else [bands] * outputs
    if len(dtypes) != outputs or len(counts) != outputs:
        raise OptionError(
            f"dtype= and bands= must be one for all or one for each of {outputs} outputs, got dtype={dtype!r}, bands={bands!r}"
        )
    if any(
        count is not None and (isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1)
        for count in counts
    ):
        raise OptionError(f"bands={bands!r} must be the number of bands that the function returns")
    try:
        return tuple(
            DueOutput(bands=None if count is None else int(count), dtype=None if kind is None else np.dtype(kind))
            for kind, count in zip(dtypes, counts, strict=True)
        )
    except TypeError as error:
        raise OptionError(f"dtype={dtype!r} is no NumPy dtype{near(str(dtype), map(str, PIXEL_TYPES))}") from error


def one_nodata(raster: Raster) -> Nodata:
    """The raster's nodata value, or a tuple where its bands differ."""
    return raster.nodata[0] if len(set(map(repr, raster.nodata))) == 1 else raster.nodata


def _fills(inputs: Sequence[Raster], boundary: Any) -> tuple[Fill, ...]:
    """The padding value of each band of each raster; None where the boundary is no value."""
    if isinstance(boundary, str):
        return tuple(_named_fill(raster, boundary) for raster in inputs)
    if isinstance(boundary, bool) or not isinstance(boundary, int | float | np.number):
        raise OptionError(f"boundary={boundary!r} must be one of {', '.join(BOUNDARIES)}, or a number")
    value: Number = boundary.item() if isinstance(boundary, np.number) else boundary
    try:
        checked = [_checked_fill(value, raster.data.dtype) for raster in inputs]
    except OptionError as error:
        reason = str(error).replace("nodata=", "boundary=", 1).partition("; give another")[0]
        raise OptionError(f"{reason}; give a number that every raster can hold, or 'nearest'") from error
    return tuple(
        (value if one is None else one,) * raster.data.shape[0] for one, raster in zip(checked, inputs, strict=True)
    )


def _checked_fill(value: Number, dtype: np.dtype[Any]) -> Number | None:
    """A number as pixels have it; truth values, which are no pixels of a file, take 0 and 1."""
    if dtype.kind != "b":
        return check_nodata(value, dtype)
    if value not in (0, 1):
        raise OptionError(f"nodata={value} does not fit {dtype}, which holds 0 and 1")
    return int(value)


def _named_fill(raster: Raster, boundary: str) -> Fill:
    if boundary not in BOUNDARIES:
        raise OptionError(f"boundary={boundary!r} is not known; possible are {', '.join(BOUNDARIES)}, or a number")
    if boundary == "source" and raster.view is None:
        raise OptionError(
            f"boundary='source': {raster.name} is not a plain piece of a file any more, so there are no pixels beyond its edge"
        )
    if boundary != "nodata":
        return None
    values = [value for value in raster.nodata if value is not None]
    if len(values) < len(raster.nodata):
        raise OptionError(
            f"boundary='nodata': {raster.name} has no nodata value; give a number, or set it with array.rio.write_nodata"
        )
    try:
        for value in values:
            _checked_fill(value, raster.data.dtype)
    except OptionError as error:
        # As -9999 of uint8, or what an array of truth values has kept of the one that was compared.
        reason = str(error).partition("; give another")[0]
        raise OptionError(
            f"boundary='nodata': no pixel of {raster.name} can be nodata: {reason}; give a number, or 'nearest'"
        ) from error
    return tuple(values)


def _haloed(
    inputs: Sequence[Raster], halo_yx: tuple[int, int], *, with_source: bool
) -> tuple[list[da.Array], BlockWindows]:
    """Every raster as an array of haloed blocks, all in the same blocks."""
    exchanged = [raster for raster in inputs if raster.view is None]
    _, rows, cols = (exchanged or list(inputs))[0].data.chunks
    if exchanged:
        # Neighbours are exchanged between adjacent blocks only: no block may be smaller than the halo.
        rows, cols = (
            ensure_minimum_chunksize(min(halo, sum(sizes)), sizes) if halo else sizes
            for halo, sizes in zip(halo_yx, (rows, cols), strict=True)
        )
    chunks_yx: ChunksYX = (rows, cols)
    shape_yx = inputs[0].grid.shape_yx
    extent = Window(0, 0, *shape_yx)
    if with_source:
        extents = [raster.view.extent for raster in inputs if raster.view is not None]
        extent = extents[0]
        for other in extents[1:]:
            extent = extent.clip(other)
    windows = BlockWindows(chunks_yx, halo_yx, extent)
    arrays: list[da.Array] = []
    for raster in inputs:
        if raster.view is not None:
            arrays.append(source_array(raster.view, chunks_yx, halo_yx=halo_yx, extent=extent))
        else:
            arrays.append(exchange(raster.data.rechunk((-1, *chunks_yx)), halo_yx))
    return arrays, windows


def exchange(data: da.Array, halo_yx: tuple[int, int]) -> da.Array:
    """An array whose blocks have a halo of their neighbours' pixels; none beyond the array's edge.

    Parameters
    ----------
    data
        ``(band, y, x)``; no block smaller than the halo, unless it is the only one along its axis.
    halo_yx
        Rows and columns.
    """
    # A single block has no neighbours, however large the halo; dask refuses a depth above the block's size.
    depth = {axis: halo if data.numblocks[axis] > 1 else 0 for axis, halo in zip((1, 2), halo_yx, strict=True)}
    if not any(depth.values()):
        return data
    return exchange_halos(data, depth={0: 0, **depth}, boundary={0: "none", 1: "none", 2: "none"}, allow_rechunk=False)


def _probed(step: FunctionStep, haloed: Sequence[da.Array]) -> FunctionStep:
    """The step with dtype and band count of each output as its smallest block shows them."""
    rows, cols = step.windows.chunks_yx
    row, col = int(np.argmin(rows)), int(np.argmin(cols))
    # By the scheduler in use: the pixels may be futures on a cluster. The function runs here.
    chosen = scheduler_in_use()
    blocks = da.compute(*[array.blocks[0, row, col] for array in haloed], scheduler=chosen)
    returned = step(*blocks, block_id=(0, row, col))
    results = returned if step.several else (returned,)
    outputs = tuple(DueOutput(bands=result.shape[0], dtype=result.dtype) for result in results)
    return replace(step, outputs=outputs)


def _results(step: FunctionStep, haloed: Sequence[da.Array]) -> list[da.Array]:
    """One array for each output, from one layer that runs the function."""
    token = tokenize(step, *[array.name for array in haloed])
    chunks = [((one.bands,), *step.windows.chunks_yx) for one in step.outputs]
    metas = [np.empty((0, 0, 0), dtype=one.dtype) for one in step.outputs]
    name = f"apply-{function_name(step.func)}-{token}"
    if not step.several:
        return [da.map_blocks(step, *haloed, chunks=chunks[0], dtype=metas[0].dtype, meta=metas[0], name=name)]
    together = da.map_blocks(
        step, *haloed, chunks=chunks[0], dtype=object, meta=np.empty((0, 0, 0), dtype=object), name=name
    )
    return [
        da.map_blocks(
            Pick(number), together, chunks=chunks[number], dtype=meta.dtype, meta=meta, name=f"output-{number}-{token}"
        )
        for number, meta in enumerate(metas)
    ]


def _kept(first: Raster, result: da.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attrs and encoding that still hold for the result."""
    metadata = metadata_of(first)
    if result.dtype == first.data.dtype and result.shape[0] == first.data.shape[0]:
        kept = {
            key: value for key, value in first.array.attrs.items() if key not in BAND_ATTRS and key not in FILL_ATTRS
        }
        attrs, encoding = band_attrs(metadata, masked=encoded_nodata(first.array) is not None)
        tags = {key: value for key, value in kept.items() if not str(key).startswith(DERIVED_TAG_PREFIXES)}
        return {**attrs, **tags}, encoding
    return {key: value for key, value in metadata.tags.items() if key == "AREA_OR_POINT"}, {}
