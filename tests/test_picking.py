"""Nearest pixels picked by NumPy are GDAL's, and GDAL does what is not certain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.warp import reproject

from daskraster.formats import picking
from daskraster.formats.gdalwarp import SourcePart, WarpPlan, warp
from daskraster.formats.warped import Warp
from daskraster.grid import Grid, Window
from daskraster.lazy.gridding import regrid_for, target_grid

SOURCE = Grid(pyproj.CRS(32630), Affine(10, 0, 700_000, 0, -10, 5_600_000), (301, 313))
TARGETS = {
    "other zone": Grid(pyproj.CRS(32631), Affine(9, 0, 273_500, 0, -9, 5_601_500), (401, 397)),
    "degrees": Grid(pyproj.CRS(4326), Affine(0.0001, 0, -0.19, 0, -0.0001, 50.52), (301, 422)),
    "web map": Grid(pyproj.CRS(3857), Affine(20, 0, -21_000, 0, -20, 6_536_000), (300, 250)),
    "equal area, rotated": Grid(
        pyproj.CRS(3035), Affine.translation(3_601_000, 3_094_500) @ Affine.rotation(20) @ Affine.scale(11, -11), (280, 290)
    ),
}  # fmt: skip
DTYPES = [("uint8", (None, None)), ("uint16", (0, 7)), ("int64", (-(2**62) - 1, None)), ("uint64", (2**64 - 1, 0)),
          ("float32", (math.nan, -9999.0)), ("float64", (None, 1e20)), ("float16", (-1.0, None))]  # fmt: skip


def plan_for(source: Grid, target: Grid) -> WarpPlan:
    placed = target_grid(target, [("memory", source)], "like", like_given=True)
    regrid = regrid_for(source, placed, "nearest")
    assert isinstance(regrid, Warp)
    plan = regrid.plan
    # The grid itself, without what is around it for a halo.
    return WarpPlan(
        source_wkt=plan.source_wkt, source_transform=plan.source_transform, source_shape_yx=plan.source_shape_yx,
        target_wkt=plan.target_wkt, target_transform=target.transform, target_shape_yx=target.shape_yx, kernel="nearest",
        scale_yx=plan.scale_yx, area_of_interest=plan.area_of_interest,
    )  # fmt: skip


def values_of(dtype: str, nodata: Any, shape_yx: tuple[int, int] = SOURCE.shape_yx) -> NDArray[Any]:
    values = np.random.default_rng(1).integers(1, 250, (2, *shape_yx)).astype(dtype)
    for band, value in enumerate(nodata):
        if value is not None:
            values[band, 20:80, 30:70] = np.array(value).astype(dtype)
    return values


@pytest.fixture
def all_by_gdal(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """The windows larger than a pixel that were left to GDAL."""
    left: list[Window] = []

    def counted(part: SourcePart, wanted: Window, plan: WarpPlan, extra: int) -> NDArray[Any]:
        if plan.kernel == "nearest" and wanted.shape_yx != (1, 1):
            left.append(wanted)
        return warp(part, wanted, plan, extra)

    monkeypatch.setattr(picking, "warp", counted)
    return left


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("dtype", "nodata"), DTYPES)
def test_picked_is_gdals(target: str, dtype: str, nodata: Any, all_by_gdal: list[Window]) -> None:
    plan = plan_for(SOURCE, TARGETS[target])
    part = SourcePart(pixels=values_of(dtype, nodata), placed=Window(0, 0, *SOURCE.shape_yx), nodata=nodata)
    whole = Window(0, 0, *plan.target_shape_yx)
    picked = picking.nearest(part, whole, plan, 4)
    assert all_by_gdal == []
    assert len(np.unique(picked)) > 100
    assert np.array_equal(picked, warp(part, whole, plan, 4), equal_nan=picked.dtype.kind == "f")


def test_picked_is_a_warp_of_the_whole() -> None:
    target = TARGETS["other zone"]
    values = values_of("uint16", (0, 0))
    expected = np.zeros((2, *target.shape_yx), "uint16")
    reproject(
        values, expected, src_transform=SOURCE.transform, src_crs="EPSG:32630", dst_transform=target.transform,
        dst_crs=rasterio.crs.CRS.from_epsg(32631), tolerance=0, src_nodata=0,
    )  # fmt: skip
    part = SourcePart(pixels=values, placed=Window(0, 0, *SOURCE.shape_yx), nodata=(0, 0))
    plan = plan_for(SOURCE, target)
    assert (picking.nearest(part, Window(0, 0, *target.shape_yx), plan, 4) == expected).all()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(TARGETS)),
    st.integers(0, 200), st.integers(0, 180), st.integers(64, 200), st.integers(64, 190),
    st.integers(-400, 400), st.integers(-400, 400), st.floats(0.01, 3),
)  # fmt: skip
def test_any_window_and_any_place(  # noqa: PLR0917
    name: str, row: int, col: int, height: int, width: int, down: int, right: int, scale: float
) -> None:
    target = TARGETS[name]
    moved = Grid(
        target.crs, target.transform @ Affine.translation(right / 4, down / 4) @ Affine.scale(scale), (400, 400)
    )
    placed = Window(13, 5, 270, 300)
    part = SourcePart(pixels=values_of("uint16", (0, 0))[:, 13:283, 5:305], placed=placed, nodata=(0, 0))
    window = Window(row, col, height, width)
    plan = plan_for(SOURCE, moved)
    assert (picking.nearest(part, window, plan, 4) == warp(part, window, plan, 4)).all()


def test_places_are_gdals_own() -> None:
    """The polynomial against PROJ, at every pixel of a large window."""
    source = Grid(SOURCE.crs, SOURCE.transform, (3000, 3000))
    target = Grid(pyproj.CRS(32631), Affine(10, 0, 276_000, 0, -10, 5_599_000), (2048, 2048))
    part = SourcePart(pixels=np.zeros((1, 3000, 3000), "uint8"), placed=Window(0, 0, 3000, 3000), nodata=(None,))
    found = picking._places(part, Window(0, 0, 2048, 2048), plan_for(source, target))
    assert found is not None
    weights = picking._weights(2048)[::31]
    rows, cols = (weights @ known @ weights.T for known in found)
    at = np.arange(2048)[::31] + 0.5
    x, y = np.meshgrid(276_000 + 10 * at, 5_599_000 - 10 * at)
    x, y = pyproj.Transformer.from_crs(32631, 32630, always_xy=True).transform(x, y)
    assert np.abs(cols - (x - 700_000) / 10).max() < picking.MEASURED_PIXELS
    assert np.abs(rows - (5_600_000 - y) / 10).max() < picking.MEASURED_PIXELS


def test_pixels_at_borders_are_gdals_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picking, "BORDER_PIXELS", 2e-4)
    monkeypatch.setattr(picking, "MOST_AT_BORDERS", 1.0)
    single: list[Window] = []

    def counted(part: SourcePart, wanted: Window, plan: WarpPlan, extra: int) -> NDArray[Any]:
        if plan.kernel == "nearest":
            single.append(wanted)
        return warp(part, wanted, plan, extra)

    plan = plan_for(SOURCE, TARGETS["other zone"])
    part = SourcePart(pixels=values_of("uint16", (0, 0)), placed=Window(0, 0, *SOURCE.shape_yx), nodata=(0, 0))
    window = Window(100, 80, 128, 110)
    expected = warp(part, window, plan, 4)
    monkeypatch.setattr(picking, "warp", counted)
    assert (picking.nearest(part, window, plan, 4) == expected).all()
    assert 2 <= len(single) <= 40
    assert {one.shape_yx for one in single} == {(1, 1)}


def test_what_is_not_certain_is_left_to_gdal(all_by_gdal: list[Window]) -> None:
    degrees = Grid(pyproj.CRS(4326), Affine(0.125, 0, 0, 0, -0.125, 10), (160, 160))
    # A linear map: every pixel of the target begins in the middle of one of the source, so every place is a border.
    metres = 6378137 * math.pi / 180 / 8
    borders = Grid(
        pyproj.CRS("+proj=eqc +a=6378137 +b=6378137"), Affine(metres, 0, metres / 2, 0, -metres, (80 - 0.5) * metres), (80, 80)
    )  # fmt: skip
    pole = Grid(pyproj.CRS(3413), Affine(100_000, 0, -9e6, 0, -100_000, 9e6), (180, 180))
    world = Grid(pyproj.CRS(4326), Affine(1.0, 0, -180, 0, -1.0, 90), (180, 360))
    for source, target in ((degrees, borders), (world, pole)):
        plan = plan_for(source, target)
        whole = Window(0, 0, *target.shape_yx)
        values = values_of("uint8", (None, None), source.shape_yx)
        part = SourcePart(pixels=values, placed=Window(0, 0, *source.shape_yx), nodata=(None, None))
        assert (picking.nearest(part, whole, plan, 8) == warp(part, whole, plan, 8)).all()
    assert len(all_by_gdal) == 2


def test_floats_next_to_nodata_are_left_to_gdal(all_by_gdal: list[Window]) -> None:
    values = values_of("float32", (-9999.0, None))
    values[0, 100:150] = np.nextafter(np.float32(-9999), np.float32(0))
    part = SourcePart(pixels=values, placed=Window(0, 0, *SOURCE.shape_yx), nodata=(-9999.0, None))
    plan = plan_for(SOURCE, TARGETS["other zone"])
    picking.nearest(part, Window(0, 0, 200, 200), plan, 4)
    assert len(all_by_gdal) == 1
