"""Raster attribute tables of KEA: one row a pixel value, as a pandas DataFrame.

In the file the columns of each kind (bool, int, float, string) form one two-dimensional dataset, and a list of fields says which column
of which dataset has which name, use and place in the table.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from daskraster.errors import OptionError, RasterWriteError
from daskraster.files import PartialFile
from daskraster.formats.hdf5 import VLEN_TEXT, h5py
from daskraster.formats.kea_columns import (
    COLOR_COLUMNS,
    KINDS,
    MAX_COLORS,
    PANDAS_TYPE,
    Column,
    Field,
    Neighbours,
    Stored,
    prepared,
    usages_of,
)
from daskraster.formats.kea_heap import check_references
from daskraster.formats.kea_layout import HDF5_ERRORS, KeaFile, band_item, decode, open_kea

CHUNK_ROWS = 10000  # kealib's since 1.6
FIELD = np.dtype(
    {
        "names": ["NAME", "INDEX", "USAGE", "COLNUM"],
        "formats": [VLEN_TEXT, "<u4", VLEN_TEXT, "<u4"],
        "offsets": [0, 8, 16, 24],
        "itemsize": 32,
    }
)
MAX_CHUNK_ROWS = 1 << 20
FILTERS: dict[str, Any] = {"shuffle": True, "compression": "gzip", "compression_opts": 1}


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
        return _read_table(kea, band)


def write_attribute_table(
    path: str | os.PathLike[str], table: pd.DataFrame, band: int = 1, *, keep_columns: bool = False
) -> None:
    """Write the attribute table of a band into an existing KEA file.

    Everything is checked first. Then a hidden copy beside the file is changed and renamed onto it: whatever happens, there is the
    file as it was or the file with the new table.

    Parameters
    ----------
    path
        A KEA file; links are followed, its permissions stay. Its folder needs room for a second one meanwhile.
    table
        Row n belongs to pixel value n: the index is 0, 1, 2 ... Integers become int64, floats float64; text, missing text included, becomes
        str, up to its first NUL. Objects that all are integers or all are bool count as such. ``.attrs["usages"]`` says what columns are
        for; without it Histogram is a pixel count and Red, Green, Blue, Alpha are colours. A pixel count is stored as float64, colours as
        int64, since other programs look for them there.
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
        No such file; no KEA, damaged, or open elsewhere for writing.
    RasterWriteError
        The file or its folder cannot be written to, or the disk has no room for the copy; the file is as it was.

    Notes
    -----
    HDF5 does not give back the room of a table that was replaced until the file is repacked.
    Hard links to the old file stay with the old content, and so do programs that have it open.

    Examples
    --------
    >>> import pandas as pd
    >>> write_attribute_table("in.kea", pd.DataFrame({"Name": ["none", "water"], "Red": [0, 30]}))
    >>> read_attribute_table("in.kea")
        Name  Red
    0   none    0
    1  water   30
    """
    path = os.fspath(path)
    stored = None if keep_columns else prepared(table)
    with open_kea(path) as kea:
        _check_band(kea, band)
        fields: list[Field] | None = None
        if stored is None:
            old_rows, old = _fields(kea, band)
            if old and isinstance(table, pd.DataFrame) and old_rows != len(table):
                raise OptionError(f"keep_columns=True: the file's table has {old_rows} rows, the new one {len(table)}")
            stored = prepared(table, {field.name: field.usage for field in old})
            fields = _fields_replaced(kea, band, old, stored)
            if fields is None:
                stored = prepared(_joined(_read_table(kea, band), table))
        # Held open meanwhile, so that nobody changes what is being copied; no longer, as Windows renames onto no open file.
        partial = _changed_copy(Path(path), band, stored, fields)
    try:
        partial.path.chmod(partial.mode)
        partial.path.replace(partial.target)
    except OSError as error:
        raise RasterWriteError(f"cannot replace {path}: {error.strerror or error}; it is as it was") from error
    finally:
        partial.discard()


def check_table(table: pd.DataFrame) -> None:
    """Check that a table can be stored, every value of it.

    Raises
    ------
    OptionError
        It cannot; with column and row.
    """
    prepared(table)


def store_table(attributes: h5py.Group, table: pd.DataFrame) -> None:
    """Write a table into a band's group ATT; ``table`` as in `write_attribute_table`.

    Raises
    ------
    OptionError
        The table cannot be stored.
    """
    _store(attributes, prepared(table), None)


def read_colormap(kea: KeaFile, band: int) -> dict[int, tuple[int, int, int, int]] | None:
    """Pixel value -> (red, green, blue, alpha) from the four colour columns of the first 65,536 rows; None where one is missing."""
    rows, fields = _fields(kea, band, ("INT",))
    by_usage = {field.usage: field for field in fields}
    if not rows or not all(name in by_usage for name in COLOR_COLUMNS):
        return None
    colors = [_read_column(kea, band, by_usage[name], min(rows, MAX_COLORS)) for name in COLOR_COLUMNS]
    entries = np.clip(np.stack(colors, axis=1), 0, 255).tolist()
    return {value: (entry[0], entry[1], entry[2], entry[3]) for value, entry in enumerate(entries)}


def read_names(kea: KeaFile, band: int) -> dict[int, str] | None:
    """Pixel value -> class name from the column used for names; None where there is none, or more rows than classes can be (segments)."""
    rows, fields = _fields(kea, band, ("STRING",))
    field = next((field for field in fields if field.usage == "Name"), None)
    if field is None or not 0 < rows <= MAX_COLORS:
        return None
    check_references(kea.raw, kea.dataset(band_item(band, "ATT/DATA/STRING")))
    return {value: name for value, name in enumerate(_read_column(kea, band, field, rows)) if name} or None


def _check_band(kea: KeaFile, band: int) -> None:
    count = int(kea.numbers("HEADER/NUMBANDS", 1)[0])
    if not 1 <= band <= count:
        raise OptionError(f"band={band}: {kea.path} has bands 1 to {count}")


def _fields(kea: KeaFile, band: int, kinds: Collection[str] = KINDS) -> tuple[int, list[Field]]:
    """Number of rows, and the columns of these kinds in their order: the check of those of one kind takes 0.5 ms."""
    size = band_item(band, "ATT/HEADER/SIZE")
    if not kea.has(size):
        return 0, []
    rows = int(kea.numbers(size, 1 + len(KINDS))[0])
    found: list[Field] = []
    for kind in kinds:
        item = band_item(band, f"ATT/HEADER/{kind}_FIELDS")
        if kea.has(item):
            check_references(kea.raw, kea.dataset(item))
            found += [
                Field(
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


def _read_table(kea: KeaFile, band: int) -> pd.DataFrame:
    """See `read_attribute_table`."""
    rows, fields = _fields(kea, band)
    if rows and any(field.kind == "STRING" for field in fields):
        check_references(kea.raw, kea.dataset(band_item(band, "ATT/DATA/STRING")))
    columns = {
        field.name: pd.Series(_read_column(kea, band, field, rows), dtype=PANDAS_TYPE[field.kind]) for field in fields
    }
    table = pd.DataFrame(columns, index=pd.RangeIndex(rows))
    table.attrs["usages"] = {field.name: field.usage for field in fields}
    neighbours = band_item(band, "ATT/NEIGHBOURS/NEIGHBOURS")
    if kea.has(neighbours):
        dataset = kea.dataset(neighbours)
        check_references(kea.raw, dataset)
        table.attrs["neighbours"] = Neighbours(list(dataset[()]))
    return table


def _read_column(kea: KeaFile, band: int, field: Field, rows: int) -> Any:
    dataset = kea.dataset(band_item(band, f"ATT/DATA/{field.kind}"))
    if dataset.ndim != 2 or rows > dataset.shape[0] or field.index >= dataset.shape[1]:
        raise kea.error(f"its shape {dataset.shape} has no column {field.index} of {rows} rows for {field.name!r}")
    values = dataset[:rows, field.index]
    return [decode(text) for text in values["STRING"]] if field.kind == "STRING" else values


def _joined(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``old``, replaced and added to by those of ``new``, with a usage for each."""
    usages = {
        **old.attrs["usages"],
        **dict(zip(map(str, new.columns), usages_of(new, old.attrs["usages"]), strict=True)),
    }
    result = (
        old.reindex(new.index).assign(**{str(name): new[name] for name in new.columns}) if len(new.columns) else old
    )
    result.attrs = {**old.attrs, **new.attrs, "usages": usages}
    return result


