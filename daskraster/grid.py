"""Where pixels lie: windows in pixels, grids on the Earth.

Ground floor: knows affine and pyproj, nothing of arrays or files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyproj
from affine import Affine

# Two grids are taken as one while every corner lies within this share of a pixel: coordinates that went through text or float32
# differ by less, a real misregistration by more.
CORNER_TOLERANCE_PIXELS = 0.01


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels; row 0, column 0 is the upper left pixel of the array.

    >>> Window(0, 512, 512, 512).grow((5, 5)).clip(Window(0, 0, 1024, 1024))
    Window(row_off=0, col_off=507, height=517, width=517)
    """

    row_off: int
    """First row."""
    col_off: int
    """First column."""
    height: int
    """Number of rows."""
    width: int
    """Number of columns."""

    @property
    def row_stop(self) -> int:
        """First row below the window."""
        return self.row_off + self.height

    @property
    def col_stop(self) -> int:
        """First column right of the window."""
        return self.col_off + self.width

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as slices of the last two axes."""
        return slice(self.row_off, self.row_stop), slice(self.col_off, self.col_stop)

    def grow(self, halo_yx: tuple[int, int]) -> Window:
        """This window with ``halo_yx`` more pixels on every side; it may leave the raster (see `clip`)."""
        rows, cols = halo_yx
        return Window(self.row_off - rows, self.col_off - cols, self.height + 2 * rows, self.width + 2 * cols)

    def clip(self, outer: Window) -> Window:
        """The part of this window inside ``outer``; height or width 0 where there is none."""
        top, left = max(self.row_off, outer.row_off), max(self.col_off, outer.col_off)
        bottom, right = min(self.row_stop, outer.row_stop), min(self.col_stop, outer.col_stop)
        return Window(top, left, max(bottom - top, 0), max(right - left, 0))

    def shift(self, rows: int, cols: int) -> Window:
        """The same rectangle, moved down by ``rows`` and right by ``cols``."""
        return Window(self.row_off + rows, self.col_off + cols, self.height, self.width)

    def relative_to(self, outer: Window) -> Window:
        """This window in the pixel coordinates of ``outer``, a window of the same raster."""
        return self.shift(-outer.row_off, -outer.col_off)

    def snap(self, tile_yx: tuple[int, int]) -> Window:
        """The smallest window of whole tiles that holds this one.

        >>> Window(500, 0, 20, 10).snap((512, 256))
        Window(row_off=0, col_off=0, height=1024, width=256)
        """
        top, left = self.row_off // tile_yx[0] * tile_yx[0], self.col_off // tile_yx[1] * tile_yx[1]
        bottom, right = round_up(self.row_stop, tile_yx[0]), round_up(self.col_stop, tile_yx[1])
        return Window(top, left, bottom - top, right - left)


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster's pixels on the Earth: CRS, affine transform, rows and columns."""

    crs: pyproj.CRS | None
    """Coordinate reference system; None where the raster has none."""
    transform: Affine
    """From (column, row) of a pixel's upper left corner to (x, y), in units of the CRS; identity where there is none."""
    shape_yx: tuple[int, int]
    """Rows and columns."""

    def window_grid(self, window: Window) -> Grid:
        """The grid of a window of this grid."""
        return Grid(self.crs, window_transform(self.transform, window), window.shape_yx)

    def difference(self, other: Grid) -> str | None:
        """What makes two grids differ, in words, or None where they are one grid.

        One grid: equal CRS (as pyproj compares them), equal shape, and all four corners within 0.01 pixel.
        """
        if self.shape_yx != other.shape_yx:
            return "their sizes differ"
        if self.crs != other.crs:
            return "their CRS differ"
        distance = self._corner_distance(other)
        if not distance <= CORNER_TOLERANCE_PIXELS:
            return f"their corners lie up to {distance:.3g} pixels apart"
        return None

    def _corner_distance(self, other: Grid) -> float:
        """Largest distance of two matching corners, in pixels of this grid."""
        rows, cols = self.shape_yx
        to_pixels = ~self.transform
        return max(
            math.dist(to_pixels @ (other.transform @ corner), corner)
            for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))
        )

    def offset_of(self, other: Grid) -> tuple[int, int]:
        """Row and column of this grid's pixel nearest to the upper left pixel of ``other``."""
        col, row = ~self.transform @ (other.transform.c, other.transform.f)
        return round(row), round(col)

    def lattice_difference(self, other: Grid) -> str | None:
        """Why the pixels of ``other`` are none of this grid's, were it without end, in words; None where they are.

        They are: equal CRS, and all four corners of ``other`` within 0.01 pixel of corners of pixels, `offset_of` away.
        """
        if self.crs is not other.crs and self.crs != other.crs:
            return "their CRS differ"
        rows, cols = other.shape_yx
        row, col = self.offset_of(other)
        relative = ~self.transform @ other.transform
        if relative.a <= 0 or relative.e <= 0:
            return "their rows or columns run in opposite directions: one of them is upside down or mirrored"
        stretched = max(
            math.dist(relative @ corner, (corner[0] + relative.c, corner[1] + relative.f))
            for corner in ((cols, 0), (0, rows), (cols, rows))
        )
        if not stretched <= CORNER_TOLERANCE_PIXELS:
            return "their pixel sizes differ"
        away = max(
            math.dist(relative @ corner, (corner[0] + col, corner[1] + row))
            for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))
        )
        if not away <= CORNER_TOLERANCE_PIXELS:
            down, right = abs(relative.f - row), abs(relative.c - col)
            return f"the second lies {down:.3g} rows and {right:.3g} columns off the pixels of the first"
        return None

    def __str__(self) -> str:
        """One line for messages: size, CRS, corner, pixel size."""
        rows, cols = self.shape_yx
        t = self.transform
        rotation = f", rotation ({t.b:.10g}, {t.d:.10g})" if t.b or t.d else ""
        crs = "no CRS" if self.crs is None else crs_name(self.crs)
        return (
            f"{cols} x {rows} pixels, {crs}, upper left corner ({t.c:.10g}, {t.f:.10g}), "
            f"pixel size ({t.a:.10g}, {t.e:.10g}){rotation}"
        )


