"""Pieces of SVG for notebooks: no scripts, no backgrounds, lines and letters in the colour of the text around them."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

import imagecodecs
import numpy as np
from numpy.typing import NDArray

LINES = 64  # grid lines each way; more run into one grey
QUALITY = 75  # WebP: 20 to 60 KB for 400 x 400 pixels, where PNG has 350


def webp_uri(rgba: NDArray[np.uint8]) -> str:
    """``(y, x, 4)`` as a data URI, with its transparency."""
    coded = imagecodecs.webp_encode(np.ascontiguousarray(rgba), level=QUALITY, lossless=False)
    return "data:image/webp;base64," + base64.b64encode(coded).decode()


def rectangle(x: float, y: float, width: float, height: float, style: str) -> str:
    """A rectangle; ``style`` are further attributes."""
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" height="{max(height, 0):.2f}" {style}/>'


def text(x: float, y: float, words: str, style: str = "") -> str:
    """Words, escaped."""
    return f'<text x="{x:.2f}" y="{y:.2f}" fill="currentColor" font-size="11" {style}>{html.escape(words)}</text>'


def lines(xs: Iterable[float], ys: Iterable[float], width: float, height: float) -> str:
    """The path of vertical lines at ``xs`` and horizontal ones at ``ys``, all in one element."""
    return "".join([f"M{x:.2f} 0V{height:.2f}" for x in xs] + [f"M0 {y:.2f}H{width:.2f}" for y in ys])


def svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """A drawing with its name for those who hear it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(label)}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="background:none;max-width:100%;overflow:visible">{"".join(parts)}</svg>'
    )


def thinned_cuts(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where an axis is cut, at most `LINES` of the cuts, and every which of them that is.

    >>> thinned_cuts((10, 10, 5))
    ([10, 20], 1)
    >>> cuts, every = thinned_cuts((1,) * 1000)
    >>> cuts[:3], every
    ([16, 32, 48], 16)
    """
    every = max(-(-(len(sizes) - 1) // LINES), 1)
    cuts = np.cumsum(sizes[:-1])[every - 1 :: every]
    return cuts.tolist(), every
