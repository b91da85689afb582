"""Mosaics pixel by pixel in plain Python, with exact fractions: slow, and nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Placed = tuple[int, int, NDArray[Any]]
"""Row, column, pixels ``(band, y, x)``."""


def is_skipped(value: Any, skip: Any) -> bool:
    """Whether a pixel of the judging band counts as missing."""
    if skip is None:
        return False
    return bool(np.isnan(value)) if np.isnan(skip) else bool(value == skip)


def mean(values: Sequence[Any], dtype: np.dtype[Any]) -> Any:
    """The mean of finite values, of integers rounded half away from zero."""
    if dtype.kind == "f":
        return dtype.type(math.fsum(map(float, values)) / len(values))
    exact = sum(Fraction(int(value)) for value in values) / len(values)
    whole = math.floor(abs(exact) + Fraction(1, 2))
    return dtype.type(whole if exact >= 0 else -whole)


def oracle(
    placed: Sequence[Placed],
    shape_yx: tuple[int, int],
    *,
    method: str,
    skips: Sequence[Any],
    judge: int,
    background: Sequence[Any],
) -> NDArray[Any]:
    """The mosaic of rasters placed on a canvas."""
    dtype, count = placed[0][2].dtype, placed[0][2].shape[0]
    out = np.empty((count, *shape_yx), dtype)
    for y in range(shape_yx[0]):
        for x in range(shape_yx[1]):
            here = []
            for (top, left, pixels), skip in zip(placed, skips, strict=True):
                row, col = y - top, x - left
                if 0 <= row < pixels.shape[1] and 0 <= col < pixels.shape[2]:
                    pixel = pixels[:, row, col]
                    if not is_skipped(pixel[judge], skip):
                        here.append(pixel)
            out[:, y, x] = _one(here, method, judge, dtype) if here else background
    return out


def _one(here: list[NDArray[Any]], method: str, judge: int, dtype: np.dtype[Any]) -> Any:
    if method == "last":
        return here[-1]
    if method == "first":
        return here[0]
    if method == "mean":
        return [mean([pixel[band] for pixel in here], dtype) for band in range(len(here[0]))]
    numbers = [pixel for pixel in here if not np.isnan(pixel[judge])] or here
    best = (min if method == "min" else max)(pixel[judge] for pixel in numbers)
    return next(pixel for pixel in numbers if pixel[judge] == best or np.isnan(best))