@lru_cache(maxsize=64)
def crs_of(wkt: str) -> pyproj.CRS:
    """A CRS from its text; the files of a mosaic, and a raster on its way, share one, and making it takes 0.15 ms, the first time 1.

    Safe in threads: pyproj keeps what PROJ needs for each.

    Raises
    ------
    pyproj.exceptions.CRSError
        The text is no CRS.
    """
    return pyproj.CRS.from_wkt(wkt)


def crs_name(crs: pyproj.CRS) -> str:
    """``EPSG:32630`` where there is such a code, else the CRS's own name."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def window_transform(transform: Affine, window: Window) -> Affine:
    """The transform of a window of a raster with ``transform``."""
    return transform @ Affine.translation(window.col_off, window.row_off)


def round_up(value: int, step: int) -> int:
    """The smallest multiple of ``step`` not below ``value``.

    Postcondition: ``result % step == 0 and value <= result < value + step``.
    """
    return -(-value // step) * step


def split_axis(length: int, size: int) -> tuple[int, ...]:
    """Chunk sizes of an axis cut every ``size`` pixels; the last may be shorter.

    >>> split_axis(250, 100)
    (100, 100, 50)
    """
    full, rest = divmod(length, size)
    return (size,) * full + ((rest,) if rest else ())


def tile_axis(length: int, size: int, *, offset: bool = False) -> tuple[int, ...]:
    """Lengths of the tiles' cores along an axis: full ones, then the rest; with ``offset`` half a tile first.

    Postcondition: they sum up to ``length``, and none is empty.

    >>> tile_axis(250, 100), tile_axis(250, 100, offset=True)
    ((100, 100, 50), (50, 100, 100))
    """
    half = min(size // 2, length) if offset else 0
    return ((half,) if half else ()) + split_axis(length - half, size)


def tile_table(
    shape_yx: tuple[int, int], tile_yx: tuple[int, int], *, overlap: int = 0, offset: bool = False
) -> list[Window]:
    """A raster's tiles, row by row: cores that cut it up, each grown by ``overlap`` on every side and clipped to the raster.

    A row of 250 pixels in tiles of 100 with an overlap of 5, and the same with an offset::

        0         100       200  250            0    50        150       250
        |---------|---------|----|              |----|---------|---------|
        [=========.=]                           [====.=]
                [=.=========.=]                    [=.=========.=]
                          [=.====]                           [=.=========]

    >>> [(window.col_off, window.col_stop) for window in tile_table((1, 250), (1, 100), overlap=5)]
    [(0, 105), (95, 205), (195, 250)]
    >>> [(window.col_off, window.col_stop) for window in tile_table((1, 250), (2, 100), overlap=5, offset=True)]
    [(0, 55), (45, 155), (145, 250)]
    """
    whole = Window(0, 0, *shape_yx)
    rows, cols = (tile_axis(length, size, offset=offset) for length, size in zip(shape_yx, tile_yx, strict=True))
    return [
        Window(top, left, height, width).grow((overlap, overlap)).clip(whole)
        for top, height in zip(itertools.accumulate(rows, initial=0), rows, strict=False)
        for left, width in zip(itertools.accumulate(cols, initial=0), cols, strict=False)
    ]


def table_cores(table: Sequence[Window], shape_yx: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The heights and widths of the cores of a tile table of a raster, whatever its overlap.

    >>> table_cores(tile_table((60, 250), (50, 100), overlap=5), (60, 250))
    ((50, 10), (100, 100, 50))

    Raises
    ------
    ValueError
        The windows are no table: not row by row, gaps, overlaps that differ, another raster's; or the overlap is so wide
        that several tables look like this one.
    """
    first = table[0]
    count = next((n for n, w in enumerate(table) if (w.row_off, w.height) != (first.row_off, first.height)), len(table))
    tops = [(window.row_off, window.row_stop) for window in table[::count]]
    sides = [(window.col_off, window.col_stop) for window in table[:count]]
    spans = [(top, side) for top in tops for side in sides]
    came = [((window.row_off, window.row_stop), (window.col_off, window.col_stop)) for window in table]
    if spans != came or tops != sorted(tops) or sides != sorted(sides):
        pairs = zip(spans, came, strict=False)
        wrong = next((number for number, (due, one) in enumerate(pairs) if due != one), len(table) - 1)
        raise ValueError(
            "its windows make no table of rows and columns, row by row from the top left: "
            f"look at number {wrong + 1} of {len(table)}, {table[wrong]}"
        )
    overlaps = {cut for pairs, length in zip((tops, sides), shape_yx, strict=True) for cut in _overlaps(pairs, length)}
    if len(overlaps) > 1:
        raise ValueError(f"its windows overlap by different widths, {sorted(overlaps)} pixels at each cut")
    overlap = next(iter(overlaps), None)
    rows, cols = (
        _cores(pairs, length, overlap, axis)
        for pairs, length, axis in zip((tops, sides), shape_yx, ("rows", "columns"), strict=True)
    )
    return rows, cols


