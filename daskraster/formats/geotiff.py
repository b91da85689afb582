"""GeoTIFF as a Sink: GDAL makes the header, workers make the tiles.

Strategy. GDAL writes a sparse GeoTIFF of the right size into memory: every tag in it is GDAL's, no pixel is. Its directory is laid
out as the header of the partial file. Workers encode tiles and append them wherever there is room; at the end the two arrays of tile
offsets and byte counts are filled in and the file gets its name. So no tile is encoded twice, no lock of GDAL is held, and no
other library decides what a GeoTIFF tag means. Each overview level has a directory that GDAL made for a raster of its size.

Statistics are known at the end only, when tiles stand behind the header. So it is laid out with the longest possible ones and laid
out again with the real ones, filled up with blanks.

A cloud-optimised file (COG) has the same header. Its readers ask that the first tile of each level lies behind that of the next
smaller level; so the first tile of each overview is held back and written in front of all others at the end, the other tiles of
overviews go into a room before the tiles of full resolution, and what is left of that room is given back. No order of the blocks is needed. ::

    header | first tile of 8, of 4, of 2 | other tiles of overviews | tiles of full resolution
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from daskraster.blocks.codecs import TileCodec
from daskraster.blocks.results import BandStatistics, metadata_items
from daskraster.blocks.tiling import TileArray, overview_levels
from daskraster.errors import OptionError, RasterWriteError
from daskraster.files import writable_target
from daskraster.formats import tiff
from daskraster.formats.gdal_handles import quiet_gdal
from daskraster.formats.protocols import Receipt
from daskraster.formats.tiles import TileSink
from daskraster.grid import Grid, Window, round_up
from daskraster.metadata import BandMetadata, Number, RasterMetadata, without_derived
from daskraster.options import PREDICTABLE, WriteOptions
from daskraster.positioned import Buffer

DEFAULT_TILE = 512
CLASSIC_NBYTES = 2**32  # classic TIFF has 32-bit addresses
# Codecs may make noise larger than it was (LZW by up to half), and overviews add a third: BigTIFF well before either can matter.
BIGTIFF_FROM_NBYTES = CLASSIC_NBYTES // 2
GDAL_COMPRESSION = {"packbits": "PACKBITS", "lerc_deflate": "LERC_DEFLATE", "lerc_zstd": "LERC_ZSTD"}
LAYER_TYPE = "LAYER_TYPE"  # the item by which GDAL's other formats say that pixels are classes
REDUCED_RESOLUTION = (1).to_bytes(4, "little")  # NewSubfileType of an overview
EMPTY_METADATA = b"<GDALMetadata></GDALMetadata>\0"
# No float64 and no 64-bit integer has a longer text than -2.2250738585072014e-308.
LONGEST_STATISTICS = {
    f"STATISTICS_{name}": "9" * 24 for name in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV", "VALID_PERCENT")
}
TILE_SPARE_NBYTES = 1 << 16  # what headers of a codec may add to a tile, well above any of them
LERC_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoTiffSink(TileSink):
    """One GeoTIFF to be written; see `daskraster.formats.protocols.Sink` for what may run where."""

    big: bool
    cloud: bool = False
    """Whether the file is to be a COG."""

    @property
    def driver(self) -> str:
        """GDAL's name of the format."""
        return "COG" if self.cloud else "GTiff"

    def header(self) -> bytes:
        """The TIFF directories, their tile arrays still empty."""
        return self._layout().header

    def room_in_front(self) -> tuple[int, int]:
        """Of a COG: for the first tile of each overview however large it may get, and for what its overviews are likely to take."""
        stored = [level for level in self.overviews if level.stored]
        if not self.cloud or not stored:
            return 0, 0
        itemsize = self.metadata.dtype.itemsize
        front = sum(2 * level.pixels_per_tile * itemsize + TILE_SPARE_NBYTES for level in stored)
        raw = sum(level.shape[1] * level.shape[2] for level in stored) * self.metadata.shape[0] * itemsize
        return front, raw if self.codec.compress == "none" else raw // 2

    def is_held(self, number: int, level: int) -> bool:
        """The first tile of each overview of a COG."""
        return self.cloud and level > 0 and number == 0

    def encode(self, values: NDArray[Any]) -> Buffer:
        """The bytes of one tile."""
        return self.codec.encode(values)

    def put(
        self, block: NDArray[Any], window: Window, band_off: int, index: tuple[int, int, int], level: int = 0
    ) -> Receipt:
        """Encode and write the tiles of one block; see `Sink.put`.

        Raises
        ------
        RasterWriteError
            As `Sink.put`, or the file passes what classic TIFF can address.
        """
        receipt = TileSink.put(self, block, window, band_off, index, level)
        if not self.big and int((receipt.offsets + receipt.sizes).max(initial=0)) >= CLASSIC_NBYTES:
            raise RasterWriteError(
                f"{self.target} passes 4 GB, which classic TIFF cannot address; leave bigtiff= out, or give bigtiff=True"
            )
        return receipt

    def write_index(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], statistics: Sequence[BandStatistics]
    ) -> None:
        """Fill in the tile arrays, and the statistics.

        Raises
        ------
        RuntimeError
            The header has room for another number of tiles than there are.
        OverflowError
            An offset does not fit the header's entries.
        """
        layout = self._layout(statistics)
        header = bytearray(layout.header)
        first = 0
        for at, counts in zip(layout.offsets, layout.byte_counts, strict=True):
            part = slice(first, first + at.count)
            for array, values in ((at, offsets[part]), (counts, sizes[part])):
                content = array.encode(values)
                header[array.position : array.position + len(content)] = content
            first += at.count
        if first != len(offsets):
            raise RuntimeError(f"the header has room for {first} tiles, there are {len(offsets)}")
        self.started.patch(0, bytes(header))

    def check(self) -> str:
        """What GDAL reads from the header otherwise than was asked; see `TileSink.check`."""
        stored = [level for level in self.levels if level.stored]
        due = [(self.metadata.shape[0], *level.shape[1:], level.tile_yx, str(self.metadata.dtype)) for level in stored]
        with quiet_gdal():
            try:
                found = _levels_found(self.started.path)
            except RasterioError as error:
                return f"GDAL cannot open it: {error}"
        return "" if found == due else f"GDAL finds (bands, rows, columns, tile, dtype) {found}; due were {due}"

    def _layout(self, statistics: Sequence[BandStatistics] | None = None) -> tiff.Layout:
        """The header with these statistics, as long as with any others; None: with the longest ones possible."""
        big, full = self._directory(self._described([LONGEST_STATISTICS] * self.metadata.shape[0]), self.tiles.tile_yx)
        if statistics is not None and self.statistics:
            _, described = self._directory(
                self._described([metadata_items(band) for band in statistics]), self.tiles.tile_yx
            )
            full[tiff.GDAL_METADATA] = _filled_up(described.get(tiff.GDAL_METADATA), full[tiff.GDAL_METADATA])
        directories = [full]
        for level in self.overviews:
            if level.stored:
                _, directory = self._directory(_overview_metadata(self.metadata, level), level.tile_yx)
                directory[tiff.NEW_SUBFILE_TYPE] = tiff.Tag(tiff.LONG, 1, REDUCED_RESOLUTION)
                directory.pop(tiff.GDAL_METADATA, None)
                directories.append(directory)
        return tiff.lay_out(directories, big=big)

    def _described(self, items: Sequence[Mapping[str, str]]) -> RasterMetadata:
        """What the file is to say, with these statistics of each band, where there are any."""
        if not self.statistics:
            return self.metadata
        bands = [
            dataclasses.replace(band, tags={**without_derived(band.tags), **new})
            for band, new in zip(self.metadata.bands, items, strict=True)
        ]
        return dataclasses.replace(self.metadata, bands=bands)

    def _directory(self, metadata: RasterMetadata, tile_yx: tuple[int, int]) -> tuple[bool, tiff.Directory]:
        """GDAL's directory for a raster, and whether it is a BigTIFF."""
        big, (directory,) = tiff.parse(_template(metadata, self._creation_options(tile_yx)))
        nodata = metadata.bands[0].nodata
        if nodata is not None:
            # rasterio passes nodata as a double: 64-bit integers would lose digits.
            directory[tiff.GDAL_NODATA] = tiff.Tag.ascii(_nodata_text(nodata))
        # Our JPEG tiles carry their own tables.
        directory.pop(tiff.JPEG_TABLES, None)
        return big, directory

    def _creation_options(self, tile_yx: tuple[int, int]) -> dict[str, Any]:
        options: dict[str, Any] = {
            "tiled": True,
            "blockxsize": tile_yx[1],
            "blockysize": tile_yx[0],
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


def geotiff_sink(target: Path, metadata: RasterMetadata, options: WriteOptions, *, cloud: bool = False) -> GeoTiffSink:
    """A sink for one GeoTIFF, or COG, with every wish checked against what the format can hold.

    Raises
    ------
    OptionError
        The options clash with the dtype, the band count or each other, or GDAL refuses them.
    RasterWriteError
        The folder is missing or cannot be written to.
    """
    tile_yx = _tile_yx(metadata, options)
    if cloud and options.tile_yx is None:
        tile_yx = _cloud_tile(metadata.grid.shape_yx, tile_yx)
    _check_codec(metadata, options)
    _check_nodata(metadata)
    tiles = TileArray(shape=metadata.shape, tile_yx=tile_yx, band_interleaved=options.interleave == "band")
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
        tiles=tiles,
        overviews=overview_levels(
            tiles,
            options.overviews,
            partial_cells=True,
            tile_of=lambda shape_yx: _cloud_tile(shape_yx, tile_yx) if cloud else tile_yx,
        ),
        statistics=options.statistics,
        big=False,
        cloud=cloud,
    )
    padded_nbytes = tiles.count * tiles.pixels_per_tile * metadata.dtype.itemsize
    sink = dataclasses.replace(sink, big=_is_big(padded_nbytes, options, target))
    probe = dataclasses.replace(sink, metadata=_first_tile(metadata, tile_yx), overviews=())
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


