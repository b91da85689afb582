"""Windows of a warped source equal GDAL's warp of the whole raster."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject

import daskraster as dr
from daskraster.formats import warped
from daskraster.formats.gdalwarp import KERNELS, warps
from daskraster.formats.warped import Shift, Warp, WarpedSource
from daskraster.grid import Grid, Window
from daskraster.lazy.gridding import regrid_for, target_grid
from tests.conftest import MakeRaster, pixels

SOURCE = Grid(pyproj.CRS(32630), Affine(10, 0, 700_000, 0, -10, 5_600_000), (151, 163))
TARGETS = {
    "other zone": Grid(pyproj.CRS(32631), Affine(12, 0, 274_000, 0, -12, 5_600_900), (140, 131)),
    "degrees": Grid(pyproj.CRS(4326), Affine(0.0002, 0, -0.19, 0, -0.0002, 50.52), (101, 122)),
    "coarse": Grid(pyproj.CRS(32630), Affine(37, 0, 699_991, 0, -37, 5_600_100), (47, 45)),
    "half": Grid(pyproj.CRS(32630), Affine(20, 0, 700_000, 0, -20, 5_600_000), (80, 77)),
    "half a pixel off": Grid(pyproj.CRS(32630), Affine(10, 0, 700_005, 0, -10, 5_600_005), (90, 77)),
    "rotated": Grid(
        pyproj.CRS(32630),
        Affine.translation(700_500, 5_600_000) @ Affine.rotation(30) @ Affine.scale(9, -9),
        (110, 120),
    ),
    "south up": Grid(pyproj.CRS(32630), Affine(7, 0, 700_003, 0, 7, 5_599_000), (110, 120)),
}


class Array:
    """Pixels in memory as a source."""

    name = "memory"
    tile_yx = (16, 16)
    token = "1"

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values
        self.shape = values.shape
        self.dtype = values.dtype
        self.read_nbytes: list[int] = []

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """A window."""
        part = self.values[np.array(bands) - 1][(slice(None), *window.slices)].copy()
        assert part.shape == (len(bands), *window.shape_yx)
        assert part.size
        self.read_nbytes.append(part.nbytes)
        return part


def source_on(
    values: NDArray[Any], grid: Grid, target: Grid, kernel: str, nodata: Any = (None, None)
) -> tuple[WarpedSource, Any]:
    placed = target_grid(target, [("memory", grid)], "like", like_given=True)
    regrid = regrid_for(grid, placed, kernel)
    source = Array(values)
    whole = WarpedSource(
        source=source,
        bands=tuple(range(1, len(values) + 1)),
        part_window=Window(0, 0, *grid.shape_yx),
        regrid=regrid,
        shape=(len(values), *placed.outer.shape_yx),
        nodata=tuple(nodata[: len(values)]),
    )
    return whole, placed


def by_gdal(  # noqa: PLR0917
    values: NDArray[Any], grid: Grid, target: Grid, kernel: str, nodata: Any, scale_yx: Any
) -> NDArray[Any]:
    """GDAL's warp of the whole, each pixel transformed exactly, nodata as gdalwarp treats it."""
    one = len(set(map(repr, nodata))) == 1
    if not one and None not in nodata:  # reproject takes one value: NaN for all, put back afterwards
        assert values.dtype.kind == "f"
        common = np.stack([np.where(band == value, np.nan, band) for band, value in zip(values, nodata, strict=True)])
        result = by_gdal(common.astype(values.dtype), grid, target, kernel, (math.nan,) * len(values), scale_yx)
        return np.stack([np.where(np.isnan(b), np.float32(v), b) for b, v in zip(result, nodata, strict=True)])
    if not one:  # only the first band has a nodata value; beside it stands one that is valid everywhere
        assert nodata[1] is None
        beside = np.stack((values[0], np.full_like(values[0], 100)))
        first = _by_gdal(beside, grid, target, kernel, nodata[0], scale_yx, "PARTIAL")[:1]
        return np.concatenate((first, _by_gdal(values[1:], grid, target, kernel, None, scale_yx, "PARTIAL")))
    return _by_gdal(values, grid, target, kernel, nodata[0], scale_yx, "PARTIAL")


