"""Byte planes, against HDF5's own shuffle filter."""

from __future__ import annotations

import io

import h5py
import numpy as np
import pytest

from daskraster.blocks.shuffle import shuffle, unshuffle
from tests.conftest import pixels


@pytest.mark.parametrize("dtype", ["uint8", "<i2", "<u4", "<f8"])
def test_equals_hdf5(dtype: str) -> None:
    larger = pixels((1, 40, 50), dtype)[0].astype(dtype)
    tile = larger[3:35, 7:23]
    with h5py.File(io.BytesIO(), "w") as file:
        data = file.create_dataset("x", data=tile, chunks=tile.shape, shuffle=True)
        expected = data.id.read_direct_chunk((0, 0))[1]
    planes = np.empty((tile.itemsize, *tile.shape), np.uint8)
    shuffle(tile, planes)
    assert planes.tobytes() == expected
    back = np.zeros_like(larger)
    unshuffle(planes[:, 2:, :5], back[10:40, 1:6])
    np.testing.assert_array_equal(back[10:40, 1:6], tile[2:, :5])
    assert not back[:10].any()


@pytest.mark.parametrize("dtype", ["<u2", "<i4", "<u4", "<i8", "<u8"])
@pytest.mark.parametrize("largest", [0, 200, 60_000, 2**24, 2**31 - 1, 2**40])
def test_small_numbers_in_wide_types(dtype: str, largest: int) -> None:
    largest = min(largest, np.iinfo(dtype).max)
    tile = np.random.default_rng(0).integers(0, largest, (30, 20), dtype, endpoint=True)
    tile[3, 4] = largest
    planes = np.empty((tile.itemsize, *tile.shape), np.uint8)
    shuffle(tile, planes)
    back = np.empty((50, 50), dtype)
    unshuffle(planes, back[7:37, 5:25])
    np.testing.assert_array_equal(back[7:37, 5:25], tile)


@pytest.mark.parametrize("dtype", ["<i2", "<u4", "<f8"])
def test_any_strides(dtype: str) -> None:
    larger = pixels((1, 40, 50), dtype)[0].astype(dtype)
    planes, expected = (np.empty((larger.itemsize, 20, 32), np.uint8) for _ in range(2))
    tile = larger.T[5:45:2, 3:35]
    shuffle(tile, planes)
    shuffle(np.ascontiguousarray(tile), expected)
    np.testing.assert_array_equal(planes, expected)


@pytest.mark.parametrize("shape_yx", [(1, 1), (3, 7), (4, 8), (16, 16)])
@pytest.mark.parametrize("plane", [1, 2, 3])
def test_one_byte_high_up(shape_yx: tuple[int, int], plane: int) -> None:
    """Whole planes are looked at eight bytes at a time, others one by one."""
    planes = np.zeros((4, *shape_yx), np.uint8)
    planes[plane, -1, -1] = 1
    tile = np.full(shape_yx, 9, "<u4")
    unshuffle(planes, tile)
    assert tile[-1, -1] == 256**plane
    assert tile.sum() == 256**plane
