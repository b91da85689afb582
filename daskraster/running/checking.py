"""Whether an overlap is wide enough for a function: a few blocks computed again with a larger one.

A function that looks no further than its overlap gives the same pixels with any larger one. So sample blocks are computed with the
overlap in question and with a much larger one, and compared; the smallest overlap that gives the same is searched by halving. ::

    +---------------------+
    |   much larger halo  |      both results are cut to the block;
    |   +-------------+   |      a pixel that differs was cut off from something it needs,
    |   | halo        |   |      so it would lie on a seam
    |   |  +-------+  |   |
    |   |  | block |  |   |
    |   |  +-------+  |   |
    |   +-------------+   |
    +---------------------+
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.grid import Window
from daskraster.lazy.arrays import Raster, as_raster
from daskraster.lazy.functions import DueOutput, FunctionStep, function_name
from daskraster.lazy.neighbourhood import check_same_grid, halo_of, one_nodata
from daskraster.lazy.schedulers import scheduler_in_use
from daskraster.lazy.sources import BlockWindows
from daskraster.pictures.seams import seams

LARGEST = 1024  # pixels; a function that looks further than this is taken to look at everything
MIN_REACH = 32  # how much further than the overlap the comparison looks, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBlock:
    """One block that was computed twice."""

    window: Window
    """Without halo, in pixels of the raster."""
    differing: NDArray[np.bool_]
    """``(y, x)``: whether any band differs."""
    largest: float
    """Largest absolute difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapCheck:
    """What `check_overlap` found."""

    function: str
    """Name of the function."""
    overlap: tuple[int, int]
    """What was checked: rows and columns."""
    compared_with: int
    """The larger overlap, in pixels."""
    shape_yx: tuple[int, int]
    """Rows and columns of the raster."""
    samples: tuple[SampleBlock, ...]
    """The blocks that were computed twice."""
    suggested: int | None
    """The smallest overlap that gave the same as the larger one in every sample; None where none up to the larger one did."""

    @property
    def pixels(self) -> int:
        """Pixels compared."""
        return sum(sample.differing.size for sample in self.samples)

    @property
    def differing(self) -> int:
        """Pixels that differ in some band."""
        return sum(int(sample.differing.sum()) for sample in self.samples)

    @property
    def largest(self) -> float:
        """Largest absolute difference."""
        return max(sample.largest for sample in self.samples)

    @property
    def ok(self) -> bool:
        """Whether the overlap was wide enough in every sample."""
        return self.differing == 0

    @property
    def deepest(self) -> int:
        """How far, in pixels, the pixels that differ reach into a block; 0 where none does."""
        return max((_depth(sample.differing) for sample in self.samples), default=0)

    def __str__(self) -> str:
        """What was found, in one or two lines."""
        rows, cols = self.overlap
        overlap = str(rows) if rows == cols else f"({rows}, {cols})"
        begin = f"{self.function} with overlap={overlap}: {len(self.samples)} blocks, {self.pixels} pixels compared with an overlap of {self.compared_with}; "
        if self.ok:
            spare = (
                f"; {self.suggested} would do"
                if self.suggested is not None and self.suggested < min(rows, cols)
                else ""
            )
            return f"{begin}all equal{spare}"
        found = (
            f"{self.differing} differ ({self.differing / self.pixels:.2%}), by up to {self.largest:.6g}, "
            f"up to {self.deepest} pixels from the edge of a block"
        )
        if self.suggested is None:
            return f"{begin}{found}.\nNo overlap up to {self.compared_with} gives the same: the function looks at its whole block, so its result depends on the blocks"
        return f"{begin}{found}.\nUse overlap={self.suggested}"

    def plot(self, axes: Sequence[Any] | None = None) -> tuple[Any, Any]:
        """Draw where pixels differ, averaged over the blocks, and where in the raster those lie; needs the extra ``plot``.

        ``axes``: two of matplotlib; None: those of a new figure. Returns both.

        Raises
        ------
        OptionError
            matplotlib is missing, or ``axes`` are not two.
        """
        return seams(self, axes)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON."""
        return {
            "function": self.function,
            "overlap": list(self.overlap),
            "compared_with": self.compared_with,
            "blocks": len(self.samples),
            "pixels": self.pixels,
            "differing": self.differing,
            "largest": self.largest,
            "deepest": self.deepest,
            "suggested": self.suggested,
        }


def check_overlap(
    func: Callable[..., Any],
    *rasters: xr.DataArray,
    overlap: int | tuple[int, int] = 0,
    samples: int = 9,
    size: int = 256,
    tolerance: float = 0.0,
    with_block: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> OverlapCheck:
    """Whether ``overlap`` is wide enough for a function: some blocks are read and computed now, with it and with a larger one.

    Parameters
    ----------
    func, *rasters, overlap, with_block, kwargs
        As in `apply`; the function returns one array.
    samples
        Blocks to look at, spread over the raster.
    size
        Their height and width in pixels.
    tolerance
        Differences up to this do not count: functions that sum along rows round differently where their array begins elsewhere.

    Returns
    -------
    OverlapCheck
        Prints as a verdict; ``.ok``, ``.differing``, ``.suggested``; ``.plot()`` draws where seams would be.

    Raises
    ------
    OptionError, GridMismatchError, RasterArrayError
        As `apply`.
    BlockResultError
        The function returned a wrong shape.
    Exception
        Whatever the function raises.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> def blur(block):
    ...     padded = np.pad(block, ((0, 0), (0, 0), (2, 2)), mode="edge")
    ...     return padded[..., :-4] + padded[..., 4:]
    >>> image = xr.DataArray(np.random.default_rng(0).random((1, 600, 900)), dims=("band", "y", "x"))
    >>> check = check_overlap(blur, image, overlap=1)
    >>> check.ok, check.suggested
    (False, 2)
    """
    if not rasters:
        raise OptionError("check_overlap needs at least one raster, as in check_overlap(smooth, image, overlap=5)")
    for name, value in (("samples", samples), ("size", size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}={value!r} must be a number from 1")
    inputs = [as_raster(raster, f"raster {number} of check_overlap") for number, raster in enumerate(rasters, 1)]
    check_same_grid(inputs)
    halo_yx = halo_of(overlap)
    call = _Call(func=func, kwargs=dict(kwargs or {}), with_block=with_block, inputs=inputs)
    # Always further than the overlap in question, also where that is above the largest one that is searched for.
    compared_with = max(min(2 * max(halo_yx), LARGEST), max(halo_yx) + MIN_REACH)
    windows = sample_windows(inputs[0].grid.shape_yx, samples, size)
    blocks = [_Sample(call, window, compared_with) for window in windows]
    return OverlapCheck(
        function=function_name(func),
        overlap=halo_yx,
        compared_with=compared_with,
        shape_yx=inputs[0].grid.shape_yx,
        samples=tuple(block.compared(halo_yx, tolerance) for block in blocks),
        suggested=_smallest(blocks, compared_with, tolerance),
    )


def sample_windows(shape_yx: tuple[int, int], count: int, size: int) -> list[Window]:
    """About ``count`` windows on a regular lattice over a raster, at different places relative to its tiles.

    >>> sample_windows((100, 300), 3, 50)
    [Window(row_off=25, col_off=25, height=50, width=50), Window(row_off=25, col_off=125, height=50, width=50), Window(row_off=25, col_off=225, height=50, width=50)]
    """
    rows, cols = shape_yx
    down = min(max(round(math.sqrt(count * rows / cols)), 1), count)
    across = -(-count // down)
    height, width = min(size, rows), min(size, cols)
    places = [
        (_place(row, down, rows, height), _place(col, across, cols, width))
        for row in range(down)
        for col in range(across)
    ]
    return [Window(top, left, height, width) for top, left in dict.fromkeys(places)]


def _place(number: int, count: int, length: int, size: int) -> int:
    """First pixel of one of ``count`` windows, in the middle of its share of an axis."""
    return min(max(int((number + 0.5) * length / count - size / 2), 0), length - size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """The function and what it is called with."""

    func: Callable[..., Any]
    kwargs: Mapping[str, Any]
    with_block: bool
    inputs: Sequence[Raster]

    def step(self, window: Window, halo_yx: tuple[int, int]) -> tuple[FunctionStep, tuple[int, int, int]]:
        """The function as `apply` would call it on a block that is ``window``, and that block's number."""
        first = self.inputs[0]
        shape_yx = first.grid.shape_yx
        cuts = [
            [(0, begin), (begin, begin + size), (begin + size, length)]
            for begin, size, length in zip((window.row_off, window.col_off), window.shape_yx, shape_yx, strict=True)
        ]
        chunks = [tuple(stop - start for start, stop in axis if stop > start) for axis in cuts]
        step = FunctionStep(
            func=self.func,
            kwargs=self.kwargs,
            windows=BlockWindows((chunks[0], chunks[1]), halo_yx, Window(0, 0, *shape_yx)),
            boundary="none",
            fills=(None,) * len(self.inputs),
            outputs=(DueOutput(bands=None, dtype=None),),
            several=False,
            names=tuple(raster.name for raster in self.inputs),
            place=(first.grid.transform, first.grid.crs, tuple(map(one_nodata, self.inputs)))
            if self.with_block
            else None,
        )
        return step, (0, int(window.row_off > 0), int(window.col_off > 0))


