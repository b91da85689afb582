"""A raster's pixels at screen resolution, and where they lie.

Strategy. A plain piece of a file is read from the smallest overview that has enough pixels. Without overviews, and of computed arrays,
every block is made, one after the other, and of each the pixels that will be seen are kept: time grows with the raster, memory does not.
What would take too long for a look is refused, with the way out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.formats import choosing
from daskraster.grid import Grid, Window, window_transform
from daskraster.lazy.arrays import Raster
from daskraster.lazy.chunking import auto_chunks
from daskraster.lazy.sources import SourceView, source_array
from daskraster.pictures.thinning import thinned

LARGEST = 1 << 28  # rows x columns made for a look: 16,384 squared, one band of uint16 in 1 to 3 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Quicklook:
    """Pixels at screen resolution."""

    pixels: NDArray[Any]
    """``(band, y, x)``, of the raster's dtype or, where a mask had to be read, floats with NaN."""
    grid: Grid
    """Of these pixels; the picture may reach beyond the raster by part of one."""
    raster_grid: Grid
    """Of the raster they are of."""


def quicklook(raster: Raster, bands: tuple[int, ...], size: int, *, largest: int = LARGEST) -> Quicklook:
    """Read some bands of a raster at screen resolution, now.

    Parameters
    ----------
    raster
        Lazy pixels ``(band, y, x)``.
    bands
        Positions from 0.
    size
        Pixels along the longer side: the picture has as many at least, where the raster has, and less than twice as many.
    largest
        Rows times columns that may be read or computed for it.

    Raises
    ------
    OptionError
        More than ``largest`` pixels would have to be made.
    RasterReadError, Exception
        The file cannot be read; whatever a function of a lazy array raises.
    """
    view, data, transform = None, raster.data, raster.grid.transform
    if raster.view is not None:
        chosen = replace(raster.view, bands=tuple(raster.view.bands[band] for band in bands))
        view, to_array = _reduced(chosen, size)
        transform = transform @ to_array
        data = _array(view)
    elif len(bands) < data.shape[0] or bands != tuple(range(data.shape[0])):
        data = data[list(bands)]
    rows, cols = data.shape[1:]
    if rows * cols > largest:
        raise OptionError(
            f"a picture of {raster.name} needs {cols} x {rows} pixels, since it has no overview near {size} pixels; at most {largest} "
            "are read or computed for one: write it with overviews (write_raster does) and plot the file, or plot a part of it, as in "
            "raster[:, :4096, :4096].dr.plot()"
        )
    shape_yx = _shape(rows, cols, size)
    pixels = np.asarray(thinned(data, shape_yx).compute())
    stretch = Affine.scale(cols / pixels.shape[2], rows / pixels.shape[1])
    return Quicklook(
        pixels=pixels, grid=Grid(raster.grid.crs, transform @ stretch, pixels.shape[1:]), raster_grid=raster.grid
    )


def _shape(rows: int, cols: int, size: int) -> tuple[int, int]:
    """Rows and columns of the picture: all where there are less than twice as many as wanted, for nearest pixels are worse than all."""
    longest = max(rows, cols)
    if longest < 2 * size:
        return rows, cols
    return max(rows * size // longest, 1), max(cols * size // longest, 1)


def _reduced(view: SourceView, size: int) -> tuple[SourceView, Affine]:
    """The view in an overview, whole pixels of it, and from its (column, row) to those of the array."""
    source = choosing.reduced(view.source, view.bands, view.window, size, masked=choosing.hides_mask(view.source))
    if source.shape[1:] == view.source.shape[1:]:
        return replace(view, source=source), Affine.identity()
    down, right = (full / small for full, small in zip(view.source.shape[1:], source.shape[1:], strict=True))
    window = view.window
    top, left = int(window.row_off / down), int(window.col_off / right)
    bottom = min(int(np.ceil(window.row_stop / down)), source.shape[1])
    stop = min(int(np.ceil(window.col_stop / right)), source.shape[2])
    part = Window(top, left, max(bottom - top, 1), max(stop - left, 1))
    to_array = window_transform(Affine.translation(-window.col_off, -window.row_off) @ Affine.scale(right, down), part)
    return SourceView(source, view.bands, part), to_array


def _array(view: SourceView) -> da.Array:
    shape = (len(view.bands), *view.window.shape_yx)
    return source_array(view, auto_chunks(shape, view.source.dtype, view.source.tile_yx))
