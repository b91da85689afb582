"""A block cut into tiles."""

from __future__ import annotations

import numpy as np
import pytest

from daskraster.blocks.tiling import cut_tiles


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 16, 32), (1, 17, 31), (3, 33, 33)])
def test_tiles_hold_the_block_and_are_whole(shape: tuple[int, int, int], smooth: bool) -> None:
    block = np.arange(1, np.prod(shape) + 1, dtype="uint16").reshape(shape)
    again = np.zeros((shape[0], 48, 48), "uint16")
    for row, col, tile in cut_tiles(block, (16, 16), smooth=smooth):
        assert tile.shape == (shape[0], 16, 16)
        again[:, row * 16 : row * 16 + 16, col * 16 : col * 16 + 16] = tile
    rows, cols = (-(-size // 16) * 16 for size in shape[1:])
    due = np.zeros((shape[0], rows, cols), "uint16")
    for row in range(rows):
        for col in range(cols):
            if row < shape[1] or smooth:
                due[:, row, col] = block[:, min(row, shape[1] - 1), min(col, shape[2] - 1)]
    np.testing.assert_array_equal(again[:, :rows, :cols], due)
