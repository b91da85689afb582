"""Many rasters as one lazy raster.

Strategy. Headers are read in threads, each raster is checked against the first and leaves a row of a table: its source and its window.
The table is a `MosaicSource`, so a mosaic is one layer that holds its source, like a file: a later `apply` reads its halo through it, slices of
it are pieces of it, and a block takes one task that holds the members it touches. ::

      +-----------+                 union of the extents, on the lattice of the first;
      | a     +---+-------+         each block reads the members it touches,
      |       | b |       |         and of those only what no other hides
      +-------+---+       |
    .  .  .   |           |         . background: no member, or only skipped pixels
    .  .  .   +-----------+

Arrays that are no plain piece of a source (computed ones) come through the graph: each of their blocks is a member whose pixels the task is given.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from daskraster.blocks.masking import holds
from daskraster.blocks.merging import METHODS
from daskraster.errors import OptionError, RasterArrayError
from daskraster.formats.mosaic import HeldPixels, Member, MosaicSource
from daskraster.grid import Grid, Window, window_transform
from daskraster.lazy.agreement import Candidate, candidate_of, check_alike, check_method, common_metadata
from daskraster.lazy.arrays import as_raster, new_array
from daskraster.lazy.chunking import auto_chunks, starts
from daskraster.lazy.headers import absolute, read_headers
from daskraster.lazy.sources import BlockWindows, SourceView, source_array
from daskraster.metadata import Number, RasterMetadata
from daskraster.pixeltypes import check_nodata
from daskraster.timing import stage

# Half of what a file's block holds: it is merged from members that are in memory beside it. 8 MiB: 20 MB more with two threads, no faster.
MOSAIC_BLOCK_NBYTES = 4 << 20

type Given = str | os.PathLike[str] | xr.DataArray


def mosaic(
    rasters: Iterable[Given],
    *,
    method: str = "last",
    skip_value: Number | None = None,
    skip_band: int = 1,
    background: Number | None = None,
) -> xr.DataArray:
    """Many rasters as one lazy raster; headers are read, in parallel, and no pixel.

    Parameters
    ----------
    rasters
        Paths or DataArrays, also mixed, in the order that decides; up to tens of thousands. All of one CRS, pixel size, band count and
        dtype, with pixels on one lattice (within 0.01 pixel); they may overlap and leave gaps. Of a block only those that
        touch it are read.
    method
        What is taken where rasters overlap. ``"last"``, ``"first"``: the last or first of the list that has a pixel there.
        ``"min"``, ``"max"``: all bands of the one whose ``skip_band`` is least or greatest, the first of equals; NaN only where there is nothing else.
        ``"mean"``: each band's mean, exact whatever the order, of integers rounded half away from zero.
    skip_value
        A pixel counts as missing, in all bands, where band ``skip_band`` has this value; it may be NaN. None: each raster's own nodata value in that
        band; where it has none, nothing is skipped.
    skip_band
        The band looked at, from 1.
    background
        What stands where no raster has a pixel. None: the nodata value of the rasters, each band's own, or 0 where they have none.

    Returns
    -------
    xarray.DataArray
        Lazy, ``(band, y, x)`` in the rasters' dtype, on the union of their extents. Nodata value, names, units, scale, colours and tags are kept
        where all rasters agree, statistics never. Where rasters differ in nodata, ``background`` is the nodata value. Where they agree, a
        ``background`` of another value is a value like any other. `apply` reads its halo through the mosaic, and slices stay pieces of it. With
        DataArrays of computed pixels among the rasters, blocks exchange halos through dask's graph instead, and of those arrays only the blocks that are touched are computed.

    Raises
    ------
    GridMismatchError
        A raster has another CRS, pixel size or direction than the first, or lies between its pixels; names it, with both grids.
    RasterArrayError
        Band count, dtype, scale, offset or units differ, or it is no raster.
    OptionError
        An argument is out of range; rasters of different nodata values and no ``background``.
    RasterNotFoundError, RasterFormatError
        A file is missing or no raster.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> def row(x, *values):
    ...     return xr.DataArray(np.array([values]), dims=("y", "x"), coords={"y": [0.5], "x": np.arange(x, x + 4) + 0.5})
    >>> a, b = row(0, 5, 5, 0, 5), row(2, 3, 9, 7, 0)
    >>> mosaic([a, b], skip_value=0, background=-1).values[0, 0]
    array([ 5,  5,  3,  9,  7, -1])
    >>> mosaic([a, b], skip_value=0, background=-1, method="min").values[0, 0]
    array([ 5,  5,  3,  5,  7, -1])
    """
    given = _listed(rasters)
    _check_options(method, skip_band)
    layout = _laid_out(given, skip_band)
    check_method(layout.metadata, method)
    metadata, fills, skips = _values(layout, skip_value, skip_band, background)
    source = _source(layout, metadata, fills, skips, method=method, skip_band=int(skip_band))
    held = {row.number: row.data for row in layout.rows if row.data is not None}
    data = _computed(source, held) if held else _read(source)
    return new_array(data, metadata, masked=layout.masked, bands=range(1, len(metadata.bands) + 1), name="mosaic")


def _listed(rasters: Any) -> list[Given]:
    if isinstance(rasters, str | bytes | os.PathLike | xr.DataArray | xr.Dataset) or not isinstance(rasters, Iterable):
        raise OptionError(
            f"mosaic needs a list of paths or DataArrays, got {type(rasters).__name__}; as in mosaic([a, b]), or for the files of a folder mosaic(sorted(Path('tiles').glob('*.tif')))"
        )
    given = list(rasters)
    if not given:
        raise OptionError("mosaic needs at least one raster, as in mosaic([a, b]); the list is empty")
    for number, one in enumerate(given, 1):
        if not isinstance(one, str | os.PathLike | xr.DataArray):
            raise OptionError(
                f"raster {number} of the mosaic is a {type(one).__name__}; possible are paths and DataArrays"
            )
    return given


def _check_options(method: Any, skip_band: Any) -> None:
    if method not in METHODS:
        raise OptionError(f"method={method!r} is not known; possible are {', '.join(METHODS)}")
    if isinstance(skip_band, bool) or not isinstance(skip_band, int | np.integer) or skip_band < 1:
        raise OptionError(f"skip_band={skip_band!r} must be the number of a band, from 1")


@dataclass(frozen=True, slots=True)
class _Row:
    """What the table keeps of a raster."""

    number: int
    """In the list, from 0."""
    view: SourceView | None
    data: da.Array | None
    offset: tuple[int, int]
    """Row and column of its first pixel, on the lattice of the first raster."""
    skip: Number | None
    """Its own nodata value in the band looked at, where a pixel can have it."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """All rasters on one lattice."""

    rows: Sequence[_Row]
    metadata: RasterMetadata
    """What all agree on; the grid is that of the union."""
    nodata: tuple[Number | None, ...]
    """Of the first, as it stands in the pixels."""
    masked: bool
    differing: str
    """Which two rasters differ in nodata, or nothing."""
    origin: tuple[int, int]
    """Row and column of the union's first pixel, on the lattice of the first raster."""