def _fields_of(columns: Sequence[Column]) -> list[Field]:
    """Where the columns of a table go that is written whole."""
    counts = dict.fromkeys(KINDS, 0)
    fields: list[Field] = []
    for number, column in enumerate(columns):
        fields.append(
            Field(name=column.name, kind=column.kind, index=counts[column.kind], usage=column.usage, number=number)
        )
        counts[column.kind] += 1
    return fields


def _fields_replaced(kea: KeaFile, band: int, old: Sequence[Field], stored: Stored) -> list[Field] | None:
    """Where all columns are once those of ``stored`` are replaced or added, each on its own, the others left where they are.

    None where the whole table must be written anew: a column changes its kind, or the file's columns are not as kealib lays them out.
    """
    fields = {field.name: field for field in old}
    counts = {kind: sum(field.kind == kind for field in old) for kind in KINDS}
    if not old or [field.number for field in old] != list(range(len(old))):
        return None
    for kind in {column.kind for column in stored.columns}:
        indices = sorted(field.index for field in old if field.kind == kind)
        item = band_item(band, f"ATT/DATA/{kind}")
        if not kea.has(item) and not counts[kind]:
            continue
        dataset = kea.dataset(item)
        if (
            indices != list(range(counts[kind]))
            or dataset.shape != (stored.rows, counts[kind])
            or dataset.maxshape[1] is not None
            or dataset.dtype != KINDS[kind]
        ):
            return None
    for column in stored.columns:
        present = fields.get(column.name)
        if present is not None and present.kind != column.kind:
            return None
        index = counts[column.kind] if present is None else present.index
        number = len(fields) if present is None else present.number
        counts[column.kind] += present is None
        fields[column.name] = Field(name=column.name, kind=column.kind, index=index, usage=column.usage, number=number)
    return list(fields.values())


