"""What a format promises: a `Source` serves windows, a `Sink` takes blocks.

Both are descriptions, small and picklable: they hold a path and options, never an open handle, so that they travel to any worker
and open there on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.results import BandStatistics
from daskraster.blocks.statistics import PartialStatistics
from daskraster.blocks.tiling import TileArray
from daskraster.files import Leftover, PartialFile
from daskraster.formats.places import TilePlaces
from daskraster.grid import Window
from daskraster.posting import Post
from daskraster.spans import Spans


class Source(Protocol):
    """Something that serves windows of pixels: a file, or a description of one made of files.

    Threads: `read` may run in any number of them at once. Pickling: always. A source is immutable and hashable; two equal
    sources give equal pixels.
    """

    @property
    def name(self) -> str:
        """What messages call it, usually the path."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of every window."""

    @property
    def tile_yx(self) -> tuple[int, int]:
        """Rows and columns that are decoded together; windows of whole tiles are the cheapest."""

    @property
    def token(self) -> str:
        """Differs as soon as the pixels may: for a file from path, size, mtime in ns and inode."""

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """Pixels of a window inside the raster.

        Parameters
        ----------
        window
            Inside ``shape``; not empty.
        bands
            Numbers from 1, in the order wanted.

        Returns
        -------
        A new array ``(band, y, x)`` of ``dtype`` that the caller owns.

        Raises
        ------
        RasterReadError
            The file is gone, changed since it was opened, or damaged in this window.
        """


@runtime_checkable
class Narrowing(Source, Protocol):
    """A source made of others, maybe of many: of which a task takes no more along than it needs."""

    @property
    def inner_sources(self) -> tuple[Source, ...]:
        """The others."""

    def part(self, window: Window) -> Source:
        """A source that gives the same pixels inside ``window``, and is as small as it can be."""


def narrowed(source: Source, window: Window) -> Source:
    """As much of a source as a window takes: its part, or itself where it is not made of many."""
    return source.part(window) if isinstance(source, Narrowing) else source


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The part of an overview level that a block gave and that fills no tile by itself."""

    level: int
    window: Window
    """In pixels of the level."""
    band_off: int
    """First band, from 0."""
    values: NDArray[Any]
    """``(band, y, x)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is left of a block once it lies in the file: a few numbers a tile; of pixels at most a `Piece`."""

    block: tuple[int, int, int]
    """Index of the block: band, row, column."""
    tiles: NDArray[np.int64]
    """Number of each tile in the file, in the order of the format's index."""
    offsets: NDArray[np.int64]
    """Where each tile's bytes begin."""
    sizes: NDArray[np.int64]
    """How many bytes each tile has."""
    nbytes: int
    """Bytes of the block's pixels in memory."""
    checksums: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    """CRC32 of each tile's bytes; empty where a sink makes none: such a block cannot be resumed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each stage (read, function, encode, write) in the thread that did the block."""
    spans: tuple[Spans, ...] = ()
    """When those stages were, by the worker's own clock; none for a block of an earlier run."""
    held: Mapping[int, bytes] = field(default_factory=dict)
    """Number and bytes of tiles whose place is known at the end only."""
    statistics: tuple[PartialStatistics, ...] = ()
    """Of each band of the block, where wanted."""
    band_off: int = 0
    """The first of those bands, from 0."""
    piece: Piece | None = None
    """What the leading process puts together with its neighbours."""

    def joined(self, *others: Receipt) -> Receipt:
        """One receipt of this block and of what was made of it."""
        every = (self, *others)
        seconds = {
            name: sum(one.seconds.get(name, 0.0) for one in every)
            for name in {key for one in every for key in one.seconds}
        }
        return replace(
            self,
            tiles=np.concatenate([one.tiles for one in every]),
            offsets=np.concatenate([one.offsets for one in every]),
            sizes=np.concatenate([one.sizes for one in every]),
            checksums=np.concatenate([one.checksums for one in every]),
            seconds=seconds,
            spans=tuple(span for one in every for span in one.spans),
            held={number: content for one in every for number, content in one.held.items()},
        )


class Sink(Protocol):
    """Something that takes blocks in any order, from any thread or process, and becomes one file at the end.

    `put` may run anywhere and more than once for a block: every region of the file is written once, a repeated block goes
    elsewhere, and the receipt given to `finish` last decides. The other methods run once each, in the process that leads the run.
    """

    @property
    def target(self) -> Path:
        """The file to be."""

    @property
    def partial(self) -> PartialFile | None:
        """The file under way; None before `start`."""

    @property
    def driver(self) -> str:
        """GDAL's name of the format."""

    @property
    def block_multiple(self) -> tuple[int, int, int]:
        """Blocks must begin at multiples of this (band, y, x): the tiles of the file. All bands where a tile holds all of them."""

    def header(self) -> bytes:
        """The first bytes of the file before anything is known of its tiles; the same for the same wishes."""

    @property
    def levels(self) -> Sequence[TileArray]:
        """The full resolution and every overview to be computed, each half the one before."""

    @property
    def partial_cells(self) -> bool:
        """Whether sizes of levels are rounded up."""

    @property
    def tile_count(self) -> int:
        """Tiles of all levels and their masks; their numbers are below it."""

    @property
    def layout(self) -> str:
        """Of a started sink: a word for how its file is laid out, where that depends on who writes it; a run that goes on keeps to it."""

    def held_nbytes(self, *, many_processes: bool) -> int:
        """Bytes of encoded tiles that receipts hold until the end, at most; ``many_processes`` as in `start`."""

    def start(self, *, many_processes: bool, leftover: Leftover | None = None) -> Sink:
        """A sink with its partial file, ready for `put`.

        Parameters
        ----------
        many_processes
            Whether others will write too.
        leftover
            What to go on with; None: the file is created.

        Raises
        ------
        RasterWriteError
            The file cannot be created, or written to any more.
        """

    def posting(self, post: Post) -> Sink:
        """A started sink for processes that may not see its disk: their bytes go by ``post``."""

    def put(
        self, block: NDArray[Any], window: Window, band_off: int, index: tuple[int, int, int], level: int = 0
    ) -> Receipt:
        """Encode a block ``(band, y, x)`` of a level, whose first band is number ``band_off`` from 0, and write its bytes.

        Raises
        ------
        RasterWriteError
            The codec refused a tile or the disk the bytes; the message names the window.
        """

    def no_places(self) -> TilePlaces:
        """What receipts are folded into: where each tile of every level lies, none of them there yet."""

    def finish(
        self,
        places: TilePlaces,
        statistics: Sequence[BandStatistics] = (),
        *,
        finished: frozenset[str] | None = None,
    ) -> None:
        """Check that every tile of every level is there, complete the partial file, and read again what its header says.

        Parameters
        ----------
        places
            Where the tiles of all blocks and levels lie; tiles that were held back get theirs here.
        statistics
            One for each band, or none.
        finished
            Names of the processes known to write no more (`daskraster.files.process_name`); None: all.

        Raises
        ------
        RasterWriteError
            Tiles are missing, the header says something else than was asked, or the disk refused.
        """

    def publish(self) -> int:
        """Give the finished file its name; return its size in bytes.

        Raises
        ------
        RasterWriteError
            The last flush or the rename failed.
        """

    def discard(self) -> None:
        """Remove every trace of the run; harmless when it has been published."""
