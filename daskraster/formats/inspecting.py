"""What a raster file says of itself, as data and in a few lines of text; no pixel is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskraster.errors import OptionError
from daskraster.formats import choosing
from daskraster.formats.attribute_tables import read_attribute_table
from daskraster.formats.gdal_handles import open_dataset
from daskraster.formats.kea_layout import is_kea
from daskraster.grid import crs_name
from daskraster.metadata import BandMetadata, RasterMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterInfo:
    """A raster file without its pixels; see `info`."""

    path: str
    driver: str
    """GDAL's name of the format."""
    compression: str | None
    """GDAL's name of it, in lower case; None where there is none."""
    file_nbytes: int | None
    """Size of the file; None where it is no file of this machine."""
    metadata: RasterMetadata
    """Grid, dtype, bands, tags."""
    tile_yx: tuple[int, int]
    """Rows and columns that are decoded together."""
    overviews: tuple[tuple[int, int], ...]
    """Rows and columns of each overview, level 0 first."""
    tables: tuple[tuple[int, tuple[str, ...]] | None, ...]
    """Rows and columns' names of the attribute table of each band; None where it has none."""

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain numbers and texts, for JSON."""
        metadata, grid = self.metadata, self.metadata.grid
        return {
            "path": self.path,
            "driver": self.driver,
            "compression": self.compression,
            "file_nbytes": self.file_nbytes,
            "shape": list(metadata.shape),
            "dtype": str(metadata.dtype),
            "nbytes": metadata.nbytes,
            "crs": None if grid.crs is None else crs_name(grid.crs),
            "wkt": None if grid.crs is None else grid.crs.to_wkt(),
            "transform": list(grid.transform)[:6] if metadata.has_transform else None,
            "bounds": list(_bounds(metadata)) if metadata.has_transform else None,
            "gcps": len(metadata.gcps),
            "tile": list(self.tile_yx),
            "overviews": [list(shape) for shape in self.overviews],
            "bands": [_band_dict(band, table) for band, table in zip(metadata.bands, self.tables, strict=True)],
            "tags": dict(metadata.tags),
        }

    def __str__(self) -> str:
        """One line for the file, one for each thing it has, one for each band."""
        metadata, grid = self.metadata, self.metadata.grid
        bands, rows, cols = metadata.shape
        size = "" if self.file_nbytes is None else f"{self.file_nbytes / 1e6:.1f} MB, "
        lines = [
            f"{self.path}: {self.driver}, {cols} x {rows} x {bands} {metadata.dtype}",
            f"size       {size}{metadata.nbytes / 1e6:.1f} MB of pixels, {'not compressed' if self.compression is None else self.compression}",
            f"CRS        {'none' if grid.crs is None else crs_name(grid.crs)}",
            *_place_lines(metadata),
            f"tiles      {self.tile_yx[1]} x {self.tile_yx[0]}",
            "overviews  " + (", ".join(f"{width} x {height}" for height, width in self.overviews) or "none"),
        ]
        lines += [
            _band_line(number, band, table)
            for number, (band, table) in enumerate(zip(metadata.bands, self.tables, strict=True), 1)
        ]
        lines += [f"tag        {name}={text}" for name, text in metadata.tags.items()]
        return "\n".join(lines)


def info(path: str | os.PathLike[str]) -> RasterInfo:
    """What a raster file says of itself: size, dtype, place, tiles, overviews, bands, tables.

    Parameters
    ----------
    path
        As in `open_raster`.

    Returns
    -------
    RasterInfo
        Prints as a few lines; ``.to_dict()`` for JSON. No pixel is read; attribute tables are, to count their rows.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        There is no such file, or it is no raster.

    Examples
    --------
    >>> found = info("in.tif")
    >>> found.metadata.shape, str(found.metadata.dtype)
    ((2, 100, 100), 'uint16')
    """
    name = os.fspath(path)
    source, metadata, _ = choosing.describe(name, bands=None, masked=False, overview_level=None)
    driver: str
    compression: str | None
    if is_kea(name):
        driver, compression = "KEA", "deflate"  # what kealib and our writer use, always
    else:
        with open_dataset(name) as dataset:
            driver = dataset.driver
            compression = dataset.compression.value.lower() if dataset.compression else None
    tables = [read_attribute_table(name, number) for number in range(1, len(metadata.bands) + 1)]
    return RasterInfo(
        path=name,
        driver=driver,
        compression=compression,
        file_nbytes=Path(name).stat().st_size if Path(name).is_file() else None,
        metadata=metadata,
        tile_yx=source.tile_yx,
        overviews=tuple(_overviews(name)),
        tables=tuple((len(table), tuple(map(str, table.columns))) if len(table.columns) else None for table in tables),
    )


def _overviews(path: str) -> Sequence[tuple[int, int]]:
    """Rows and columns of each overview."""
    shapes: list[tuple[int, int]] = []
    while True:
        try:
            _, metadata, _ = choosing.describe(path, bands=(1,), masked=False, overview_level=len(shapes))
        except OptionError:  # no such overview
            return shapes
        shapes.append(metadata.grid.shape_yx)


def _bounds(metadata: RasterMetadata) -> tuple[float, float, float, float]:
    """West, south, east, north of all four corners, in units of the CRS."""
    rows, cols = metadata.grid.shape_yx
    corners = [metadata.grid.transform @ corner for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _place_lines(metadata: RasterMetadata) -> list[str]:
    if not metadata.has_transform:
        return [f"place      {len(metadata.gcps)} ground control points" if metadata.gcps else "place      not known"]
    a, b, c, d, e, f = list(metadata.grid.transform)[:6]
    west, south, east, north = _bounds(metadata)
    rotated = f", rotated ({b!r}, {d!r})" if b or d else ""
    return [
        f"pixel      {a!r} x {abs(e)!r}{rotated}, the first corner at ({c!r}, {f!r})",
        f"bounds     x {west!r} to {east!r}, y {south!r} to {north!r}",
    ]


def _band_line(number: int, band: BandMetadata, table: tuple[int, tuple[str, ...]] | None) -> str:
    facts = [
        "no nodata" if band.nodata is None else f"nodata {band.nodata!r}",
        f"scale {band.scale!r}" if band.scale != 1 else "",
        f"offset {band.offset!r}" if band.offset else "",
        band.units or "",
        band.color or "",
        "classes" if band.thematic else "",
        f"{len(band.colormap)} colours" if band.colormap else "",
        f"{len(band.categories)} class names" if band.categories else "",
        f"table of {table[0]} rows: {', '.join(table[1])}" if table else "",
    ]
    return f"band {number:<5} {band.name or ''}{': ' if band.name else ''}{', '.join(fact for fact in facts if fact)}"


def _band_dict(band: BandMetadata, table: tuple[int, tuple[str, ...]] | None) -> dict[str, Any]:
    return {
        "name": band.name,
        "nodata": band.nodata,
        "scale": band.scale,
        "offset": band.offset,
        "units": band.units,
        "color": band.color,
        "thematic": band.thematic,
        "colors": len(band.colormap or ()),
        "categories": {str(value): name for value, name in (band.categories or {}).items()},
        "table": None if table is None else {"rows": table[0], "columns": list(table[1])},
        "tags": dict(band.tags),
    }
