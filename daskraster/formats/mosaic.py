"""Many rasters on one lattice of pixels as a Source.

Strategy. A mosaic of 10,000 files is a table: each member's source and its window. For a window only the members that touch it are
looked up (they are kept sorted by their first row) and read. The table weighs some 3 MB pickled, so it never travels: a block's task holds a
`part` of the mosaic, the same thing with those few members only. Where members overlap, and where a member's tiles lie across the border of two
blocks, the tiles are decoded once: each member's source keeps them for the neighbour (`daskraster.formats.tilecache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.merging import Layer, merge
from daskraster.errors import RasterReadError
from daskraster.formats import tilecache
from daskraster.formats.protocols import Source
from daskraster.grid import Window
from daskraster.metadata import Number

# Decoded tiles kept from one block to the next. A file drops those of rows that are done, but a member that is done is not asked again: of 400
# members 64 MB were kept, where 12 MB make the same speed.
SEAMS_NBYTES = 12 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One raster of a mosaic."""

    source: Source
    bands: tuple[int, ...]
    """Of the source, in the order of the mosaic's bands."""
    window: Window
    """In pixels of the mosaic."""
    shift: tuple[int, int]
    """Rows and columns to add to a pixel of the mosaic to have it in the source."""
    skip: Number | None
    """The value of the skipped pixels; None where none is skipped."""

    def read(self, window: Window, bands: Sequence[int]) -> NDArray[Any]:
        """Pixels of a window of the mosaic inside this member; ``bands`` are the mosaic's.

        Raises
        ------
        RasterReadError
            As `Source.read`.
        """
        return self.source.read(window.shift(*self.shift), tuple(self.bands[band - 1] for band in bands))


@dataclass(frozen=True, kw_only=True)
class MosaicSource:
    """Members merged on demand; see `daskraster.formats.protocols.Source`."""

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    tile_yx: tuple[int, int]
    token: str
    """Of all members, in their order, and the options."""
    members: tuple[Member, ...]
    """In the order of the list that made the mosaic."""
    method: str
    skip_band: int
    """From 1."""
    background: tuple[Number, ...]
    """For each band what stands where no member has a pixel."""

    def __repr__(self) -> str:
        # Ten thousand members make five megabytes of text; the token says the same.
        return f"MosaicSource({self.name!r}, {len(self.members)} members, {self.token})"

    def __hash__(self) -> int:
        return hash((self.token, len(self.members)))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_index"}

    @cached_property
    def _index(self) -> _WindowIndex:
        return _WindowIndex([member.window for member in self.members])

    @property
    def inner_sources(self) -> tuple[Source, ...]:
        """Those of the members."""
        return tuple(member.source for member in self.members)

    def touching(self, window: Window) -> list[Member]:
        """The members that have a pixel in a window, in their order."""
        if len(self.members) < 16:
            return [one for one in self.members if all(one.window.clip(window).shape_yx)]
        return [self.members[number] for number in self._index.touching(window)]

    def part(self, window: Window) -> MosaicSource:
        """A mosaic that gives the same pixels inside ``window`` and holds the members it takes for that alone."""
        return replace(self, members=tuple(self.touching(window)))

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """Pixels ``(band, y, x)`` of a window; see `Source.read`.

        Raises
        ------
        RasterReadError
            A member's file is gone, changed, or damaged here.
        """
        members = self.touching(window)
        judged = self.method in ("min", "max") or any(member.skip is not None for member in members)
        extra = (self.skip_band,) if judged and self.skip_band not in bands else ()
        wanted = (*bands, *extra)
        layers = [_layer(member, window, wanted) for member in members]
        judge = wanted.index(self.skip_band) if judged else 0
        try:
            merged, empty = merge(layers, (len(wanted), *window.shape_yx), self.dtype, method=self.method, judge=judge)
        except RasterReadError as error:
            error.add_note(f"needed for {window} of {self.name}")
            raise
        tilecache.shrink(SEAMS_NBYTES)
        pixels = merged[: len(bands)]
        if empty.any():
            for band, values in zip(bands, pixels, strict=True):
                np.copyto(values, self.dtype.type(self.background[band - 1]), where=empty)
        return pixels


def _layer(member: Member, window: Window, bands: tuple[int, ...]) -> Layer:
    def read(part: Window) -> NDArray[Any]:
        return member.read(part.shift(window.row_off, window.col_off), bands)

    return Layer(member.window.clip(window).relative_to(window), read, member.skip)


class _WindowIndex:
    """Finds the windows that touch one: sorted by their first row, so that only a band of them is compared (5 microseconds of 10,000)."""

    def __init__(self, windows: Sequence[Window]) -> None:
        table = np.array([(w.row_off, w.row_stop, w.col_off, w.col_stop) for w in windows], np.int64).reshape(-1, 4)
        self._numbers = np.argsort(table[:, 0], kind="stable")
        self._tops, self._bottoms, self._lefts, self._rights = np.ascontiguousarray(table[self._numbers].T)
        self._tallest = int((self._bottoms - self._tops).max(initial=0))

    def touching(self, window: Window) -> list[int]:
        """Numbers of the windows that share a pixel with ``window``, ascending."""
        first = np.searchsorted(self._tops, window.row_off - self._tallest, side="right")
        last = np.searchsorted(self._tops, window.row_stop, side="left")
        band = slice(first, last)
        near = (
            (self._bottoms[band] > window.row_off)
            & (self._lefts[band] < window.col_stop)
            & (self._rights[band] > window.col_off)
        )
        return sorted(self._numbers[band][near].tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPixels:
    """Pixels in memory as a Source: what a computed block is to a mosaic."""

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    token: str
    place: tuple[int, int, int]
    """Number of the raster in the mosaic's list, row and column of the block in it."""
    values: NDArray[Any] | None = None
    """``(band, y, x)``; None while they are to come."""

    @property
    def tile_yx(self) -> tuple[int, int]:
        """No tiles."""
        return 1, 1

    def __repr__(self) -> str:
        return f"HeldPixels({self.name!r}, {self.shape}, {self.token}, {self.place})"

    def __hash__(self) -> int:
        return hash((self.token, self.place))

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """A copy of a window; see `Source.read`.

        Raises
        ------
        RasterReadError
            The pixels have not come.
        """
        if self.values is None:
            raise RasterReadError(f"the pixels of {self.name} are computed, not read; nothing holds them yet")
        rows, cols = window.slices
        return self.values[[band - 1 for band in bands], rows, cols]
