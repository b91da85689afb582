"""What every tiled file that we write has in common: tiles numbered, cut, encoded, appended, counted.

A format (`daskraster.formats.geotiff`, `daskraster.formats.kea_sink`) adds three things: the first bytes of the file, the bytes of one tile, and
how the finished file says where its tiles are.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.codecs import TileCodec, checksum
from daskraster.blocks.results import BandStatistics
from daskraster.blocks.tiling import TileArray
from daskraster.blocks.validity import Validity
from daskraster.errors import RasterWriteError
from daskraster.files import Leftover, PartialFile, writable_target
from daskraster.formats.places import TilePlaces
from daskraster.formats.protocols import Receipt
from daskraster.grid import Window
from daskraster.metadata import RasterMetadata
from daskraster.positioned import Buffer
from daskraster.posting import Post
from daskraster.spans import take_spans
from daskraster.timing import stage, take

MIN_EXTENT_NBYTES = 1 << 20
MAX_EXTENT_NBYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSink(ABC):
    """One tiled file to be written; see `daskraster.formats.protocols.Sink` for what may run where."""

    target: Path
    metadata: RasterMetadata
    codec: TileCodec
    tiles: TileArray
    overviews: tuple[TileArray, ...] = ()
    """Levels 2, 4, 8 ...; their tiles' numbers follow on those of the level before."""
    statistics: bool = False
    """Whether statistics will come at the end, and need room in the header."""
    validity: Validity | None = None
    """Which pixels are valid, where masks are wanted."""
    masks: tuple[TileArray, ...] = ()
    """The masks of the first levels, of one band for all or one for each; their tiles' numbers follow on those of all levels."""
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
    def encode_mask(self, valid: NDArray[np.bool_]) -> Buffer:
        """The bytes of one tile ``(y, x)`` of a mask."""

    @abstractmethod
    def write_index(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], statistics: Sequence[BandStatistics]
    ) -> None:
        """Say in the partial file where each tile is, by its number, and what is only known at the end."""

    @abstractmethod
    def check(self) -> str:
        """What the header of the complete partial file says otherwise than was asked; empty where it is right."""

    @property
    def levels(self) -> tuple[TileArray, ...]:
        """The full resolution and the overviews."""
        return (self.tiles, *self.overviews)

    @property
    def partial_cells(self) -> bool:
        """Whether sizes of overviews are rounded up."""
        return True

    @property
    def block_multiple(self) -> tuple[int, int, int]:
        """Bands, rows and columns at whose multiples blocks begin."""
        rows, cols = (math.lcm(size, 2 if self.overviews else 1) for size in self.tiles.tile_yx)
        whole = not self.tiles.band_interleaved or any(mask.shape[0] < self.tiles.shape[0] for mask in self.masks)
        return self.tiles.shape[0] if whole else 1, rows, cols

    @property
    def first_numbers(self) -> list[int]:
        """Number of the first tile of each level, then of each mask, and of all tiles."""
        return [0, *itertools.accumulate(array.count for array in (*self.levels, *self.masks))]

    @property
    def tile_count(self) -> int:
        """Tiles of all levels and masks."""
        return self.first_numbers[-1]

    @property
    def layout(self) -> str:
        """A word for what depends on who writes the file; see `Sink.layout`."""
        return ""

    @property
    def started(self) -> PartialFile:
        """The file under way.

        Raises
        ------
        RuntimeError
            `start` comes first.
        """
        if self.partial is None:
            raise RuntimeError(f"{type(self).__name__}.start() comes first")
        return self.partial

    def start(self, *, many_processes: bool, leftover: Leftover | None = None) -> Self:
        """A sink with its partial file; see `Sink.start`."""
        extent_nbytes = self._extent_nbytes() if many_processes else None
        if leftover is not None:
            partial = PartialFile.reopen(self.target, leftover, extent_nbytes=extent_nbytes)
            # The earlier run may have been about to finish, with an index of other tiles in its header.
            partial.patch(0, self.header())
            return dataclasses.replace(self, partial=partial)
        front, reserve = self.room_in_front()
        partial = PartialFile.create(
            self.target, self.header(), extent_nbytes=extent_nbytes, front_nbytes=front, reserve_nbytes=reserve
        )
        return dataclasses.replace(self, partial=partial)

    def posting(self, post: Post) -> Self:
        """A started sink whose bytes go by ``post`` where its disk is not seen; see `Sink.posting`."""
        return dataclasses.replace(self, partial=dataclasses.replace(self.started, post=post))

    def room_in_front(self) -> tuple[int, int]:
        """Bytes to be left free behind the header for tiles that are held back, and for overviews."""
        return 0, 0

    def held_nbytes(self, *, many_processes: bool) -> int:
        """Bytes that receipts hold until the end; see `Sink.held_nbytes`."""
        return 0

    def is_held(self, number: int) -> bool:
        """Whether a tile's bytes stay in its receipt until `finish` writes them in front of all others."""
        return False

    def put(
        self, block: NDArray[Any], window: Window, band_off: int, index: tuple[int, int, int], level: int = 0
    ) -> Receipt:
        """Encode and write the tiles of one block; see `Sink.put`.

        Raises
        ------
        RasterWriteError
            As `Sink.put`.
        """
        partial = self.started
        parts: list[Buffer] = []
        numbers: list[int] = []
        held: dict[int, bytes] = {}
        with stage("encode"):
            for number, part in self._encoded(block, window, band_off, level):
                if self.is_held(number):
                    held[number] = bytes(part)
                else:
                    parts.append(part)
                    numbers.append(number)
        with stage("write"):
            offsets = partial.append(parts, reserved=level > 0) if parts else []
        sizes = np.array([memoryview(part).nbytes for part in parts], dtype=np.int64)
        return Receipt(
            block=index,
            tiles=np.array(numbers, dtype=np.int64),
            offsets=np.array(offsets, dtype=np.int64),
            sizes=sizes,
            checksums=np.array([checksum(part) for part in parts], dtype=np.uint32),
            nbytes=block.nbytes,
            seconds=take(),
            spans=take_spans(),
            held=held,
        )

    def _encoded(self, block: NDArray[Any], window: Window, band_off: int, level: int) -> Iterator[tuple[int, Buffer]]:
        """Number and bytes of every tile of a block, and of its masks.

        Raises
        ------
        RasterWriteError
            The codec refused a tile.
        """
        valid: NDArray[np.bool_] | None = None
        if self.validity is not None:
            block, valid = self.validity.split(block, band_off)
        first = self.first_numbers
        try:
            for number, values in self.levels[level].cut(block, window, band_off, smooth=self.codec.lossy):
                yield first[level] + number, self.encode(values)
            if valid is None or level >= len(self.masks):
                return
            mask = self.masks[level]
            if mask.shape[0] < len(valid):
                valid = valid.any(axis=0, keepdims=True)
            for number, values in mask.cut(valid, window, band_off):
                yield first[len(self.levels) + level] + number, self.encode_mask(values)
        except (RuntimeError, ValueError, TypeError) as error:  # what imagecodecs raises
            raise RasterWriteError(
                f"cannot encode a tile of {self.target} in {window} as {self.codec.compress}: {error}"
            ) from error

    def no_places(self) -> TilePlaces:
        """Where tiles will lie; none is there yet. See `Sink.no_places`."""
        return TilePlaces(self.first_numbers[-1])

    def finish(
        self,
        places: TilePlaces,
        statistics: Sequence[BandStatistics] = (),
        *,
        finished: frozenset[str] | None = None,
    ) -> None:
        """Check that every tile is there, write the index, check the header; see `Sink.finish`.

        Raises
        ------
        RasterWriteError
            As `Sink.finish`.
        """
        offsets, sizes = places.offsets, places.sizes
        self.write_held(places.held, offsets, sizes)
        missing = np.flatnonzero(sizes == 0)
        if missing.size:
            raise RasterWriteError(
                f"{self.target} is not complete: {missing.size} of {sizes.size} tiles were never written "
                f"(the first is number {missing[0]}); nothing was published"
            )
        writable_target(self.target)
        self.write_index(self.close_gaps(offsets, sizes, finished), sizes, statistics)
        wrong = self.check()
        if wrong:
            raise RasterWriteError(f"{self.target} is not what was asked: {wrong}; nothing was published")

    def close_gaps(
        self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], finished: frozenset[str] | None
    ) -> NDArray[np.int64]:
        """Give back what is unused between the tiles; the new offsets."""
        return self.started.close_gaps(offsets, sizes, finished=finished)

    def write_held(self, held: Mapping[int, bytes], offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Write tiles that were held back one behind the other into the front, the last numbers first.

        Raises
        ------
        RasterWriteError
            They do not fit, or the disk refused.
        """
        position = self.started.start
        for number in sorted(held, reverse=True):
            self.started.patch(position, held[number])
            offsets[number], sizes[number] = position, len(held[number])
            position += len(held[number])
        if position > self.started.start + self.started.front_nbytes:
            raise RasterWriteError(f"{self.target}: the first tiles of its overviews do not fit into the room for them")

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
