"""Which blocks of a run are there: a byte a block."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

type Index = tuple[int, int, int]


class BlockSet(Collection[Index]):
    """A set of blocks ``(band, row, column)`` of an array of known numbers of blocks. A set of tuples takes 200 bytes a block.

    >>> blocks = BlockSet((1, 2, 3))
    >>> blocks.add((0, 1, 2))
    >>> (0, 1, 2) in blocks, (0, 0, 0) in blocks, len(blocks), list(blocks)
    (True, False, 1, [(0, 1, 2)])
    """

    def __init__(self, numblocks: Index) -> None:
        self._there = np.zeros(numblocks, dtype=np.bool_)
        self._count = 0

    def add(self, block: Index) -> None:
        """Put a block in.

        Raises
        ------
        IndexError
            There is no such block.
        """
        if not self._there[block]:
            self._there[block] = True
            self._count += 1

    def discard(self, block: Index) -> None:
        """Take a block out, if it is in.

        Raises
        ------
        IndexError
            There is no such block.
        """
        if self._there[block]:
            self._there[block] = False
            self._count -= 1

    def copy(self) -> BlockSet:
        """The blocks that are there now."""
        other = BlockSet(self._there.shape)
        other._there[...] = self._there
        other._count = self._count
        return other

    def __contains__(self, block: Any) -> bool:
        return bool(self._there[block])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Index]:
        """Row by row."""
        return ((band, row, col) for band, row, col in np.argwhere(self._there).tolist())
