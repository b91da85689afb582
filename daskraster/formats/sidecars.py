"""GDAL's sidecar files ``.aux.xml``: what it keeps beside a GeoTIFF, as its drivers have no place for it in the file.

Category names, attribute tables, histograms, and that pixels are classes. GDAL writes the same elements into its VRT, so formats that have
such things inside (HFA, ENVI) are asked in that way: rasterio has no call for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import rasterio.shutil
from rasterio.io import MemoryFile

from daskraster.blocks.results import BandStatistics, Histogram
from daskraster.errors import OptionError, RasterFormatError
from daskraster.formats.gdal_handles import is_local
from daskraster.formats.kea_columns import prepared
from daskraster.labels import MAX_CATEGORIES
from daskraster.metadata import BandMetadata

SUFFIX = ".aux.xml"
# Numbers of GDALRATFieldUsage.
USAGES = (
    "Generic", "PixelCount", "Name", "Min", "Max", "MinMax", "Red", "Green", "Blue", "Alpha",
    "RedMin", "GreenMin", "BlueMin", "AlphaMin", "RedMax", "GreenMax", "BlueMax", "AlphaMax",
)  # fmt: skip
# Numbers of GDALRATFieldType that every version of GDAL knows.
INTEGER, REAL, STRING = 0, 1, 2
INT32 = np.iinfo(np.int32)
EXACT_FLOAT = 2**53
# Formats that hold names inside; of the others only a sidecar tells.
WITH_NAMES = ("HFA", "ENVI", "RST", "ILWIS", "VRT")


def document(bands: Sequence[BandMetadata], tables: Mapping[int, pd.DataFrame]) -> bytes | None:
    """The sidecar of a file, still without histograms; None where there is nothing to say.

    Parameters
    ----------
    bands
        Of the file.
    tables
        Attribute table of each band that has one, from 1.

    Raises
    ------
    OptionError
        A table or name that GDAL's attribute tables cannot hold.
    """
    root = ElementTree.Element("PAMDataset")
    for number, band in enumerate(bands, 1):
        element = ElementTree.Element("PAMRasterBand", band=str(number))
        if band.categories:
            names = ElementTree.SubElement(element, "CategoryNames")
            for value in range(max(band.categories) + 1):
                ElementTree.SubElement(names, "Category").text = _xml_text(
                    band.categories.get(value, ""), "categories="
                )
        if number in tables:
            element.append(_table_element(tables[number], thematic=band.thematic))
        if band.thematic:
            ElementTree.SubElement(
                ElementTree.SubElement(element, "Metadata"), "MDI", key="LAYER_TYPE"
            ).text = "thematic"
        if len(element):
            root.append(element)
    return _text_of(root)


def with_histograms(path: Path, statistics: Sequence[BandStatistics]) -> bytes | None:
    """The sidecar at ``path``, where there is one, with the histograms of each band; None where there is nothing to say."""
    root = ElementTree.parse(path).getroot() if path.exists() else ElementTree.Element("PAMDataset")
    elements = _by_number(root, "PAMRasterBand")
    for number, of_band in enumerate(statistics, 1):
        if of_band.histogram is not None:
            element = elements.get(number)
            if element is None:
                element = ElementTree.SubElement(root, "PAMRasterBand", band=str(number))
            element.insert(0, _histogram_element(of_band.histogram))
    root[:] = sorted(root, key=lambda element: int(element.get("band", 0)))
    return _text_of(root)


def _text_of(root: ElementTree.Element) -> bytes | None:
    if not len(root):
        return None
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=False) + b"\n"


def _histogram_element(histogram: Histogram) -> ElementTree.Element:
    root = ElementTree.Element("Histograms")
    item = ElementTree.SubElement(root, "HistItem")
    edges = histogram.edges
    for name, text in (
        ("HistMin", repr(edges[0])),
        ("HistMax", repr(edges[-1])),
        ("BucketCount", str(len(histogram.counts))),
        ("IncludeOutOfRange", "1"),
        ("Approximate", "0"),
        ("HistCounts", "|".join(map(str, histogram.counts))),
    ):
        ElementTree.SubElement(item, name).text = text
    return root


def _table_element(table: pd.DataFrame, *, thematic: bool) -> ElementTree.Element:
    stored = prepared(table)
    if stored.neighbours is not None:
        raise OptionError(
            'a sidecar has no place for the neighbours of an attribute table; leave them out: table.attrs.pop("neighbours")'
        )
    root = ElementTree.Element("GDALRasterAttributeTable", tableType="thematic" if thematic else "athematic")
    texts: list[list[str]] = []
    for number, column in enumerate(stored.columns):
        kind, values = _column_texts(column.name, column.kind, column.values)
        usage = USAGES.index(column.usage) if column.usage in USAGES else 0
        field = ElementTree.SubElement(root, "FieldDefn", index=str(number))
        for name, text in (
            ("Name", _xml_text(column.name, "a column name")),
            ("Type", str(kind)),
            ("Usage", str(usage)),
        ):
            ElementTree.SubElement(field, name).text = text
        texts.append(values)
    for row in range(stored.rows):
        element = ElementTree.SubElement(root, "Row", index=str(row))
        for values in texts:
            ElementTree.SubElement(element, "F").text = values[row]
    return root


def _column_texts(name: str, kind: str, values: Any) -> tuple[int, list[str]]:
    """GDAL's number of a column's type, and its values as text."""
    if kind == "STRING":
        return STRING, [_xml_text(text.decode(), f"column {name!r}") for text in values["STRING"]]
    if kind == "FLOAT":
        return REAL, [repr(value) for value in values.tolist()]
    whole = [int(value) for value in values.tolist()]
    if all(INT32.min <= value <= INT32.max for value in whole):
        return INTEGER, [str(value) for value in whole]
    row = next((row for row, value in enumerate(whole) if abs(value) > EXACT_FLOAT), None)
    if row is not None:
        raise OptionError(
            f"column {name!r} of an attribute table has {whole[row]} in row {row}; GDAL's tables hold whole numbers up to 2**53"
        )
    return REAL, [str(value) for value in whole]


def _xml_text(text: str, what: str) -> str:
    """``text``, after a check that XML can hold it."""
    for sign in text:
        if (ord(sign) < 32 and sign not in "\t\n\r") or 0xD800 <= ord(sign) < 0xE000 or ord(sign) in (0xFFFE, 0xFFFF):
            raise OptionError(f"{what} has {text!r}, and XML has no place for its sign {sign!r}")
    return text


def read_categories(dataset: Any) -> dict[int, dict[int, str]]:
    """Band number -> pixel value -> name, of an open rasterio dataset; raises nothing: like GDAL without a sidecar that is no XML."""
    try:
        bands = _bands(dataset, "CategoryNames", WITH_NAMES)
    except RasterFormatError:
        return {}
    names: dict[int, dict[int, str]] = {}
    for band, element in bands.items():
        texts = [category.text or "" for category in element.iterfind("CategoryNames/Category")][:MAX_CATEGORIES]
        found = {value: text for value, text in enumerate(texts) if text}
        if found:
            names[band] = found
    return names


def read_table(dataset: Any, band: int) -> pd.DataFrame:
    """The attribute table of a band of an open rasterio dataset; without columns where it has none.

    Raises
    ------
    RasterFormatError
        The sidecar is no XML, or its table is damaged.
    """
    bands = _bands(dataset, "GDALRasterAttributeTable", None)
    element = bands[band].find("GDALRasterAttributeTable") if band in bands else None
    if element is None:
        table = pd.DataFrame(index=pd.RangeIndex(0))
        table.attrs["usages"] = {}
        return table
    try:
        return _table(element)
    except (ValueError, IndexError) as error:
        raise RasterFormatError(f"the attribute table of band {band} of {dataset.name} is damaged: {error}") from error


def _table(element: ElementTree.Element) -> pd.DataFrame:
    fields = element.findall("FieldDefn")
    rows = [[cell.text or "" for cell in row.findall("F")] for row in element.findall("Row")]
    columns: dict[str, Any] = {}
    usages: dict[str, str] = {}
    for number, field in enumerate(fields):
        name = field.findtext("Name") or ""
        if name in columns:
            raise ValueError(f"two columns have the name {name!r}")
        kind, usage = int(field.findtext("Type") or STRING), int(field.findtext("Usage") or 0)
        texts = [row[number] for row in rows]
        if kind == INTEGER:
            columns[name] = pd.Series([int(text or 0) for text in texts], dtype="int64")
        elif kind == REAL:
            columns[name] = pd.Series([float(text) if text else math.nan for text in texts], dtype="float64")
        else:
            columns[name] = pd.Series(texts, dtype="str")
        usages[name] = USAGES[usage] if 0 <= usage < len(USAGES) else "Generic"
    table = pd.DataFrame(columns, index=pd.RangeIndex(len(rows)))
    table.attrs["usages"] = usages
    return table


def _bands(dataset: Any, wanted: str, drivers: Sequence[str] | None) -> dict[int, ElementTree.Element]:
    """The element of each band, from the sidecar where it has what is ``wanted``, else from GDAL's VRT of the dataset.

    ``drivers``: the formats that are asked through VRT; None: all.
    """
    for name in dataset.files:
        if name.endswith(SUFFIX) and is_local(name) and Path(name).exists():
            try:
                root = ElementTree.parse(name).getroot()
            except ElementTree.ParseError as error:
                raise RasterFormatError(f"the sidecar {name} is no XML: {error}") from error
            if root.find(f"PAMRasterBand/{wanted}") is not None:
                return _by_number(root, "PAMRasterBand")
    if drivers is not None and dataset.driver not in drivers:
        return {}
    return _by_number(vrt_of(dataset), "VRTRasterBand")


def _by_number(root: ElementTree.Element, tag: str) -> dict[int, ElementTree.Element]:
    return {int(element.get("band", 0)): element for element in root.findall(tag)}


def vrt_of(dataset: Any) -> ElementTree.Element:
    """GDAL's own description of an open dataset; no pixel is read."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        return ElementTree.fromstring(memory.read())