def _overlaps(spans: Sequence[tuple[int, int]], length: int) -> list[float]:
    """By how much neighbouring windows reach beyond the cut between them, at cuts where the raster's edge clips neither."""
    pairs = itertools.pairwise(spans)
    return [(one[1] - other[0]) / 2 for one, other in pairs if other[0] > 0 and one[1] < length]


def _cores(spans: Sequence[tuple[int, int]], length: int, overlap: float | None, axis: str) -> tuple[int, ...]:
    """Cut an axis where windows with an overlap say; checked by making the windows again."""
    cuts: list[float] = [0]
    for one, other in itertools.pairwise(spans):
        if other[0] > 0 and one[1] < length:
            cuts.append((one[1] + other[0]) / 2)
        elif overlap is not None and (other[0] > 0 or one[1] < length):
            cuts.append(other[0] + overlap if other[0] > 0 else one[1] - overlap)
        else:
            raise ValueError(
                f"its windows overlap so widely that their cores cannot be told from them along the {axis}; "
                "make the table with overlap=0 and give the overlap to apply"
            )
    cuts.append(length)
    reach = overlap or 0
    made = [(max(start - reach, 0), min(stop + reach, length)) for start, stop in itertools.pairwise(cuts)]
    if made != list(spans) or any(stop <= start or start % 1 for start, stop in itertools.pairwise(cuts)):
        raise ValueError(
            f"its windows do not cut {length} {axis} into tiles with one overlap: they span {spans[:4]}..."
        )
    return tuple(int(stop - start) for start, stop in itertools.pairwise(cuts))
