"""GeoTIFF as a Sink: GDAL makes the header, workers make the tiles.

Strategy. GDAL writes a sparse GeoTIFF of the right size into memory: every tag in it is GDAL's, no pixel is. Its directory is laid
out as the header of the partial file. Workers encode tiles and append them wherever there is room; at the end the two arrays of tile
offsets and byte counts are filled in and the file gets its name. So no tile is encoded twice, no lock of GDAL is held, and no
other library decides what a GeoTIFF tag means. Each overview level has a directory that GDAL made for a raster of its size.

Statistics are known at the end only, when tiles stand behind the header. So it is laid out with the longest possible ones and laid
out again with the real ones, filled up with blanks.

Masks, where they are wanted, have a directory for each level, and tiles of their own, which the worker of a block makes with the others.

A cloud-optimised file (COG) has the same header. Its readers ask that the first tile of each level lies behind that of the next
smaller level; so the first tile of each overview is held back and written in front of all others at the end, the other tiles of
overviews go into a room before the tiles of full resolution, and what is left of that room is given back. No order of the blocks is needed. ::

    header | first tile of 8, of 4, of 2 | other tiles of overviews | tiles of full resolution

GDAL reads some faster whose tiles lie in order, row by row, the smallest level first, each mask tile behind the tile it masks, each tile between its
size and a copy of its last bytes; such a file says so between its header and its directories, and GDAL then calls its layout
``COG``. Blocks come in no order, so that needs all encoded tiles at the end, in one process: it is done for rasters of up to 32 MiB of
pixels that one process writes. It costs those no parallelism, and no more memory than a file's encoded tiles. Larger ones would
need tiles kept back until their row of blocks is complete, and room in front of a size that nobody knows, or a second copy; they make no claim.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from daskraster.blocks.codecs import ISAL_LEVEL, TileCodec
from daskraster.blocks.results import BandStatistics, metadata_items
from daskraster.blocks.tiling import TileArray, overview_levels
from daskraster.blocks.validity import Validity
from daskraster.errors import OptionError, RasterWriteError
from daskraster.files import Leftover, writable_target
from daskraster.formats import tiff
from daskraster.formats.cog_order import LEADER_NBYTES, TRAILER_NBYTES, ghost, in_order
from daskraster.formats.gdal_handles import quiet_gdal
from daskraster.formats.geotiff_checks import (
    CLASSIC_NBYTES,
    check_codec,
    check_gcps,
    check_nodata,
    cloud_tile,
    default_predictor,
    is_big,
    sidecar_tables,
    tile_size,
)
from daskraster.formats.geotiff_directories import (
    directory_of,
    filled_up,
    first_tile,
    mask_directory,
    overview_directory,
)
from daskraster.formats.protocols import Receipt
from daskraster.formats.sidecars import SUFFIX, document, with_histograms
from daskraster.formats.tiles import TileSink
from daskraster.grid import Window
from daskraster.metadata import RasterMetadata, without_derived
from daskraster.options import WriteOptions
from daskraster.positioned import Buffer, sync_folder

# No float64 and no 64-bit integer has a longer text than -2.2250738585072014e-308.
LONGEST_STATISTICS = {
    f"STATISTICS_{name}": "9" * 24 for name in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV", "VALID_PERCENT")
}
TILE_SPARE_NBYTES = 1 << 16  # what headers of a codec may add to a tile, well above any of them
# Pixels of a COG whose encoded tiles are all kept in memory until they can be written in order. Peak memory of 4096 x 4096 uint16 on two
# threads: 206 MB in no order; in order 235 MB with a scene, 248 MB with noise. As fast; a large COG, in no order, peaks at 252 MB.
ORDERED_NBYTES = 32 << 20
IN_ORDER = "in order"  # the layout, as a journal has it
TILES_AT_ONCE = 256  # three buffers each, in one system call


@dataclass(frozen=True, slots=True, kw_only=True)
class GeoTiffSink(TileSink):
    """One GeoTIFF to be written; see `daskraster.formats.protocols.Sink` for what may run where."""

    big: bool
    cloud: bool = False
    """Whether the file is to be a COG."""
    sidecar: bool = False
    """Whether a file ``.aux.xml`` is wanted beside it."""
    tables: Mapping[int, pd.DataFrame] = field(default_factory=dict)
    """Attribute table of each band that has one, from 1, for the sidecar."""
    ordered: bool = False
    """Whether its tiles are to lie in order, and it says so."""

    @property
    def driver(self) -> str:
        """GDAL's name of the format."""
        return "COG" if self.cloud else "GTiff"

    def start(self, *, many_processes: bool, leftover: Leftover | None = None) -> GeoTiffSink:
        """A sink with its partial file; see `Sink.start`.

        Raises
        ------
        RasterWriteError
            The file or its sidecar cannot be made.
        """
        # A run that goes on keeps to the layout that the file's header has room for: on a cluster, receipts then bring all tiles here.
        ordered = self._may_be_ordered(many_processes) if leftover is None else leftover.layout == IN_ORDER
        sink = dataclasses.replace(self, ordered=ordered)
        started = TileSink.start(sink, many_processes=many_processes, leftover=leftover)
        try:
            if self.sidecar:
                started._write_sidecar(document(self.metadata.bands, self.tables))
        except BaseException:
            if leftover is None:
                started.discard()
            else:  # finished blocks of an earlier run, which a later one may go on with
                started.started.withdraw()
            raise
        # Tables wait in the sidecar now; a started sink travels with every task.
        return dataclasses.replace(started, tables={})

    def held_nbytes(self, *, many_processes: bool) -> int:
        """Bytes that receipts hold until the end, at most: all tiles where they are to lie in order; see `Sink.held_nbytes`."""
        if self._may_be_ordered(many_processes):
            return self.metadata.nbytes * 3 // 2
        return self.room_in_front()[0]

    def _may_be_ordered(self, many_processes: bool) -> bool:
        return self.cloud and not many_processes and self.metadata.nbytes <= ORDERED_NBYTES

    @property
    def layout(self) -> str:
        """Whether its tiles lie in order; see `Sink.layout`."""
        return IN_ORDER if self.ordered else ""

    def header(self) -> bytes:
        """The TIFF directories, their tile arrays still empty."""
        return self._layout().header

    def room_in_front(self) -> tuple[int, int]:
        """Of a COG: for the first tile of each overview however large it may get, and for what its overviews are likely to take."""
        stored = [level for level in self.overviews if level.stored]
        if not self.cloud or self.ordered or not stored:
            return 0, 0
        itemsize = self.metadata.dtype.itemsize
        front = sum(2 * level.pixels_per_tile * itemsize + TILE_SPARE_NBYTES for level in stored)
        raw = sum(level.shape[1] * level.shape[2] for level in stored) * self.metadata.shape[0] * itemsize
        return front, raw if self.codec.compress == "none" else raw // 2

    def is_held(self, number: int) -> bool:
        """The first tile of each overview of a COG; every tile where they lie in order."""
        return self.ordered or (self.cloud and number in self.first_numbers[1 : len(self.levels)])

    def encode(self, values: NDArray[Any]) -> Buffer:
        """The bytes of one tile."""
        return self.codec.encode(values)

    def encode_mask(self, valid: NDArray[np.bool_]) -> Buffer:
        """The bytes of one tile of a mask: a bit a pixel, 1 where it is valid."""
        encoded: Buffer = imagecodecs.isal_encode(np.packbits(valid, axis=1), level=ISAL_LEVEL)
        return encoded

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
        first = self.first_numbers
        for number, at, counts in zip(self._directories(), layout.offsets, layout.byte_counts, strict=True):
            part = slice(first[number], first[number + 1])
            for array, values in ((at, offsets[part]), (counts, sizes[part])):
                if array.count != len(values):
                    raise RuntimeError(f"the header has room for {array.count} tiles, there are {len(values)}")
                content = array.encode(values)
                header[array.position : array.position + len(content)] = content
        self.started.patch(0, bytes(header))
        if self.sidecar and statistics:
            self._write_sidecar(with_histograms(self._sidecar_path, statistics))

    @property
    def _sidecar_path(self) -> Path:
        """The hidden sidecar of the partial file."""
        return self.started.path.with_name(self.started.path.name + SUFFIX)

    def _write_sidecar(self, content: bytes | None) -> None:
        """Write the hidden sidecar, whole and safe on the disk, where there is anything to say."""
        if content is None:
            return
        try:
            with open(self._sidecar_path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            self._sidecar_path.chmod(self.started.mode)
        except OSError as error:
            raise RasterWriteError(f"cannot write {self.target}{SUFFIX}: {error.strerror or error}") from error

    def publish(self) -> int:
        """Give the file its name, then its sidecar; see `Sink.publish`.

        Raises
        ------
        RasterWriteError
            The last flush or a rename failed.
        """
        hidden = self._sidecar_path
        nbytes = TileSink.publish(self)
        if self.sidecar and hidden.exists():
            try:
                hidden.replace(self.target.with_name(self.target.name + SUFFIX))
            except OSError as error:
                raise RasterWriteError(
                    f"{self.target} is complete, but its sidecar {SUFFIX} cannot be renamed: {error.strerror or error}"
                ) from error
            sync_folder(self.target.parent)
        return nbytes

    def discard(self) -> None:
        """Remove the partial file and its sidecar."""
        try:
            TileSink.discard(self)
        finally:
            if self.partial is not None and self.sidecar:
                self._sidecar_path.unlink(missing_ok=True)

    def close_gaps(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], finished: frozenset[str] | None
    ) -> NDArray[np.int64]:
        """Give back what is unused between the tiles; the new offsets. Nothing is where tiles lie in order."""
        return offsets if self.ordered else TileSink.close_gaps(self, offsets, sizes, finished)

    def write_held(self, held: Mapping[int, bytes], offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Write tiles that were held back: the first ones of overviews into the front, or all of them in order."""
        if not self.ordered:
            TileSink.write_held(self, held, offsets, sizes)
            return
        order = in_order(self.first_numbers, len(self.levels), masked=bool(self.masks), planar=self._planar)
        numbers = [number for number in order if number in held]
        if not numbers:
            return
        sizes[numbers] = [len(held[number]) for number in numbers]
        offsets[numbers] = self.started.rewrite(
            [part for number in some for part in _led_and_trailed(held[number])]
            for some in itertools.batched(numbers, TILES_AT_ONCE)
        )[1::3]

    @property
    def _planar(self) -> bool:
        """Whether bands lie one behind the other."""
        return self.tiles.band_interleaved and self.tiles.shape[0] > 1

    def _directories(self) -> list[int]:
        """Levels and masks in the order of their directories, as GDAL's COG driver has it; numbers of masks follow on levels."""
        count = len(self.levels)
        stored = [number for number in range(1, count) if self.levels[number].stored]
        return [
            0,
            *([count] if self.masks else []),
            *stored,
            *([count + number for number in stored] if self.masks else []),
        ]

    def check(self) -> str:
        """What GDAL reads from the header otherwise than was asked; see `TileSink.check`."""
        stored = [level for level in self.levels if level.stored]
        masked = bool(self.masks)
        due = [
            (self.metadata.shape[0], *level.shape[1:], level.tile_yx, str(self.metadata.dtype), masked)
            for level in stored
        ]
        with quiet_gdal():
            try:
                found = _levels_found(self.started.path)
            except RasterioError as error:
                return f"GDAL cannot open it: {error}"
        return "" if found == due else f"GDAL finds (bands, rows, columns, tile, dtype, mask) {found}; due were {due}"

    def _layout(self, statistics: Sequence[BandStatistics] | None = None) -> tiff.Layout:
        """The header with these statistics, as long as with any others; None: with the longest ones possible."""
        full = self._full_directory([LONGEST_STATISTICS] * self.metadata.shape[0])
        if statistics is not None and self.statistics:
            described = self._full_directory([metadata_items(band) for band in statistics])
            full[tiff.GDAL_METADATA] = filled_up(described.get(tiff.GDAL_METADATA), full[tiff.GDAL_METADATA])
        claim = ghost(masked=bool(self.masks), planar=self._planar) if self.ordered else b""
        directories = [full]
        count = len(self.levels)
        for number in self._directories()[1:]:
            if number < count:
                level = self.levels[number]
                directories.append(overview_directory(self.metadata, self.codec, level, big=self.big))
            else:
                mask = self.masks[number - count]
                directories.append(mask_directory(mask, big=self.big, overview=number > count))
        return tiff.lay_out(directories, big=self.big, ghost=claim)

    def _full_directory(self, items: Sequence[Mapping[str, str]]) -> tiff.Directory:
        """The directory of the full resolution, with these statistics."""
        return directory_of(self._described(items), self.codec, self.tiles, big=self.big)

    def _described(self, items: Sequence[Mapping[str, str]]) -> RasterMetadata:
        """What the file is to say, with these statistics of each band, where there are any."""
        if not self.statistics:
            return self.metadata
        bands = [
            dataclasses.replace(band, tags={**without_derived(band.tags), **new})
            for band, new in zip(self.metadata.bands, items, strict=True)
        ]
        return dataclasses.replace(self.metadata, bands=bands)


def geotiff_sink(
    target: Path,
    metadata: RasterMetadata,
    options: WriteOptions,
    validity: Validity | None = None,
    *,
    cloud: bool = False,
) -> GeoTiffSink:
    """A sink for one GeoTIFF, or COG, with every wish checked against what the format can hold.

    Raises
    ------
    OptionError
        The options clash with the dtype, the band count or each other, or GDAL refuses them.
    RasterWriteError
        The folder is missing or cannot be written to.
    """
    tile_yx = tile_size(metadata, options)
    if cloud and options.tile_yx is None:
        tile_yx = cloud_tile(metadata.grid.shape_yx, tile_yx)
    check_codec(metadata, options)
    check_gcps(target, metadata)
    check_nodata(metadata)
    tiles = TileArray(shape=metadata.shape, tile_yx=tile_yx, band_interleaved=options.interleave == "band")
    sink = GeoTiffSink(
        target=writable_target(target),
        metadata=metadata,
        codec=TileCodec(
            compress=options.compress,
            predictor=default_predictor(metadata, options),
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
            tile_of=lambda shape_yx: cloud_tile(shape_yx, tile_yx) if cloud else tile_yx,
        ),
        statistics=options.statistics,
        big=False,
        cloud=cloud,
    )
    padded_nbytes = tiles.count * tiles.pixels_per_tile * metadata.dtype.itemsize
    sink = dataclasses.replace(sink, big=is_big(padded_nbytes, options, target))
    if validity is not None:
        masks = tuple(dataclasses.replace(level, shape=(1, *level.shape[1:])) for level in sink.levels)
        sink = dataclasses.replace(sink, validity=validity, masks=masks)
    sink = dataclasses.replace(sink, sidecar=options.sidecar, tables=sidecar_tables(target, metadata, options))
    probe = dataclasses.replace(sink, metadata=first_tile(metadata, tile_yx), overviews=(), masks=())
    try:
        probe._layout()
    except RasterioError as error:
        raise OptionError(
            f"GDAL cannot make {target} with {options.compress}, {metadata.dtype}, {metadata.shape[0]} bands: {error}"
        ) from error
    return sink


def _led_and_trailed(content: bytes) -> tuple[bytes, bytes, bytes]:
    return len(content).to_bytes(LEADER_NBYTES, "little"), content, content[-TRAILER_NBYTES:]


def _levels_found(path: Path) -> list[tuple[Any, ...]]:
    """Bands, rows, columns, tile, dtype of each level that GDAL finds, and whether it has a mask."""
    found: list[tuple[Any, ...]] = []
    levels: list[int | None] = [None]
    for level in levels:
        with rasterio.open(path, driver="GTiff", **({} if level is None else {"overview_level": level})) as dataset:
            flags = dataset.mask_flag_enums[0]
            masked = MaskFlags.per_dataset in flags and not {MaskFlags.alpha, MaskFlags.nodata} & set(flags)
            found.append((dataset.count, *dataset.shape, dataset.block_shapes[0], dataset.dtypes[0], masked))
            if level is None:
                levels += range(len(dataset.overviews(1)))
    return found
