"""Connected components of a classification, lazily, in two passes over the raster.

Strategy. A block cannot number its components before all others have told what lies on their borders. Keeping the labels of all blocks
until then would need memory for the whole raster; so each block is labelled twice. ::

    pass 1   block ----> borders --+
             block ----> borders --+--> join --> numbers of each block
                                                    |
    pass 2   block (read again) ------------------->+--> labels

Between the passes only borders are held: 64 blocks of 2048 x 2048 of uint8 leave 5 MB. The second pass has the raster's graph under names of its own, and
its first tasks wait for `join`: else dask would keep every block of the first pass for the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask._task_spec import Task, TaskRef
from dask.base import tokenize
from dask.delayed import Delayed
from dask.graph_manipulation import bind
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from daskraster.blocks.labelling import Borders, Numbers, Rule, borders_of, join, number_block
from daskraster.errors import BlockResultError, OptionError
from daskraster.lazy.arrays import Raster, as_raster, like
from daskraster.metadata import Number
from daskraster.timing import stage

WORK_NBYTES = 28  # a pixel: places, runs and their sorting; 25 measured

DTYPES = (np.dtype(np.uint32), np.dtype(np.uint64))


def label(
    raster: xr.DataArray, connectivity: int = 8, *, background: Number | None = 0, dtype: Any = None
) -> xr.DataArray:
    """Connected components of a classification: pixels of one value that touch; lazy.

    Parameters
    ----------
    raster
        One band, of any dtype that rasters have. Pixels of different values never belong together, so all classes are labelled at once.
    connectivity
        4: pixels touch by an edge; 8: by a corner too.
    background
        A value besides nodata (and NaN) that gets no label: 0, as for `scipy.ndimage.label`; None labels the pixels of 0 like any other class.
    dtype
        ``"uint32"`` or ``"uint64"``; None: uint32 where the raster has fewer than 2**32 pixels, else uint64.

    Returns
    -------
    xarray.DataArray
        Lazy, ``(1, y, x)`` on the raster's grid and in its blocks, thematic. 0 (its nodata) where there is no component, else numbers
        from 1 in the order of the components' first pixels, row by row from the top left of the whole raster: they depend neither on blocks
        nor on the engine, and of a raster of two values are those of `scipy.ndimage.label`. Written to KEA with statistics, the attribute table has the
        pixel count of each component in ``Histogram``.

    Notes
    -----
    The raster is read twice, and what computes it runs twice: write something expensive to a file first. A raster of random numbers
    without a seed cannot be labelled. Between the passes only what lies on the borders of blocks is held.

    Raises
    ------
    RasterArrayError
        The array is no raster.
    OptionError
        It has several bands, or an argument is out of range.
    BlockResultError
        When computed: more components than the dtype asked for holds.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> classes = xr.DataArray(np.array([[[5, 5, 0, 7], [0, 0, 5, 7]]]), dims=("band", "y", "x"))
    >>> label(classes).values[0]
    array([[1, 1, 0, 2],
           [0, 0, 1, 2]], dtype=uint32)
    """
    checked = as_raster(raster, "the raster of label")
    if checked.data.shape[0] != 1:
        raise OptionError(
            f"label works on one band, {checked.name} has {checked.data.shape[0]}: choose one, as in raster.sel(band=[1])"
        )
    if checked.data.dtype.kind not in "biuf":
        raise OptionError(f"label works on numbers, {checked.name} has dtype {checked.data.dtype}")
    if connectivity not in (4, 8) or isinstance(connectivity, bool):
        raise OptionError(f"connectivity={connectivity!r} must be 4 or 8")
    rule = Rule(connectivity=connectivity, excluded=_excluded(checked, background))
    result = _two_passes(checked.data, rule, _dtype(dtype, checked))
    return like(result, checked, {"thematic": True, "_FillValue": result.dtype.type(0)}, {})


def _excluded(raster: Raster, background: Any) -> tuple[Number, ...]:
    if isinstance(background, bool) or not isinstance(background, int | float | np.number | None):
        raise OptionError(f"background={background!r} must be a number or None")
    values = (raster.nodata[0], None if background is None else np.asarray(background).item())
    return tuple(value for value in values if value is not None and not math.isnan(value))


def _dtype(dtype: Any, raster: Raster) -> np.dtype[Any]:
    if dtype is None:
        return DTYPES[math.prod(raster.grid.shape_yx) >= 1 << 32]
    try:
        wanted = np.dtype(dtype)
    except TypeError as error:
        raise OptionError(f"dtype={dtype!r} is no NumPy dtype") from error
    if wanted not in DTYPES:
        raise OptionError(f"dtype={dtype!r} cannot hold labels; possible are uint32 and uint64")
    return wanted


@dataclass(frozen=True, slots=True)
class _Borders:
    """First pass: what a block tells the others."""

    rule: Rule

    def __call__(self, block: NDArray[Any]) -> Borders:
        with stage("function"):
            return borders_of(block[0], self.rule)

    @property
    def what(self) -> str:
        """Its name in a plan."""
        return "label"

    def work_nbytes(self, pixels: int, bands: int, itemsize: int) -> int:
        """See `daskraster.lazy.anatomy.WorkingStep`."""
        return pixels * (WORK_NBYTES + itemsize)


@dataclass(frozen=True, slots=True)
class _Join:
    """Between the passes: the numbers of each block from all borders."""

    blocks_yx: tuple[int, int]
    connectivity: int
    dtype: np.dtype[Any]

    def __call__(self, *borders: Borders) -> list[list[Numbers]]:
        rows, cols = self.blocks_yx
        numbers, total = join([borders[row * cols : (row + 1) * cols] for row in range(rows)], self.connectivity)
        if total > np.iinfo(self.dtype).max:
            raise BlockResultError(f"there are {total} components, more than {self.dtype} holds; give dtype='uint64'")
        return numbers


def _numbers_of(numbers: list[list[Numbers]], row: int, col: int) -> Numbers:
    return numbers[row][col]


@dataclass(frozen=True, slots=True)
class _Labels:
    """Second pass: the labels of a block."""

    rule: Rule
    dtype: np.dtype[Any]

    def __call__(self, block: NDArray[Any], numbers: Numbers) -> NDArray[Any]:
        with stage("function"):
            return number_block(block[0], self.rule, numbers, self.dtype)[np.newaxis]

    @property
    def what(self) -> str:
        """Its name in a plan."""
        return "label"

    def work_nbytes(self, pixels: int, bands: int, itemsize: int) -> int:
        """See `daskraster.lazy.anatomy.WorkingStep`."""
        return pixels * (WORK_NBYTES + itemsize)


def _two_passes(data: da.Array, rule: Rule, dtype: np.dtype[Any]) -> da.Array:
    token = tokenize(data.name, rule, dtype)
    rows, cols = data.numblocks[1:]
    ones = ((1,), (1,) * rows, (1,) * cols)
    nothing = np.empty((0, 0, 0), dtype=object)
    borders = da.map_blocks(
        _Borders(rule), data, chunks=ones, dtype=object, meta=nothing, name=f"label-borders-{token}"
    )
    places = [(row, col) for row in range(rows) for col in range(cols)]
    joined = f"label-join-{token}"
    task = Task(
        joined, _Join((rows, cols), rule.connectivity, dtype), *[TaskRef((borders.name, 0, *at)) for at in places]
    )
    graph = HighLevelGraph.from_collections(joined, {joined: task}, dependencies=[borders])
    picks = f"label-numbers-{token}"
    tasks: dict[Any, Any] = {(picks, 0, *at): Task((picks, 0, *at), _numbers_of, TaskRef(joined), *at) for at in places}
    waiting: Any = Delayed(joined, graph)
    numbers = da.Array(HighLevelGraph.from_collections(picks, tasks, dependencies=[waiting]), picks, ones, meta=nothing)
    again = bind(data, waiting, seed=token)
    meta = np.empty((0, 0, 0), dtype=dtype)
    return da.map_blocks(
        _Labels(rule, dtype), again, numbers, chunks=data.chunks, dtype=dtype, meta=meta, name=f"label-{token}"
    )
