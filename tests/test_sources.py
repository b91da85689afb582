"""A source is found behind plain slices, and behind nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter

import daskraster as dr
from daskraster.grid import Window
from daskraster.lazy.arrays import as_raster
from daskraster.lazy.slicing import source_of
from tests.conftest import MakeRaster, pixels


@pytest.fixture
def image(make_raster: MakeRaster) -> xr.DataArray:
    return dr.open_raster(make_raster(pixels((4, 90, 120)), tiled=True, blockxsize=16, blockysize=16), chunks=(32, 48))


PLAIN: list[Callable[[Any], Any]] = [
    lambda a: a,
    lambda a: a.copy(),
    lambda a: a.isel(y=slice(3, 70)),
    lambda a: a.isel(y=slice(40, 80), x=slice(50, 52)),
    lambda a: a.isel(y=slice(3, 70)).isel(y=slice(30, None), x=slice(47, 49)),
    lambda a: a.isel(band=2),
    lambda a: a.isel(band=slice(1, 3)),
    lambda a: a.isel(band=slice(1, 4)).isel(band=1, y=slice(31, 33)),
    lambda a: a.isel(band=3, y=slice(0, 1), x=slice(0, 1)),
    lambda a: a.sel(x=slice(300_200, 300_900), y=slice(5_999_900, 5_999_400)),
    lambda a: a.rio.clip_box(300_205, 5_999_405, 300_905, 5_999_905),
    lambda a: a.sel(band=3),
    lambda a: a.isel(band=[2, 0]),
    lambda a: a.sel(band=[4, 1, 3]),
    lambda a: a.isel(band=[1]),
    lambda a: a.isel(band=[3, 1, 0]).isel(band=[2, 0]),
    lambda a: a.isel(band=[2, 0], x=slice(5, 60), y=slice(3, None)),
    lambda a: a.isel(band=[2, 0]).isel(x=slice(5, 60)).isel(band=1),
    lambda a: a.isel(x=slice(5, 60)).isel(band=[2, 0]),
    lambda a: a.assign_attrs(a=1).rename("other"),
]
OTHER: list[Callable[[Any], Any]] = [
    lambda a: a.isel(y=slice(None, None, -1)),
    lambda a: a.isel(x=slice(0, 90, 2)),
    lambda a: a.isel(y=[3, 4, 5]),
    lambda a: a.isel(x=[5, 3, 8]),
    lambda a: a.isel(band=[1, 1]),
    lambda a: a.isel(band=[2, 0], x=[1, 2]),
    lambda a: (a + 1).isel(band=[1]),
    lambda a: a + 0,
    lambda a: a.where(a > 3),
    lambda a: a.astype("int32"),
    lambda a: a.roll(x=3),
    lambda a: xr.concat([a.isel(y=slice(0, 40)), a.isel(y=slice(50, 90))], "y"),
    lambda a: xr.concat([a.isel(band=slice(0, 1)), a.isel(band=slice(0, 1))], "band"),
    lambda a: a.persist(scheduler="synchronous"),
    lambda a: a.pad(x=2, mode="edge"),
    lambda a: a.shift(y=1, fill_value=0),
    lambda a: a.isel(y=slice(3, 70)).isel(y=slice(None, None, -1)),
]


@pytest.mark.parametrize("change", PLAIN)
def test_plain_slices_are_seen_through(image: xr.DataArray, change: Callable[[Any], Any]) -> None:
    array = change(image)
    view = source_of(array.data)
    assert view is not None
    whole = image.values
    read = view.source.read(view.window, view.bands)
    assert (read.reshape(array.shape) == change(image.copy(data=whole)).values).all()


def test_bands_from_a_list_are_read_with_their_halo(image: xr.DataArray) -> None:
    picked = image.isel(band=[2, 0], y=slice(1, None))
    result = dr.apply(lambda block: median_filter(block, size=(1, 5, 5)), picked, overlap=2)
    assert not any("overlap" in name for name in result.data.dask.layers)  # read, not exchanged
    np.testing.assert_array_equal(result.values, median_filter(image.values[[2, 0], 1:], size=(1, 5, 5)))


@pytest.mark.parametrize("change", OTHER)
def test_anything_else_is_not(image: xr.DataArray, change: Callable[[Any], Any]) -> None:
    array = change(image)
    assert source_of(array.data) is None
    changed = change(image.copy(data=image.values)).values
    np.testing.assert_array_equal(array.values, changed)
    flipped = array.y.values[0] < array.y.values[-1]
    if (
        array.dtype != float
        and not flipped
        and len(set(np.round(np.diff(array.x), 6))) == 1
        and len(set(np.round(np.diff(array.y), 6))) == 1
    ):
        np.testing.assert_array_equal(dr.apply(lambda block: block, array, overlap=3).values, changed)


def test_transposed_arrays_are_read_right(image: xr.DataArray) -> None:
    whole = image.values
    turned = image.transpose("x", "band", "y")
    assert (dr.apply(lambda block: block, turned, overlap=2).values == whole).all()
    assert (
        dr.apply(lambda block: block, image.transpose("y", "x", "band").chunk(x=11), overlap=2).values == whole
    ).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_chain_of_slices(image: xr.DataArray, data: st.DataObject) -> None:
    array = image
    for _ in range(data.draw(st.integers(1, 3))):
        cut = {}
        for axis in ("band", "y", "x"):
            start = data.draw(st.integers(0, array.sizes[axis] - 1))
            cut[axis] = slice(start, data.draw(st.integers(start + 1, array.sizes[axis])))
        array = array.isel(cut)
    view = as_raster(array).view
    assert view is not None
    expected = image.values[
        np.ix_(np.array(view.bands) - 1, np.arange(*_range(view.window)[0]), np.arange(*_range(view.window)[1]))
    ]
    assert (array.values == expected).all()
    assert (dr.apply(lambda block: block, array, overlap=4).values == expected).all()


def _range(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    return (window.row_off, window.row_stop), (window.col_off, window.col_stop)