def _by_gdal(  # noqa: PLR0917
    values: NDArray[Any], grid: Grid, target: Grid, kernel: str, nodata: Any, scale_yx: Any, unified: str
) -> NDArray[Any]:
    result = np.zeros((len(values), *target.shape_yx), values.dtype)
    # Several bands without nodata at once take another way through GDAL, which depends on its windows.
    for bands in [slice(None)] if nodata is not None else [slice(k, k + 1) for k in range(len(values))]:
        reproject(
            values[bands],
            result[bands],
            src_transform=grid.transform,
            src_crs=rasterio.crs.CRS.from_wkt(grid.crs.to_wkt()),
            dst_transform=target.transform,
            dst_crs=rasterio.crs.CRS.from_wkt(target.crs.to_wkt()),
            resampling=Resampling[kernel],
            tolerance=0,
            src_nodata=nodata,
            XSCALE=scale_yx[1],
            YSCALE=scale_yx[0],
            UNIFIED_SRC_NODATA=unified,
        )
    return result


def in_blocks(source: WarpedSource, placed: Any, rows: list[int], cols: list[int]) -> NDArray[Any]:
    """The array read window by window."""
    bands = tuple(range(1, source.shape[0] + 1))
    window = Window(0, 0, *placed.grid.shape_yx)
    rows = sorted({0, *(row for row in rows if row < window.height), window.height})
    cols = sorted({0, *(col for col in cols if col < window.width), window.width})
    inner = placed.inner
    lines = []
    for top, bottom in itertools.pairwise(rows):
        parts = [
            source.read(Window(top, left, bottom - top, right - left).shift(inner.row_off, inner.col_off), bands)
            for left, right in itertools.pairwise(cols)
        ]
        lines.append(np.concatenate(parts, axis=2))
    return np.concatenate(lines, axis=1)


def with_holes(dtype: str, nodata: Any, seed: int = 0) -> NDArray[Any]:
    values = np.random.default_rng(seed).integers(1, 250, (2, *SOURCE.shape_yx)).astype(dtype)
    for band, value in enumerate(nodata):
        if value is not None:
            values[band, 20 + 30 * band : 40 + 30 * band, 30:70] = value
            values[band, 90, ::3] = value
    return values


NODATA = [("uint8", (None, None)), ("uint16", (0, 0)), ("int16", (-1, None)), ("float32", (math.nan, -9999.0))]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", TARGETS)
def test_every_kernel_in_blocks_equals_gdal_on_the_whole(name: str, kernel: str) -> None:
    target = TARGETS[name]
    for dtype, nodata in NODATA:
        values = with_holes(dtype, nodata)
        source, placed = source_on(values, SOURCE, target, kernel, nodata)
        assert isinstance(source.regrid, Warp)
        expected = by_gdal(values, SOURCE, target, kernel, nodata, source.regrid.plan.scale_yx)
        assert len(np.unique(expected)) > 8
        assert np.array_equal(in_blocks(source, placed, [], []), expected, equal_nan=dtype == "float32")
        assert np.array_equal(in_blocks(source, placed, [31, 64], [1, 50]), expected, equal_nan=dtype == "float32")


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(TARGETS)),
    st.sampled_from(["nearest", "bilinear", "cubic", "average"]),
    st.lists(st.integers(1, 139), max_size=4),
    st.lists(st.integers(1, 139), max_size=4),
    st.integers(0, 3),
)
def test_any_windows_give_the_same_pixels(name: str, kernel: str, rows: Any, cols: Any, seed: int) -> None:
    target = TARGETS[name]
    values = with_holes("uint16", (0, None), seed)
    source, placed = source_on(values, SOURCE, target, kernel, (0, None))
    assert (in_blocks(source, placed, rows, cols) == in_blocks(source, placed, [], [])).all()


