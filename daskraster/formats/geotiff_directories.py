"""The TIFF directories that GDAL makes for us: every tag, no pixel."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from daskraster.blocks.codecs import TileCodec
from daskraster.blocks.tiling import TileArray
from daskraster.formats import tiff
from daskraster.formats.gdal_handles import quiet_gdal
from daskraster.formats.memo import Memo
from daskraster.grid import Grid, Window
from daskraster.metadata import BandMetadata, Number, RasterMetadata
from daskraster.options import PREDICTABLE

GDAL_COMPRESSION = {"packbits": "PACKBITS", "lerc_deflate": "LERC_DEFLATE", "lerc_zstd": "LERC_ZSTD"}
LAYER_TYPE = "LAYER_TYPE"  # the item by which GDAL's other formats say that pixels are classes
# Bits of NewSubfileType.
REDUCED_RESOLUTION, MASK = 1, 4
PHOTOMETRIC_MASK = 4
# What variables that GDAL and PROJ look at begin with.
GDALS_OWN = ("GDAL_", "GTIFF_", "OSR_", "OGR_", "CPL_", "PROJ_", "COMPRESS_", "TIFF_")
EMPTY_METADATA = b"<GDALMetadata></GDALMetadata>\0"
# Parameters of rasterio's update_tags: an item of such a name would send all others to a namespace, or to another band.
NO_KEYWORDS = ("bidx", "ns")


def directory_of(metadata: RasterMetadata, codec: TileCodec, tiles: TileArray, *, big: bool) -> tiff.Directory:
    """GDAL's directory for a raster in tiles of ``tiles``.

    Raises
    ------
    rasterio.errors.RasterioError
        GDAL cannot make it.
    """
    directory = _made(metadata, _creation_options(codec, tiles, big=big))
    nodata = metadata.bands[0].nodata
    if nodata is not None:
        # rasterio passes nodata as a double: 64-bit integers would lose digits.
        directory[tiff.GDAL_NODATA] = tiff.Tag.ascii(nodata_text(nodata))
    items = _other_items(metadata)
    if items:
        directory[tiff.GDAL_METADATA] = _with_items(directory.get(tiff.GDAL_METADATA), items)
    # Our JPEG tiles carry their own tables.
    directory.pop(tiff.JPEG_TABLES, None)
    return directory


def overview_directory(metadata: RasterMetadata, codec: TileCodec, level: TileArray, *, big: bool) -> tiff.Directory:
    """The directory of an overview."""
    directory = directory_of(_overview_metadata(metadata, level), codec, level, big=big)
    directory[tiff.NEW_SUBFILE_TYPE] = tiff.Tag.long(REDUCED_RESOLUTION)
    directory.pop(tiff.GDAL_METADATA, None)
    return directory


def mask_directory(mask: TileArray, *, big: bool, overview: bool) -> tiff.Directory:
    """The directory of a mask as GDAL writes it: one bit a pixel, deflate whatever the raster's own codec, no predictor."""
    metadata = RasterMetadata(
        grid=Grid(None, Affine.identity(), (mask.shape[1], mask.shape[2])),
        dtype=np.dtype(np.uint8),
        bands=[BandMetadata()],
        has_transform=False,
    )
    options = {**_creation_options(TileCodec(compress="deflate"), mask, big=big), "nbits": 1}
    directory = _made(metadata, options)
    directory[tiff.NEW_SUBFILE_TYPE] = tiff.Tag.long(MASK | (REDUCED_RESOLUTION if overview else 0))
    directory[tiff.PHOTOMETRIC] = tiff.Tag.short(PHOTOMETRIC_MASK)
    directory.pop(tiff.GDAL_METADATA, None)
    return directory


def _creation_options(codec: TileCodec, tiles: TileArray, *, big: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "tiled": True,
        "blockxsize": tiles.tile_yx[1],
        "blockysize": tiles.tile_yx[0],
        "interleave": "band" if tiles.band_interleaved else "pixel",
        "bigtiff": "YES" if big else "NO",
    }
    compress = codec.compress
    if compress != "none":
        options["compress"] = GDAL_COMPRESSION.get(compress, compress.upper())
    if compress in PREDICTABLE:
        options["predictor"] = codec.predictor
    if compress.startswith("lerc"):
        options["max_z_error"] = codec.max_error
    if compress == "jpeg":
        options["photometric"] = "YCBCR" if codec.ycbcr else "MINISBLACK"
    if compress == "webp" and codec.quality is None:
        options["webp_lossless"] = True
    return options


def first_tile(metadata: RasterMetadata, tile_yx: tuple[int, int]) -> RasterMetadata:
    """The same raster, one tile large: enough to ask GDAL whether it takes the options."""
    return dataclasses.replace(metadata, grid=metadata.grid.window_grid(Window(0, 0, *tile_yx)))


def _overview_metadata(metadata: RasterMetadata, level: TileArray) -> RasterMetadata:
    """What an overview's directory says: how its pixels are to be read, not where they lie on the Earth."""
    bands = [BandMetadata(nodata=band.nodata, color=band.color, colormap=band.colormap) for band in metadata.bands]
    return RasterMetadata(
        grid=Grid(None, Affine.identity(), (level.shape[1], level.shape[2])),
        dtype=metadata.dtype,
        bands=bands,
        has_transform=False,
    )


