"""Columns of an attribute table, checked and turned into what KEA stores, before any file is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.formats.hdf5 import VLEN_TEXT

# In the order of ATT/HEADER/SIZE.
KINDS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("<i1"),
    "INT": np.dtype("<i8"),
    "FLOAT": np.dtype("<f8"),
    "STRING": np.dtype([("STRING", VLEN_TEXT)]),
}
COLOR_COLUMNS = ("Red", "Green", "Blue", "Alpha")
USAGE_OF_NAME = {"Histogram": "PixelCount", **{name: name for name in COLOR_COLUMNS}}
KIND_OF_USAGE = {"PixelCount": "FLOAT", **dict.fromkeys(COLOR_COLUMNS, "INT")}
PANDAS_TYPE = {"BOOL": "bool", "INT": "int64", "FLOAT": "float64", "STRING": "str"}
ROOM_NBYTES = 1 << 20  # what HDF5 needs besides a table's values: lists of fields, trees, chunks that are begun
INT64 = np.iinfo(np.int64)
MAX_COLORS = 65536  # pixel values of the types that can have a colour table


class Neighbours:
    """For each row of a table the rows of the regions that touch it: ``neighbours[row]`` is an array of row numbers.

    Immutable. Kept in ``table.attrs["neighbours"]``; pandas copies attrs with every operation, so a copy is the object itself.
    """

    def __init__(self, rows: Sequence[NDArray[Any]]) -> None:
        lengths = [len(row) for row in rows]
        self._stops = np.cumsum(lengths, dtype=np.int64)
        self._values = np.concatenate([np.asarray(row, np.uint64) for row in rows]) if rows else np.empty(0, np.uint64)
        self._values.flags.writeable = False

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, row: int) -> NDArray[np.uint64]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self._values[int(self._stops[row - 1]) if row else 0 : int(self._stops[row])]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Neighbours):
            return NotImplemented
        return np.array_equal(self._stops, other._stops) and np.array_equal(self._values, other._values)

    def __hash__(self) -> int:
        return hash((len(self._stops), len(self._values)))

    def __copy__(self) -> Neighbours:
        return self

    def __deepcopy__(self, memo: object) -> Neighbours:
        return self

    def __repr__(self) -> str:
        return f"<neighbours of {len(self)} rows>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where a column is stored."""

    name: str
    kind: str
    index: int
    usage: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column ready to be stored."""

    name: str
    kind: str
    usage: str
    values: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A table ready to be stored: nothing in it can be refused any more."""

    rows: int
    columns: list[Column]
    neighbours: NDArray[Any] | None

    @property
    def nbytes(self) -> int:
        """Room that it takes in a file at most; a text or list costs its reference and its head in a heap besides its bytes."""
        total = ROOM_NBYTES
        for column in self.columns:
            total += column.values.nbytes
            if column.kind == "STRING":
                total += sum(map(len, column.values["STRING"])) + 40 * self.rows
        if self.neighbours is not None:
            total += sum(row.nbytes for row in self.neighbours) + 40 * self.rows
        return total


def has_colors(table: pd.DataFrame) -> bool:
    """Whether a column of a table is used as a colour, whatever its name."""
    return any(usage in COLOR_COLUMNS for usage in usages_of(table))


def with_colormap(table: pd.DataFrame | None, colormap: Any) -> pd.DataFrame:
    """A table whose colours are those of a colour table: columns used as colours are replaced, missing ones added, all left out without colours.

    Rows are added where there is no table, colours beyond its rows are dropped.
    """
    rows = max(colormap) + 1 if table is None else len(table)
    colors = np.zeros((rows, len(COLOR_COLUMNS)), np.int64)
    for value, entry in colormap.items():
        if 0 <= value < rows:
            colors[value] = entry
    result = pd.DataFrame(index=pd.RangeIndex(rows)) if table is None else table.copy()
    by_usage: dict[str, list[int]] = {}
    for position, usage in enumerate(usages_of(result)):
        by_usage.setdefault(usage, []).append(position)
    surplus = [position for name in COLOR_COLUMNS for position in by_usage.get(name, [])[1 if colormap else 0 :]]
    names = {name: result.columns[by_usage[name][0]] for name in COLOR_COLUMNS if name in by_usage}
    usages = dict(result.attrs.get("usages", {}))
    result = result.iloc[:, [position for position in range(result.shape[1]) if position not in surplus]].copy()
    for number, usage in enumerate(COLOR_COLUMNS if colormap else ()):
        name = names.get(usage, usage)
        while usage not in names and name in result.columns:
            name += "_"  # a column of this name that is no colour
        result[name] = colors[:, number]
        usages[str(name)] = usage
    result.attrs["usages"] = usages
    return result


