"""KEA as a Sink: h5py makes everything but the pixels, workers make the chunks, the list of chunks comes last.

Strategy. As GeoTIFF: a file without pixels is made in memory and becomes the first bytes of the partial file, workers append chunks, and the
index is written at the end (see `daskraster.formats.kea_index`). HDF5 never sees a pixel, so neither its lock nor its one
writer matter, and a run that is killed leaves nothing that looks like a file.
"""

from __future__ import annotations

import dataclasses
import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from daskraster.blocks.codecs import TileCodec
from daskraster.blocks.results import BandStatistics
from daskraster.blocks.scratch import Scratch
from daskraster.blocks.shuffle import shuffle
from daskraster.blocks.tiling import TileArray, overview_levels
from daskraster.blocks.validity import Validity
from daskraster.errors import OptionError, RasterFormatError
from daskraster.files import Leftover, writable_target
from daskraster.formats.attribute_tables import asked_tables, with_labels
from daskraster.formats.hdf5 import VLEN_TEXT, h5py
from daskraster.formats.kea_columns import KINDS
from daskraster.formats.kea_index import END_OF_FILE_POSITION, NODE_ALIGN, chunk_tree, root_positions
from daskraster.formats.kea_layout import (
    COLORS,
    OFFSET_ITEM,
    PIXEL_TYPES,
    SCALE_ITEM,
    UNITS_ITEM,
    WRITTEN_VERSION,
    band_item,
    open_kea,
)
from daskraster.formats.kea_statistics import store_statistics
from daskraster.formats.kea_tables import CHUNK_ROWS, check_table, store_table
from daskraster.formats.kea_texts import write_text, write_texts
from daskraster.formats.memo import Memo
from daskraster.formats.tiles import TileSink
from daskraster.metadata import BandMetadata, RasterMetadata, without_derived
from daskraster.options import WriteOptions
from daskraster.positioned import Buffer

DEFAULT_BLOCK = 512  # kealib's since 1.6
LEVEL = 1  # kealib's, and what our own encoder is nearest to
GCP = np.dtype(
    [("PSZ_ID", VLEN_TEXT), ("PSZ_INFO", VLEN_TEXT)]
    + [(f"DF_{name}", "<f8") for name in ("PIXEL", "LINE", "X", "Y", "Z")]
)
_scratch = Scratch()

