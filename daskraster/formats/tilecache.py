"""Decoded pixels at the seams of blocks, kept so that a halo does not decode a tile twice.

A block of 4 x 4 tiles with a halo of 5 pixels touches 6 x 6 tiles: 2.25 times the decoding. Each tile around the block is some
neighbour's own, so every tile needs decoding only once if what the neighbours want of it is kept. ::

    +----+----+----+----+----+----+
    | r  | r    r    r    r  | r  |      r  ring: decoded for a few pixels; kept whole, since its own block comes later
    +----+----+----+----+----+----+
    | r  | e    e    e    e  | r  |      e  edge: decoded for the block; of it only strips as wide as the halo are kept,
    |    | e    .    .    e  |    |         since that is all the neighbours ask for
    | r  | e    e    e    e  | r  |
    +----+----+----+----+----+----+      .  inside: nobody else's business
    | r  | r    r    r    r  | r  |
    +----+----+----+----+----+----+

A thread that needs a tile another one is just decoding waits for it. Each thread first decodes all that it announced and only then waits, so
two never wait for each other. The cache is shared by the threads of a process and bounded: a miss costs time, never pixels. What it
holds is about one row of tiles across the raster (24 MB for 24,576 columns of uint16 in tiles of 512).
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

CACHE_NBYTES = 64 << 20
# Below this size a tile's bookkeeping (some 10 microseconds) costs as much as decoding it: strips of single rows, tiny tiles.
MIN_TILE_PIXELS = 64 * 64
MAX_TILE_PIXELS = 4 << 20  # a whole image in one strip would be decoded, and kept, whole
MAX_TILES = 4096  # in one window

type ReadTiles = Callable[[Window], NDArray[Any]]
"""Decodes a window of whole tiles (clipped to the raster) to ``(band, y, x)``."""
type _Tile = tuple[int, int]


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


class _Cache:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, _Tile], _Entry] = OrderedDict()
        self._nbytes = 0

    def drop_far(self, key: str, first_row: int, last_row: int) -> None:
        """Drop what was kept of tiles well above and below these rows of tiles: blocks come row by row."""
        reach = 2 * (last_row - first_row + 1)
        with self._lock:
            for name in [name for name in self._entries if name[0] == key]:
                entry = self._entries[name]
                if not first_row - reach <= name[1][0] <= last_row + reach and entry.decoded.is_set():
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
            self._shrink(CACHE_NBYTES)

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


_cache = _Cache()


def shrink(nbytes: int) -> None:
    """Keep no more than this, the latest; for whoever knows that what is older will not be asked for."""
    _cache.shrink(nbytes)


def clear() -> None:
    """Give the memory back, at the end of a run."""
    _cache.clear()


def read_window(
    key: str, window: Window, shape_yx: tuple[int, int], tile_yx: tuple[int, int], read: ReadTiles
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
    return _Reading(key, window, cover, whole, tile_yx, read).run()


@dataclass(frozen=True, slots=True)
class _Reading:
    """One window on its way."""

    key: str
    window: Window
    cover: Window
    whole: Window
    tile_yx: tuple[int, int]
    read: ReadTiles

    def run(self) -> NDArray[Any]:
        rows, cols = self.tile_yx
        first = self.cover.row_off // rows, self.cover.col_off // cols
        last = -(-self.cover.row_stop // rows) - 1, -(-self.cover.col_stop // cols) - 1
        tiles = [(row, col) for row in range(first[0], last[0] + 1) for col in range(first[1], last[1] + 1)]
        ring = {tile for tile in tiles if self._tile_window(tile).clip(self.window) != self._tile_window(tile)}
        edge = {tile for tile in tiles if tile not in ring and any(near in ring for near in _around(tile))}
        seam = [tile for tile in tiles if tile in ring or tile in edge]
        _cache.drop_far(self.key, first[0], last[0])
        mine, others = _cache.announce(self.key, seam)
        out: NDArray[Any] | None = None
        try:
            inside = [tile for tile in tiles if tile not in ring and tile not in edge]
            for area in _rectangles([*inside, *mine]):
                pixels = self.read(self._area_window(area))
                out = self._paste(out, area, pixels)
                self._keep(area, pixels, ring, edge)
        finally:
            _cache.forget(self.key, mine)
        for tile, entry in others.items():
            out = self._take(out, tile, entry, tile in edge)
        assert out is not None
        return out

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

    def _paste(self, out: NDArray[Any] | None, area: tuple[_Tile, _Tile], pixels: NDArray[Any]) -> NDArray[Any]:
        if out is None:
            out = np.empty((pixels.shape[0], *self.window.shape_yx), dtype=pixels.dtype)
        have = self._area_window(area)
        wanted = have.clip(self.window)
        out[(slice(None), *wanted.relative_to(self.window).slices)] = pixels[
            (slice(None), *wanted.relative_to(have).slices)
        ]
        return out

    def _keep(self, area: tuple[_Tile, _Tile], pixels: NDArray[Any], ring: set[_Tile], edge: set[_Tile]) -> None:
        have = self._area_window(area)
        (top, left), (bottom, right) = area
        for tile in ((row, col) for row in range(top, bottom + 1) for col in range(left, right + 1)):
            if tile in ring or tile in edge:
                window = self._tile_window(tile)
                part = pixels[(slice(None), *window.relative_to(have).slices)]
                pieces = [(window, part.copy())] if tile in ring else self._strips(tile, window, part)
                _cache.keep(self.key, tile, pieces)

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


def _around(tile: _Tile) -> list[_Tile]:
    row, col = tile
    return [(row + down, col + right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]


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