class _Sample:
    """A block with the pixels around it in memory, and its result with the largest halo."""

    def __init__(self, call: _Call, window: Window, halo: int) -> None:
        self._call = call
        self._window = window
        self._around = window.grow((halo, halo)).clip(Window(0, 0, *call.inputs[0].grid.shape_yx))
        rows, cols = self._around.slices
        self._pixels = [
            np.asarray(raster.data[:, rows, cols].compute(scheduler=scheduler_in_use())) for raster in call.inputs
        ]
        self._reference = self.result((halo, halo))

    def result(self, halo_yx: tuple[int, int]) -> NDArray[Any]:
        """The block ``(band, y, x)`` as it comes out with a halo no wider than the largest."""
        step, block_id = self._call.step(self._window, halo_yx)
        part = step.windows.haloed(*block_id[1:]).relative_to(self._around)
        blocks = [np.ascontiguousarray(pixels[(slice(None), *part.slices)]) for pixels in self._pixels]
        return np.asarray(step(*blocks, block_id=block_id))

    def differs(self, halo_yx: tuple[int, int], tolerance: float) -> bool:
        """Whether a halo gives anything else than the largest one."""
        return bool(_difference(self.result(halo_yx), self._reference, tolerance)[0].any())

    def compared(self, halo_yx: tuple[int, int], tolerance: float) -> SampleBlock:
        """What a halo gives otherwise than the largest one."""
        differing, largest = _difference(self.result(halo_yx), self._reference, tolerance)
        return SampleBlock(window=self._window, differing=differing, largest=largest)


