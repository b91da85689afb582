"""What pixel values look like and are called: colour tables and class names, as users give them.

Ground floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from daskraster.errors import OptionError
from daskraster.metadata import Colormap

MAX_CATEGORIES = 1 << 16  # formats keep one name for each value from 0 on


def check_colormap(colormap: Colormap | None) -> None:
    """Refuse a colour table that is none.

    Raises
    ------
    OptionError
        A value that is no whole number from 0, or a colour that is not three or four numbers from 0 to 255.
    """
    for value, color in (colormap or {}).items():
        numbers = isinstance(color, tuple | list) and all(isinstance(part, int | np.integer) for part in color)
        if not numbers or len(color) not in (3, 4) or not all(0 <= part <= 255 for part in color):
            raise OptionError(
                f"colormap= has {color!r} for {value!r}; a colour is (red, green, blue, alpha), each 0 to 255"
            )
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise OptionError(f"colormap= has the pixel value {value!r}; it must be a whole number from 0")


def checked_categories(categories: Any) -> dict[int, str]:
    """Names of classes by pixel value, from a mapping or a sequence; empty names are left out.

    Raises
    ------
    OptionError
        A value that is no whole number from 0 to 65,535, or a name that is no text.
    """
    pairs = categories.items() if isinstance(categories, Mapping) else enumerate(categories)
    names: dict[int, str] = {}
    for value, name in pairs:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < MAX_CATEGORIES:
            raise OptionError(
                f"categories= has the pixel value {value!r}; it must be a whole number from 0 to {MAX_CATEGORIES - 1}"
            )
        if not isinstance(name, str):
            raise OptionError(f"categories= has {name!r} for {value}; a name is text")
        if name:
            names[int(value)] = name
    return names
