"""Expected values: NumPy on the whole array, exact fractions written out, and GDAL's own statistics."""

from __future__ import annotations

import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from daskraster.blocks.statistics import (
    BandStatistics,
    PartialStatistics,
    bin_exponent,
    histogram_items,
    merge_statistics,
    metadata_items,
    partial_statistics,
)
from daskraster.errors import BlockResultError

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
DTYPES = (*INTEGERS, "float32", "float64")


def whole(block: np.ndarray, nodata: float | None = None, thematic: bool = False) -> BandStatistics:
    return partial_statistics(block, nodata, thematic=thematic).finish()


def valid_values(block: np.ndarray, nodata: float | None) -> np.ndarray:
    valid = np.isfinite(block)
    if nodata is not None:
        valid &= block != nodata
    return block[valid]


def exact_moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation by fractions, one value after the other."""
    exact = [Fraction(value) for value in values.ravel().tolist()]
    mean = sum(exact) / len(exact)
    variance = sum((value - mean) ** 2 for value in exact) / len(exact)
    # 600 bits below the variance's leading one are more than enough for a root of 53.
    shift = 2 * max(300 - (variance.numerator.bit_length() - variance.denominator.bit_length()) // 2, 0)
    root = Fraction(math.isqrt((variance.numerator << shift) // variance.denominator), 1 << (shift // 2))
    return float(mean), float(root)


def random_block(rng: np.random.Generator, dtype: str, shape: tuple[int, int], spread: float = 1.0) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * spread).astype(dtype)
    limits = np.iinfo(dtype)
    middle, half = (int(limits.min) + int(limits.max)) // 2, max(int(int(limits.max) // 4 * spread), 2)
    return rng.integers(middle - half, middle + half, size=shape, dtype=dtype, endpoint=True)


def merged(
    block: np.ndarray, nodata: float | None, cuts: list[int], rng: np.random.Generator | None = None
) -> PartialStatistics:
    """Partials of row strips, merged in random order and random groups, pickled on the way."""
    edges = [0, *sorted(cuts), block.shape[0]]
    parts = [partial_statistics(block[a:b], nodata, thematic=False) for a, b in itertools.pairwise(edges)]
    while rng is not None and len(parts) > 1:
        rng.shuffle(parts)
        group = int(rng.integers(2, len(parts) + 1))
        parts = [pickle.loads(pickle.dumps(parts[0].merge(*parts[1:group]))), *parts[group:]]
    return merge_statistics(parts)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_exact_arithmetic(dtype: str, spread: float) -> None:
    rng = np.random.default_rng(1)
    block = random_block(rng, dtype, (37, 41), spread)
    nodata = block[3, 4].item()
    block[rng.random(block.shape) < 0.2] = nodata
    stats = whole(block, nodata)
    values = valid_values(block, nodata)
    mean, stddev = exact_moments(values)
    assert (stats.pixels, stats.count, stats.infinities) == (block.size, values.size, 0)
    assert (stats.minimum, stats.maximum) == (values.min().item(), values.max().item())
    if block.dtype.kind == "f":
        assert stats.mean == pytest.approx(mean, rel=1e-12)
        assert stats.stddev == pytest.approx(stddev, rel=1e-12)
    else:
        assert isinstance(stats.minimum, int)
        assert (stats.mean, stats.stddev) == (mean, stddev)
    assert stats.valid_percent == pytest.approx(100 * values.size / block.size)
    assert stats.histogram is not None
    assert sum(stats.histogram.counts) == stats.count


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    spread=st.sampled_from([1.0, 1e-3, 1e-7]),
    rows=st.integers(1, 30),
    cols=st.integers(1, 20),
    with_nodata=st.booleans(),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_order_grouping_and_cuts_make_no_difference(
    *, seed: int, dtype: str, spread: float, rows: int, cols: int, with_nodata: bool, cuts: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    block = random_block(rng, dtype, (rows, cols), spread)
    if block.dtype.kind == "f":
        block[rng.random(block.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0])
    nodata = rng.choice(block.ravel()).item() if with_nodata else None
    cuts = [min(cut, rows) for cut in cuts]
    first = merged(block, nodata, cuts, np.random.default_rng(seed + 1)).finish()
    assert first == merged(block, nodata, cuts, np.random.default_rng(seed + 2)).finish()
    assert first == merged(block, nodata, cuts).finish()
    once = whole(block, nodata)
    # Whatever the cut: all is the same to the bit but the rounding inside blocks of floats.
    exact_fields = ("pixels", "count", "infinities", "minimum", "maximum", "median", "mode", "histogram")
    assert [getattr(first, name) for name in exact_fields] == [getattr(once, name) for name in exact_fields]
    if once.count:
        scale = max(abs(once.minimum), abs(once.maximum))
        assert first.mean == pytest.approx(once.mean, rel=1e-12, abs=1e-15 * scale)
        assert first.stddev == pytest.approx(once.stddev, rel=1e-12)
    if block.dtype.kind != "f":
        assert first == once


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64"])
def test_histogram_of_integers_equals_numpy(dtype: str) -> None:
    rng = np.random.default_rng(5)
    top = min(np.iinfo(dtype).max, 60_000)
    block = rng.integers(-5 if np.iinfo(dtype).min else 0, top, size=(200, 300), dtype=dtype, endpoint=True)
    stats = merged(block, None, [20, 90, 91]).finish()
    assert stats.histogram is not None
    if top <= 255:
        start = 0 if dtype == "uint8" else int(block.min())
        assert stats.histogram.function == "direct"
        expected = np.bincount(block.ravel().astype(int) - start)
        assert stats.median == np.sort(block.ravel())[block.size // 2 - 1]
        assert stats.histogram.edges[0] == start - 0.5
    else:
        assert stats.histogram.function == "linear"
        expected, edges = np.histogram(block.astype(float), bins=256)
        np.testing.assert_allclose(stats.histogram.edges, edges, rtol=1e-14)
        assert stats.mode == round(edges[np.argmax(expected)])
        assert stats.median == round(edges[np.argmax(expected.cumsum() >= block.size / 2)])
    np.testing.assert_array_equal(stats.histogram.counts, expected)


@pytest.mark.parametrize(("span", "function", "bins"), [(255, "direct", 256), (256, "linear", 256)])
def test_the_range_where_linear_bins_begin(span: int, function: str, bins: int) -> None:
    histogram = whole(np.array([[-7, span - 7]], np.int16)).histogram
    assert histogram is not None
    assert (histogram.function, len(histogram.counts), histogram.minimum) == (function, bins, -7)
    assert histogram.counts[0] == histogram.counts[-1] == 1


@pytest.mark.parametrize(
    ("dtype", "values"), [("float32", (0, 1)), ("float64", (1e9, 1)), ("int32", (0, 1e8)), ("int64", (-1e17, 1e16))]
)
def test_histogram_stays_within_one_bin(dtype: str, values: tuple[float, float]) -> None:
    rng = np.random.default_rng(6)
    block = (rng.normal(size=(300, 300)) * values[1] + values[0]).astype(dtype)
    stats = merged(block, None, list(range(10, 300, 10)), rng).finish()
    expected, edges = np.histogram(block.astype(np.float64), bins=256)
    assert stats.histogram is not None
    ours, theirs = np.cumsum(stats.histogram.counts), np.cumsum(expected)
    assert ours[-1] == theirs[-1]
    assert (ours[1:] >= theirs[:-1]).all()
    assert (ours[:-1] <= theirs[1:]).all()
    width = edges[1] - edges[0]
    assert abs(stats.median - np.median(block)) <= 2 * width


def test_thematic_bins_start_at_zero() -> None:
    block = np.array([[3, 3, 700]], np.int32)
    histogram = whole(block, thematic=True).histogram
    assert histogram is not None
    assert (histogram.minimum, histogram.maximum, histogram.function) == (0, 700, "direct")
    np.testing.assert_array_equal(histogram.counts, np.bincount(block.ravel()))
    negative = whole(np.array([[-2, 5]], np.int16), thematic=True).histogram
    assert negative is not None
    assert negative.minimum == -2
    far = whole(np.array([[10**9, 10**9 + 5]], np.int64), thematic=True).histogram
    assert far is not None
    assert (far.minimum, len(far.counts)) == (10**9, 6)


def test_huge_mean_with_small_deviation() -> None:
    rng = np.random.default_rng(7)
    block = (1e9 + rng.normal(size=(600, 50))).astype(np.float64)
    stats = merged(block, None, list(range(1, 600)), rng).finish()  # 600 blocks of 50 pixels
    mean, stddev = exact_moments(block)
    assert stats.mean == pytest.approx(mean, rel=1e-15)
    assert stats.stddev == pytest.approx(stddev, rel=1e-12)
    integers = (10**9 + rng.integers(-2, 3, size=(600, 50))).astype(np.int32)
    assert merged(integers, None, list(range(1, 600)), rng).finish().stddev == exact_moments(integers)[1]


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-120, 1e150, 1e307])
def test_squares_that_leave_float64(scale: float) -> None:
    block = np.random.default_rng(8).uniform(-1, 1, size=(40, 40)) * scale
    stats = merged(block, None, [3, 17]).finish()
    assert stats.stddev == pytest.approx((block / scale).std() * scale, rel=1e-9)
    assert stats.histogram is not None
    assert sum(stats.histogram.counts) == block.size
    extremes = whole(np.array([[-1.7e308, 1.7e308]]))
    assert (extremes.mean, extremes.stddev) == (0.0, 1.7e308)


def test_unsigned_and_signed_64_bit_extremes() -> None:
    top = 2**64 - 1
    stats = whole(np.array([[top, top - 1], [top, top - 2]], np.uint64), top - 2)
    assert (stats.minimum, stats.maximum, stats.count, stats.mean) == (top - 1, top, 3, float(Fraction(3 * top - 1, 3)))
    assert stats.stddev == pytest.approx(math.sqrt(2) / 3, rel=1e-15)
    signed = np.array([[-(2**63), 2**63 - 1, 0]], np.int64)
    assert (whole(signed).mean, whole(signed).stddev) == exact_moments(signed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant(dtype: str) -> None:
    value = 0.1 if np.dtype(dtype).kind == "f" else 101
    block = np.full((70, 1000), value, dtype)
    stats = merged(block, None, [1, 30]).finish()
    expected = block[0, 0].item()
    assert (stats.minimum, stats.maximum, stats.mean, stats.median, stats.mode) == (expected,) * 5
    assert stats.stddev == 0
    assert stats.histogram is not None
    assert (stats.histogram.function, max(stats.histogram.counts)) == ("direct", block.size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_valid(dtype: str) -> None:
    block = np.full((4, 5), 7, dtype)
    if block.dtype.kind == "f":
        block[2] = np.nan
    stats = whole(block, 7)
    assert stats == BandStatistics(pixels=20, count=0, infinities=0)
    assert stats.valid_percent == 0
    assert metadata_items(stats) == histogram_items(stats, 7) == {}
    together = (
        partial_statistics(block, 7, thematic=False).merge(partial_statistics(block + 1, 7, thematic=False)).finish()
    )
    assert (together.pixels, together.count) == (40, 20 if block.dtype.kind != "f" else 15)
    assert whole(block[:0], 7).pixels == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nodata", [None, math.nan, -9999.0, math.inf])
def test_nan_and_infinities(dtype: str, nodata: float | None) -> None:
    rng = np.random.default_rng(9)
    block = rng.normal(size=(200, 400)).astype(dtype)
    kinds = rng.random(block.shape)
    block[kinds < 0.1] = np.nan
    block[(kinds > 0.2) & (kinds < 0.22)] = np.inf
    block[(kinds > 0.3) & (kinds < 0.31)] = -np.inf
    block[kinds > 0.95] = -9999
    stats = merged(block, nodata, [50, 51, 130], rng).finish()
    values = valid_values(block, nodata).astype(np.float64)
    assert stats.count == values.size
    infinite = np.isinf(block) & (block != (0 if nodata is None else nodata))
    assert stats.infinities == np.count_nonzero(infinite)
    assert stats.valid_percent == pytest.approx(100 * (values.size + np.count_nonzero(infinite)) / block.size)
    assert (stats.minimum, stats.maximum) == (values.min(), values.max())
    assert stats.mean == pytest.approx(values.mean(), rel=1e-12)
    assert stats.stddev == pytest.approx(values.std(), rel=1e-12)


def test_nodata_that_the_type_cannot_hold_matches_nothing() -> None:
    block = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for nodata in (-9999, 256, 1.5, math.nan, math.inf):
        assert whole(block, nodata) == whole(block)


def test_any_strides() -> None:
    rng = np.random.default_rng(10)
    for dtype in ("uint8", "uint16", "int32", "float32"):
        block = random_block(rng, dtype, (90, 160), 0.01)
        for view in (block[3:80:2, 5:150], block.T, block[::-1, ::3]):
            assert whole(view) == pytest.approx(whole(np.ascontiguousarray(view))) or whole(view).count == view.size
            assert (whole(view).mean, whole(view).stddev) == pytest.approx(
                (view.mean(dtype=float), view.std(dtype=float)), rel=1e-6
            )
    wide = np.lib.stride_tricks.as_strided(np.full(1, 2**24 - 1, np.uint32), (2, 2**17), (0, 0))
    assert (whole(wide).mean, whole(wide).stddev) == (2**24 - 1, 0)


def test_more_pixels_than_a_chunk() -> None:
    rng = np.random.default_rng(11)
    for dtype in ("uint8", "uint16", "uint32", "float32"):
        block = random_block(rng, dtype, (1501, 1403))
        stats = whole(block)
        assert stats.count == block.size
        if block.dtype.kind == "f":
            assert (stats.mean, stats.stddev) == pytest.approx(
                (block.mean(dtype=float), block.std(dtype=float)), rel=1e-10
            )
        else:
            total = int(block.sum(dtype=np.uint64))
            squares = sum(
                int(value) ** 2 * int(n) for value, n in zip(*np.unique(block, return_counts=True), strict=True)
            )
            assert stats.mean == total / block.size
            assert stats.stddev == pytest.approx(
                math.sqrt(Fraction(squares * block.size - total**2, block.size**2)), rel=1e-15
            )


def test_partials_are_small() -> None:
    rng = np.random.default_rng(12)
    block = rng.normal(3000, 500, size=(512, 512))
    sizes = {
        dtype: len(pickle.dumps(partial_statistics(block.astype(dtype), None, thematic=False)))
        for dtype in ("uint16", "int64", "float32")
    }
    assert all(size < 25_000 for size in sizes.values()), sizes
    classes = rng.choice(np.array([0, 17, 65_535], np.uint16), size=(512, 512))
    assert len(pickle.dumps(partial_statistics(classes, None, thematic=True))) < 1500


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=5))
def test_a_range_inside_another_has_no_larger_bins(values: list[float]) -> None:
    outer = bin_exponent(min(values), max(values))
    inner = bin_exponent(min(values[:-1]), max(values[:-1]))
    assert inner <= outer
    bins = math.floor(Fraction(max(values)) / Fraction(2) ** outer) - math.floor(
        Fraction(min(values)) / Fraction(2) ** outer
    )
    assert bins < 8192


def test_merging_what_does_not_belong_together() -> None:
    parts = [partial_statistics(np.ones((2, 2), dtype), None, thematic=False) for dtype in ("uint8", "float32")]
    with pytest.raises(BlockResultError, match="one dtype, not float32, uint8"):
        merge_statistics(parts)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_equals_gdal(dtype: str) -> None:
    rng = np.random.default_rng(13)
    block = (rng.gamma(3, 20, size=(120, 90)) - (20 if dtype[0] != "u" else 0)).clip(None, 250).astype(dtype)
    block[:9] = 3
    with rasterio.MemoryFile() as memory:
        profile = {
            "height": 120,
            "width": 90,
            "count": 1,
            "dtype": dtype,
            "nodata": 3,
            "transform": Affine(2, 0, 5, 0, -2, 9),
        }
        with memory.open(driver="GTiff", **profile) as dataset:
            dataset.write(block, 1)
        with memory.open() as dataset:
            (theirs,) = dataset.stats(indexes=[1], approx=False)
    stats = whole(block, 3)
    assert (stats.minimum, stats.maximum) == (theirs.min, theirs.max)
    assert stats.mean == pytest.approx(theirs.mean, rel=1e-12)
    assert stats.stddev == pytest.approx(theirs.std, rel=1e-10)


def test_metadata_items() -> None:
    block = np.array([[1, 2, 3, 2], [9, 9, 9, 2**64 - 1]], np.uint64)
    stats = whole(block, 9)
    items = metadata_items(stats)
    assert items["STATISTICS_MAXIMUM"] == "18446744073709551615"
    assert float(items["STATISTICS_MEAN"]) == stats.mean
    assert items["STATISTICS_VALID_PERCENT"] == "62.5"
    small = whole(np.array([[0, 5, 5, 7]], np.uint8), 0)
    assert histogram_items(small, 0) == {
        "STATISTICS_MEDIAN": "5",
        "STATISTICS_MODE": "5",
        "STATISTICS_HISTOMIN": "0",
        "STATISTICS_HISTOMAX": "7",
        "STATISTICS_HISTONUMBINS": "8",
        "STATISTICS_HISTOBINFUNCTION": "direct",
        "STATISTICS_EXCLUDEDVALUES": "0",
    }
    hole = np.ones((1000, 1000), np.uint8)
    assert metadata_items(whole(hole, 0))["STATISTICS_VALID_PERCENT"] == "100"
    hole[5, 5] = 0
    assert metadata_items(whole(hole, 0))["STATISTICS_VALID_PERCENT"] == "99.99"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "float32"])
def test_a_column_of_a_wider_block(dtype: str) -> None:
    wide = np.arange(35).reshape(7, 5).astype(dtype)
    found = partial_statistics(wide[:, 2:3], None, thematic=False).finish()
    assert (found.count, found.minimum, found.maximum, found.mean) == (7, 2, 32, 17.0)
