"""Where each tile of a file under way lies: receipts folded into two numbers a tile, as they come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TilePlaces:
    """Offset and size of each tile, by its number; 16 bytes a tile, whatever the number of receipts. Not for many threads at once.

    The arrays are zeros that the system gives when they are first written to (calloc), so a run of a million blocks begins with none and grows
    with its tiles; pickled it is as large as the tiles that are there. A receipt as an object takes some 1.5 KB, for a million blocks 1.5 GB.

    >>> places = TilePlaces(3)
    >>> one = np.array([1])
    >>> places.add(one, one * 80, one * 9, {})
    >>> places.sizes.tolist()
    [0, 9, 0]
    """

    def __init__(self, count: int) -> None:
        self.offsets: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        """Where each tile's bytes begin."""
        self.sizes: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        """How many bytes each tile has; 0 where it was never written."""
        self.held: dict[int, bytes] = {}
        """Number and bytes of tiles whose place is known at the end only."""

    def add(
        self,
        tiles: NDArray[np.int64],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        held: Mapping[int, bytes],
    ) -> None:
        """Take up what a receipt says; of a tile that was written twice the last one counts."""
        self.offsets[tiles] = offsets
        self.sizes[tiles] = sizes
        if held:
            self.held.update(held)

    def __getstate__(self) -> Mapping[str, Any]:
        """The tiles that are there."""
        known = np.flatnonzero(self.sizes)
        return {
            "count": self.sizes.size, "known": known, "offsets": self.offsets[known], "sizes": self.sizes[known], "held": self.held,
        }  # fmt: skip

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["count"])  # type: ignore[misc]
        self.offsets[state["known"]] = state["offsets"]
        self.sizes[state["known"]] = state["sizes"]
        self.held.update(state["held"])
