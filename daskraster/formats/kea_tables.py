"""Raster attribute tables of KEA: one row a pixel value, as a pandas DataFrame.

In the file the columns of each kind (bool, int, float, string) form one two-dimensional dataset, and a list of fields says which column
of which dataset has which name, use and place in the table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.formats.kea_layout import KeaFile, band_item, decode, open_kea

CHUNK_ROWS = 10000  # kealib's since 1.6
VLEN_TEXT = h5py.string_dtype("ascii")
FIELD = np.dtype(
    {
        "names": ["NAME", "INDEX", "USAGE", "COLNUM"],
        "formats": [VLEN_TEXT, "<u4", VLEN_TEXT, "<u4"],
        "offsets": [0, 8, 16, 24],
        "itemsize": 32,
    }
)
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
class _Field:
    """Where a column is stored."""

    name: str
    kind: str
    index: int
    usage: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column ready to be stored."""

    name: str
    kind: str
    usage: str
    values: NDArray[Any]


def read_attribute_table(path: str | os.PathLike[str], band: int = 1) -> pd.DataFrame:
    """The attribute table of a band of a KEA file.

    Parameters
    ----------
    path
        A KEA file.
    band
        Its number, from 1.

    Returns
    -------
    pandas.DataFrame
        One row a pixel value, columns of int64, float64, bool and str in the file's order; no column and no row where the
        band has no table. ``.attrs["usages"]`` says what each column is for (``"PixelCount"``, ``"Red"``, ``"Generic"`` ...),
        ``.attrs["neighbours"]`` holds the `Neighbours` where the file has them.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        No such file; no KEA, or the table is damaged.
    OptionError
        There is no such band.
    """
    with open_kea(os.fspath(path)) as kea:
        _check_band(kea, band)
        rows, fields = _fields(kea, band)
        columns = {
            field.name: pd.Series(_read_column(kea, band, field, rows), dtype=PANDAS_TYPE[field.kind])
            for field in fields
        }
        table = pd.DataFrame(columns, index=pd.RangeIndex(rows))
        table.attrs["usages"] = {field.name: field.usage for field in fields}
        neighbours = band_item(band, "ATT/NEIGHBOURS/NEIGHBOURS")
        if kea.has(neighbours):
            table.attrs["neighbours"] = Neighbours(list(kea.dataset(neighbours)[()]))
    return table


def write_attribute_table(
    path: str | os.PathLike[str], table: pd.DataFrame, band: int = 1, *, keep_columns: bool = False
) -> None:
    """Write the attribute table of a band into an existing KEA file, in place.

    Parameters
    ----------
    path
        A KEA file; it is changed in place, so keep a copy of what cannot be made again.
    table
        Row n belongs to pixel value n: the index is 0, 1, 2 ... Integers become int64, floats float64; text, missing text included, becomes
        str. ``.attrs["usages"]`` says what columns are for; without it Histogram is a pixel count and Red, Green, Blue,
        Alpha are colours. A pixel count is stored as float64, colours as int64, since other programs look for them there.
    band
        Its number, from 1.
    keep_columns
        True: columns of the file that ``table`` does not name stay, those it names are replaced, others are added. False:
        the table becomes exactly ``table``.

    Raises
    ------
    OptionError
        No such band; an index that does not count rows; columns that cannot be stored; with ``keep_columns``, another number of rows.
    RasterNotFoundError, RasterFormatError
        No such file; no KEA, damaged, or open elsewhere.

    Notes
    -----
    HDF5 does not give back the room of a table that was replaced until the file is repacked.
    """
    path = os.fspath(path)
    columns = _prepared(table)
    if keep_columns:
        table = _joined(read_attribute_table(path, band), table)
        columns = _prepared(table)
    with open_kea(path, "r+") as kea:
        _check_band(kea, band)
        kea.item = band_item(band, "ATT")
        _store(kea.file.require_group(kea.item), columns, len(table), table.attrs.get("neighbours"))


def store_table(attributes: h5py.Group, table: pd.DataFrame) -> None:
    """Write a table into a band's group ATT; ``table`` as in `write_attribute_table`.

    Raises
    ------
    OptionError
        The table cannot be stored.
    """
    _store(attributes, _prepared(table), len(table), table.attrs.get("neighbours"))