# A run asks for its header twice, and each takes 3.3 ms for one band, of which it has 24 KB: 1 MB at most.
_headers: Memo[bytes] = Memo(most=4, most_nbytes=1 << 18)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeaSink(TileSink):
    """One KEA file to be written; see `daskraster.formats.protocols.Sink` for what may run where."""

    tables: Mapping[int, pd.DataFrame] = dataclasses.field(default_factory=dict)
    """Attribute table of each band that has one, from 1; in the header once started, and no longer here."""

    @property
    def driver(self) -> str:
        """GDAL's name of the format."""
        return "KEA"

    @property
    def items(self) -> list[str]:
        """Paths of the datasets that chunks belong to, in the order of the chunks' numbers."""
        names = ["DATA", *(f"OVERVIEWS/OVERVIEW{number}" for number in range(1, len(self.stored)))]
        names += ["MASK"] * len(self.masks)
        return [band_item(band, name) for name in names for band in range(1, self.tiles.shape[0] + 1)]

    @property
    def stored(self) -> list[TileArray]:
        """The levels that are in the file."""
        return [level for level in self.levels if level.stored]

    @property
    def partial_cells(self) -> bool:
        """KEA's drivers round sizes of overviews down."""
        return False

    def start(self, *, many_processes: bool, leftover: Leftover | None = None) -> KeaSink:
        """A sink with its partial file; see `Sink.start`."""
        # Tables are in the header now; a started sink travels with every task.
        return dataclasses.replace(TileSink.start(self, many_processes=many_processes, leftover=leftover), tables={})

    def header(self) -> bytes:
        """The HDF5 file without chunks."""
        if self.tables:
            return self._header()
        told = (self.metadata, self.tiles, self.overviews, self.masks, self.statistics, self.codec)
        return _headers.of(told, self._header)

    def _header(self) -> bytes:
        # A name of its own: HDF5 takes two files in memory with one name for the same file.
        with h5py.File(uuid.uuid4().hex, "w", driver="core", backing_store=False, libver=("earliest", "v110")) as file:
            _write_header(file, self.metadata)
            for number, band in enumerate(self.metadata.bands, 1):
                _write_band(file.create_group(f"BAND{number}"), band, number, self)
            file.flush()
            return bytes(file.id.get_file_image())

    def encode(self, values: NDArray[Any]) -> Buffer:
        """The bytes of one chunk."""
        if self.codec.compress == "none" or values.itemsize == 1:
            return self.codec.encode(values)
        planes = _scratch.of(values.nbytes).reshape(values.itemsize, *values.shape)
        shuffle(values.astype(values.dtype.newbyteorder("<"), copy=False), planes)
        return self.codec.encode(planes)

    def encode_mask(self, valid: NDArray[np.bool_]) -> Buffer:
        """The bytes of one chunk of a mask: 255 where a pixel is valid."""
        return self.codec.encode(valid * np.uint8(255))

    def write_index(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], statistics: Sequence[BandStatistics]
    ) -> None:
        """Append the trees, tell the datasets and the superblock; then HDF5 adds what is only known at the end."""
        partial = self.started
        positions = iter(root_positions(partial.read(0, partial.start), self.items))
        end = partial.append_tail(b"", align=NODE_ALIGN)
        trees: list[bytes] = []
        first = 0
        for level in (*self.stored, *self.masks):
            rows, cols = level.counts_yx
            block = level.tile_yx[0]
            row_col = np.stack(np.divmod(np.arange(level.per_band), cols), axis=1) * block
            for _ in range(level.shape[0]):
                part = slice(first, first + level.per_band)
                root, tree = chunk_tree(
                    row_col, offsets[part], sizes[part], stop_yx=(rows * block, cols * block), begin=end
                )
                partial.patch(next(positions), struct.pack("<Q", root))
                trees.append(tree)
                end += len(tree)
                first += level.per_band
        partial.append_tail(b"".join(trees), align=NODE_ALIGN)
        partial.patch(END_OF_FILE_POSITION, struct.pack("<Q", end))
        if statistics:
            store_statistics(partial.path, statistics, self.metadata.bands)

    def check(self) -> str:
        """What HDF5 reads from the file otherwise than was asked; see `TileSink.check`."""
        bands = range(1, self.tiles.shape[0] + 1)
        due = [(level.shape[1:], self.metadata.dtype) for level in self.stored for _ in bands]
        due += [(mask.shape[1:], np.dtype(np.uint8)) for mask in self.masks for _ in bands]
        try:
            with open_kea(str(self.started.path)) as kea:
                found = [(dataset.shape, dataset.dtype) for dataset in map(kea.dataset, self.items)]
                levels = {len(kea.group(band_item(band, "OVERVIEWS"))) for band in bands}
                count = int(kea.numbers("HEADER/NUMBANDS", 1)[0])
        except RasterFormatError as error:
            return str(error)
        if found != due or levels != {len(self.stored) - 1} or count != len(bands):
            return f"HDF5 finds {count} bands, {levels} overviews, {found}; due were {len(bands)} bands, {due}"
        return ""