def _changed_copy(path: Path, band: int, stored: Stored, fields: list[Field] | None) -> PartialFile:
    """A hidden copy of a file beside it, with the new table, safe on the disk.

    HDF5 may crash the process where a disk is full when it closes a file, so the room is looked at before.
    """
    if not os.access(path, os.W_OK):
        raise RasterWriteError(f"cannot write {path}: no permission")
    partial = PartialFile.create(path, b"")
    try:
        due = partial.target.stat().st_size + stored.nbytes
        free = shutil.disk_usage(partial.target.parent).free
        if free < due:
            raise RasterWriteError(
                f"cannot write the attribute table of {path}: a copy with it needs {due:,} bytes, {partial.target.parent} has {free:,} free"
            )
        shutil.copyfile(partial.target, partial.path)
        with h5py.File(partial.path, "r+", locking="best-effort") as file:
            _store(file.require_group(band_item(band, "ATT")), stored, fields)
        with open(partial.path, "r+b") as changed:
            os.fsync(changed.fileno())
    except RasterWriteError:
        partial.discard()
        raise
    except HDF5_ERRORS as error:
        partial.discard()
        raise RasterWriteError(f"cannot write the attribute table of {path}, which is as it was: {error}") from error
    except BaseException:
        partial.discard()
        raise
    return partial


def _store(attributes: h5py.Group, stored: Stored, fields: Sequence[Field] | None) -> None:
    """Put a table into a band's group ATT; ``fields`` says where, None that it replaces the table that is there."""
    data, header, regions = (attributes.require_group(name) for name in ("DATA", "HEADER", "NEIGHBOURS"))
    chunk = int(header["CHUNKSIZE"][0]) if "CHUNKSIZE" in header else CHUNK_ROWS
    chunk = chunk if 1 <= chunk <= MAX_CHUNK_ROWS else CHUNK_ROWS
    if fields is None:
        fields = _fields_of(stored.columns)
        for group, name in [(data, kind) for kind in KINDS] + [(header, f"{kind}_FIELDS") for kind in KINDS]:
            _remove(group, name)
        _remove(regions, "NEIGHBOURS")
    columns = {column.name: column for column in stored.columns}
    counts: list[int] = []
    for kind in KINDS:
        chosen = sorted((field for field in fields if field.kind == kind), key=lambda field: field.index)
        counts.append(len(chosen))
        changed = [field for field in chosen if field.name in columns]
        if not changed:
            continue
        _store_fields(header, kind, chosen, chunk)
        values = _room(data, kind, (stored.rows, len(chosen)), chunk)
        for field in changed if stored.rows else ():
            values[:, field.index] = columns[field.name].values
    _set(header, "CHUNKSIZE", np.array([chunk], "<u8"))
    _set(header, "SIZE", np.array([stored.rows, *counts], "<u8"))
    if stored.neighbours is not None and stored.rows:
        _remove(regions, "NEIGHBOURS")
        vlen = h5py.vlen_dtype(np.dtype("<u8"))
        dataset = regions.create_dataset(
            "NEIGHBOURS", (stored.rows,), vlen, maxshape=(None,), chunks=(chunk,), **FILTERS
        )
        # Not dataset[...] = lists: h5py takes lists of one length for a two-dimensional array.
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, stored.neighbours, h5py.h5t.py_create(vlen))


def _store_fields(header: h5py.Group, kind: str, fields: Sequence[Field], chunk: int) -> None:
    """Replace the list of the columns of one kind."""
    name = f"{kind}_FIELDS"
    _remove(header, name)
    entries = [(field.name.encode(), field.index, field.usage.encode(), field.number) for field in fields]
    header.create_dataset(name, data=np.array(entries, FIELD), maxshape=(None,), chunks=(chunk,), **FILTERS)


def _room(data: h5py.Group, kind: str, shape: tuple[int, int], chunk: int) -> h5py.Dataset:
    """The columns of one kind, new or with room for more."""
    if kind in data:
        data[kind].resize(shape)
        return data[kind]
    fill = {} if kind == "STRING" else {"fillvalue": 0}
    return data.create_dataset(kind, shape, KINDS[kind], maxshape=(None, None), chunks=(chunk, 1), **fill, **FILTERS)


def _remove(group: h5py.Group, name: str) -> None:
    if name in group:
        del group[name]


def _set(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    if name in group:
        group[name][...] = values
    else:
        group[name] = values