def without_counts(table: pd.DataFrame) -> pd.DataFrame:
    """A table for other pixels: the columns that count pixels are left out."""
    return table.loc[:, [usage != "PixelCount" for usage in usages_of(table)]]


def usages_of(table: pd.DataFrame, known: Mapping[str, str] | None = None) -> list[str]:
    """What each column is for; ``known`` says it of the columns that the file has.

    By its name alone a column becomes no second column of a colour: programs take the one or the other.

    Raises
    ------
    OptionError
        ``table.attrs["usages"]`` is no dict.
    """
    given = table.attrs.get("usages", {})
    if not isinstance(given, Mapping):
        raise OptionError(f"table.attrs['usages'] is a dict of column and usage, not a {type(given).__name__}")
    names = [str(name) for name in table.columns]
    usages = {**(known or {}), **{name: str(given[name]) for name in names if name in given}}
    taken = set(usages.values()) & set(COLOR_COLUMNS)
    defaults = {name: USAGE_OF_NAME.get(name, "Generic") for name in names}
    return [usages.get(name, "Generic" if defaults[name] in taken else defaults[name]) for name in names]


def prepared(table: pd.DataFrame, known: Mapping[str, str] | None = None) -> Stored:
    """The table as it is stored, every value checked; ``known``: usages of the columns that the file keeps.

    Raises
    ------
    OptionError
        A name, usage, value or neighbour list that KEA cannot hold; with column and row.
    """
    if not isinstance(table, pd.DataFrame):
        raise OptionError(f"an attribute table is a pandas.DataFrame, not a {type(table).__name__}")
    if not table.index.equals(pd.RangeIndex(len(table))):
        raise OptionError(
            "the rows of an attribute table belong to the pixel values 0, 1, 2 ..., so its index must count them: "
            "use table.reindex(range(n)) to fill up rows, or reset_index(drop=True) where the order is right"
        )
    # HDF5 ends a text at its first NUL.
    names = [str(name).split("\0")[0] for name in table.columns]
    if len(set(names)) < len(names):
        raise OptionError(f"an attribute table has columns of different names, not {names}")
    usages = [usage.split("\0")[0] for usage in usages_of(table, known)]
    _check_labels(names, usages)
    _check_colors({**(known or {}), **dict(zip(names, usages, strict=True))})
    columns: list[Column] = []
    for position, (name, usage) in enumerate(zip(names, usages, strict=True)):
        kind, values = _converted(name, table.iloc[:, position], KIND_OF_USAGE.get(usage))
        columns.append(Column(name=name, kind=kind, usage=usage, values=values))
    return Stored(rows=len(table), columns=columns, neighbours=_neighbour_lists(table))


def _check_labels(names: Sequence[str], usages: Sequence[str]) -> None:
    for name, usage in zip(names, usages, strict=True):
        for text in (name, usage):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise OptionError(
                    f"column {name!r}: {text!r} is no text that UTF-8 can hold ({error.reason})"
                ) from error


def _check_colors(usages: Mapping[str, str]) -> None:
    for color in COLOR_COLUMNS:
        names = [name for name, usage in usages.items() if usage == color]
        if len(names) > 1:
            raise OptionError(
                f"columns {', '.join(map(repr, names))} all have the usage {color!r}, of which a table has one: "
                'make the others "Generic" in table.attrs["usages"]'
            )


def _neighbour_lists(table: pd.DataFrame) -> NDArray[Any] | None:
    neighbours = table.attrs.get("neighbours")
    if neighbours is None:
        return None
    if not isinstance(neighbours, Neighbours):
        raise OptionError(
            f"table.attrs['neighbours'] is what read_attribute_table put there, not a {type(neighbours).__name__}"
        )
    rows = len(table)
    if len(neighbours) != rows:
        raise OptionError(
            f"neighbours of {len(neighbours)} rows do not fit a table of {rows}: remove table.attrs['neighbours']"
        )
    lists = np.empty(rows, dtype=object)
    lists[:] = [neighbours[row] for row in range(rows)]
    row = next((row for row, others in enumerate(lists) if others.size and others.max() >= rows), None)
    if row is not None:
        raise OptionError(f"neighbours of row {row}: {int(lists[row].max())} is no row of a table of {rows}")
    return lists