def _difference(found: NDArray[Any], due: NDArray[Any], tolerance: float) -> tuple[NDArray[np.bool_], float]:
    """Which pixels ``(y, x)`` differ by more than ``tolerance`` in some band, and the largest difference of those."""
    if found.shape[0] != due.shape[0]:
        raise OptionError(
            f"the function returns {found.shape[0]} or {due.shape[0]} bands, depending on the overlap; it must return as many for every block"
        )
    unequal = found != due
    if due.dtype.kind in "fc":
        unequal &= ~(np.isnan(found) & np.isnan(due))
    # In float64: differences of unsigned integers would wrap. NaN beside a number differs by infinity.
    with np.errstate(invalid="ignore"):
        distance = np.abs(found.astype(np.float64) - due.astype(np.float64))
    distance = np.where(unequal, np.where(np.isnan(distance), np.inf, distance), 0.0)
    differing = unequal & (distance > tolerance) if tolerance else unequal
    return differing.any(axis=0), float(distance[differing].max(initial=0.0))


def _smallest(blocks: Sequence[_Sample], largest: int, tolerance: float) -> int | None:
    """The smallest overlap that gives what the largest one gives; None where only the largest itself does."""
    low, high = 0, largest
    while low < high:
        middle = (low + high) // 2
        if any(block.differs((middle, middle), tolerance) for block in blocks):
            low = middle + 1
        else:
            high = middle
    return None if low == largest else low


def _depth(differing: NDArray[np.bool_]) -> int:
    """How far from the nearest edge, counted from 1, the innermost pixel that differs lies."""
    rows, cols = np.nonzero(differing)
    if not rows.size:
        return 0
    height, width = differing.shape
    return int(np.minimum.reduce([rows, cols, height - 1 - rows, width - 1 - cols]).max()) + 1
