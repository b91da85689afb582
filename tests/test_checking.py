"""check_overlap finds what a function needs, against functions whose reach is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

import daskraster as dr
from daskraster.running.checking import sample_windows
from tests.conftest import MakeRaster, pixels


def largest_within(reach: int) -> Any:
    def largest(block: NDArray[Any]) -> NDArray[Any]:
        return maximum_filter(block, size=(1, 2 * reach + 1, 2 * reach + 1))

    return largest


def noise(shape: tuple[int, int, int] = (1, 500, 700)) -> xr.DataArray:
    return xr.DataArray(np.random.default_rng(1).random(shape), dims=("band", "y", "x"))


@pytest.mark.parametrize("reach", [0, 1, 2, 5, 17])
@pytest.mark.parametrize("overlap", [0, 1, 5])
def test_the_reach_is_found(reach: int, overlap: int) -> None:
    check = dr.check_overlap(largest_within(reach), noise(), overlap=overlap, samples=4, size=100)
    assert check.ok == (overlap >= reach)
    assert check.suggested == reach
    assert (check.differing > 0) == (check.deepest > 0) == (overlap < reach)
    assert check.deepest <= max(reach - overlap, 0)
    assert (f"Use overlap={reach}" in str(check)) == (not check.ok)
    assert check.to_dict()["suggested"] == reach


def test_what_differs_is_what_seams_would_be() -> None:
    # The pixels that differ in a sample are those that differ in a whole result made of blocks like the sample.
    image = noise((1, 300, 300))
    func = largest_within(4)
    check = dr.check_overlap(func, image, overlap=1, samples=1, size=100)
    (sample,) = check.samples
    rows, cols = sample.window.slices
    assert sample.window == dr.Window(100, 100, 100, 100)
    whole = func(image.values)
    cut = dr.apply(func, image.chunk(y=100, x=100), overlap=1).values
    np.testing.assert_array_equal(sample.differing, (whole != cut)[0, rows, cols])
    assert sample.largest == np.abs(whole - cut)[0, rows, cols].max()
    assert check.pixels == 10_000


def test_a_function_of_the_whole_block_has_no_overlap() -> None:
    check = dr.check_overlap(lambda block: block - block.mean(), noise(), overlap=3, samples=2, size=64)
    assert check.suggested is None
    assert "looks at its whole block" in str(check)


def test_tolerance_forgives_rounding() -> None:
    def rounded(block: NDArray[Any]) -> NDArray[Any]:
        return block + block.shape[1] * 1e-12

    assert not dr.check_overlap(rounded, noise(), overlap=1, samples=2, size=64).ok
    assert dr.check_overlap(rounded, noise(), overlap=1, samples=2, size=64, tolerance=1e-6).ok


def test_unsigned_differences_and_nan() -> None:
    image = xr.DataArray(np.arange(40_000, dtype="uint16").reshape(1, 200, 200), dims=("band", "y", "x"))

    def first_row(block: NDArray[Any]) -> NDArray[Any]:
        return np.where(block == block[:, :1], np.uint16(0), np.uint16(65_535))

    assert dr.check_overlap(first_row, image, overlap=0, samples=1, size=50).largest == 65_535

    def edge_is_nan(block: NDArray[Any]) -> NDArray[Any]:
        result = np.full(block.shape, np.nan)
        result[:, 1:-1, 1:-1] = block[:, :-2, 1:-1]
        return result

    check = dr.check_overlap(edge_is_nan, image, overlap=0, samples=1, size=50)
    assert check.suggested == 1
    assert check.largest == np.inf
    assert check.differing == 4 * 50 - 4
    assert dr.check_overlap(edge_is_nan, image, overlap=1, samples=1, size=50).ok


def test_several_rasters_and_blocks(make_raster: MakeRaster) -> None:
    one, other = (
        dr.open_raster(make_raster(pixels((1, 200, 150), seed=seed), f"{seed}.tif"), chunks=64) for seed in (1, 2)
    )

    def shifted(a: NDArray[Any], b: NDArray[Any], where: dr.Block, *, by: int) -> NDArray[Any]:
        assert where.window_with_halo.shape_yx == a.shape[1:] == b.shape[1:]
        return a + np.roll(b, by, axis=2)

    check = dr.check_overlap(shifted, one, other, overlap=2, samples=3, size=40, with_block=True, kwargs={"by": 3})
    assert check.suggested == 3


@given(rows=st.integers(1, 400), cols=st.integers(1, 400), count=st.integers(1, 20), size=st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_samples_lie_inside(rows: int, cols: int, count: int, size: int) -> None:
    windows = sample_windows((rows, cols), count, size)
    assert 1 <= len(windows) <= 2 * count
    for window in windows:
        assert window.clip(dr.Window(0, 0, rows, cols)) == window
        assert window.shape_yx == (min(size, rows), min(size, cols))


def test_wrong_arguments_are_told() -> None:
    with pytest.raises(dr.OptionError, match="at least one raster"):
        dr.check_overlap(largest_within(1))
    with pytest.raises(dr.OptionError, match="samples=0 must be"):
        dr.check_overlap(largest_within(1), noise(), samples=0)
    with pytest.raises(dr.OptionError, match="overlap=-1"):
        dr.check_overlap(largest_within(1), noise(), overlap=-1)
    with pytest.raises(dr.GridMismatchError, match="different grids"):
        dr.check_overlap(largest_within(1), noise(), noise((1, 20, 20)))
    with pytest.raises(dr.OptionError, match="as many for every block"):
        dr.check_overlap(lambda block: np.repeat(block, block.shape[1], axis=0), noise(), samples=1, size=20)


@pytest.mark.parametrize("overlap", [1024, 1100])
def test_an_overlap_above_those_that_are_searched_for(overlap: int) -> None:
    image = noise((1, 40, 2 * overlap + 300))
    check = dr.check_overlap(largest_within(2), image, overlap=overlap, samples=1, size=32)
    assert check.compared_with > overlap
    assert (check.ok, check.suggested) == (True, 2)
    check = dr.check_overlap(lambda block: block - block.mean(), image, overlap=overlap, samples=1, size=32)
    assert (check.ok, check.suggested) == (False, None)