def _converted(name: str, column: pd.Series[Any], wanted: str | None) -> tuple[str, NDArray[Any]]:
    """Kind and values of a column; ``wanted`` is the kind its usage asks for."""
    column = _typed(name, column)
    if wanted is not None and not len(column):
        return wanted, np.empty(0, KINDS[wanted])
    numeric = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype)
    if not numeric:
        if wanted is not None or pd.api.types.is_complex_dtype(column.dtype):
            raise _refusal(name, column, wanted, 0, f"has {column.iloc[0]!r}" if len(column) else "is missing")
        return "STRING", _texts(name, column)
    if wanted == "FLOAT" or (wanted is None and pd.api.types.is_float_dtype(column.dtype)):
        return "FLOAT", column.to_numpy(dtype=np.float64, na_value=np.nan)
    missing = column.isna().to_numpy()
    if missing.any():
        why = f"is missing; fill it with table[{name!r}].fillna(...), or make it float with .astype('float64')"
        raise _refusal(name, column, wanted, int(missing.argmax()), why)
    if wanted is None and pd.api.types.is_bool_dtype(column.dtype):
        return "BOOL", column.to_numpy(dtype=np.int8)
    return "INT", _whole_numbers(name, column, wanted)


def _typed(name: str, column: pd.Series[Any]) -> pd.Series[Any]:
    """Categories as what they stand for; objects that all are integers, all bool or all float as such, exactly, gaps kept."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        # Categories of integers with gaps cannot become an integer column.
        column = column.astype(object if column.hasnans else column.cat.categories.dtype)
    if column.dtype != np.dtype(object):
        return column
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind not in ("integer", "boolean", "floating"):
        return column
    missing = column.isna().to_numpy()
    values = column.to_numpy(dtype=object, copy=True)
    values[missing] = 0
    if kind == "boolean":
        return pd.Series(pd.arrays.BooleanArray(values.astype(bool), missing.copy()))
    if kind == "floating":
        return pd.Series(np.where(missing, np.nan, values.astype(np.float64)))
    row = next((row for row, value in enumerate(values) if not INT64.min <= value <= INT64.max), None)
    if row is not None:
        raise _refusal(name, column, None, row, f"has {values[row]}")
    return pd.Series(pd.arrays.IntegerArray(values.astype(np.int64), missing.copy()))


def _whole_numbers(name: str, column: pd.Series[Any], wanted: str | None) -> NDArray[np.int64]:
    """Numbers without gaps as int64: all of them whole and in its range."""
    values = column.to_numpy()
    if values.dtype.kind == "u":
        bad = values > np.uint64(INT64.max)
    elif values.dtype.kind == "f":
        values = values.astype(np.float64)
        # 2**63 is the first float64 beyond int64; NaN and infinities fail one of the comparisons.
        bad = ~((values == np.floor(values)) & (values >= -(2.0**63)) & (values < 2.0**63))
    else:
        bad = np.full(len(values), values.dtype.kind not in "ib")
    if bad.any():
        row = int(bad.argmax())
        raise _refusal(name, column, wanted, row, f"has {values[row]}")
    return values.astype(np.int64)


def _texts(name: str, column: pd.Series[Any]) -> NDArray[Any]:
    """Text as bytes: h5py refuses other than ASCII where the type says ASCII, as kealib's does."""
    texts: list[bytes] = []
    for row, (text, missing) in enumerate(zip(column, column.isna(), strict=True)):
        if missing:
            texts.append(b"")
            continue
        if not isinstance(text, str):
            raise _refusal(name, column, None, row, f"has {text!r}")
        try:
            texts.append(text.partition("\0")[0].encode())
        except UnicodeEncodeError as error:
            raise _refusal(name, column, None, row, f"has {text!r}, which UTF-8 cannot hold") from error
    result = np.empty(len(texts), KINDS["STRING"])
    result["STRING"] = texts
    return result


def _refusal(name: str, column: pd.Series[Any], wanted: str | None, row: int, why: str) -> OptionError:
    target = "" if wanted is None else f" as {PANDAS_TYPE[wanted]}, which its usage asks for"
    return OptionError(
        f"column {name!r} of {column.dtype} cannot be stored{target}: row {row} {why}; "
        "a KEA attribute table holds int64 and bool without gaps, float64, and str"
    )
