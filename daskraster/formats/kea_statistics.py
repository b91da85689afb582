"""Statistics in KEA: metadata items of the band, and its histogram as a column of the attribute table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from daskraster.blocks.results import BandStatistics, Histogram, histogram_items, metadata_items
from daskraster.formats.kea_layout import band_item, open_kea
from daskraster.formats.kea_tables import read_attribute_table, store_table
from daskraster.formats.kea_texts import write_texts
from daskraster.metadata import BandMetadata

HISTOGRAM = "Histogram"


def store_statistics(path: Path, statistics: Sequence[BandStatistics], bands: Sequence[BandMetadata]) -> None:
    """Add the statistics of each band to a complete KEA file.

    Raises
    ------
    RasterFormatError
        HDF5 cannot change the file.
    """
    tables = {
        number: table
        for number, of_band in enumerate(statistics, 1)
        if of_band.histogram is not None
        and (table := _with_histogram(read_attribute_table(path, number), of_band.histogram)) is not None
    }
    # In place: the file is not published yet, and its descriptors must stay those of this file.
    with open_kea(str(path), "r+") as kea:
        for number, (of_band, band) in enumerate(zip(statistics, bands, strict=True), 1):
            items = {**metadata_items(of_band), **histogram_items(of_band, band.nodata)}
            write_texts(kea.group(band_item(number, "METADATA")), items)
            if number in tables:
                store_table(kea.group(band_item(number, "ATT")), tables[number])


def _with_histogram(table: pd.DataFrame, histogram: Histogram) -> pd.DataFrame | None:
    """A table with one row a bin; None where it has no place for them.

    Rows of a table with other columns are pixel values: there the histogram goes only where its bins are those. Rows are added
    where it has fewer, but not to a table with neighbours, which would be wrong then.
    """
    of_values = histogram.function == "direct" and histogram.minimum == 0
    counts = np.array(histogram.counts, np.float64)
    rows = max(len(table), len(counts))
    if len(table.columns) and (not of_values or (rows > len(table) and "neighbours" in table.attrs)):
        return None
    table = _with_rows(table, rows)
    table[HISTOGRAM] = np.pad(counts, (0, rows - len(counts)))
    return table


def _with_rows(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """A table with more rows, of zeros and empty texts."""
    if len(table) == rows:
        return table
    attrs = {key: value for key, value in table.attrs.items() if key != "neighbours"}
    columns = {
        name: pd.concat(
            [column, pd.Series(["" if column.dtype == "str" else 0] * (rows - len(column)), dtype=column.dtype)],
            ignore_index=True,
        )
        for name, column in table.items()
    }
    longer = pd.DataFrame(columns, index=pd.RangeIndex(rows))
    longer.attrs = attrs
    return longer
