"""The quick look as a picture: bands chosen, colours made, drawn where the raster lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.lazy.arrays import Raster, as_raster, metadata_of
from daskraster.metadata import BandMetadata
from daskraster.pictures.canvas import one_axes, pyplot
from daskraster.pictures.colouring import (
    NAMED_CLASSES,
    Classes,
    checked_percent,
    classified,
    composed,
    default_bands,
    is_classes,
    limits,
    valid_pixels,
)
from daskraster.pictures.placing import hatch, placed, set_frame
from daskraster.pictures.quicklook import Quicklook, quicklook


def plot(
    raster: xr.DataArray,
    *,
    bands: int | Sequence[int] | None = None,
    percent: tuple[float, float] | None = (2, 98),
    size: int = 1000,
    ax: Any | None = None,
    cmap: Any | None = None,
    legend: bool = True,
) -> Any:
    """A quick look at a raster: read at screen resolution, drawn with matplotlib. Needs the extra ``plot``.

    A plain piece of a file is read from its overviews. Without them, and of computed arrays, every block is made once, in bounded
    memory, and only the pixels that the picture shows are kept. Nodata, NaN and what a mask hides are left clear and hatched.

    Parameters
    ----------
    raster
        ``(band, y, x)`` or ``(y, x)``.
    bands
        One band, or three as red, green and blue, by the numbers of the ``band`` coordinate, else from 1. None: red, green and blue by
        their colour interpretation; a first band of classes alone; else the first three, or the first.
    percent
        Percentiles of each band's pixels that are drawn black and white; None: the band's whole range, and 0 to 255 for 8 bits.
    size
        Pixels along the longer side of the picture: it has at least as many, where the raster has, and less than twice as many.
    ax
        matplotlib Axes to draw on; None: a new figure's.
    cmap
        matplotlib's name of the colours of a single band; None: grey. Classes have their colour table.
    legend
        Whether one band gets its scale of values, or up to 20 classes their names.

    Returns
    -------
    matplotlib.axes.Axes
        In the coordinates of the CRS; in pixels where there is none.

    Raises
    ------
    OptionError
        matplotlib is missing, an argument is impossible, or more than 2**28 pixels would be read or computed, for want of overviews.
    RasterArrayError
        The array is no raster.
    RasterReadError, Exception
        The file cannot be read; whatever a function of a lazy array raises.

    Examples
    --------
    >>> import daskraster as dr
    >>> axes = dr.open_raster("in.tif").dr.plot(bands=1)
    >>> len(axes.images)
    1
    """
    checked = checked_percent(percent)
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise OptionError(f"size={size!r} must be a number of pixels, 1 at least")
    source = as_raster(raster)
    if source.data.dtype.kind not in "biuf":
        raise OptionError(
            f"{source.name} has pixels of {source.data.dtype}; a picture needs numbers, so plot abs(raster)"
        )
    pyplot()
    described = metadata_of(source).bands
    chosen = default_bands(described) if bands is None else positions(source, bands)
    alpha = [number for number, band in enumerate(described) if band.color == "alpha" and number not in chosen][:1]
    look = quicklook(source, (*chosen, *alpha), int(size))
    axes = one_axes(ax)
    shown, hidden = look.pixels[: len(chosen)], look.pixels[len(chosen) :]
    mask = hidden[0] if alpha else None
    if len(chosen) == 3:
        nodata = [source.nodata[number] for number in chosen]
        rgba = composed(shown, nodata, checked, mask)
        placed(axes, rgba, look.grid)
        clear = not rgba[..., 3].all()
    else:
        valid = valid_pixels(shown[0], source.nodata[chosen[0]]) & (True if mask is None else mask != 0)
        clear = not valid.all()
        band = described[chosen[0]]
        if is_classes(band) and cmap is None:
            _draw_classes(axes, look, classified(shown[0], valid, band), band, legend=legend)
        else:
            _draw_values(
                axes, look, valid, limits(shown[0], valid, checked), cmap=cmap, described=band if legend else None
            )
    set_frame(axes, look.raster_grid, has_transform=source.has_transform)
    if clear:
        hatch(axes)
    axes.set_title(_title(source, chosen))
    return axes


def _draw_values(
    axes: Any,
    look: Quicklook,
    valid: NDArray[np.bool_],
    between: tuple[float, float],
    *,
    cmap: Any,
    described: BandMetadata | None,
) -> None:
    """One band in grey or ``cmap``, with a scale of its values where ``described``."""
    band = look.pixels[0]
    low, high = between
    values = np.ma.masked_array(band.astype(np.float64 if band.dtype.itemsize > 2 else np.float32), ~valid)
    if high <= low:
        low, high = low - 0.5, low + 0.5
    artist = placed(axes, values, look.grid, cmap=cmap or "gray", vmin=low, vmax=high)
    if described is not None:
        inside = values.compressed()
        beyond = bool(inside.size and inside.min() < low), bool(inside.size and inside.max() > high)
        extend = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}[beyond]
        text = " ".join(filter(None, [described.name, f"({described.units})" if described.units else ""]))
        axes.figure.colorbar(artist, ax=axes, extend=extend, label=text, shrink=0.8)


def _draw_classes(axes: Any, look: Quicklook, classes: Classes, band: BandMetadata, *, legend: bool) -> None:
    placed(axes, classes.rgba, look.grid, interpolation="nearest")
    if not legend or not 0 < len(classes.colors) <= NAMED_CLASSES:
        return
    names = band.categories or {}
    patch = pyplot().matplotlib.patches.Patch
    handles = [
        patch(facecolor=[part / 255 for part in color], edgecolor="0.5", label=names.get(value) or str(value))
        for value, color in classes.colors.items()
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)


def positions(raster: Raster, bands: Any) -> tuple[int, ...]:
    """Positions from 0 of the bands asked for by their numbers.

    Raises
    ------
    OptionError
        Not one or three bands, or numbers that the raster does not have.
    """
    count = raster.data.shape[0]
    coordinate = raster.array.coords.get("band")
    labels = list(range(1, count + 1))
    if (
        coordinate is not None
        and coordinate.dtype.kind in "iu"
        and len(set(np.atleast_1d(coordinate).tolist())) == count
    ):
        labels = np.atleast_1d(coordinate).tolist()
    asked = [bands] if isinstance(bands, int | np.integer) else list(bands) if isinstance(bands, Sequence) else []
    if len(asked) not in (1, 3) or any(isinstance(one, bool) or one not in labels for one in asked):
        raise OptionError(f"bands={bands!r} must be one or three of the bands of {raster.name}, which are {labels}")
    return tuple(labels.index(int(one)) for one in asked)


def _title(raster: Raster, chosen: Sequence[int]) -> str:
    name = str(raster.array.name) if raster.array.name is not None else ""
    if raster.data.shape[0] == 1:
        return name
    numbers = np.atleast_1d(raster.array.coords["band"]).tolist() if "band" in raster.array.coords else None
    shown = [
        str(numbers[band]) if numbers and len(numbers) == raster.data.shape[0] else str(band + 1) for band in chosen
    ]
    return f"{name} ({'bands' if len(shown) > 1 else 'band'} {', '.join(shown)})".strip()