def kea_sink(
    target: Path, metadata: RasterMetadata, options: WriteOptions, validity: Validity | None = None
) -> KeaSink:
    """A sink for one KEA file, with every wish checked against what the format can hold; with ``validity`` it gets masks.

    Raises
    ------
    OptionError
        The options clash with KEA or the raster.
    RasterWriteError
        The folder is missing or cannot be written to.
    """
    _check_options(options)
    block = _block(metadata, options)
    tiles = TileArray(shape=metadata.shape, tile_yx=(block, block), band_interleaved=True)
    sink = KeaSink(
        target=writable_target(target),
        metadata=metadata,
        codec=TileCodec(compress=options.compress, level=options.level),
        tiles=tiles,
        overviews=overview_levels(
            tiles, options.overviews, partial_cells=False, tile_of=lambda shape_yx: (min(block, *shape_yx),) * 2
        ),
        statistics=options.statistics,
        tables=with_labels(asked_tables(metadata, options), metadata, options),
        validity=validity,
        masks=() if validity is None else (tiles,),
    )
    # Whether it can be written shows before anything is computed.
    for table in sink.tables.values():
        check_table(table)
    return sink


def _check_options(options: WriteOptions) -> None:
    if options.compress not in ("deflate", "none"):
        raise OptionError(f"compress={options.compress!r} is not possible in KEA; possible are 'deflate' and 'none'")
    if options.predictor not in (None, 1):
        raise OptionError(
            f"predictor={options.predictor} is not possible in KEA, which shuffles bytes instead; leave it out"
        )
    if options.sidecar:
        raise OptionError("sidecar= goes with GeoTIFF and COG; KEA holds everything itself, leave it out")
    if options.bigtiff is not None:
        raise OptionError("bigtiff= goes with GeoTIFF, not with KEA; leave it out")


def _block(metadata: RasterMetadata, options: WriteOptions) -> int:
    """KEA's blocks are square and no larger than the raster's smaller side."""
    rows, cols = options.tile_yx or (DEFAULT_BLOCK, DEFAULT_BLOCK)
    if rows != cols:
        raise OptionError(f"blocksize={options.blocksize!r} does not fit KEA, whose blocks are square; give one number")
    # BLOCK_SIZE has 16 bits and a chunk at most 4 GB: more than any blocksize= may be.
    return min(rows, *metadata.grid.shape_yx)


def _write_header(file: h5py.File, metadata: RasterMetadata) -> None:
    bands, rows, cols = metadata.shape
    left, x_step, x_rotation, top, y_rotation, y_step = metadata.grid.transform.to_gdal()
    header = file.create_group("HEADER")
    write_text(header, "FILETYPE", "KEA")
    write_text(header, "GENERATOR", "LibKEA")
    write_text(header, "VERSION", WRITTEN_VERSION)
    _numbers(header, "NUMBANDS", [bands], "<u2")
    _numbers(header, "SIZE", [cols, rows], "<u8")
    _numbers(header, "TL", [left, top], "<f8")
    _numbers(header, "RES", [x_step, y_step], "<f8")
    _numbers(header, "ROT", [x_rotation, y_rotation], "<f8")
    write_text(header, "WKT", _wkt(metadata.grid.crs))
    write_texts(file.create_group("METADATA"), metadata.tags)
    _write_gcps(file.create_group("GCPS"), metadata)


def _wkt(crs: pyproj.CRS | None) -> str:
    """WKT 1 as GDAL writes it, which every kealib's programs read; WKT 2 for what WKT 1 cannot say."""
    if crs is None:
        return ""
    try:
        return str(crs.to_wkt("WKT1_GDAL", output_axis_rule=True))
    except pyproj.exceptions.CRSError:
        return str(crs.to_wkt())


def _write_gcps(group: h5py.Group, metadata: RasterMetadata) -> None:
    if not metadata.gcps:
        return
    points = [(name.encode(), info.encode(), *numbers) for name, info, *numbers in metadata.gcps]
    group.create_dataset(
        "GCPS", data=np.array(points, GCP), maxshape=(None,), chunks=(len(points),),
        shuffle=True, compression="gzip", compression_opts=LEVEL,
    )  # fmt: skip
    _numbers(group, "NUM_GCPS", [len(points)], "<u4")
    write_text(group, "PROJ", _wkt(pyproj.CRS.from_wkt(metadata.gcp_wkt) if metadata.gcp_wkt else None))