def read_colormap(kea: KeaFile, band: int) -> dict[int, tuple[int, int, int, int]] | None:
    """Pixel value -> (red, green, blue, alpha) from the four colour columns of the first 65,536 rows; None where one is missing."""
    rows, fields = _fields(kea, band)
    by_usage = {field.usage: field for field in fields if field.kind == "INT"}
    if not rows or not all(name in by_usage for name in COLOR_COLUMNS):
        return None
    colors = [_read_column(kea, band, by_usage[name], min(rows, MAX_COLORS)) for name in COLOR_COLUMNS]
    entries = np.clip(np.stack(colors, axis=1), 0, 255).tolist()
    return {value: (entry[0], entry[1], entry[2], entry[3]) for value, entry in enumerate(entries)}


def with_colormap(table: pd.DataFrame | None, colormap: Any) -> pd.DataFrame:
    """A table with a colour table in its colour columns; rows are added where there is no table, colours beyond its rows are dropped."""
    rows = max(colormap) + 1 if table is None else len(table)
    colors = np.zeros((rows, 4), np.int64)
    for value, entry in colormap.items():
        if 0 <= value < rows:
            colors[value] = entry
    result = pd.DataFrame(index=pd.RangeIndex(rows)) if table is None else table.copy()
    for number, name in enumerate(COLOR_COLUMNS):
        result[name] = colors[:, number]
    return result


def without_counts(table: pd.DataFrame) -> pd.DataFrame:
    """A table for other pixels: the columns that count pixels are left out."""
    usages = table.attrs.get("usages", {})
    counts = [name for name in table.columns if usages.get(name, USAGE_OF_NAME.get(name)) == "PixelCount"]
    return table.drop(columns=counts)


def _check_band(kea: KeaFile, band: int) -> None:
    count = int(kea.numbers("HEADER/NUMBANDS", 1)[0])
    if not 1 <= band <= count:
        raise OptionError(f"band={band}: {kea.path} has bands 1 to {count}")


def _fields(kea: KeaFile, band: int) -> tuple[int, list[_Field]]:
    """Number of rows, and the columns in their order."""
    size = band_item(band, "ATT/HEADER/SIZE")
    if not kea.has(size):
        return 0, []
    rows = int(kea.numbers(size, 1 + len(KINDS))[0])
    if rows:
        kea.check_heaps()
    found: list[_Field] = []
    for kind in KINDS:
        item = band_item(band, f"ATT/HEADER/{kind}_FIELDS")
        if kea.has(item):
            found += [
                _Field(
                    name=decode(field["NAME"]),
                    kind=kind,
                    index=int(field["INDEX"]),
                    usage=decode(field["USAGE"]),
                    number=int(field["COLNUM"]),
                )
                for field in kea.dataset(item)[()]
            ]
    if len({field.name for field in found}) < len(found):
        raise kea.error("two columns have one name")
    return rows, sorted(found, key=lambda field: field.number)


def _read_column(kea: KeaFile, band: int, field: _Field, rows: int) -> Any:
    dataset = kea.dataset(band_item(band, f"ATT/DATA/{field.kind}"))
    if dataset.ndim != 2 or rows > dataset.shape[0] or field.index >= dataset.shape[1]:
        raise kea.error(f"its shape {dataset.shape} has no column {field.index} of {rows} rows for {field.name!r}")
    values = dataset[:rows, field.index]
    return [decode(text) for text in values["STRING"]] if field.kind == "STRING" else values


def _prepared(table: pd.DataFrame) -> list[_Column]:
    """The columns as they are stored, checked."""
    if not isinstance(table, pd.DataFrame):
        raise OptionError(f"an attribute table is a pandas.DataFrame, not a {type(table).__name__}")
    if not table.index.equals(pd.RangeIndex(len(table))):
        raise OptionError(
            "the rows of an attribute table belong to the pixel values 0, 1, 2 ..., so its index must count them: "
            "use table.reindex(range(n)) to fill up rows, or reset_index(drop=True) where the order is right"
        )
    names = [str(name) for name in table.columns]
    if len(set(names)) < len(names):
        raise OptionError(f"an attribute table has columns of different names, not {names}")
    usages = table.attrs.get("usages", {})
    columns: list[_Column] = []
    for position, name in enumerate(names):
        usage = str(usages.get(name, USAGE_OF_NAME.get(name, "Generic")))
        kind, values = _stored(name, table.iloc[:, position], KIND_OF_USAGE.get(usage))
        columns.append(_Column(name=name, kind=kind, usage=usage, values=values))
    neighbours = table.attrs.get("neighbours")
    if neighbours is not None and len(neighbours) != len(table):
        raise OptionError(
            f"neighbours of {len(neighbours)} rows do not fit a table of {len(table)}: remove table.attrs['neighbours']"
        )
    return columns


