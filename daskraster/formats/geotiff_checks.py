"""What GeoTIFF can hold, checked before anything is computed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from daskraster.errors import DaskRasterWarning, OptionError
from daskraster.formats.attribute_tables import asked_tables
from daskraster.formats.geotiff_directories import nodata_text
from daskraster.formats.kea_columns import with_colormap
from daskraster.formats.sidecars import document
from daskraster.grid import round_up
from daskraster.metadata import RasterMetadata
from daskraster.options import PREDICTABLE, WriteOptions

DEFAULT_TILE = 512
CLASSIC_NBYTES = 2**32  # classic TIFF has 32-bit addresses
# Codecs may make noise larger than it was (LZW by up to half), and overviews add a third: BigTIFF well before either can matter.
BIGTIFF_FROM_NBYTES = CLASSIC_NBYTES // 2
LERC_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def tile_size(metadata: RasterMetadata, options: WriteOptions) -> tuple[int, int]:
    """Rows and columns of a tile.

    Raises
    ------
    OptionError
        ``blocksize`` is no multiple of 16.
    """
    if options.tile_yx is not None:
        if any(size % 16 for size in options.tile_yx):
            raise OptionError(
                f"blocksize={options.blocksize} does not fit GeoTIFF, whose tiles are multiples of 16 pixels"
            )
        return options.tile_yx
    rows, cols = (min(DEFAULT_TILE, round_up(size, 16)) for size in metadata.grid.shape_yx)
    return rows, cols


def cloud_tile(shape_yx: tuple[int, int], tile_yx: tuple[int, int]) -> tuple[int, int]:
    """The tile of a level of a COG: rio-cogeo takes a level above 512 pixels for one of strips where a tile is exactly as wide as it."""
    rows, cols = tile_yx
    if shape_yx[1] != cols or max(shape_yx) <= 512:
        return tile_yx
    return rows, cols // 2 if cols % 32 == 0 else 2 * cols


def check_codec(metadata: RasterMetadata, options: WriteOptions) -> None:
    """Refuse a compression that cannot hold the pixels.

    Raises
    ------
    OptionError
        It cannot.
    """
    dtype, bands, compress = metadata.dtype, metadata.shape[0], options.compress
    if compress.startswith("lerc") and str(dtype) not in LERC_TYPES:
        raise OptionError(f"compress={compress!r} cannot hold {dtype}; it holds {', '.join(LERC_TYPES)}")
    if compress in ("jpeg", "webp") and dtype != np.uint8:
        raise OptionError(f"compress={compress!r} cannot hold {dtype}, only uint8")
    if compress == "webp" and (options.interleave != "pixel" or bands not in (3, 4)):
        raise OptionError(
            f"compress='webp' takes 3 or 4 bands with interleave='pixel', not {bands} with {options.interleave!r}"
        )
    if compress == "jpeg" and options.interleave == "pixel" and bands not in (1, 3):
        raise OptionError(
            f"compress='jpeg' takes 1 or 3 bands with interleave='pixel', not {bands}; give interleave='band'"
        )
    if options.predictor == 3 and dtype.kind != "f":
        raise OptionError(f"predictor=3 goes with float32 and float64, not with {dtype}; leave predictor= out")


def default_predictor(metadata: RasterMetadata, options: WriteOptions) -> int:
    """The predictor asked for, else 2 for integers and 3 for floats where the compression takes one."""
    if options.predictor is not None:
        return options.predictor
    if options.compress not in PREDICTABLE:
        return 1
    return 3 if metadata.dtype.kind == "f" else 2


def check_nodata(metadata: RasterMetadata) -> None:
    """Refuse bands of different nodata.

    Raises
    ------
    OptionError
        They differ.
    """
    values = {nodata_text(band.nodata) for band in metadata.bands if band.nodata is not None}
    if len(values) > 1 or (values and any(band.nodata is None for band in metadata.bands)):
        listed = ", ".join(f"band {number}: {band.nodata}" for number, band in enumerate(metadata.bands, 1))
        raise OptionError(f"GeoTIFF holds one nodata value for all bands, the raster has {listed}; give nodata=")


def check_gcps(target: Path, metadata: RasterMetadata) -> None:
    """Tell of ground control points that have no place: a GeoTIFF has tie points for either them or the transform.

    Warns
    -----
    DaskRasterWarning
        The raster has both; the transform is written.
    """
    if metadata.gcps and metadata.has_transform:
        warnings.warn(
            f"the {len(metadata.gcps)} ground control points are left out of {target}: a GeoTIFF holds them or a transform, and the raster "
            "has both; KEA holds both",
            DaskRasterWarning,
            stacklevel=2,
        )


def sidecar_tables(target: Path, metadata: RasterMetadata, options: WriteOptions) -> dict[int, pd.DataFrame]:
    """The attribute tables of a sidecar; refuses, or leaves out, what without one has no place.

    Raises
    ------
    OptionError
        A table or names of classes were asked for without ``sidecar=True``, or no sidecar can hold them.
    """
    tables = asked_tables(metadata, options)
    names = [number for number, band in enumerate(metadata.bands, 1) if band.categories]
    if options.sidecar:
        for number, table in tables.items():
            if options.colormap is not None:
                tables[number] = with_colormap(table, options.colormap)
        document(metadata.bands, tables)  # whether it can be written shows before anything is computed
        return tables
    for wish in ("attribute_table", "categories"):
        if getattr(options, wish) is not None:
            raise OptionError(
                f"{wish}= has no place in a GeoTIFF; give sidecar=True to write {target}.aux.xml beside it, or write KEA"
            )
    if names:
        warnings.warn(
            f"the class names of band {names[0]} are left out of {target}: GDAL keeps them beside a GeoTIFF; "
            "sidecar=True writes them there",
            DaskRasterWarning,
            stacklevel=2,
        )
    return tables


def is_big(nbytes: int, options: WriteOptions, target: Path) -> bool:
    """Whether the file is a BigTIFF; ``nbytes``: of all tiles, padded to full size.

    Raises
    ------
    OptionError
        It must be one and was asked not to.
    """
    if options.bigtiff is not None:
        if not options.bigtiff and options.compress == "none" and nbytes >= CLASSIC_NBYTES:
            raise OptionError(
                f"bigtiff=False: {target} would have {nbytes} bytes, classic TIFF ends at 4 GB; leave bigtiff= out"
            )
        return options.bigtiff
    return nbytes >= BIGTIFF_FROM_NBYTES
