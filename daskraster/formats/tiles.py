"""What every tiled file that we write has in common: tiles numbered, cut, encoded, appended, counted.

A format (`daskraster.formats.geotiff`, `daskraster.formats.kea_sink`) adds three things: the first bytes of the file, the bytes of one tile, and
how the finished file says where its tiles are.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.codecs import TileCodec
from daskraster.blocks.tiling import cut_tiles
from daskraster.errors import RasterWriteError
from daskraster.files import Buffer, PartialFile, writable_target
from daskraster.formats.protocols import Receipt
from daskraster.grid import Window
from daskraster.metadata import RasterMetadata
from daskraster.timing import stage, take

MIN_EXTENT_NBYTES = 1 << 20
MAX_EXTENT_NBYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class TileArray:
    """The tiles of one raster and their numbers: row by row, and band by band where a tile holds one band.

    >>> tiles = TileArray(shape=(2, 100, 250), tile_yx=(64, 64), band_interleaved=True)
    >>> tiles.counts_yx, tiles.count, tiles.per_band
    ((2, 4), 16, 8)
    """

    shape: tuple[int, int, int]
    """Bands, rows, columns of pixels."""
    tile_yx: tuple[int, int]
    band_interleaved: bool
    """Whether a tile holds one band, not all."""

    @property
    def counts_yx(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.shape[1] // self.tile_yx[0]), -(-self.shape[2] // self.tile_yx[1])

    @property
    def per_band(self) -> int:
        """Tiles that cover the raster once."""
        rows, cols = self.counts_yx
        return rows * cols

    @property
    def count(self) -> int:
        """All tiles."""
        return self.per_band * (self.shape[0] if self.band_interleaved else 1)

    @property
    def pixels_per_tile(self) -> int:
        """Values in one tile, of all the bands it holds."""
        return self.tile_yx[0] * self.tile_yx[1] * (1 if self.band_interleaved else self.shape[0])

    def cut(self, block: NDArray[Any], window: Window, band_off: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Number and values of each tile of a block ``(band, y, x)``: ``(y, x)``, or ``(y, x, band)`` for all bands."""
        cols = self.counts_yx[1]
        first_row, first_col = window.row_off // self.tile_yx[0], window.col_off // self.tile_yx[1]
        for row, col, tile in cut_tiles(block, self.tile_yx):
            position = (first_row + row) * cols + first_col + col
            if not self.band_interleaved and self.shape[0] > 1:
                yield position, tile.transpose(1, 2, 0)
            else:
                for band, values in enumerate(tile, band_off):
                    yield band * self.per_band + position, values


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class TileSink(ABC):
    """One tiled file to be written; see `daskraster.formats.protocols.Sink` for what may run where."""

    target: Path
    metadata: RasterMetadata
    codec: TileCodec
    tiles: TileArray
    partial: PartialFile | None = None
    """The file under way; None before `start`."""

    @property
    @abstractmethod
    def driver(self) -> str:
        """GDAL's name of the format."""

    @abstractmethod
    def header(self) -> bytes:
        """The first bytes of the file: everything but tiles and where they are."""

    @abstractmethod
    def encode(self, values: NDArray[Any]) -> Buffer:
        """The bytes of one tile."""

    @abstractmethod
    def write_index(self, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Say in the partial file where each tile is, by its number."""

    @property
    def block_multiple(self) -> tuple[int, int, int]:
        """Bands, rows and columns at whose multiples blocks begin."""
        return (1 if self.tiles.band_interleaved else self.tiles.shape[0], *self.tiles.tile_yx)

    @property
    def started(self) -> PartialFile:
        """The file under way."""
        if self.partial is None:
            raise RuntimeError(f"{type(self).__name__}.start() comes first")
        return self.partial

    def start(self, *, many_processes: bool) -> Self:
        """A sink with its partial file; see `Sink.start`."""
        extent_nbytes = self._extent_nbytes() if many_processes else None
        partial = PartialFile.create(self.target, self.header(), extent_nbytes=extent_nbytes)
        return dataclasses.replace(self, partial=partial)

    def put(self, block: NDArray[Any], window: Window, band_off: int, index: tuple[int, int, int]) -> Receipt:
        """Encode and write the tiles of one block; see `Sink.put`."""
        partial = self.started
        parts: list[Buffer] = []
        numbers: list[int] = []
        with stage("encode"):
            for number, values in self.tiles.cut(block, window, band_off):
                try:
                    parts.append(self.encode(values))
                except (RuntimeError, ValueError, TypeError) as error:  # what imagecodecs raises
                    raise RasterWriteError(
                        f"cannot encode a tile of {self.target} in {window} as {self.codec.compress}: {error}"
                    ) from error
                numbers.append(number)
        with stage("write"):
            offsets = partial.append(parts)
        sizes = np.array([memoryview(part).nbytes for part in parts], dtype=np.int64)
        return Receipt(
            block=index,
            tiles=np.array(numbers, dtype=np.int64),
            offsets=np.array(offsets, dtype=np.int64),
            sizes=sizes,
            nbytes=block.nbytes,
            seconds=take(),
        )

    def finish(self, receipts: Sequence[Receipt], *, finished: frozenset[str] | None = None) -> None:
        """Check that every tile is there and write the index; see `Sink.finish`."""
        offsets = np.zeros(self.tiles.count, dtype=np.int64)
        sizes = np.zeros(self.tiles.count, dtype=np.int64)
        for receipt in receipts:
            offsets[receipt.tiles] = receipt.offsets
            sizes[receipt.tiles] = receipt.sizes
        missing = np.flatnonzero(sizes == 0)
        if missing.size:
            raise RasterWriteError(
                f"{self.target} is not complete: {missing.size} of {self.tiles.count} tiles were never written "
                f"(the first is number {missing[0]}); nothing was published"
            )
        writable_target(self.target)
        self.write_index(self.started.close_gaps(offsets, sizes, finished=finished), sizes)

    def publish(self) -> int:
        """Give the file its name; see `Sink.publish`."""
        return self.started.publish()

    def discard(self) -> None:
        """Remove the partial file."""
        if self.partial is not None:
            self.partial.discard()

    def _extent_nbytes(self) -> int:
        """Room a process claims at once: a small share of the file, never less than a few tiles."""
        share = min(max(self.metadata.nbytes // 64, MIN_EXTENT_NBYTES), MAX_EXTENT_NBYTES)
        return max(share, 4 * self.tiles.pixels_per_tile * self.metadata.dtype.itemsize)
