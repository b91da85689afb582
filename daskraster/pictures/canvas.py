"""matplotlib, where it is installed, and what all its pictures share."""

from __future__ import annotations

from typing import Any

from daskraster.errors import OptionError

# Okabe and Ito's colours, which people who see no red or no green tell apart too; all of them show on white and on black.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"


def pyplot() -> Any:
    """``matplotlib.pyplot``, imported with the first picture: it takes 0.3 s, and most runs draw none.

    Raises
    ------
    OptionError
        matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise OptionError(f"pictures need the extra plot, pip install 'daskraster[plot]': {error}") from error
    return plt


def one_axes(axes: Any | None, size_inches: tuple[float, float] = (7.0, 6.0)) -> Any:
    """The Axes given, or those of a new figure that makes room for its labels."""
    if axes is not None:
        return axes
    _, new = pyplot().subplots(figsize=size_inches, layout="constrained")
    return new
