"""Unused room in a file of regions, filled from its end.

Ground floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daskraster.positioned import read_at, write_all

MAX_GAPS = 0.01  # share of a file that may stay unused before `Gaps.slide` moves everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """The room between the regions of an open file, from ``start`` on."""

    descriptor: int
    start: int
    target: Path
    """For messages."""
    fenced: Sequence[tuple[int, int]]
    """Offset and size of what is to be left alone."""

    def fill(self, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Move the last regions into gaps before them; return the new offsets and the end of the last region.

        Only free bytes are written. Each gap is filled from the end of the file; slivers smaller than any region stay.

        Raises
        ------
        RasterWriteError
            The disk refused.
        """
        order = np.argsort(offsets, kind="stable")
        smallest = int(sizes.min()) if sizes.size else 1
        gaps = [gap for gap in self._between(offsets[order], sizes[order]) if gap[1] >= smallest]
        moved: dict[int, int] = {}
        end = self.start
        for index in order[::-1]:
            old, size = int(offsets[index]), int(sizes[index])
            while gaps and gaps[-1][0] >= old:
                gaps.pop()
            gap = None if old in moved else next((gap for gap in gaps if gap[1] >= size), None)
            if gap is not None:
                write_all(self.descriptor, [read_at(self.descriptor, size, old)], gap[0], target=self.target)
                moved[old] = gap[0]
                gap[0] += size
                gap[1] -= size
                if gap[1] < smallest:
                    gaps.remove(gap)
            end = max(end, moved.get(old, old) + size)
        return np.array([moved.get(int(old), int(old)) for old in offsets], dtype=np.int64), end

    def slide(self, offsets: NDArray[np.int64], sizes: NDArray[np.int64], end: int) -> tuple[NDArray[np.int64], int]:
        """Move every region down to the one before it, where the gaps that are left make more than a hundredth of the file.

        Only in files of few regions, since gaps are smaller than regions. This overwrites regions: a crash meanwhile loses the file.
        """
        used = int(sizes[np.unique(offsets, return_index=True)[1]].sum())
        if end - self.start - used <= (end - self.start) * MAX_GAPS:
            return offsets, end
        moved: dict[int, int] = {}
        position = self.start
        for index in np.argsort(offsets, kind="stable"):
            old, size = int(offsets[index]), int(sizes[index])
            if old not in moved:
                if old > position:
                    write_all(self.descriptor, [read_at(self.descriptor, size, old)], position, target=self.target)
                moved[old] = position
                position += size
        return np.array([moved[int(old)] for old in offsets], dtype=np.int64), position

    def _between(self, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[list[int]]:
        """Free ``[offset, size]`` between ascending regions, but for what is fenced."""
        taken = sorted([*zip(offsets.tolist(), sizes.tolist(), strict=True), *self.fenced])
        gaps: list[list[int]] = []
        position = self.start
        for begin, size in taken:
            if begin > position:
                gaps.append([position, begin - position])
            position = max(position, begin + size)
        return gaps
