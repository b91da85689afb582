"""Attribute tables and class names, whatever the format: read from a file, asked for, put together with colours."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import pandas as pd

from daskraster.errors import OptionError
from daskraster.formats import kea_tables, sidecars
from daskraster.formats.gdal_handles import open_dataset
from daskraster.formats.kea_columns import has_colors, usages_of, with_colormap, without_counts
from daskraster.formats.kea_layout import is_kea
from daskraster.metadata import RasterMetadata
from daskraster.options import WriteOptions

NAMES = "Class_Names"  # as GDAL's KEA driver calls the column


def read_attribute_table(path: str | os.PathLike[str], band: int = 1) -> pd.DataFrame:
    """The attribute table of a band of a file: of KEA by our own reader, of all else by GDAL, sidecar ``.aux.xml`` included.

    Parameters
    ----------
    path
        A raster file.
    band
        Its number, from 1.

    Returns
    -------
    pandas.DataFrame
        One row a pixel value (as the file has them, where it is no KEA), columns of int64, float64, bool and str in the file's
        order; no column and no row where the band has no table. ``.attrs["usages"]`` says what each column is for
        (``"PixelCount"``, ``"Red"``, ``"Generic"`` ...), ``.attrs["neighbours"]`` holds the `Neighbours` where a KEA file has them.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        No such file; no raster, or the table is damaged.
    OptionError
        There is no such band.

    Examples
    --------
    >>> read_attribute_table("in.kea").columns.tolist()
    ['Histogram']
    """
    name = os.fspath(path)
    if is_kea(name):
        return kea_tables.read_attribute_table(name, band)
    with open_dataset(name) as dataset:
        if not 1 <= band <= dataset.count:
            raise OptionError(f"band={band}: {name} has bands 1 to {dataset.count}")
        return sidecars.read_table(dataset, band)


def asked_tables(metadata: RasterMetadata, options: WriteOptions) -> dict[int, pd.DataFrame]:
    """The attribute table asked for of each band.

    Raises
    ------
    OptionError
        It is no table, or of a band that there is not.
    """
    asked = options.attribute_table
    if isinstance(asked, str | os.PathLike):
        asked = without_counts(read_attribute_table(asked))
    if asked is not None and not isinstance(asked, Mapping):
        asked = {1: asked}
    tables: dict[int, pd.DataFrame] = dict(asked or {})
    for number, table in tables.items():
        if not 1 <= number <= len(metadata.bands):
            raise OptionError(f"attribute_table= names band {number}; the raster has bands 1 to {len(metadata.bands)}")
        if not isinstance(table, pd.DataFrame):
            raise OptionError(
                f"attribute_table= takes a DataFrame, the path of a file, or {{band: DataFrame}}, not a {type(table).__name__}"
            )
    return tables


def with_labels(
    tables: Mapping[int, pd.DataFrame], metadata: RasterMetadata, options: WriteOptions
) -> dict[int, pd.DataFrame]:
    """Tables with the colours and class names that the metadata know, for a format that has no other place for them.

    What was asked for wins over the table's own columns; what the array brought along only fills in.

    Raises
    ------
    OptionError
        A class name was asked for that the table has no row for.
    """
    result = dict(tables)
    for number, band in enumerate(metadata.bands, 1):
        present = result.get(number)
        if (present is not None and options.colormap is not None) or (
            band.colormap and (present is None or not has_colors(present))
        ):
            present = result[number] = with_colormap(present, band.colormap or {})
        if band.categories and (present is None or options.categories is not None or "Name" not in usages_of(present)):
            result[number] = _with_names(present, band.categories, number if number in tables else None)
    return result


def _with_names(table: pd.DataFrame | None, categories: Mapping[int, str], asked: int | None) -> pd.DataFrame:
    """A table whose column of class names is ``categories``; rows are added, but to one that was ``asked`` for band so-and-so."""
    largest = max(categories)
    if table is not None and asked is not None and largest >= len(table):
        raise OptionError(
            f"categories name the pixel value {largest}; the attribute_table= of band {asked} has {len(table)} rows, from 0"
        )
    rows = max(largest + 1, 0 if table is None else len(table))
    names = np.array([categories.get(value, "") for value in range(rows)], dtype=object)
    result = pd.DataFrame(index=pd.RangeIndex(rows)) if table is None else _longer(table, rows)
    usages = dict(zip(map(str, result.columns), usages_of(result), strict=True))
    column = next((name for name, usage in usages.items() if usage == "Name"), NAMES)
    while column in usages and usages[column] != "Name":
        column += "_"  # a column of this name that holds something else
    result[column] = pd.Series(names, dtype="str", index=result.index)
    result.attrs["usages"] = {**usages, column: "Name"}
    return result


def _longer(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """The colours of a colour table with rows of zeros behind."""
    result = table.reindex(range(rows), fill_value=0)
    result.attrs = dict(table.attrs)
    return result