def _write_band(group: h5py.Group, band: BandMetadata, number: int, sink: KeaSink) -> None:
    dtype = sink.metadata.dtype.newbyteorder("<")
    _write_raster(
        group, "DATA", sink.metadata.grid.shape_yx, dtype, sink, fill=0 if band.nodata is None else band.nodata
    )
    _numbers(group, "DATATYPE", [PIXEL_TYPES.index(dtype) + 1], "<u2")
    write_text(group, "DESCRIPTION", band.name or f"Band {number}")
    _numbers(group, "LAYER_TYPE", [int(band.thematic)], "<u1")
    _numbers(group, "LAYER_USAGE", [COLORS.index(band.color) if band.color in COLORS else 0], "<u1")
    if band.nodata is not None:
        _numbers(group, "NO_DATA_VAL", [band.nodata], dtype)
        group["NO_DATA_VAL"].attrs.create("NO_DATA_DEFINED", 1, dtype="<i1")
    tags = without_derived(band.tags) if sink.statistics else band.tags
    write_texts(group.create_group("METADATA"), {**tags, **_scale_items(band)})
    if sink.masks:
        # Without a chunk it would say that all is valid, and without this item that there is no mask.
        _write_raster(group, "MASK", sink.metadata.grid.shape_yx, np.dtype(np.uint8), sink, fill=255)
        del group["MASK"].attrs["BLOCK_SIZE"]
    overviews = group.create_group("OVERVIEWS")
    for index, level in enumerate(sink.stored[1:], 1):
        # HDF5's fill value shows in no pixel, since every chunk is there; kealib sets 0.
        _write_raster(overviews, f"OVERVIEW{index}", (level.shape[1], level.shape[2]), dtype, sink, fill=0)
    for name in ("ATT", "ATT/DATA", "ATT/NEIGHBOURS", "ATT/HEADER"):
        group.create_group(name)
    if number in sink.tables:
        store_table(group["ATT"], sink.tables[number])
    else:
        _numbers(group, "ATT/HEADER/CHUNKSIZE", [CHUNK_ROWS], "<u8")
        _numbers(group, "ATT/HEADER/SIZE", [0] * (1 + len(KINDS)), "<u8")


def _scale_items(band: BandMetadata) -> dict[str, str]:
    items = {SCALE_ITEM: (band.scale, 1.0), OFFSET_ITEM: (band.offset, 0.0), UNITS_ITEM: (band.units or "", "")}
    return {name: str(value) for name, (value, neutral) in items.items() if value != neutral}


def _write_raster(
    group: h5py.Group, name: str, shape_yx: tuple[int, int], dtype: np.dtype[Any], sink: KeaSink, *, fill: float
) -> None:
    """A dataset of pixels without chunks, with the attributes that kealib looks for."""
    block = min(sink.tiles.tile_yx[0], *shape_yx)
    filters: dict[str, Any] = {}
    if sink.codec.compress != "none":
        # The level tells nothing to a reader; HDF5 knows 0 to 9.
        filters = {"shuffle": True, "compression": "gzip", "compression_opts": min(sink.codec.level or LEVEL, 9)}
    dataset = group.create_dataset(name, shape_yx, dtype, chunks=(block, block), fillvalue=fill, **filters)
    for key, text in (("CLASS", b"IMAGE"), ("IMAGE_VERSION", b"1.2")):
        fixed = h5py.h5t.C_S1.copy()
        fixed.set_size(len(text) + 1)
        fixed.set_strpad(h5py.h5t.STR_NULLTERM)
        attribute = h5py.h5a.create(dataset.id, key.encode(), fixed, h5py.h5s.create(h5py.h5s.SCALAR))
        attribute.write(np.array(text, dtype=f"S{len(text) + 1}"), mtype=fixed)
    dataset.attrs.create("BLOCK_SIZE", block, dtype="<u2")


def _numbers(group: h5py.Group, name: str, values: list[Any], dtype: Any) -> None:
    group.create_dataset(name, data=np.array(values, dtype=dtype))