def _each(given: Sequence[Given]) -> Iterator[Candidate]:
    """Every raster looked at, in order; headers of files are read ahead in threads."""
    paths = [absolute(one) for one in given if not isinstance(one, xr.DataArray)]
    headers = read_headers(paths)
    try:
        for number, one in enumerate(given, 1):
            if isinstance(one, xr.DataArray):
                yield candidate_of(as_raster(one, f"raster {number} of the mosaic"))
                continue
            source, metadata, bands = next(headers)
            nodata = tuple(band.nodata for band in metadata.bands)
            view = SourceView(source, bands, Window(0, 0, *metadata.grid.shape_yx))
            yield Candidate(source.name, metadata, nodata, False, view, None)
    finally:
        headers.close()


def _laid_out(given: Sequence[Given], skip_band: int) -> _Layout:
    """Check each raster against the first, keep a row of it, let the rest go."""
    first: Candidate | None = None
    rows: list[_Row] = []
    masked, differing = True, ""
    agreed: RasterMetadata | None = None
    top = left = bottom = right = 0
    for number, one in enumerate(_each(given)):
        if first is None or agreed is None:
            first, agreed = one, replace(one.metadata, gcps=(), gcp_wkt="")
            _check_first(one, skip_band)
        check_alike(first, one)
        if not differing and repr(one.nodata) != repr(first.nodata):
            differing = f"{first.name} has nodata {_said(first.nodata)}, {one.name} {_said(one.nodata)}"
        row, col = first.metadata.grid.offset_of(one.metadata.grid)
        height, width = one.metadata.grid.shape_yx
        top, left, bottom, right = min(top, row), min(left, col), max(bottom, row + height), max(right, col + width)
        agreed = common_metadata(agreed, one.metadata)
        masked = masked and one.masked
        rows.append(_Row(number, one.view, one.data, (row, col), _skippable(one, skip_band)))
    assert first is not None
    assert agreed is not None
    grid = first.metadata.grid
    union = Window(top, left, bottom - top, right - left)
    transform = window_transform(grid.transform, union)
    metadata = replace(
        agreed,
        grid=Grid(grid.crs, transform, union.shape_yx),
        has_transform=agreed.has_transform or not transform.is_identity,
    )
    return _Layout(rows, metadata, first.nodata, masked, differing, (top, left))