@pytest.mark.parametrize("kernel", ["bilinear", "cubic", "average"])
@pytest.mark.parametrize("name", ["half", "half a pixel off"])
def test_the_width_of_the_kernel_is_gdals_own_inside_one_crs(name: str, kernel: str) -> None:
    values = pixels((1, *SOURCE.shape_yx))
    target = TARGETS[name]
    inside = Grid(target.crs, target.transform, (70, 70))
    source, placed = source_on(values, SOURCE, inside, kernel)
    result = np.zeros((1, 70, 70), values.dtype)
    reproject(
        values, result, src_transform=SOURCE.transform, src_crs="EPSG:32630", dst_transform=inside.transform,
        dst_crs="EPSG:32630", resampling=Resampling[kernel], tolerance=0,
    )  # fmt: skip
    assert (in_blocks(source, placed, [33], [12])[:, 2:-2, 2:-2] == result[:, 2:-2, 2:-2]).all()


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bit_integers_are_picked_to_the_last_digit(dtype: str) -> None:
    limit = np.iinfo(dtype).max
    values = limit - np.random.default_rng(0).integers(1, 1 << 40, (2, *SOURCE.shape_yx)).astype(dtype)
    nodata = (limit, limit - 3)
    values[0, 10:90, 20:60] = limit
    source, placed = source_on(values, SOURCE, TARGETS["other zone"], "nearest", nodata)
    numbers = np.stack([np.arange(values[0].size, dtype="float64").reshape(SOURCE.shape_yx)] * 2)
    where = by_gdal(numbers, SOURCE, TARGETS["other zone"], "nearest", (-1.0, -1.0), (1, 1)).astype(int)
    expected = np.stack(
        [
            np.where(index < 0, np.array(value, dtype), band.ravel()[index.clip(0)])
            for index, value, band in zip(where, nodata, values, strict=True)
        ]
    )
    assert (where < 0).any()
    assert (in_blocks(source, placed, [50], [60]) == expected).all()


def test_64_bit_integers_interpolate_as_doubles_or_not_at_all() -> None:
    small = np.random.default_rng(0).integers(-1000, 1000, (2, *SOURCE.shape_yx))
    nodata = (2**62 + 1, -(2**63))
    small[0, 10:60, 10:60], small[1, 30:90, 10:60] = nodata
    source, placed = source_on(small, SOURCE, TARGETS["half"], "average", nodata)
    as_int32 = np.where(small == np.array(nodata)[:, None, None], -9999, small).astype("int32")
    expected = by_gdal(as_int32, SOURCE, TARGETS["half"], "average", (-9999, -9999), (0.5, 0.5)).astype("int64")
    expected = np.where(expected == -9999, np.array(nodata)[:, None, None], expected)
    assert (in_blocks(source, placed, [33], []) == expected).all()
    source, placed = source_on(small + 2**60, SOURCE, TARGETS["half"], "average")
    with pytest.raises(dr.RasterReadError, match=r"beyond 2\*\*53 .* use 'nearest'") as caught:
        in_blocks(source, placed, [], [])
    assert "while memory was brought to another grid" in caught.value.__notes__[0]


def test_what_is_read_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = pixels((1, 1500, 1500), "uint8")
    grid = Grid(pyproj.CRS(32630), SOURCE.transform, (1500, 1500))
    target = Grid(pyproj.CRS(32630), Affine(300, 0, 700_000, 0, -300, 5_600_000), (50, 50))
    monkeypatch.setattr(warped, "PIECE_NBYTES", 50_000)
    source, placed = source_on(values, grid, target, "average")
    result = in_blocks(source, placed, [], [])
    assert max(source.source.read_nbytes) <= 50_000  # type: ignore[attr-defined]
    assert (result == by_gdal(values, grid, target, "average", (None,), (1 / 30, 1 / 30))).all()


