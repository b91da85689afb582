"""One block onto another, against pixels merged one by one in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from daskraster.blocks.averaging import mean_of
from daskraster.blocks.merging import METHODS, Layer, is_value, merge
from daskraster.grid import Window
from tests.mosaic_oracle import Placed, mean, oracle

DTYPES = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def layer(placed: Placed, skip: Any, reads: list[Any] | None = None) -> Layer:
    top, left, pixels = placed
    window = Window(top, left, *pixels.shape[1:])

    def read(part: Window) -> NDArray[Any]:
        assert part.clip(window) == part
        assert part.height
        assert part.width
        if reads is not None:
            reads.append(part)
        return pixels[(slice(None), *part.relative_to(window).slices)].copy()

    return Layer(window, read, skip)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Placed], list[Any], int]:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    bands = draw(st.integers(1, 2))
    count = draw(st.integers(1, 4))
    if dtype.kind == "f":
        values: Any = st.sampled_from([0.0, 1.0, -2.5, float("nan"), 7.0])
        skip = draw(st.sampled_from([None, 0.0, float("nan")]))
    else:
        limits = np.iinfo(dtype)
        values = st.sampled_from(
            sorted({limits.min, limits.max, limits.max - 1, 0, 1, 2, max(limits.min, -1), max(limits.min, -3)})
        )
        skip = draw(st.sampled_from([None, 0, limits.max]))
    placed: list[Placed] = []
    for _ in range(count):
        top, left = draw(st.integers(0, 3)), draw(st.integers(0, 4))
        shape = bands, draw(st.integers(1, 5 - top)), draw(st.integers(1, 6 - left))
        placed.append((top, left, draw(hnp.arrays(dtype, shape, elements=values))))
    return placed, [draw(st.sampled_from([None, skip])) for _ in placed], draw(st.integers(0, bands - 1))


@settings(max_examples=60, deadline=None)
@given(scenes(), st.sampled_from(METHODS))
def test_merged_as_pixel_by_pixel(scene: tuple[list[Placed], list[Any], int], method: str) -> None:
    placed, skips, judge = scene
    dtype, bands = placed[0][2].dtype, placed[0][2].shape[0]
    if method == "mean" and dtype.kind == "f":
        placed = [(top, left, np.nan_to_num(pixels, nan=3.25)) for top, left, pixels in placed]
    layers = [layer(one, skip) for one, skip in zip(placed, skips, strict=True)]
    out, empty = merge(layers, (bands, 5, 6), dtype, method=method, judge=judge)
    out[:, empty] = 42
    assert out.dtype == dtype
    expected = oracle(placed, (5, 6), method=method, skips=skips, judge=judge, background=[42] * bands)
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300), min_size=1, max_size=7
    ),
    st.randoms(),
)
def test_the_mean_of_floats_is_exact_in_any_order(values: list[float], random: Any) -> None:
    random.shuffle(values)
    whole, take = Window(0, 0, 1, 1), np.ones((1, 1), bool)
    sums = mean_of((1, 1, 1), np.dtype(float), len(values))
    for value in values:
        sums.add(whole, np.array([[[value]]]), take)
    assert sums.result(np.array([[len(values)]]), np.dtype(float)).item() == math.fsum(values) / len(values)


def test_the_mean_of_floats_where_pixels_lose_different_parts() -> None:
    columns = [(1e300, 1e100, 1.0, -1e300, -1e100), (1, 2, 3, 4, 5), (2.0**53, 1, 2.0**-60, 0, 0), (0.1,) * 5]
    whole, take = Window(0, 0, 1, 4), np.ones((1, 4), bool)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [2, 1, 0, 4, 3]):
        sums = mean_of((1, 1, 4), np.dtype(float), 5)
        for number in order:
            sums.add(whole, np.array([[[column[number] for column in columns]]]), take)
        result = sums.result(np.full((1, 4), 5), np.dtype(float))[0, 0]
        assert result.tolist() == [math.fsum(column) / 5 for column in columns]


def test_the_mean_of_what_is_not_finite() -> None:
    rows = np.array([[np.inf, 1, np.inf, 1], [1, np.nan, -np.inf, 2]])
    sums = mean_of((1, 1, 4), np.dtype("float32"), 2)
    for row in rows.astype("float32"):
        sums.add(Window(0, 0, 1, 4), row[None, None], np.ones((1, 4), bool))
    np.testing.assert_array_equal(
        sums.result(np.full((1, 4), 2), np.dtype("float32"))[0, 0], [np.inf, np.nan, np.nan, 1.5]
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["int64", "uint64", "uint32", "int16"]))
def test_the_mean_of_integers_is_exact(data: st.DataObject, kind: str) -> None:
    limits = np.iinfo(kind)
    values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1, max_size=9))
    sums = mean_of((1, 1, 1), np.dtype(kind), len(values))
    for value in values:
        sums.add(Window(0, 0, 1, 1), np.array([[[value]]], dtype=kind), np.ones((1, 1), bool))
    assert sums.result(np.array([[len(values)]]), np.dtype(kind)).item() == mean(values, np.dtype(kind))


def test_more_summands_than_16_bits_count() -> None:
    sums = mean_of((1, 1, 1), np.dtype("uint16"), 40_000)
    block = np.array([[[65_535]]], "uint16")
    for _ in range(40_000):
        sums.add(Window(0, 0, 1, 1), block, np.ones((1, 1), bool))
    assert sums.result(np.array([[40_000]]), np.dtype("uint16")).item() == 65_535


@pytest.mark.parametrize(("method", "order"), [("last", [2]), ("first", [0])])
def test_what_is_hidden_is_not_read(method: str, order: list[int]) -> None:
    reads: list[list[Any]] = [[], [], []]
    layers = [layer((0, 0, np.full((1, 4, 4), n)), None, reads[n]) for n in range(3)]
    out, empty = merge(layers, (1, 4, 4), np.dtype(int), method=method, judge=0)
    assert (out == order[0]).all()
    assert not empty.any()
    assert [n for n in range(3) if reads[n]] == order


def test_of_what_is_half_hidden_the_other_half_is_read() -> None:
    reads: list[Any] = []
    layers = [layer((0, 0, np.ones((1, 4, 6), int)), None, reads), layer((0, 2, np.full((1, 4, 4), 2)), None)]
    merge(layers, (1, 4, 6), np.dtype(int), method="last", judge=0)
    assert reads == [Window(0, 0, 4, 2)]


def test_values_are_compared_in_the_pixels_own_type() -> None:
    pixels = np.array([2**63 - 1, 2**63 - 2])
    assert is_value(pixels, 2**63 - 1).tolist() == [True, False]
    assert is_value(np.array([0.1], "float32"), 0.1).all()
    assert is_value(np.array([np.nan, 1]), float("nan")).tolist() == [True, False]


def test_no_layers_give_nothing_but_emptiness() -> None:
    for method in METHODS:
        out, empty = merge([], (2, 3, 4), np.dtype("uint8"), method=method, judge=0)
        assert out.shape == (2, 3, 4)
        assert empty.all()