def _other_items(metadata: RasterMetadata) -> str:
    """The metadata items that rasterio cannot be told of, as GDAL writes them: escaped twice, as it reads them."""
    of_all = [("", metadata.tags), *((f' sample="{band}"', one.tags) for band, one in enumerate(metadata.bands))]
    return "".join(
        f'  <Item name="{name}"{place}>{escape(escape(tags[name]))}</Item>\n'
        for place, tags in of_all
        for name in NO_KEYWORDS
        if name in tags
    )


def _with_items(tag: tiff.Tag | None, items: str) -> tiff.Tag:
    """GDAL's metadata with further items."""
    raw = EMPTY_METADATA if tag is None else tag.raw
    end = raw.rindex(b"</GDALMetadata>")
    whole = raw[:end] + items.encode() + raw[end:]
    return tiff.Tag(tiff.ASCII, len(whole), whole)


def _keywords(tags: Mapping[str, str]) -> dict[str, str]:
    """The items that rasterio can be told of."""
    return {name: text for name, text in tags.items() if name not in NO_KEYWORDS}


def filled_up(items: tiff.Tag | None, longest: tiff.Tag) -> tiff.Tag:
    """GDAL's metadata with blanks before its end, as long as ``longest``."""
    raw = EMPTY_METADATA if items is None else items.raw
    end = raw.rindex(b"</GDALMetadata>")
    return tiff.Tag(tiff.ASCII, longest.count, raw[:end] + b" " * (longest.count - len(raw)) + raw[end:])


def nodata_text(nodata: Number) -> str:
    """As GDAL writes it, with all digits."""
    return str(nodata) if isinstance(nodata, int) else f"{nodata:.17g}"


# A COG with masks has 20 directories; one of 4000 tiles has 64 KB: 2 MB at most. Making one takes 0.7 ms, finding it 0.03.
_memo: Memo[tiff.Directory] = Memo(
    most=32, most_nbytes=1 << 16, nbytes=lambda directory: sum(len(tag.raw) for tag in directory.values())
)


def _made(metadata: RasterMetadata, creation_options: dict[str, Any]) -> tiff.Directory:
    """GDAL's directory, the caller's own to change. A run asks for each of its own three times: for its plan, at its start, at its end.

    Raises
    ------
    rasterio.errors.RasterioError
        GDAL cannot make it.
    """
    told = {name: text for name, text in os.environ.items() if name.startswith(GDALS_OWN)}
    here = rasterio.env.getenv() if rasterio.env.hasenv() else {}
    return dict(
        _memo.of(
            (metadata, creation_options, told, here),
            lambda: tiff.parse(_template(metadata, creation_options))[1][0],
        )
    )


def _template(metadata: RasterMetadata, creation_options: dict[str, Any]) -> bytes:
    """A sparse GeoTIFF made by GDAL: every tag, no pixel. 200,000 x 200,000 x 4 bands: 39 ms, 7 MB."""
    bands, rows, cols = metadata.shape
    nodata = metadata.bands[0].nodata
    georeference: dict[str, Any] = {}
    if metadata.has_transform:
        georeference["transform"] = metadata.grid.transform
    if metadata.grid.crs is not None:
        georeference["crs"] = rasterio.CRS.from_wkt(metadata.grid.crs.to_wkt())
    with quiet_gdal(), MemoryFile() as memory:
        with memory.open(
            driver="GTiff", SPARSE_OK="TRUE", ENDIANNESS="LITTLE", count=bands, height=rows, width=cols,
            dtype=str(metadata.dtype), nodata=None if nodata is None else (0 if metadata.dtype.itemsize == 8 and metadata.dtype.kind in "iu" else nodata),
            **georeference, **creation_options,
        ) as dataset:  # fmt: skip
            _describe(dataset, metadata)
        return bytes(memory.getbuffer())


def _describe(dataset: Any, metadata: RasterMetadata) -> None:
    if metadata.tags:
        dataset.update_tags(**_keywords(metadata.tags))
    bands = metadata.bands
    if any(band.scale != 1 for band in bands):
        dataset.scales = tuple(band.scale for band in bands)
    if any(band.offset != 0 for band in bands):
        dataset.offsets = tuple(band.offset for band in bands)
    if any(band.units for band in bands):
        dataset.units = tuple(band.units or "" for band in bands)
    if any(band.color for band in bands):
        dataset.colorinterp = tuple(ColorInterp[band.color or "undefined"] for band in bands)
    for number, band in enumerate(bands, 1):
        if band.name:
            dataset.set_band_description(number, band.name)
        tags = {key: text for key, text in band.tags.items() if key != LAYER_TYPE}
        if band.thematic:
            tags[LAYER_TYPE] = "thematic"
        if tags:
            dataset.update_tags(number, **_keywords(tags))
        if band.colormap:
            dataset.write_colormap(number, dict(band.colormap))
    if metadata.gcps and not metadata.has_transform:
        points = [
            GroundControlPoint(row=row, col=col, x=x, y=y, z=z, id=name, info=info)
            for name, info, col, row, x, y, z in metadata.gcps
        ]
        dataset.gcps = (points, rasterio.CRS.from_wkt(metadata.gcp_wkt) if metadata.gcp_wkt else rasterio.CRS())