def _stored(name: str, column: pd.Series[Any], wanted: str | None) -> tuple[str, NDArray[Any]]:
    """Kind and values of a column; ``wanted`` is the kind its usage asks for."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    numeric = pd.api.types.is_numeric_dtype(column.dtype)
    if numeric and not column.hasnans and pd.api.types.is_bool_dtype(column.dtype) and wanted is None:
        return "BOOL", column.to_numpy(dtype=np.int8)
    if numeric and (wanted == "FLOAT" or (wanted is None and pd.api.types.is_float_dtype(column.dtype))):
        return "FLOAT", column.to_numpy(dtype=np.float64, na_value=np.nan)
    if numeric and not column.hasnans:
        values = column.to_numpy()
        if values.dtype.kind in "iub" and (values.size == 0 or int(values.max()) <= np.iinfo(np.int64).max):
            return "INT", values.astype(np.int64)
        if values.dtype.kind == "f" and np.all(values == np.floor(values)):
            return "INT", values.astype(np.int64)
    if not numeric and wanted is None:
        texts = np.array(
            ["" if missing else text for text, missing in zip(column, column.isna(), strict=True)], dtype=object
        )
        if all(isinstance(text, str) for text in texts):
            return "STRING", texts
    raise OptionError(
        f"column {name!r} of {column.dtype} cannot be stored{'' if wanted is None else f' as {PANDAS_TYPE[wanted]}, which its usage asks for'}; "
        "a KEA attribute table holds int64 and bool without gaps, float64, and str"
    )


def _joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``old``, replaced and added to by those of ``new``."""
    if len(old.columns) and len(old) != len(new):
        raise OptionError(f"keep_columns=True: the file's table has {len(old)} rows, the new one {len(new)}")
    result = (
        old.reindex(new.index).assign(**{str(name): new[name] for name in new.columns}) if len(new.columns) else old
    )
    result.attrs = {**old.attrs, **new.attrs, "usages": {**old.attrs["usages"], **new.attrs.get("usages", {})}}
    for name in new.columns:
        if name not in new.attrs.get("usages", {}) and name not in old.columns:
            result.attrs["usages"].pop(str(name), None)
    return result


def _store(attributes: h5py.Group, columns: list[_Column], rows: int, neighbours: Neighbours | None) -> None:
    """Replace the table in a band's group ATT."""
    data, header, regions = (attributes.require_group(name) for name in ("DATA", "HEADER", "NEIGHBOURS"))
    chunk = int(header["CHUNKSIZE"][0]) if "CHUNKSIZE" in header else CHUNK_ROWS
    filters: dict[str, Any] = {"shuffle": True, "compression": "gzip", "compression_opts": 1}
    counts: list[int] = []
    for kind, dtype in KINDS.items():
        for group, name in ((data, kind), (header, f"{kind}_FIELDS")):
            if name in group:
                del group[name]
        chosen = [(number, column) for number, column in enumerate(columns) if column.kind == kind]
        counts.append(len(chosen))
        if not chosen:
            continue
        fields = [
            (column.name.encode(), index, column.usage.encode(), number)
            for index, (number, column) in enumerate(chosen)
        ]
        header.create_dataset(
            f"{kind}_FIELDS", data=np.array(fields, FIELD), maxshape=(None,), chunks=(chunk,), **filters
        )
        values = data.create_dataset(
            kind, (rows, len(chosen)), dtype, maxshape=(None, None), chunks=(chunk, 1), **_fill(kind), **filters
        )
        for index, (_, column) in enumerate(chosen):
            if rows:
                values[:, index] = _as_texts(column.values) if kind == "STRING" else column.values
    _set(header, "CHUNKSIZE", np.array([chunk], "<u8"))
    _set(header, "SIZE", np.array([rows, *counts], "<u8"))
    if "NEIGHBOURS" in regions:
        del regions["NEIGHBOURS"]
    if neighbours is not None and rows:
        vlen = h5py.vlen_dtype(np.dtype("<u8"))
        dataset = regions.create_dataset("NEIGHBOURS", (rows,), vlen, maxshape=(None,), chunks=(chunk,), **filters)
        lists = np.empty(rows, dtype=object)
        lists[:] = [neighbours[row] for row in range(rows)]
        dataset[...] = lists


def _fill(kind: str) -> dict[str, Any]:
    return {} if kind == "STRING" else {"fillvalue": 0}


def _as_texts(values: NDArray[Any]) -> NDArray[Any]:
    """Text as bytes: h5py refuses other than ASCII where the type says ASCII, as kealib's does."""
    texts = np.empty(len(values), KINDS["STRING"])
    texts["STRING"] = [text.split("\0")[0].encode() for text in values]
    return texts


def _set(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    if name in group:
        group[name][...] = values
    else:
        group[name] = values