def _said(nodata: tuple[Number | None, ...]) -> str:
    return str(nodata[0] if len(set(map(repr, nodata))) == 1 else nodata).replace("None", "none")


def _skippable(one: Candidate, skip_band: int) -> Number | None:
    value, dtype = one.nodata[skip_band - 1], one.metadata.dtype
    if value is None or (dtype.kind == "f" and np.isnan(value)) or holds(dtype, value):
        return value
    return None  # a nodata value that no pixel can have, as -9999 of uint8


def _check_first(one: Candidate, skip_band: int) -> None:
    count, dtype = len(one.metadata.bands), one.metadata.dtype
    if skip_band > count:
        raise OptionError(f"skip_band={skip_band}: {one.name} has bands 1 to {count}")
    if dtype.kind not in "iuf":
        raise RasterArrayError(
            f"{one.name} has dtype {dtype}; a mosaic is of integers or floats: convert with array.astype"
        )


def _values(
    layout: _Layout, skip_value: Number | None, skip_band: int, background: Number | None
) -> tuple[RasterMetadata, tuple[Number, ...], list[Number | None]]:
    """The mosaic's metadata with its nodata, the background of each band, and what is skipped of each raster."""
    dtype, bands = layout.metadata.dtype, layout.metadata.bands
    if layout.differing and background is None:
        raise OptionError(
            f"{layout.differing}: say with background= what stands where the mosaic has no pixel; each raster's own nodata is skipped"
        )
    skip = _pixel_value(skip_value, dtype, "skip_value")
    ground = _pixel_value(background, dtype, "background")
    skips = [row.skip if skip is None else skip for row in layout.rows]
    if layout.differing:
        nodata: list[Number | None] = [ground] * len(bands)
    else:
        # Of masked arrays the file's value, which the pixels do not have.
        nodata = [band.nodata for band in bands] if layout.masked else list(layout.nodata)
    fills = tuple(_fill(value, dtype) if ground is None else ground for value in layout.nodata)
    metadata = replace(
        layout.metadata, bands=[replace(band, nodata=value) for band, value in zip(bands, nodata, strict=True)]
    )
    return metadata, fills, skips


def _pixel_value(value: Any, dtype: np.dtype[Any], name: str) -> Number | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise OptionError(f"{name}={value!r} must be a number")
    plain = value.item() if isinstance(value, np.generic) else value
    try:
        return check_nodata(plain, dtype)
    except OptionError as error:
        raise OptionError(str(error).replace("nodata=", f"{name}=")) from error


def _fill(value: Number | None, dtype: np.dtype[Any]) -> Number:
    if value is None or not (holds(dtype, value) or (dtype.kind == "f" and np.isnan(value))):
        return 0
    return value


