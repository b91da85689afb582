"""Expected values: GDAL's build_overviews where sizes are even, else the rule of the docstring, cell by cell in fractions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling

from daskraster.blocks.overviews import BILINEAR_WEIGHTS, RESAMPLINGS, half_shape, halve
from daskraster.errors import OptionError

NARROW = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
DTYPES = (*NARROW, "int64", "uint64", "float32", "float64")


def gdal_overviews(
    band: np.ndarray, resampling: str, nodata: float | None, levels: tuple[int, ...]
) -> list[np.ndarray]:
    profile = {"height": band.shape[0], "width": band.shape[1], "count": 1, "dtype": band.dtype.name}
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", nodata=nodata, transform=Affine(2, 0, 5, 0, -2, 9), **profile) as dataset:
            dataset.write(band, 1)
            dataset.build_overviews(list(levels), Resampling[resampling])
        result = []
        for index in range(len(levels)):
            with memory.open(overview_level=index) as dataset:
                result.append(dataset.read(1))
    return result


def random_block(
    seed: int, dtype: str, shape: tuple[int, int, int], nodata: float | None, spread: int = 90
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    block = rng.integers(0 if dtype[0] == "u" else -spread, spread, size=shape).astype(dtype)
    if block.dtype.kind == "f":
        block += rng.random(shape).astype(dtype)
    if nodata is not None:
        block[rng.random(shape) < 0.4] = nodata
    return block


def cells_of(band: np.ndarray, nodata: float | None, partial_cells: bool) -> list[list[list[object]]]:
    """Valid pixels of each cell, row by row."""
    rows, cols = ((size + partial_cells) // 2 for size in band.shape)
    pixels = band.tolist()
    valid = [
        [[value for row in pixels[2 * i : 2 * i + 2] for value in row[2 * j : 2 * j + 2]] for j in range(cols)]
        for i in range(rows)
    ]
    return [[[v for v in cell if v == v and v != nodata] for cell in row] for row in valid]  # noqa: PLR0124 - NaN


def slow_average(cell: list[object], dtype: np.dtype, nodata: float | None) -> object:
    if not cell:
        return math.nan if nodata is None else nodata
    mean = sum(Fraction(value) for value in cell) / len(cell)
    if dtype.kind == "f":
        return float(dtype.type(float(mean)))
    rounded = math.floor(abs(mean) + Fraction(1, 2)) * (1 if mean >= 0 else -1)
    if rounded == nodata:
        rounded += 1 if rounded < np.iinfo(dtype).max else -1
    return rounded


def slow_mode(cell: list[object], nodata: float | None) -> object:
    counts: dict[object, int] = {}
    best = None
    for value in cell:
        counts[value] = counts.get(value, 0) + 1
        if best is None or counts[value] > counts[best]:
            best = value
    return (math.nan if nodata is None else nodata) if best is None else best


@pytest.mark.parametrize("nodata", [None, 3])
@pytest.mark.parametrize("dtype", [*NARROW, "float32", "float64"])
@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_equals_gdal_level_by_level(resampling: str, dtype: str, nodata: float | None) -> None:
    # Few values, so that ties and modes abound; 96 columns are a multiple of 8 at every level, as GDAL's fast loops take them.
    band = random_block(1, dtype, (1, 64, 128), nodata, spread=4 if resampling == "mode" else 90)[0]
    level = band
    for theirs in gdal_overviews(band, resampling, nodata, (2, 4, 8)):
        ours = halve(level[None], nodata, resampling)[0]
        assert (ours.shape, ours.dtype) == (theirs.shape, band.dtype)
        if resampling == "bilinear":
            # GDAL's sums end in another last bit, which shows in floats and where an integer lies on a tie.
            different = ours != theirs
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1 if band.dtype.kind != "f" else 1e-5)
            assert band.dtype.kind == "f" or different.sum() <= 20
        elif nodata is not None and resampling == "average" and dtype in ("int8", "int16", "int32", "uint32"):
            # Valid cells that round to nodata: GDAL leaves them nodata, here they move on by one.
            different = ours != theirs
            assert (theirs[different] == nodata).all()
            assert (ours[different] == nodata + 1).all()
        else:
            np.testing.assert_array_equal(ours, theirs)
        level = theirs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(62, 58), (30, 2), (2, 34)])
def test_floats_equal_gdal_but_for_the_last_bit(dtype: str, shape: tuple[int, int]) -> None:
    band = random_block(2, dtype, (1, *shape), None)[0]
    (theirs,) = gdal_overviews(band, "average", None, (2,))
    np.testing.assert_allclose(halve(band[None], None, "average")[0], theirs, rtol=4 * np.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("resampling", ["average", "mode", "nearest"])  # GDAL's bilinear spreads NaN even then
def test_nan_as_nodata_equals_gdal(resampling: str, dtype: str) -> None:
    band = random_block(3, dtype, (1, 64, 96), math.nan)[0]
    (theirs,) = gdal_overviews(band, resampling, math.nan, (2,))
    if resampling == "mode":
        # GDAL makes empty cells 0 there.
        theirs[np.isnan(band).reshape(32, 2, 48, 2).all(axis=(1, 3))] = np.nan
    np.testing.assert_array_equal(halve(band[None], math.nan, resampling)[0], theirs)


@pytest.mark.parametrize("partial_cells", [True, False])
@pytest.mark.parametrize("nodata", [None, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 1), (7, 13), (31, 40), (40, 31), (2, 2), (101, 97)])
def test_average_and_mode_at_any_size(
    shape: tuple[int, int], dtype: str, nodata: float | None, partial_cells: bool
) -> None:
    block = random_block(4, dtype, (2, *shape), nodata, spread=8)
    for resampling in ("average", "mode", "nearest", "bilinear"):
        result = halve(block, nodata, resampling, partial_cells=partial_cells)
        assert result.dtype == block.dtype
        assert result.shape == (2, *half_shape(shape, partial_cells=partial_cells))
        for band, ours in zip(block, result, strict=True):
            cells = cells_of(band, nodata, partial_cells)
            if resampling == "average":
                expected = [[slow_average(cell, block.dtype, nodata) for cell in row] for row in cells]
                np.testing.assert_allclose(
                    ours, np.array(expected, block.dtype).reshape(ours.shape), rtol=0, atol=1e-5 * (dtype[0] == "f")
                )
            elif resampling == "mode":
                expected = [[slow_mode(cell, nodata) for cell in row] for row in cells]
                np.testing.assert_array_equal(ours, np.array(expected, block.dtype).reshape(ours.shape))
            elif resampling == "nearest":
                np.testing.assert_array_equal(ours, band[::2, ::2][: ours.shape[0], : ours.shape[1]])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    resampling=st.sampled_from(RESAMPLINGS),
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    nodata=st.sampled_from([None, 5, 0]),
    holes=st.booleans(),
    partial_cells=st.booleans(),
    data=st.data(),
)
def test_any_cut_at_even_offsets_gives_the_same_level(
    *,
    seed: int,
    dtype: str,
    resampling: str,
    rows: int,
    cols: int,
    nodata: float | None,
    holes: bool,
    partial_cells: bool,
    data: st.DataObject,
) -> None:
    block = random_block(seed, dtype, (1, rows, cols), nodata, spread=6)
    if holes and block.dtype.kind == "f":
        block[np.random.default_rng(seed).random(block.shape) < 0.1] = np.nan
    expected = halve(block, nodata, resampling, partial_cells=partial_cells)
    row_edges, col_edges = (
        [0, *sorted({2 * cut for cut in data.draw(st.lists(st.integers(1, 20), max_size=3)) if 2 * cut < size}), size]
        for size in (rows, cols)
    )
    result = np.zeros_like(expected)
    for top, bottom in itertools.pairwise(row_edges):
        for left, right in itertools.pairwise(col_edges):
            margin = ((int(top > 0), int(bottom < rows)), (int(left > 0), int(right < cols)))
            piece = block[:, top - margin[0][0] : bottom + margin[0][1], left - margin[1][0] : right + margin[1][1]]
            half = halve(piece, nodata, resampling, partial_cells=partial_cells, margin=margin)
            result[:, top // 2 : top // 2 + half.shape[1], left // 2 : left // 2 + half.shape[2]] = half
    np.testing.assert_array_equal(result, expected)


def test_more_rows_than_a_strip() -> None:
    block = random_block(5, "int16", (2, 1001, 1003), 7)
    for resampling in RESAMPLINGS:
        result = halve(block, 7, resampling)
        top = halve(block[:, :34], 7, resampling)
        np.testing.assert_array_equal(result[:, :16], top[:, :16])
        assert result.shape == (2, 501, 502)
        bottom = halve(block[:, 700:], 7, resampling)
        np.testing.assert_array_equal(result[:, 351:], bottom[:, 1:])


def test_wide_integers_are_exact() -> None:
    rng = np.random.default_rng(6)
    for dtype in ("int32", "uint32", "int64", "uint64"):
        limits = np.iinfo(dtype)
        block = rng.integers(limits.min, limits.max, size=(1, 30, 30), dtype=dtype, endpoint=True)
        block[0, :4, :4] = limits.max
        block[0, 4:8, :4] = limits.min
        for nodata in (None, limits.max):
            cells = cells_of(block[0], nodata, partial_cells=True)
            expected = np.array([[slow_average(cell, block.dtype, nodata) for cell in row] for row in cells], dtype)
            np.testing.assert_array_equal(halve(block, nodata, "average")[0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("resampling", ["average", "bilinear"])
def test_a_valid_mean_never_reads_as_nodata(resampling: str, dtype: str) -> None:
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    # Bilinear weighs in float64, which cannot tell the largest 64-bit integers apart.
    exact = limits.dtype.kind != "f" and (resampling == "average" or limits.dtype.itemsize < 8)
    for nodata in (7, limits.max) if exact else (7,):
        low = nodata - 1
        block = np.array([[[low, nodata], [low, nodata]]], dtype)
        np.testing.assert_array_equal(halve(block, nodata, resampling), [[[low]]])
        around = np.array([[[6, 8], [8, 6]]], dtype)
        expected = np.nextafter(np.dtype(dtype).type(7), np.dtype(dtype).type(8)) if limits.dtype.kind == "f" else 8
        np.testing.assert_array_equal(halve(around, 7, resampling), [[[expected]]])


@pytest.mark.parametrize("resampling", ["average", "mode", "bilinear"])
def test_nan_never_spreads(resampling: str) -> None:
    block = np.array(
        [[[np.nan, 4, np.nan, np.nan], [4, 4, np.nan, np.nan], [1, 1, 2, 2], [1, 1, 2, np.nan]]], np.float32
    )
    for nodata in (None, math.nan, -9999.0):
        result = halve(block, nodata, resampling)[0]
        if resampling == "bilinear":
            assert np.isfinite(result).all()
            continue
        empty = np.nan if nodata is None else nodata
        np.testing.assert_array_equal(result, np.array([[4, empty], [1, 2]], np.float32))
    holes = np.array([[[np.nan, -9999], [-9999, np.nan]]], np.float32)
    assert halve(holes, -9999, resampling).item() == -9999


def test_infinities_and_large_values() -> None:
    top = np.finfo(np.float32).max
    block = np.array([[[top, top, np.inf, 1, np.inf, -np.inf], [top, top, 1, 1, 1, 1]]], np.float32)
    np.testing.assert_array_equal(halve(block, None, "average"), np.array([[[top, np.inf, np.nan]]], np.float32))
    np.testing.assert_array_equal(halve(block, -1, "average"), np.array([[[top, np.inf, np.nan]]], np.float32))


def test_bilinear_by_hand() -> None:
    rng = np.random.default_rng(7)
    line = rng.random(8)
    padded = dict(enumerate(line.tolist()))
    for cell in range(4):
        taps = [
            (weight, padded[2 * cell - 1 + tap])
            for tap, weight in enumerate(BILINEAR_WEIGHTS)
            if 2 * cell - 1 + tap in padded
        ]
        expected = sum(weight * value for weight, value in taps) / sum(weight for weight, _ in taps)
        assert halve(np.tile(line, (1, 6, 1)), None, "bilinear")[0, 1, cell] == pytest.approx(expected)


def test_views_and_unknown_resampling() -> None:
    block = random_block(8, "uint16", (3, 60, 80), 5)
    view = block[::-1, 2:41:3, ::-1]
    before = view.copy()
    for resampling in RESAMPLINGS:
        np.testing.assert_array_equal(halve(view, 5, resampling), halve(before, 5, resampling))
        half = halve(block, 5, resampling)
        assert not np.shares_memory(half, block)
    np.testing.assert_array_equal(view, before)
    with pytest.raises(OptionError, match="'cubic' is unknown; possible are average, bilinear, mode, nearest"):
        halve(block, None, "cubic")


def test_nodata_that_the_type_cannot_hold_matches_nothing() -> None:
    block = random_block(9, "uint8", (1, 8, 8), None)
    for nodata in (-1, 300, 2.5, math.nan, math.inf):
        for resampling in RESAMPLINGS:
            np.testing.assert_array_equal(halve(block, nodata, resampling), halve(block, None, resampling))