def _cloud_tile(shape_yx: tuple[int, int], tile_yx: tuple[int, int]) -> tuple[int, int]:
    """The tile of a level of a COG: rio-cogeo takes a level above 512 pixels for one of strips where a tile is exactly as wide as it."""
    rows, cols = tile_yx
    if shape_yx[1] != cols or max(shape_yx) <= 512:
        return tile_yx
    return rows, cols // 2 if cols % 32 == 0 else 2 * cols


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


def _overview_metadata(metadata: RasterMetadata, level: TileArray) -> RasterMetadata:
    """What an overview's directory says: how its pixels are to be read, not where they lie on the Earth."""
    bands = [BandMetadata(nodata=band.nodata, color=band.color, colormap=band.colormap) for band in metadata.bands]
    return RasterMetadata(
        grid=Grid(None, Affine.identity(), (level.shape[1], level.shape[2])),
        dtype=metadata.dtype,
        bands=bands,
        has_transform=False,
    )


def _levels_found(path: Path) -> list[tuple[Any, ...]]:
    """Bands, rows, columns, tile and dtype of each level that GDAL finds."""
    found: list[tuple[Any, ...]] = []
    levels: list[int | None] = [None]
    for level in levels:
        with rasterio.open(path, driver="GTiff", **({} if level is None else {"overview_level": level})) as dataset:
            found.append((dataset.count, *dataset.shape, dataset.block_shapes[0], dataset.dtypes[0]))
            if level is None:
                levels += range(len(dataset.overviews(1)))
    return found


def _filled_up(items: tiff.Tag | None, longest: tiff.Tag) -> tiff.Tag:
    """GDAL's metadata with blanks before its end, as long as ``longest``."""
    raw = EMPTY_METADATA if items is None else items.raw
    end = raw.rindex(b"</GDALMetadata>")
    return tiff.Tag(tiff.ASCII, longest.count, raw[:end] + b" " * (longest.count - len(raw)) + raw[end:])


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
        tags = {key: text for key, text in band.tags.items() if key != LAYER_TYPE}
        if band.thematic:
            tags[LAYER_TYPE] = "thematic"
        if tags:
            dataset.update_tags(number, **tags)
        if band.colormap:
            dataset.write_colormap(number, dict(band.colormap))
    if metadata.gcps and not metadata.has_transform:
        points = [
            GroundControlPoint(row=row, col=col, x=x, y=y, z=z, id=name, info=info)
            for name, info, col, row, x, y, z in metadata.gcps
        ]
        dataset.gcps = (points, rasterio.CRS.from_wkt(metadata.gcp_wkt) if metadata.gcp_wkt else rasterio.CRS())
