"""One block onto another: last, first, min, max, mean.

A mosaic's block is made of layers, the parts of the rasters that touch it. A layer is read when it is its turn, so that one is in
memory at a time, and not read at all where pixels that win over it are there already. ::

    layers in the list's order      last             first            (a dot is a pixel to be skipped)

    A  a a . a                      a a b b b .      a a b a b .
    B      b b b .
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.averaging import mean_of
from daskraster.grid import Window
from daskraster.metadata import Number

METHODS = ("last", "first", "min", "max", "mean")


@dataclass(frozen=True, slots=True)
class Layer:
    """A raster's part in a block."""

    window: Window
    """Its pixels, in those of the block; inside it, not empty."""
    read: Callable[[Window], NDArray[Any]]
    """Gives the pixels ``(band, y, x)`` of a window inside ``window``."""
    skip: Number | None
    """A pixel is skipped, in all bands, where the judging band has this value; NaN: where it is NaN; None: none is."""


def merge(
    layers: Sequence[Layer], shape: tuple[int, int, int], dtype: np.dtype[Any], *, method: str, judge: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Layers merged into one block.

    Parameters
    ----------
    layers
        In the order of the list that makes the mosaic.
    shape
        Bands, rows, columns of the block.
    dtype
        Of all layers, and of the result.
    method
        ``last`` and ``first``: the last or first layer that has a pixel wins. ``min`` and ``max``: the one whose judging band is
        least or greatest, the first of those that are equal, NaN only where there is nothing else; all its bands are taken.
        ``mean``: each band's mean, exact, of integers rounded half away from zero, whatever the order of the layers.
    judge
        Index from 0 of the band that is compared, with ``skip`` and by ``min`` and ``max``.

    Returns
    -------
    The block ``(band, y, x)``, and ``(y, x)`` where it is empty: there its pixels mean nothing.

    Raises
    ------
    Whatever a layer's ``read`` raises.
    """
    whole = Window(0, 0, *shape[1:])
    if len(layers) == 1 and layers[0].window == whole and layers[0].skip is None:
        return layers[0].read(whole), np.zeros(shape[1:], bool)
    if method == "mean":
        return _averaged(layers, shape, dtype, judge)
    out = np.zeros(shape, dtype)
    empty = np.ones(shape[1:], bool)
    if method in ("last", "first"):
        for layer in reversed(layers) if method == "last" else layers:
            _fill(layer, out, empty, judge)
    else:
        for layer in layers:
            _improve(layer, out, empty, judge, smaller=method == "min")
    return out, empty


def is_value(pixels: NDArray[Any], value: Number) -> NDArray[np.bool_]:
    """Where pixels are a value, which may be NaN; compared in the pixels' own type, since a 64-bit integer has no exact float."""
    if np.isnan(value):
        return np.isnan(pixels)
    same: NDArray[np.bool_] = pixels == pixels.dtype.type(value)
    return same


def _fill(layer: Layer, out: NDArray[Any], empty: NDArray[np.bool_], judge: int) -> None:
    """Put a layer's pixels where there are none yet; read only the rectangle that holds all such places."""
    window = _bounds(empty, layer.window)
    if window is None:
        return
    pixels = layer.read(window)
    area = empty[window.slices]
    take = area if layer.skip is None else area & ~is_value(pixels[judge], layer.skip)
    _put(pixels, out[(slice(None), *window.slices)], area, take)


def _improve(layer: Layer, out: NDArray[Any], empty: NDArray[np.bool_], judge: int, *, smaller: bool) -> None:
    """Put a layer's pixels where they are less (or greater), or where there are none yet."""
    pixels = layer.read(layer.window)
    area = empty[layer.window.slices]
    there = out[(slice(None), *layer.window.slices)]
    new, old = pixels[judge], there[judge]
    take = new < old if smaller else new > old
    if new.dtype.kind == "f":
        take |= np.isnan(old) & ~np.isnan(new)
    take |= area
    if layer.skip is not None:
        take &= ~is_value(new, layer.skip)
    _put(pixels, there, area, take)


def _put(pixels: NDArray[Any], there: NDArray[Any], area: NDArray[np.bool_], take: NDArray[np.bool_]) -> None:
    if take.all():  # a plain copy is 3 times as fast as one through a mask
        there[...] = pixels
        area[...] = False
        return
    np.copyto(there, pixels, where=take)
    area[take] = False


def _averaged(
    layers: Sequence[Layer], shape: tuple[int, int, int], dtype: np.dtype[Any], judge: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    mean = mean_of(shape, dtype, len(layers))
    count = np.zeros(shape[1:], np.int32)
    for layer in layers:
        pixels = layer.read(layer.window)
        take = np.ones(layer.window.shape_yx, bool) if layer.skip is None else ~is_value(pixels[judge], layer.skip)
        mean.add(layer.window, pixels, take)
        count[layer.window.slices] += take
    empty = count == 0
    return mean.result(np.maximum(count, 1), dtype), empty


def _bounds(mask: NDArray[np.bool_], window: Window) -> Window | None:
    """The smallest window inside ``window`` that holds every true pixel of it; None where there is none."""
    part = mask[window.slices]
    rows = np.flatnonzero(part.any(axis=1))
    if not len(rows):
        return None
    cols = np.flatnonzero(part.any(axis=0))
    top, left = int(rows[0]), int(cols[0])
    return Window(window.row_off + top, window.col_off + left, int(rows[-1]) + 1 - top, int(cols[-1]) + 1 - left)
