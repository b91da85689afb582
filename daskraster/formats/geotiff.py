"""GeoTIFF as a Sink: GDAL makes the header, workers make the tiles.

Strategy. GDAL writes a sparse GeoTIFF of the right size into memory: every tag in it is GDAL's, no pixel is. Its directory is laid
out as the header of the partial file. Workers encode tiles and append them wherever there is room; at the end the two arrays of tile
offsets and byte counts are filled in and the file gets its name. So no tile is encoded twice, no lock of GDAL is held, and no
other library decides what a GeoTIFF tag means.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from daskraster.blocks.codecs import TileCodec
from daskraster.errors import OptionError, RasterWriteError
from daskraster.files import Buffer, writable_target
from daskraster.formats import tiff
from daskraster.formats.gdal_handles import quiet_gdal
from daskraster.formats.protocols import Receipt
from daskraster.formats.tiles import TileArray, TileSink
from daskraster.grid import Window, round_up
from daskraster.metadata import Number, RasterMetadata
from daskraster.options import PREDICTABLE, WriteOptions

DEFAULT_TILE = 512
CLASSIC_NBYTES = 2**32  # classic TIFF has 32-bit addresses
# Codecs may make noise larger than it was (LZW by up to half), and overviews add a third: BigTIFF well before either can matter.
BIGTIFF_FROM_NBYTES = CLASSIC_NBYTES // 2
GDAL_COMPRESSION = {"packbits": "PACKBITS", "lerc_deflate": "LERC_DEFLATE", "lerc_zstd": "LERC_ZSTD"}
LERC_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoTiffSink(TileSink):
    """One GeoTIFF to be written; see `daskraster.formats.protocols.Sink` for what may run where."""

    big: bool

    @property
    def driver(self) -> str:
        """GDAL's name of the format."""
        return "GTiff"

    def header(self) -> bytes:
        """The TIFF directory, its tile arrays still empty."""
        return self._layout().header

    def encode(self, values: NDArray[Any]) -> Buffer:
        """The bytes of one tile."""
        return self.codec.encode(values)

    def put(self, block: NDArray[Any], window: Window, band_off: int, index: tuple[int, int, int]) -> Receipt:
        """Encode and write the tiles of one block; see `Sink.put`."""
        receipt = TileSink.put(self, block, window, band_off, index)
        if not self.big and int((receipt.offsets + receipt.sizes).max()) >= CLASSIC_NBYTES:
            raise RasterWriteError(
                f"{self.target} passes 4 GB, which classic TIFF cannot address; leave bigtiff= out, or give bigtiff=True"
            )
        return receipt

    def write_index(self, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Fill in the two tile arrays."""
        layout = self._layout()
        for arrays, values in ((layout.offsets, offsets), (layout.byte_counts, sizes)):
            self.started.patch(arrays[0].position, arrays[0].encode(values))

    def _layout(self) -> tiff.Layout:
        big, (directory,) = tiff.parse(_template(self.metadata, self._creation_options()))
        nodata = self.metadata.bands[0].nodata
        if nodata is not None:
            # rasterio passes nodata as a double: 64-bit integers would lose digits.
            directory[tiff.GDAL_NODATA] = tiff.Tag.ascii(_nodata_text(nodata))
        # Our JPEG tiles carry their own tables.
        directory.pop(tiff.JPEG_TABLES, None)
        return tiff.lay_out([directory], big=big)

    def _creation_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "tiled": True,
            "blockxsize": self.tiles.tile_yx[1],
            "blockysize": self.tiles.tile_yx[0],
            "interleave": "band" if self.tiles.band_interleaved else "pixel",
            "bigtiff": "YES" if self.big else "NO",
        }
        compress = self.codec.compress
        if compress != "none":
            options["compress"] = GDAL_COMPRESSION.get(compress, compress.upper())
        if compress in PREDICTABLE:
            options["predictor"] = self.codec.predictor
        if compress.startswith("lerc"):
            options["max_z_error"] = self.codec.max_error
        if compress == "jpeg":
            options["photometric"] = "YCBCR" if self.codec.ycbcr else "MINISBLACK"
        if compress == "webp" and self.codec.quality is None:
            options["webp_lossless"] = True
        return options


def geotiff_sink(target: Path, metadata: RasterMetadata, options: WriteOptions) -> GeoTiffSink:
    """A sink for one GeoTIFF, with every wish checked against what the format can hold.

    Raises
    ------
    OptionError
        The options clash with the dtype, the band count or each other, or GDAL refuses them.
    RasterWriteError
        The folder is missing or cannot be written to.
    """
    tile_yx = _tile_yx(metadata, options)
    _check_codec(metadata, options)
    _check_nodata(metadata)
    sink = GeoTiffSink(
        target=writable_target(target),
        metadata=metadata,
        codec=TileCodec(
            compress=options.compress,
            predictor=_predictor(metadata, options),
            level=options.level,
            quality=options.quality,
            max_error=options.max_error,
            ycbcr=options.compress == "jpeg" and options.interleave == "pixel" and metadata.shape[0] == 3,
        ),
        tiles=TileArray(shape=metadata.shape, tile_yx=tile_yx, band_interleaved=options.interleave == "band"),
        big=False,
    )
    padded_nbytes = sink.tiles.count * sink.tiles.pixels_per_tile * metadata.dtype.itemsize
    sink = dataclasses.replace(sink, big=_is_big(padded_nbytes, options, target))
    probe = dataclasses.replace(sink, metadata=_first_tile(metadata, tile_yx))
    try:
        probe._layout()
    except RasterioError as error:
        raise OptionError(
            f"GDAL cannot make {target} with {options.compress}, {metadata.dtype}, {metadata.shape[0]} bands: {error}"
        ) from error
    return sink


def _tile_yx(metadata: RasterMetadata, options: WriteOptions) -> tuple[int, int]:
    if options.tile_yx is not None:
        if any(size % 16 for size in options.tile_yx):
            raise OptionError(
                f"blocksize={options.blocksize} does not fit GeoTIFF, whose tiles are multiples of 16 pixels"
            )
        return options.tile_yx
    rows, cols = (min(DEFAULT_TILE, round_up(size, 16)) for size in metadata.grid.shape_yx)
    return rows, cols


def _check_codec(metadata: RasterMetadata, options: WriteOptions) -> None:
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


def _predictor(metadata: RasterMetadata, options: WriteOptions) -> int:
    if options.predictor is not None:
        return options.predictor
    if options.compress not in PREDICTABLE:
        return 1
    return 3 if metadata.dtype.kind == "f" else 2


def _check_nodata(metadata: RasterMetadata) -> None:
    values = {_nodata_text(band.nodata) for band in metadata.bands if band.nodata is not None}
    if len(values) > 1 or (values and any(band.nodata is None for band in metadata.bands)):
        listed = ", ".join(f"band {number}: {band.nodata}" for number, band in enumerate(metadata.bands, 1))
        raise OptionError(f"GeoTIFF holds one nodata value for all bands, the raster has {listed}; give nodata=")


def _is_big(nbytes: int, options: WriteOptions, target: Path) -> bool:
    """Whether the file is a BigTIFF; ``nbytes``: of all tiles, padded to full size."""
    if options.bigtiff is not None:
        if not options.bigtiff and options.compress == "none" and nbytes >= CLASSIC_NBYTES:
            raise OptionError(
                f"bigtiff=False: {target} would have {nbytes} bytes, classic TIFF ends at 4 GB; leave bigtiff= out"
            )
        return options.bigtiff
    return nbytes >= BIGTIFF_FROM_NBYTES


def _first_tile(metadata: RasterMetadata, tile_yx: tuple[int, int]) -> RasterMetadata:
    """The same raster, one tile large: enough to ask GDAL whether it takes the options."""
    return dataclasses.replace(metadata, grid=metadata.grid.window_grid(Window(0, 0, *tile_yx)))


def _nodata_text(nodata: Number) -> str:
    return str(nodata) if isinstance(nodata, int) else f"{nodata:.17g}"


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
        dataset.update_tags(**metadata.tags)
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
        if band.tags:
            dataset.update_tags(number, **band.tags)
        if band.colormap:
            dataset.write_colormap(number, dict(band.colormap))
    if metadata.gcps and not metadata.has_transform:
        points = [
            GroundControlPoint(row=row, col=col, x=x, y=y, z=z, id=name, info=info)
            for name, info, col, row, x, y, z in metadata.gcps
        ]
        dataset.gcps = (points, rasterio.CRS.from_wkt(metadata.gcp_wkt) if metadata.gcp_wkt else rasterio.CRS())
