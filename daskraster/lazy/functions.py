"""The user's function as a step of the graph: padded, called, checked, trimmed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray

from daskraster.errors import BlockResultError
from daskraster.grid import Window, window_transform
from daskraster.lazy.sources import BlockWindows
from daskraster.metadata import Number
from daskraster.timing import stage

type Fill = tuple[Number, ...] | None
type Nodata = Number | tuple[Number | None, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a function asked for with ``with_block=True`` learns about the block it works on."""

    window: Window
    """The block without halo, in pixels of the raster."""
    window_with_halo: Window
    """The block as the function gets it; with a ``boundary`` it may reach beyond the raster."""
    transform: Affine
    """From (column, row) of the array the function gets to (x, y)."""
    crs: pyproj.CRS | None
    """CRS of the grid."""
    nodata: tuple[Nodata, ...]
    """Of each input raster, as it stands in the pixels; a tuple of the bands' where they differ."""
    index: tuple[int, int]
    """Row and column of the block among the blocks."""
    count: tuple[int, int]
    """Rows and columns of blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueOutput:
    """What the function is due to return for one output."""

    bands: int | None
    dtype: np.dtype[Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStep:
    """The function, wrapped: pads, calls, checks, trims. Sent to the workers with every task, so it holds only small things."""

    func: Callable[..., Any]
    kwargs: Mapping[str, Any]
    windows: BlockWindows
    boundary: str
    fills: tuple[Fill, ...]
    """Padding value of each band of each raster, where the boundary is a value."""
    outputs: tuple[DueOutput, ...]
    several: bool
    """Whether the function returns a sequence of outputs."""
    names: tuple[str, ...]
    place: tuple[Affine, pyproj.CRS | None, tuple[Nodata, ...]] | None = None
    """For ``with_block``: the raster's transform, CRS and nodata."""

    def __call__(self, *blocks: NDArray[Any], block_id: tuple[int, ...]) -> Any:
        """Haloed blocks in, trimmed result (or tuple of results) out."""
        row, col = block_id[-2:]
        core = self.windows.core(row, col)
        window = self.windows.haloed(row, col)
        if self.boundary not in ("none", "source"):
            wanted = core.grow(self.windows.halo_yx)
            blocks = tuple(
                _pad(block, window, wanted, self.boundary, fill) for block, fill in zip(blocks, self.fills, strict=True)
            )
            window = wanted
        with stage("function"):
            try:
                returned = self.func(*blocks, *self._block(core, window, row, col), **self.kwargs)
            except Exception as error:
                error.add_note(f"raised by {function_name(self.func)} {self._where(core, window, row, col)}")
                raise
        results = self._split(returned, core, window, row, col)
        trim = (slice(None), *core.relative_to(window).slices)
        trimmed = tuple(result[trim] for result in results)
        return trimmed if self.several else trimmed[0]

    def _block(self, core: Window, window: Window, row: int, col: int) -> tuple[Block, ...]:
        if self.place is None:
            return ()
        transform, crs, nodata = self.place
        counts = tuple(map(len, self.windows.chunks_yx))
        return (
            Block(
                window=core,
                window_with_halo=window,
                transform=window_transform(transform, window),
                crs=crs,
                nodata=nodata,
                index=(row, col),
                count=(counts[0], counts[1]),
            ),
        )

    def _split(self, returned: Any, core: Window, window: Window, row: int, col: int) -> list[NDArray[Any]]:
        """The function's results as ``(band, y, x)``, each checked against what is due."""
        where = self._where(core, window, row, col)
        name = function_name(self.func)
        if not self.several:
            returned = (returned,)
        elif not isinstance(returned, tuple | list) or len(returned) != len(self.outputs):
            came = f"{len(returned)} of them" if isinstance(returned, tuple | list) else type(returned).__name__
            raise BlockResultError(f"{name} must return a tuple of {len(self.outputs)} arrays, got {came}; {where}")
        return [
            _checked(result, due, window.shape_yx, f"{name} {where}", core.shape_yx)
            for result, due in zip(returned, self.outputs, strict=True)
        ]

    def _where(self, core: Window, window: Window, row: int, col: int) -> str:
        rows, cols = map(len, self.windows.chunks_yx)
        halo = "" if window == core else f" (with halo: {window})"
        return f"in {core}{halo}, block ({row}, {col}) of ({rows}, {cols}), of {', '.join(self.names)}"


def _checked(
    result: Any, due: DueOutput, shape_yx: tuple[int, int], what: str, core_yx: tuple[int, int]
) -> NDArray[Any]:
    if isinstance(result, np.ma.MaskedArray):
        raise BlockResultError(f"{what}: got a masked array, whose mask would be lost; return result.filled(nodata)")
    array = np.asarray(result)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or array.shape[1:] != shape_yx or (due.bands is not None and array.shape[0] != due.bands):
        bands = "band" if due.bands is None else due.bands
        raise BlockResultError(
            f"{what}: expected an array of shape ({bands}, {shape_yx[0]}, {shape_yx[1]}) or {shape_yx}, {_came(result, shape_yx, core_yx)}"
        )
    if array.dtype.kind not in "biufc":
        raise BlockResultError(f"{what}: got an array of dtype {array.dtype}, which holds no pixels")
    if due.dtype is not None and array.dtype != due.dtype:
        raise BlockResultError(
            f"{what}: expected dtype {due.dtype}, got {array.dtype}; convert in the function, or declare dtype={str(array.dtype)!r}"
        )
    return array


def _came(result: Any, due_yx: tuple[int, int], core_yx: tuple[int, int]) -> str:
    """What came, and what often is behind it."""
    if isinstance(result, tuple | list) and all(isinstance(one, np.ndarray) for one in result):
        return f"got {len(result)} arrays; give outputs={len(result)}, or make bands of them with np.stack or np.concatenate"
    shape = np.shape(result)
    if result is None:
        return "got None: is there a return at its end?"
    if not shape:
        return f"got one value, {result!r:.40}, for the whole block; there must be one for each pixel"
    if due_yx != core_yx and len(shape) >= 2 and shape[-2] < due_yx[0] and shape[-1] < due_yx[1]:
        return f"got {shape}: the function must return the halo too, apply trims it"
    return f"got {shape}"


def _pad(block: NDArray[Any], window: Window, wanted: Window, boundary: str, fill: Fill) -> NDArray[Any]:
    """The block with what its halo misses beyond the raster's edge."""
    rows = (window.row_off - wanted.row_off, wanted.row_stop - window.row_stop)
    cols = (window.col_off - wanted.col_off, wanted.col_stop - window.col_stop)
    if not any((*rows, *cols)):
        return block
    widths = ((0, 0), rows, cols)
    if fill is not None:
        padded = [
            np.pad(values, widths[1:], mode="constant", constant_values=value)
            for values, value in zip(block, fill, strict=True)
        ]
        return np.stack(padded)
    # "reflect" as SciPy and dask mean it: the edge pixel is repeated, d c b a | a b c d | d c b a
    return np.pad(block, widths, mode="edge" if boundary == "nearest" else "symmetric")


@dataclass(frozen=True, slots=True)
class Pick:
    """One of the arrays in a tuple of them."""

    number: int

    def __call__(self, together: tuple[NDArray[Any], ...]) -> NDArray[Any]:
        return together[self.number]


def function_name(func: Callable[..., Any]) -> str:
    """What messages and the dashboard call a function."""
    return str(getattr(func, "__name__", type(func).__name__)).strip("<>")
