"""Windows and grids, against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from daskraster.grid import Grid, Window, crs_name, round_up, split_axis, window_transform

UTM = pyproj.CRS(32630)
NORTH_UP = Affine(10, 0, 300_000, 0, -10, 6_000_000)
small = st.integers(0, 30)
windows = st.builds(Window, small, small, st.integers(1, 30), st.integers(1, 30))


def mask(window: Window) -> np.ndarray:
    """The window painted into a large field whose pixel (50, 50) is the origin."""
    field = np.zeros((150, 150), bool)
    field[50 + window.row_off : 50 + window.row_stop, 50 + window.col_off : 50 + window.col_stop] = True
    return field


@given(windows, windows)
def test_clip_is_the_intersection(one: Window, other: Window) -> None:
    assert (mask(one.clip(other)) == (mask(one) & mask(other))).all()


@given(windows, small, small)
def test_grow_then_clip_holds_the_window(window: Window, rows: int, cols: int) -> None:
    grown = window.grow((rows, cols))
    assert grown.shape_yx == (window.height + 2 * rows, window.width + 2 * cols)
    assert window.clip(grown) == window


@given(windows, st.integers(1, 9), st.integers(1, 9))
def test_snap_is_the_smallest_window_of_whole_tiles(window: Window, rows: int, cols: int) -> None:
    snapped = window.snap((rows, cols))
    assert snapped.row_off % rows == snapped.row_stop % rows == snapped.col_off % cols == snapped.col_stop % cols == 0
    assert window.clip(snapped) == window
    assert snapped.height < window.height + 2 * rows
    assert snapped.width < window.width + 2 * cols


@given(windows, windows)
def test_relative_to_gives_the_same_pixels(one: Window, other: Window) -> None:
    field = np.arange(150 * 150).reshape(150, 150)
    inner = one.clip(other)
    if inner.height and inner.width:
        assert (field[other.slices][inner.relative_to(other).slices] == field[inner.slices]).all()


@given(st.integers(0, 1000), st.integers(1, 100))
def test_round_up_postcondition(value: int, step: int) -> None:
    result = round_up(value, step)
    assert result % step == 0
    assert value <= result < value + step


@given(st.integers(1, 1000), st.integers(1, 100))
def test_split_axis_partitions(length: int, size: int) -> None:
    sizes = split_axis(length, size)
    assert sum(sizes) == length
    assert set(sizes[:-1]) <= {size}
    assert 0 < sizes[-1] <= size


def test_window_transform_by_hand() -> None:
    assert window_transform(NORTH_UP, Window(3, 5, 10, 10)) == Affine(10, 0, 300_050, 0, -10, 5_999_970)
    assert Grid(UTM, NORTH_UP, (100, 100)).window_grid(Window(3, 5, 10, 20)) == Grid(
        UTM, Affine(10, 0, 300_050, 0, -10, 5_999_970), (10, 20)
    )


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (Grid(UTM, NORTH_UP, (100, 101)), "sizes"),
        (Grid(pyproj.CRS(32631), NORTH_UP, (100, 100)), "CRS"),
        (Grid(None, NORTH_UP, (100, 100)), "CRS"),
        (Grid(UTM, NORTH_UP @ Affine.translation(0.02, 0), (100, 100)), "0.02 pixels"),
        (Grid(UTM, NORTH_UP @ Affine.scale(1.001, 1), (100, 100)), "0.1 pixels"),
        (Grid(UTM, NORTH_UP @ Affine.rotation(1), (100, 100)), "pixels"),
    ],
)
def test_grids_that_differ(other: Grid, word: str) -> None:
    assert word in str(Grid(UTM, NORTH_UP, (100, 100)).difference(other))


def test_grids_that_differ_by_rounding_are_one() -> None:
    nearly = Grid(pyproj.CRS("EPSG:32630"), NORTH_UP @ Affine.translation(0.009, 0), (100, 100))
    assert Grid(UTM, NORTH_UP, (100, 100)).difference(nearly) is None


def test_a_grid_in_a_message() -> None:
    text = str(Grid(UTM, NORTH_UP, (100, 200)))
    assert "200 x 100 pixels" in text
    assert "EPSG:32630" in text
    assert "(300000, 6000000)" in text
    assert crs_name(pyproj.CRS.from_proj4("+proj=laea +lat_0=1 +lon_0=2")) != ""