def _source(
    layout: _Layout,
    metadata: RasterMetadata,
    fills: tuple[Number, ...],
    skips: Sequence[Number | None],
    *,
    method: str,
    skip_band: int,
) -> MosaicSource:
    members = tuple(
        member for row, skip in zip(layout.rows, skips, strict=True) for member in _members(row, skip, layout.origin)
    )
    digest = hashlib.sha256(repr((method, skip_band, fills, metadata.shape)).encode())
    for member in members:
        digest.update(repr(member).encode())
    return MosaicSource(
        name=f"the mosaic of {len(layout.rows)} rasters",
        shape=metadata.shape,
        dtype=metadata.dtype,
        tile_yx=_tile(members),
        token=digest.hexdigest(),
        members=members,
        method=method,
        skip_band=skip_band,
        background=fills,
    )


def _members(row: _Row, skip: Number | None, origin: tuple[int, int]) -> Iterator[Member]:
    """A raster's rows of the table: one, or one for each block where it is computed."""
    top, left = row.offset[0] - origin[0], row.offset[1] - origin[1]
    if row.view is not None:
        within = row.view.window
        shift = within.row_off - top, within.col_off - left
        yield Member(row.view.source, row.view.bands, Window(top, left, *within.shape_yx), shift, skip)
        return
    assert row.data is not None
    count, heights, widths = row.data.shape[0], row.data.chunks[1], row.data.chunks[2]
    for y, (start, height) in enumerate(zip(starts(heights), heights, strict=True)):
        for x, (begin, width) in enumerate(zip(starts(widths), widths, strict=True)):
            held = HeldPixels(
                name=f"block ({y}, {x}) of raster {row.number + 1} of the mosaic",
                shape=(count, height, width),
                dtype=row.data.dtype,
                token=row.data.name,
                place=(row.number, y, x),
            )
            window = Window(top + start, left + begin, height, width)
            yield Member(held, tuple(range(1, count + 1)), window, (-window.row_off, -window.col_off), skip)


def _tile(members: Sequence[Member]) -> tuple[int, int]:
    """The tile that all members share, where their tiles lie on one grid; else one pixel, which says that there is none."""
    tile = members[0].source.tile_yx
    for member in members:
        if member.source.tile_yx != tile or member.shift[0] % tile[0] or member.shift[1] % tile[1]:
            return 1, 1
    return tile


def _read(source: MosaicSource) -> da.Array:
    view = SourceView(source, tuple(range(1, source.shape[0] + 1)), Window(0, 0, *source.shape[1:]))
    return source_array(view, auto_chunks(source.shape, source.dtype, source.tile_yx, MOSAIC_BLOCK_NBYTES))


def _computed(source: MosaicSource, held: dict[int, da.Array]) -> da.Array:
    """The mosaic's array where some members are blocks of other arrays: each task is given those that it touches."""
    whole = {number: data.rechunk({0: -1}) for number, data in held.items()}
    chunks_yx = auto_chunks(source.shape, source.dtype, source.tile_yx)
    windows = BlockWindows(chunks_yx, (0, 0), Window(0, 0, *source.shape[1:]))
    bands = tuple(range(1, source.shape[0] + 1))
    name = f"mosaic-{source.token}"
    tasks: dict[Any, Any] = {}
    for row in range(len(chunks_yx[0])):
        for col in range(len(chunks_yx[1])):
            window = windows.core(row, col)
            part = source.part(window)
            places = [member.source.place for member in part.members if isinstance(member.source, HeldPixels)]
            blocks = [TaskRef((whole[number].name, 0, y, x)) for number, y, x in places]
            key = (name, 0, row, col)
            tasks[key] = Task(key, _merge_computed, part, window, bands, *blocks)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=list(whole.values()))
    meta = np.empty((0, 0, 0), dtype=source.dtype)
    return da.Array(graph, name, chunks=((len(bands),), *chunks_yx), dtype=source.dtype, meta=meta)


def _merge_computed(part: MosaicSource, window: Window, bands: tuple[int, ...], *blocks: NDArray[Any]) -> NDArray[Any]:
    """A block of a mosaic whose computed members are ``blocks``, in their order."""
    pixels = iter(blocks)
    members = tuple(
        replace(member, source=replace(member.source, values=next(pixels)))
        if isinstance(member.source, HeldPixels)
        else member
        for member in part.members
    )
    with stage("read"):
        return replace(part, members=members).read(window, bands)
