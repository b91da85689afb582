"""Windows and grids, against brute force and by hand."""

from __future__ import annotations

import contextlib

import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from daskraster.grid import (
    Grid,
    Window,
    crs_name,
    round_up,
    split_axis,
    table_cores,
    tile_axis,
    tile_table,
    window_transform,
)

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


@pytest.mark.parametrize(
    ("transform", "offset", "word"),
    [
        (NORTH_UP @ Affine.translation(-7, 5), (5, -7), None),
        (NORTH_UP @ Affine.translation(7.009, 5), (5, 7), None),
        (NORTH_UP @ Affine.translation(7.5, 5), None, "0 rows and 0.5 columns off"),
        (NORTH_UP @ Affine.translation(7, 5) @ Affine.scale(1.0002, 1), None, "pixel sizes differ"),
        (NORTH_UP @ Affine.translation(7, 5) @ Affine.scale(1.00005, 1), (5, 7), None),
        (NORTH_UP @ Affine.scale(1, -1), None, "opposite directions"),
        (NORTH_UP @ Affine.scale(-1, 1), None, "opposite directions"),
        (NORTH_UP @ Affine.rotation(1), None, "pixel sizes differ"),
    ],
)
def test_one_lattice(transform: Affine, offset: tuple[int, int] | None, word: str | None) -> None:
    one, other = Grid(UTM, NORTH_UP, (10, 20)), Grid(UTM, transform, (100, 100))
    difference = one.lattice_difference(other)
    assert (difference is None) == (word is None)
    assert word is None or word in str(difference)
    if offset is not None:
        assert one.offset_of(other) == offset
    assert "CRS" in str(one.lattice_difference(Grid(None, transform, (100, 100))))


def cores_by_hand(length: int, size: int, *, offset: bool) -> list[tuple[int, int]]:
    """The table as its description reads: mark where each core begins, pixel by pixel."""
    first = size // 2 if offset else 0
    begins = [pixel for pixel in range(length) if pixel == 0 or (pixel >= first and (pixel - first) % size == 0)]
    return list(zip(begins, [*begins[1:], length], strict=True))


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(0, 80),
    st.booleans(),
)
def test_tile_table_as_by_hand(shape_yx: tuple[int, int], tile_yx: tuple[int, int], overlap: int, offset: bool) -> None:
    (rows, cols), (height, width) = shape_yx, tile_yx
    table = tile_table((rows, cols), (height, width), overlap=overlap, offset=offset)
    tops, sides = cores_by_hand(rows, height, offset=offset), cores_by_hand(cols, width, offset=offset)
    expected = [
        (max(0, top - overlap), min(rows, bottom + overlap), max(0, left - overlap), min(cols, right + overlap))
        for top, bottom in tops
        for left, right in sides
    ]
    assert [(w.row_off, w.row_stop, w.col_off, w.col_stop) for w in table] == expected
    counts = np.zeros((rows, cols), int)
    for window in tile_table((rows, cols), (height, width), offset=offset):
        counts[window.slices] += 1
    assert (counts == 1).all()
    lengths = tuple(b - a for a, b in tops), tuple(b - a for a, b in sides)
    # Cores cannot be told only where no window but the raster's edge ends a tile.
    free = all(len(axis) == 1 or overlap < min(axis[0], axis[-1]) for axis in lengths)
    with contextlib.nullcontext() if free else contextlib.suppress(ValueError):
        assert table_cores(table, (rows, cols)) == lengths


def test_tile_axis_by_hand() -> None:
    assert tile_axis(250, 100) == (100, 100, 50)
    assert tile_axis(300, 100) == (100, 100, 100)
    assert tile_axis(99, 100) == (99,)
    assert tile_axis(250, 100, offset=True) == (50, 100, 100)
    assert tile_axis(40, 100, offset=True) == (40,)
    assert tile_axis(3, 1, offset=True) == (1, 1, 1)


TABLE = tile_table((40, 50), (20, 20), overlap=3)
NO_TABLES: list[tuple[list[Window], str]] = [
    (TABLE[:-1], "no table of rows and columns"),
    (TABLE[1:], "no table of rows and columns"),
    (TABLE[::-1], "from the top left"),
    ([TABLE[0], TABLE[2]], "do not cut|gap"),
    ([Window(0, 0, 40, 20), Window(0, 30, 40, 20)], "do not cut"),
    ([Window(0, 0, 40, 25), Window(0, 15, 40, 30), Window(0, 43, 40, 7)], "different widths"),
    ([Window(0, 0, 40, 21), Window(0, 20, 40, 30)], "do not cut"),
    ([Window(0, 0, 40, 60)], "do not cut"),
    ([Window(0, 0, 20, 50), Window(20, 0, 20, 25), Window(20, 25, 20, 25)], "no table of rows and columns"),
]


@pytest.mark.parametrize(("table", "message"), NO_TABLES)
def test_what_is_no_table(table: list[Window], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table_cores(table, (40, 50))
