"""Texts of the command line as values of Python. Every function here raises ValueError, in words for the user, where a text is no such value."""

from __future__ import annotations

import glob
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click


class Text(click.ParamType[Any]):
    """What a function makes of a text; its ValueError says what is wrong."""

    def __init__(self, name: str, convert: Callable[[str], Any]) -> None:
        self.name = name
        self._convert = convert

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As it is written: click would put it in capitals."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; click's own error where the text is none."""
        if not isinstance(value, str):
            return value
        try:
            return self._convert(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def number(text: str) -> int | float:
    """A whole number stays one: 64-bit nodata is exact.

    Raises
    ------
    ValueError
        It is none.

    >>> number("18446744073709551615"), number("nan"), number("1e3")
    (18446744073709551615, nan, 1000.0)
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    raise ValueError(f"{text!r} is no number")


def number_or_none(text: str) -> int | float | str:
    """A number, or the word ``none``, which a value left out is told from."""
    return "none" if text.lower() == "none" else number(text)


def number_or_text(text: str) -> int | float | str:
    """A number where it is one, else the text."""
    try:
        return number(text)
    except ValueError:
        return text


def whole_numbers(text: str) -> tuple[int, ...]:
    """``"2,4,8"``.

    Raises
    ------
    ValueError
        A part is none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} must be whole numbers with commas between, as 2,4,8") from None


def pixels(text: str) -> int | tuple[int, int]:
    """``"512"``, or ``"256,512"`` as (y, x).

    Raises
    ------
    ValueError
        There are more than two, or a part is no whole number.
    """
    sizes = whole_numbers(text)
    if len(sizes) > 2:
        raise ValueError(f"{text!r} must be one number of pixels, or two: rows,columns")
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


def chunks(text: str) -> str | int | tuple[int, int]:
    """``auto``, or pixels."""
    return text if text == "auto" else pixels(text)


def names(text: str) -> tuple[str, ...]:
    """``"red,nir"``, or a JSON list where names have commas."""
    if text.startswith("["):
        return tuple(map(str, json_text(text)))
    return tuple(part.strip() for part in text.split(","))


def json_text(text: str) -> Any:
    """JSON, with a message that shows how it looks.

    Raises
    ------
    ValueError
        It is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no JSON ({error}); as in '{{\"size\": 5}}', in single quotes") from None


def json_object(text: str) -> dict[str, Any]:
    """A JSON object.

    Raises
    ------
    ValueError
        It is no JSON, or another kind of it.
    """
    value = json_text(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text!r} must be names and values, as in '{{\"size\": 5}}'")
    return value


def json_or_file(text: str) -> Any:
    """JSON, or a file that holds it.

    Raises
    ------
    ValueError
        It is neither.
    """
    if text.lstrip().startswith(("{", "[")):
        return json_text(text)
    try:
        return json_text(Path(text).read_text())
    except OSError as error:
        raise ValueError(f"{text!r} is neither JSON nor a file that can be read ({error.strerror})") from None


def by_value(text: str) -> Any:
    """Pixel values and what stands for them: ``'{"1": "water"}'``, or a list for 0, 1, 2 ...

    Raises
    ------
    ValueError
        It is no JSON, or a name in it is no pixel value.
    """
    value = json_or_file(text)
    if not isinstance(value, dict):
        return value
    try:
        return {int(key): tuple(one) if isinstance(one, list) else one for key, one in value.items()}
    except ValueError:
        raise ValueError(f"the names in {text!r} must be pixel values, as in '{{\"1\": ...}}'") from None


def pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE``.

    Raises
    ------
    ValueError
        There is no sign of equality, or no name before it.
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError(f"{text!r} must be NAME=VALUE")
    return name, value


def table(text: str) -> Any:
    """A CSV file as a table; the path of a raster stays one.

    Raises
    ------
    ValueError
        The file cannot be read.
    """
    if Path(text).suffix.lower() != ".csv":
        return text
    import pandas as pd  # noqa: PLC0415 - a third of a second that --help does not need

    try:
        return pd.read_csv(text)
    except OSError as error:
        raise ValueError(f"{text!r} cannot be read ({error.strerror})") from None


def listed(paths: Iterable[str]) -> list[str]:
    """Paths as they are meant: ``@list.txt`` is a file with a path a line, ``@-`` standard input; a pattern in quotes is what it matches, sorted.

    Raises
    ------
    click.UsageError
        A list that cannot be read, a pattern that matches nothing.
    """
    result: list[str] = []
    for path in paths:
        if path.startswith("@") and not Path(path).exists():
            result += _lines(path[1:])
        elif glob.has_magic(path) and not Path(path).exists() and "://" not in path:
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not matches:
                raise click.UsageError(f"no file matches {path!r}")
            result += matches
        else:
            result.append(path)
    return result


def _lines(name: str) -> list[str]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
    except OSError as error:
        raise click.UsageError(f"the list {name!r} cannot be read: {error.strerror}") from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def plain(value: Any) -> Any:
    """What JSON can hold: NaN and infinity, which it has not, as texts."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    for way in ("tolist", "to_dict"):  # NumPy's values, and ours
        if hasattr(value, way):
            return plain(getattr(value, way)())
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    known = value is None or isinstance(value, bool | int | float | str)
    return value if known and not (isinstance(value, float) and not math.isfinite(value)) else str(value)