WORLD = Grid(pyproj.CRS(4326), Affine(1.0, 0, -180, 0, -1.0, 90), (180, 360))


@pytest.mark.parametrize(
    "target",
    [
        Grid(pyproj.CRS(3413), Affine(100_000, 0, -9e6, 0, -100_000, 9e6), (180, 180)),  # the pole in the middle
        Grid(pyproj.CRS(3832), Affine(100_000, 0, -9e6, 0, -100_000, 9e6), (180, 180)),  # across the antimeridian
        Grid(pyproj.CRS("ESRI:54030"), Affine(200_000, 0, -19e6, 0, -200_000, 10e6), (100, 190)),  # corners nowhere
        Grid(
            pyproj.CRS("+proj=ortho +lat_0=40 +lon_0=20"), Affine(100_000, 0, -8e6, 0, -100_000, 8e6), (160, 160)
        ),  # a disc
    ],
    ids=["pole", "antimeridian", "robinson", "disc"],
)
@pytest.mark.parametrize("kernel", ["nearest", "bilinear"])
def test_poles_antimeridian_and_points_that_are_nowhere(target: Grid, kernel: str) -> None:
    values = 1 + np.add.outer(np.arange(180) * 3, np.arange(360) % 100).astype("uint16")[np.newaxis]
    source, placed = source_on(values, WORLD, target, kernel, (0,))
    assert isinstance(source.regrid, Warp)
    expected = by_gdal(values, WORLD, target, kernel, (0,), source.regrid.plan.scale_yx)
    for cuts in ([], [77], [10, 20, 90]):
        assert (in_blocks(source, placed, cuts, cuts) == expected).all()
    assert (expected > 0).mean() > 0.2


def test_whole_pixel_shifts_are_copied(make_raster: MakeRaster) -> None:
    values = pixels((2, 30, 40))
    shift = Shift(row_off=-5, col_off=3, source_shape_yx=(30, 40))
    source = WarpedSource(
        source=Array(values),
        bands=(2, 1),
        part_window=Window(0, 0, 30, 40),
        regrid=shift,
        shape=(2, 40, 50),
        nodata=(7, None),
    )
    expected = np.zeros((2, 40, 50), values.dtype)
    expected[0] = 7
    expected[:, 5:35, :37] = values[::-1, :, 3:]
    assert (source.read(Window(0, 0, 40, 50), (1, 2)) == expected).all()
    assert (source.read(Window(3, 30, 10, 20), (2,)) == expected[1:, 3:13, 30:]).all()
    assert (source.read(Window(36, 30, 2, 20), (1,)) == 7).all()


def test_sources_travel(make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((1, *SOURCE.shape_yx)), crs="EPSG:32630", transform=SOURCE.transform))
    aligned = dr.align(image.rio.write_nodata(0), like=TARGETS["other zone"])
    view = dr.lazy.slicing.source_of(aligned.data)
    assert view is not None
    other = pickle.loads(pickle.dumps(view.source))
    assert (other.token, hash(other)) == (view.source.token, hash(view.source))
    assert (other.read(view.window, (1,)) == aligned.values).all()


def test_dtypes_that_gdal_has() -> None:
    assert not warps(np.dtype(bool))
    values = with_holes("float32", (None, None)) / 7
    expected, placed = source_on(values.astype("float16").astype("float32"), SOURCE, TARGETS["half"], "average")
    half, _ = source_on(values.astype("float16"), SOURCE, TARGETS["half"], "average")
    result = in_blocks(half, placed, [], [])
    assert result.dtype == np.float16
    assert (result == in_blocks(expected, placed, [], []).astype("float16")).all()
    both, _ = source_on(values + 1j * values, SOURCE, TARGETS["half"], "bilinear")
    real, _ = source_on(values, SOURCE, TARGETS["half"], "bilinear")
    assert np.allclose(in_blocks(both, placed, [], []).imag, in_blocks(real, placed, [], []), rtol=1e-5)
