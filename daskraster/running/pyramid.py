"""Overviews from blocks in memory: what each block makes of itself, and what blocks make together.

Strategy. A block halves itself as long as its half begins where a tile of that level begins (and so ends where one ends, or
where the raster does); those levels it writes like its own pixels. The first half that fills no tiles by itself is small, a 64th of the
pixels with blocks of four tiles a side, and goes to the leading process, which puts it together with its neighbours: ::

    level 0   | 4 x 4 tiles | 4 x 4 tiles |    written by the block's worker
    level 1   |    2 x 2    |    2 x 2    |    written by the block's worker
    level 2   |      1      |      1      |    written by the block's worker
    level 3   | half a tile | half a tile |    a `Piece` each; together a strip of tiles of the leading process
    level 4 ...                                made of strips of level 3

A strip is a row of tiles over the whole width. When all its pixels are there its tiles are written, its half goes into the strip of
the next level, and it is dropped: as blocks come row by row about one strip a level is in memory. Nothing is ever read from the file.

``bilinear`` looks one pixel beyond its cells: blocks then come with a halo that is wide enough for all the levels that they
make, and strips wait for their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.overviews import halve
from daskraster.blocks.tiling import TileArray
from daskraster.errors import RasterWriteError
from daskraster.formats.protocols import Piece, Receipt, Sink
from daskraster.grid import Window, round_up
from daskraster.metadata import Number

LEADER = (-1, -1, -1)
"""Index in the receipts of what the leading process writes."""


type Halves = Iterator[tuple[int, Window, NDArray[Any]]]
"""Level, window and pixels ``(band, y, x)`` of each half of a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandRule:
    """How one band is made smaller."""

    nodata: Number | None
    resampling: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """The levels of one output and who makes them. Travels with every task."""

    levels: tuple[TileArray, ...]
    """From full resolution on, each half the one before."""
    rules: tuple[BandRule, ...]
    """Of each band."""
    partial_cells: bool
    """Whether sizes are rounded up; see `daskraster.blocks.overviews.half_shape`."""
    shared: int
    """First level that blocks make together; the number of levels where each makes all of its own."""

    @property
    def looks_further(self) -> bool:
        """Whether a cell depends on pixels around it."""
        return any(rule.resampling == "bilinear" for rule in self.rules)

    @property
    def halo(self) -> int:
        """Pixels around a block that its own levels depend on: ``2 * halo of the next level + 1`` at each level."""
        return 2 ** min(self.shared, len(self.levels) - 1) - 1 if self.looks_further else 0

    def with_halo(self, core: Window) -> Window:
        """A block's window and its halo, as far as the raster goes."""
        return core.grow((self.halo, self.halo)).clip(self._extent(0))

    def without_halo(self, values: NDArray[Any], core: Window) -> NDArray[Any]:
        """The block's own pixels ``(band, y, x)``."""
        return values[(slice(None), *core.relative_to(self.with_halo(core)).slices)]

    def upper_levels(self, values: NDArray[Any], core: Window, band_off: int) -> Halves:
        """Level, window and pixels of every half that a block makes; the last of them is a piece where its level is shared.

        Parameters
        ----------
        values
            ``(band, y, x)`` of the block and its halo.
        core
            The block.
        band_off
            Number of its first band, from 0.
        """
        region = self.with_halo(core)
        halo = self.halo
        for level in range(1, min(self.shared, len(self.levels) - 1) + 1):
            halo //= 2
            core = self._half(core, level)
            wanted = core.grow((halo, halo)).clip(self._extent(level))
            values = self.halve(values, region, wanted, band_off)
            region = wanted
            yield level, core, values[(slice(None), *core.relative_to(region).slices)]

    def halve(self, values: NDArray[Any], region: Window, wanted: Window, band_off: int) -> NDArray[Any]:
        """The cells of a window of the next level, from the pixels of ``region``, which holds those under it and beside it."""
        below = Window(2 * wanted.row_off, 2 * wanted.col_off, 2 * wanted.height, 2 * wanted.width).clip(region)
        margin = (
            (min(below.row_off - region.row_off, 1), min(region.row_stop - below.row_stop, 1)),
            (min(below.col_off - region.col_off, 1), min(region.col_stop - below.col_stop, 1)),
        )
        (top, bottom), (left, right) = margin
        part = Window(
            below.row_off - top, below.col_off - left, below.height + top + bottom, below.width + left + right
        )
        values = values[(slice(None), *part.relative_to(region).slices)]
        rules = self.rules[band_off : band_off + len(values)]
        if len(set(map(repr, rules))) == 1:
            return halve(values, rules[0].nodata, rules[0].resampling, partial_cells=self.partial_cells, margin=margin)
        return np.concatenate(
            [
                halve(band[np.newaxis], rule.nodata, rule.resampling, partial_cells=self.partial_cells, margin=margin)
                for band, rule in zip(values, rules, strict=True)
            ]
        )

    def strip_rows(self, level: int) -> int:
        """Rows of a strip: those of a tile, of two where a tile has an odd number, since a strip must begin at an even row."""
        rows = self.levels[level].tile_yx[0]
        return rows if rows % 2 == 0 else 2 * rows

    def _extent(self, level: int) -> Window:
        return Window(0, 0, *self.levels[level].shape[1:])

    def _half(self, window: Window, level: int) -> Window:
        """The cells of ``level`` that a window of the level before makes; it begins at even rows and columns."""
        extra = int(self.partial_cells)
        row, col = window.row_off // 2, window.col_off // 2
        return Window(row, col, (window.row_stop + extra) // 2 - row, (window.col_stop + extra) // 2 - col)


def shared_level(levels: Sequence[TileArray], starts_yx: tuple[Sequence[int], Sequence[int]]) -> int:
    """First level that the blocks of an output make together, given the first rows and columns of blocks; see `Pyramid.shared`.

    A block can write its part of a level by itself where all blocks begin at tiles of it, and halve it on where they begin at even
    pixels of it.
    """
    for number, level in enumerate(levels[1:], 1):
        for starts, tile in zip(starts_yx, level.tile_yx, strict=True):
            first = [start >> number for start in starts]
            if any(start % tile for start in first) or (number + 1 < len(levels) and any(start % 2 for start in first)):
                return number
    return len(levels)


class _Strip:
    """A row of tiles of a level under construction."""

    def __init__(self, window: Window, bands: int, dtype: np.dtype[Any]) -> None:
        self.window = window
        self.values = np.empty((bands, *window.shape_yx), dtype)
        self.missing = self.values.size


class SharedLevels:
    """Puts pieces together to the levels that blocks make together. In the leading process, one call at a time; picklable."""

    def __init__(self, sink: Sink, pyramid: Pyramid) -> None:
        self._sink = sink
        self._pyramid = pyramid
        self._strips: dict[tuple[int, int, int], _Strip] = {}  # level, first band, number of the strip
        # bilinear only: strips that wait for their neighbours, and first and last row of those that are complete.
        self._waiting: dict[tuple[int, int, int], _Strip] = {}
        self._edges: dict[tuple[int, int, int], tuple[NDArray[Any], NDArray[Any]]] = {}

    def add(self, piece: Piece) -> list[Receipt]:
        """Take a piece; receipts of the tiles that are complete with it.

        Raises
        ------
        RasterWriteError
            A tile could not be encoded or written.
        """
        receipts: list[Receipt] = []
        height = self._pyramid.strip_rows(piece.level)
        for number in range(piece.window.row_off // height, -(-piece.window.row_stop // height)):
            key = piece.level, piece.band_off, number
            strip = self._strips.get(key)
            if strip is None:
                rows, cols = self._pyramid.levels[piece.level].shape[1:]
                window = Window(number * height, 0, min(height, rows - number * height), cols)
                strip = self._strips[key] = _Strip(window, len(piece.values), piece.values.dtype)
            part = piece.window.clip(strip.window)
            strip.values[(slice(None), *part.relative_to(strip.window).slices)] = piece.values[
                (slice(None), *part.relative_to(piece.window).slices)
            ]
            strip.missing -= len(piece.values) * part.height * part.width
            if not strip.missing:
                receipts += self._complete(key, self._strips.pop(key))
        return receipts

    def _complete(self, key: tuple[int, int, int], strip: _Strip) -> list[Receipt]:
        level, band_off, number = key
        tiles = self._pyramid.levels[level]
        receipts: list[Receipt] = []
        if tiles.stored:
            try:
                receipts.append(self._sink.put(strip.values, strip.window, band_off, LEADER, level))
            except RasterWriteError as error:
                error.add_note(f"while writing {strip.window} of the overview {2**level} of {self._sink.target}")
                raise
        if level + 1 == len(self._pyramid.levels):
            return receipts
        if not self._pyramid.looks_further:
            return receipts + self._go_up(key, strip.values, strip.window)
        self._waiting[key] = strip
        self._edges[key] = strip.values[:, :1].copy(), strip.values[:, -1:].copy()
        last = round_up(tiles.shape[1], self._pyramid.strip_rows(level)) // self._pyramid.strip_rows(level) - 1
        for one in range(max(number - 1, 0), min(number + 1, last) + 1):
            beside = [other for other in (one - 1, one + 1) if 0 <= other <= last]
            waiting = (level, band_off, one)
            if waiting in self._waiting and all((level, band_off, other) in self._edges for other in beside):
                receipts += self._go_up(waiting, *self._with_edges(waiting, self._waiting.pop(waiting), last))
        return receipts

    def _with_edges(self, key: tuple[int, int, int], strip: _Strip, last: int) -> tuple[NDArray[Any], Window]:
        """A strip with the rows beside it."""
        level, band_off, number = key
        parts, window = [strip.values], strip.window
        if number > 0:
            parts.insert(0, self._edges[level, band_off, number - 1][1])
            window = Window(window.row_off - 1, 0, window.height + 1, window.width)
        if number < last:
            parts.append(self._edges[level, band_off, number + 1][0])
            window = Window(window.row_off, 0, window.height + 1, window.width)
        return np.concatenate(parts, axis=1), window

    def _go_up(self, key: tuple[int, int, int], values: NDArray[Any], region: Window) -> list[Receipt]:
        """The half of a strip as a piece of the next level."""
        level, band_off, number = key
        height = self._pyramid.strip_rows(level)
        rows, cols = self._pyramid.levels[level + 1].shape[1:]
        top = number * height // 2
        window = Window(top, 0, min(height // 2, rows - top), cols)
        if not window.height:
            return []
        half = self._pyramid.halve(values, region, window, band_off)
        return self.add(Piece(level=level + 1, window=window, band_off=band_off, values=half))
