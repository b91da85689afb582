"""Pixels to colours: which bands, how they are stretched, what is transparent, what a class looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.masking import holds
from daskraster.errors import OptionError
from daskraster.metadata import BandMetadata, Number
from daskraster.pictures.canvas import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

RGB = ("red", "green", "blue")
NAMED_CLASSES = 20  # in a legend; more are no longer looked up in one
_CLASS_COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, "#F0E442", "#7F7F7F")


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """A band of classes in its colours."""

    rgba: NDArray[np.uint8]
    """``(y, x, 4)``."""
    colors: Mapping[int, tuple[int, int, int, int]]
    """Of each class in the picture, in the order of their values."""


def default_bands(bands: Sequence[BandMetadata]) -> tuple[int, ...]:
    """Positions of the bands to show: red, green and blue by name; else one of classes; else the first three, or one."""
    colors = [band.color for band in bands]
    if all(name in colors for name in RGB):
        return tuple(colors.index(name) for name in RGB)
    shown = [number for number, color in enumerate(colors) if color != "alpha"] or [0]
    if is_classes(bands[shown[0]]) or len(shown) < 3:
        return (shown[0],)
    return tuple(shown[:3])


def is_classes(band: BandMetadata) -> bool:
    """Whether pixels are classes: of a colour table, or thematic."""
    return band.colormap is not None or band.thematic


def valid_pixels(pixels: NDArray[Any], nodata: Number | None) -> NDArray[np.bool_]:
    """Where one band ``(y, x)`` has a finite value that is not nodata."""
    valid = np.isfinite(pixels) if pixels.dtype.kind in "fc" else np.ones(pixels.shape, np.bool_)
    if nodata is not None and not (isinstance(nodata, float) and np.isnan(nodata)):
        # A value that the pixels cannot hold is in none of them, and comparing with it may overflow.
        valid &= pixels != nodata if pixels.dtype.kind == "f" or holds(pixels.dtype, nodata) else True
    return valid


def limits(pixels: NDArray[Any], valid: NDArray[np.bool_], percent: tuple[float, float] | None) -> tuple[float, float]:
    """The values that are black and white: percentiles of the valid pixels, or None: the whole range, of bytes 0 to 255."""
    if percent is None and pixels.dtype == np.uint8:
        return 0.0, 255.0
    values = pixels[valid]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values.astype(np.float64), percent or (0, 100))
    return float(low), float(high)


def stretched(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """0 at ``low``, 1 at ``high``, cut off beyond; where both are one value, it is the middle."""
    if high <= low:
        return np.where(pixels < low, 0.0, np.where(pixels > low, 1.0, 0.5))
    return ((pixels.astype(np.float64) - low) / (high - low)).clip(0, 1)


def composed(
    pixels: NDArray[Any],
    nodata: Sequence[Number | None],
    percent: tuple[float, float] | None,
    alpha: NDArray[Any] | None = None,
) -> NDArray[np.uint8]:
    """Three bands ``(3, y, x)``, or one in grey, as ``(y, x, 4)``; transparent where a band has no value, or ``alpha`` is 0."""
    rgba = np.empty((*pixels.shape[1:], 4), np.uint8)
    everywhere = np.ones(pixels.shape[1:], np.bool_) if alpha is None else alpha != 0
    for number, (band, value) in enumerate(zip(pixels, nodata, strict=True)):
        valid = valid_pixels(band, value) & (True if alpha is None else alpha != 0)
        low, high = limits(band, valid, percent)
        rgba[..., number] = np.rint(stretched(np.where(valid, band, 0), low, high) * 255)
        everywhere &= valid
    if len(pixels) == 1:
        rgba[..., 1:3] = rgba[..., :1]
    rgba[..., 3] = np.where(everywhere, 255, 0)
    return rgba


def classified(pixels: NDArray[Any], valid: NDArray[np.bool_], band: BandMetadata) -> Classes:
    """One band ``(y, x)`` in the colours of its table, or eight that repeat; classes without a colour in the table stay clear."""
    values, places = np.unique(np.where(valid, pixels, 0), return_inverse=True)
    colors = {int(value): _class_color(int(value), band) for value in values.tolist()}
    table = np.array(list(colors.values()), np.uint8).reshape(-1, 4)
    # Floats between whole numbers fall together here.
    rows = {value: row for row, value in enumerate(colors)}
    rgba = table[np.array([rows[int(value)] for value in values.tolist()])[places.reshape(pixels.shape)]]
    rgba[~valid] = 0
    present = np.unique(pixels[valid]).tolist()
    return Classes(rgba=rgba, colors={int(value): colors[int(value)] for value in present if colors[int(value)][3]})


def _class_color(value: int, band: BandMetadata) -> tuple[int, int, int, int]:
    if band.colormap is not None:
        red, green, blue, alpha = band.colormap.get(value, (0, 0, 0, 0))
        return red, green, blue, alpha
    text = _CLASS_COLORS[value % len(_CLASS_COLORS)]
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16), 255


def checked_percent(percent: Any) -> tuple[float, float] | None:
    """``percent`` as two numbers.

    Raises
    ------
    OptionError
        It is no pair of rising numbers from 0 to 100.
    """
    if percent is None:
        return None
    try:
        low, high = (float(one) for one in percent)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 100:
        raise OptionError(
            f"percent={percent!r} must be two rising numbers from 0 to 100, as in (2, 98), or None for the whole range"
        )
    return low, high
