"""Decoded pixels at the seams of blocks, kept so that a halo does not decode a tile twice.

A block of 4 x 4 tiles with a halo of 5 pixels touches 6 x 6 tiles: 2.25 times the decoding. Each tile around the block is some
neighbour's own, so every tile needs decoding only once if what the neighbours want of it is kept. ::

    +----+----+----+----+----+----+
    | r  | r    r    r    r  | r  |      r  ring: decoded for a few pixels; kept whole, as it is, since its own block comes later
    +----+----+----+----+----+----+
    | r  | e    e    e    e  | r  |      e  edge: decoded for the block; of it only strips as wide as the halo are kept,
    |    | e    .    .    e  |    |         since that is all the neighbours ask for
    | r  | e    e    e    e  | r  |
    +----+----+----+----+----+----+      .  inside: nobody else's business
    | r  | r    r    r    r  | r  |
    +----+----+----+----+----+----+

A thread that needs a tile another one is just decoding waits for it. Each thread first decodes all that it announced and only then waits, so
two never wait for each other. The cache is shared by the threads of a process and bounded: a miss costs time, never pixels. What it
holds is about one row of tiles across the raster (24 MB for 24,576 columns of uint16 in tiles of 512); where that would be more than `ROW_NBYTES`
blocks come down columns (`band_rows`), and it is one column of tiles as high as a band.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.grid import Window

CACHE_NBYTES = 48 << 20
ROW_NBYTES = 32 << 20
"""A row of tiles across the raster up to which blocks go row by row: it fits, with what is kept beside it."""
BAND_NBYTES = 16 << 20
"""A column of tiles as high as a band of blocks, where they go column by column."""
# Both are more, up to twice, where a tile is some megabytes: a band of two rows of blocks decodes four rows of tiles. 8192 x 8192 pixels of six float32 with a halo of 5, tiles of
# 6 MB: 48 MB and bands of two 7.3-8.0 s and 13 CPU s, 80 MB and bands of five 4.9 and 9.6, with 20 to 50 MB more.
TILES_KEPT = 13
BAND_TILES = 5
# Below this size a tile's bookkeeping (some 10 microseconds) costs as much as decoding it: strips of single rows, tiny tiles.
MIN_TILE_PIXELS = 64 * 64
MAX_TILE_PIXELS = 4 << 20  # a whole image in one strip would be decoded, and kept, whole
MAX_TILES = 4096  # in one window
TRAIL = 4  # steps after which it is forgotten that blocks came another way
MAX_TRAILS = 256

type ReadTiles = Callable[[Window], NDArray[Any]]
"""Decodes a window of whole tiles (clipped to the raster) to a new array ``(band, y, x)``."""
type _Tile = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadInto:
    """How a source decodes tiles to where they are wanted."""

    bands: int
    dtype: np.dtype[Any]
    read: Callable[[Window, NDArray[Any]], object]
    """Decodes a window of whole tiles into a part ``(band, y, x)`` of a larger array."""


@dataclass(slots=True)
class _Entry:
    """What is kept of one tile: pieces of it with their windows in the raster; none yet while it is being decoded."""

    decoded: threading.Event = field(default_factory=threading.Event)
    pieces: list[tuple[Window, NDArray[Any]]] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        return sum(pixels.nbytes for _, pixels in self.pieces)

    def find(self, window: Window) -> NDArray[Any] | None:
        """The pixels of ``window``, if one piece holds them all."""
        for have, pixels in self.pieces:
            if window.clip(have) == window:
                return pixels[(slice(None), *window.relative_to(have).slices)]
        return None


@dataclass(slots=True)
class _Trail:
    """Which way the blocks of a source come."""

    at: _Tile = (-1, -1)
    lean: int = 0
    """Steps down less steps aside, of the latest."""

    def goes_down(self, tile: _Tile) -> bool:
        """Whether blocks come down a column more often than they come along a row, this one among them."""
        if tile[1] == self.at[1] and tile[0] != self.at[0]:
            self.lean = min(self.lean + 1, TRAIL)
        elif tile[0] == self.at[0] and tile[1] != self.at[1]:
            self.lean = max(self.lean - 1, -TRAIL)
        self.at = tile
        return self.lean > 0


class _Cache:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, _Tile], _Entry] = OrderedDict()
        self._nbytes = 0
        self._limit = 0
        """For the largest tiles that were kept since it was cleared."""
        self._trails: dict[str, _Trail] = {}

    def drop_far(self, key: str, first: _Tile, last: _Tile) -> None:
        """Drop what was kept of tiles far from these, which are next to be read: whatever it was for has come.

        In rows, or in columns where blocks come down a column.
        """
        with self._lock:
            if len(self._trails) >= MAX_TRAILS:
                self._trails.clear()
            axis = int(self._trails.setdefault(key, _Trail()).goes_down(first))
            reach = 2 * (last[axis] - first[axis] + 1)
            near = range(first[axis] - reach, last[axis] + reach + 1)
            for name in [name for name in self._entries if name[0] == key and name[1][axis] not in near]:
                if self._entries[name].decoded.is_set():
                    self._nbytes -= self._entries.pop(name).nbytes

    def announce(self, key: str, tiles: list[_Tile]) -> tuple[list[_Tile], dict[_Tile, _Entry]]:
        """Split tiles into those this thread must decode, now announced, and the entries of the others."""
        mine: list[_Tile] = []
        others: dict[_Tile, _Entry] = {}
        with self._lock:
            for tile in tiles:
                entry = self._entries.get((key, tile))
                if entry is None:
                    self._entries[key, tile] = _Entry()
                    mine.append(tile)
                else:
                    others[tile] = entry
        return mine, others

    def keep(self, key: str, tile: _Tile, pieces: list[tuple[Window, NDArray[Any]]]) -> None:
        """Store pieces of a tile in place of what was there, and let those go on who wait for it."""
        with self._lock:
            old = self._entries.pop((key, tile), None)
            if old is not None:
                self._nbytes -= old.nbytes
            entry = _Entry(old.decoded if old is not None else threading.Event(), pieces)
            if old is not None:
                old.pieces = pieces
            entry.decoded.set()
            self._entries[key, tile] = entry
            self._nbytes += entry.nbytes
            self._limit = max(self._limit, cache_nbytes(entry.nbytes))
            self._shrink(self._limit)

    def forget(self, key: str, tiles: list[_Tile]) -> None:
        """Take back what was announced and not decoded."""
        with self._lock:
            for tile in tiles:
                entry = self._entries.get((key, tile))
                if entry is not None and not entry.decoded.is_set():
                    del self._entries[key, tile]
                    entry.decoded.set()

    def shrink(self, nbytes: int) -> None:
        """Drop the oldest entries until the rest fits."""
        with self._lock:
            self._shrink(nbytes)

    def _shrink(self, nbytes: int) -> None:
        """Drop the oldest decoded entries until the rest fits."""
        if self._nbytes <= nbytes:
            return
        for name in list(self._entries):
            entry = self._entries[name]
            if entry.decoded.is_set():
                self._nbytes -= entry.nbytes
                del self._entries[name]
                if self._nbytes <= nbytes:
                    return

    def clear(self) -> None:
        """Drop everything that nobody is working on."""
        with self._lock:
            for name in [name for name, entry in self._entries.items() if entry.decoded.is_set()]:
                self._nbytes -= self._entries.pop(name).nbytes
            self._trails.clear()
            self._limit = 0


_cache = _Cache()


def cache_nbytes(tile_nbytes: int) -> int:
    """The most that is kept of tiles of that size, all bands counted.

    >>> cache_nbytes(512 * 512 * 2) >> 20, cache_nbytes(512 * 512 * 24) >> 20, cache_nbytes(1024 * 1024 * 24) >> 20
    (48, 78, 96)
    """
    return min(max(CACHE_NBYTES, TILES_KEPT * tile_nbytes), 2 * CACHE_NBYTES)


def band_rows(width: int, block_rows: int, tile_yx: tuple[int, int], pixel_nbytes: int) -> int:
    """Rows of blocks to be taken together, column by column, so that what is kept at their seams does not grow with the raster.

    Parameters
    ----------
    width
        Columns of the raster.
    block_rows
        Rows of a block.
    tile_yx
        Rows and columns of a tile.
    pixel_nbytes
        Of all bands.

    Returns
    -------
    1 where blocks are to be taken row by row: a row of tiles across the raster is small, or a column of them is larger still.

    >>> band_rows(24_576, 2048, (512, 512), 2), band_rows(262_144, 2048, (512, 512), 2), band_rows(8192, 512, (512, 512), 24)
    (1, 8, 5)
    """
    if tile_yx[0] * width * pixel_nbytes <= ROW_NBYTES:
        return 1
    tile_cols = min(tile_yx[1], width)
    band = max(BAND_NBYTES, min(BAND_TILES * tile_yx[0] * tile_cols * pixel_nbytes, 2 * BAND_NBYTES))
    return max(band // (block_rows * tile_cols * pixel_nbytes), 1)


def shrink(nbytes: int) -> None:
    """Keep no more than this, the latest; for whoever knows that what is older will not be asked for."""
    _cache.shrink(nbytes)


def clear() -> None:
    """Give the memory back, at the end of a run."""
    _cache.clear()


def read_window(
    key: str,
    window: Window,
    shape_yx: tuple[int, int],
    tile_yx: tuple[int, int],
    read: ReadTiles,
    *,
    into: ReadInto | None = None,
) -> NDArray[Any]:
    """A window of a tiled raster, each tile decoded once for all the windows that overlap there.

    Parameters
    ----------
    key
        Equal for equal pixels: the source's token, its overview, the bands.
    window
        Inside the raster.
    shape_yx, tile_yx
        Size of the raster and of its tiles.
    read
        Decodes a window of whole tiles.
    into
        The same without a copy, where the source can.

    Returns
    -------
    A new array ``(band, y, x)``, equal to reading ``window`` directly.

    Raises
    ------
    Whatever ``read`` raises; threads waiting for the same tiles then decode them themselves.
    """
    whole = Window(0, 0, *shape_yx)
    cover = window.snap(tile_yx).clip(whole)
    counts = -(-cover.height // tile_yx[0]), -(-cover.width // tile_yx[1])
    tile_pixels = tile_yx[0] * tile_yx[1]
    if cover == window or not MIN_TILE_PIXELS <= tile_pixels <= MAX_TILE_PIXELS or counts[0] * counts[1] > MAX_TILES:
        return read(window)
    return _Reading(key, window, cover, whole, tile_yx, read, into).run()


@dataclass(frozen=True, slots=True)
class _Reading:
    """One window on its way."""

    key: str
    window: Window
    cover: Window
    whole: Window
    tile_yx: tuple[int, int]
    read: ReadTiles
    into: ReadInto | None

    def run(self) -> NDArray[Any]:
        rows, cols = self.tile_yx
        first = self.cover.row_off // rows, self.cover.col_off // cols
        last = -(-self.cover.row_stop // rows) - 1, -(-self.cover.col_stop // cols) - 1
        tiles = _tiles_of((first, last))
        top, left, height, width = self._inner()
        inner = range(top // rows, -(-(top + height) // rows)), range(left // cols, -(-(left + width) // cols))
        at_sides = [_at_sides(part, of) for part, of in zip(inner, zip(first, last, strict=True), strict=True)]
        ring = {(row, col) for row, col in tiles if row not in inner[0] or col not in inner[1]}
        edge = {
            (row, col) for row, col in tiles if (row, col) not in ring and (row in at_sides[0] or col in at_sides[1])
        }
        seam = [tile for tile in tiles if tile in ring or tile in edge]
        _cache.drop_far(self.key, first, last)
        mine, others = _cache.announce(self.key, seam)
        out: NDArray[Any] | None = None
        try:
            own = [tile for tile in tiles if tile not in ring and (tile not in edge or tile not in others)]
            for area in _rectangles(own):
                out = self._decode_own(out, area, edge)
            for area in _rectangles([tile for tile in mine if tile in ring]):
                out = self._decode_ring(out, area)
        finally:
            _cache.forget(self.key, mine)
        for tile, entry in others.items():
            out = self._take(out, tile, entry, tile in edge)
        assert out is not None
        return out

    def _decode_own(self, out: NDArray[Any] | None, area: tuple[_Tile, _Tile], edge: set[_Tile]) -> NDArray[Any]:
        """Decode tiles of the block, where possible to where they belong; keep strips of those at its sides."""
        have = self._area_window(area)
        if self.into is None:
            pixels = self.read(have)
            out = self._paste(out, have, pixels)
        else:
            if out is None:
                out = np.empty((self.into.bands, *self.window.shape_yx), self.into.dtype)
            pixels = out[(slice(None), *have.relative_to(self.window).slices)]
            self.into.read(have, pixels)
        for tile in _tiles_of(area):
            if tile in edge:
                window = self._tile_window(tile)
                part = pixels[(slice(None), *window.relative_to(have).slices)]
                _cache.keep(self.key, tile, self._strips(tile, window, part))
        return out

    def _decode_ring(self, out: NDArray[Any] | None, area: tuple[_Tile, _Tile]) -> NDArray[Any]:
        """Decode tiles around the block and keep them for their own, as they are: tiles decoded together share one array."""
        have = self._area_window(area)
        pixels = self.read(have)
        for tile in _tiles_of(area):
            window = self._tile_window(tile)
            _cache.keep(self.key, tile, [(window, pixels[(slice(None), *window.relative_to(have).slices)])])
        return self._paste(out, have, pixels)

    def _take(self, out: NDArray[Any] | None, tile: _Tile, entry: _Entry, is_edge: bool) -> NDArray[Any]:
        """Copy what the window needs of a tile that is cached or under way in another thread; decode it where that fails."""
        entry.decoded.wait()
        wanted = self._tile_window(tile).clip(self.window)
        pixels = entry.find(wanted)
        if pixels is None:
            tile_pixels = self.read(self._tile_window(tile))
            pixels = tile_pixels[(slice(None), *wanted.relative_to(self._tile_window(tile)).slices)]
        if out is None:
            out = np.empty((pixels.shape[0], *self.window.shape_yx), dtype=pixels.dtype)
        out[(slice(None), *wanted.relative_to(self.window).slices)] = pixels
        if is_edge:
            # The whole tile was waiting for this block; from now on only its neighbours' strips are wanted.
            _cache.keep(self.key, tile, self._strips(tile, wanted, pixels))
        return out

    def _paste(self, out: NDArray[Any] | None, have: Window, pixels: NDArray[Any]) -> NDArray[Any]:
        if out is None:
            out = np.empty((pixels.shape[0], *self.window.shape_yx), dtype=pixels.dtype)
        wanted = have.clip(self.window)
        out[(slice(None), *wanted.relative_to(self.window).slices)] = pixels[
            (slice(None), *wanted.relative_to(have).slices)
        ]
        return out

    def _strips(self, tile: _Tile, window: Window, pixels: NDArray[Any]) -> list[tuple[Window, NDArray[Any]]]:
        """Of a tile of the block, the strips along the block's sides, as wide as the halo on any side."""
        inner = Window(*self._inner())
        halo = max(
            inner.row_off - self.window.row_off, self.window.row_stop - inner.row_stop,
            inner.col_off - self.window.col_off, self.window.col_stop - inner.col_stop,
        )  # fmt: skip
        sides = (
            (window.row_off == inner.row_off, Window(window.row_off, window.col_off, halo, window.width)),
            (window.row_stop == inner.row_stop, Window(window.row_stop - halo, window.col_off, halo, window.width)),
            (window.col_off == inner.col_off, Window(window.row_off, window.col_off, window.height, halo)),
            (window.col_stop == inner.col_stop, Window(window.row_off, window.col_stop - halo, window.height, halo)),
        )
        strips = [strip.clip(window) for at_side, strip in sides if at_side]
        return [(strip, pixels[(slice(None), *strip.relative_to(window).slices)].copy()) for strip in strips]

    def _inner(self) -> tuple[int, int, int, int]:
        """The whole tiles inside the window."""
        rows, cols = self.tile_yx
        top, left = -(-self.window.row_off // rows) * rows, -(-self.window.col_off // cols) * cols
        bottom = (
            self.window.row_stop if self.window.row_stop == self.whole.row_stop else self.window.row_stop // rows * rows
        )
        right = (
            self.window.col_stop if self.window.col_stop == self.whole.col_stop else self.window.col_stop // cols * cols
        )
        return top, left, bottom - top, right - left

    def _tile_window(self, tile: _Tile) -> Window:
        return self._area_window((tile, tile))

    def _area_window(self, area: tuple[_Tile, _Tile]) -> Window:
        (top, left), (bottom, right) = area
        rows, cols = self.tile_yx
        return Window(top * rows, left * cols, (bottom - top + 1) * rows, (right - left + 1) * cols).clip(self.whole)


def _tiles_of(area: tuple[_Tile, _Tile]) -> list[_Tile]:
    (top, left), (bottom, right) = area
    return [(row, col) for row in range(top, bottom + 1) for col in range(left, right + 1)]


def _at_sides(part: range, of: tuple[int, int]) -> set[int]:
    """The first and the last of ``part`` where more of ``of``, first and last, lies beyond.

    >>> _at_sides(range(1, 4), (0, 4)), _at_sides(range(0, 4), (0, 4))
    ({1, 3}, {3})
    """
    sides = [part.start] * (part.start > of[0]) + [part.stop - 1] * (part.stop - 1 < of[1])
    return set(sides) if part else set()


def _rectangles(tiles: list[_Tile]) -> list[tuple[_Tile, _Tile]]:
    """Tiles joined into few rectangles, each given by its first and last tile: one decoding call for many tiles.

    >>> _rectangles([(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)])
    [((0, 0), (1, 1)), ((2, 1), (2, 1))]
    """
    runs: dict[int, list[tuple[int, int]]] = {}
    for row, col in sorted(tiles):
        row_runs = runs.setdefault(row, [])
        if row_runs and row_runs[-1][1] == col - 1:
            row_runs[-1] = (row_runs[-1][0], col)
        else:
            row_runs.append((col, col))
    done: list[tuple[_Tile, _Tile]] = []
    growing: dict[tuple[int, int], int] = {}  # columns of a rectangle -> its first row
    previous: int | None = None
    for row in sorted(runs):
        kept: dict[tuple[int, int], int] = growing if previous is not None and previous == row - 1 else {}
        for run, top in growing.items():
            if run not in runs[row] or kept is not growing:
                done.append(((top, run[0]), (previous if previous is not None else row, run[1])))
        growing = {run: kept.get(run, row) for run in runs[row]}
        previous = row
    done += [((top, run[0]), (previous if previous is not None else top, run[1])) for run, top in growing.items()]
    return sorted(done)
