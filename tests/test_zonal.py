"""Zonal statistics are those of pandas and NumPy on the whole array."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import daskraster as dr
from daskraster.errors import GridMismatchError, OptionError, RasterArrayError, RasterFormatError, RasterNotFoundError
from daskraster.running import engines, zonal
from tests.conftest import MakeRaster, pixels

SHAPE = (90, 110)


def by_pandas(values: NDArray[Any], zones: NDArray[Any], valid: NDArray[np.bool_]) -> pd.DataFrame:
    frame = pd.DataFrame({"zone": zones[valid], "value": values[valid]})
    grouped = frame.groupby("zone")["value"]
    return pd.DataFrame(
        {
            "count": grouped.count(),
            "min": grouped.min(),
            "max": grouped.max(),
            "mean": grouped.mean(),
            "stddev": grouped.std(ddof=0),
            "sum": grouped.sum(),
        }
    )


def raster(values: NDArray[Any], chunks: Any = (32, 48)) -> xr.DataArray:
    stacked = values if values.ndim == 3 else values[np.newaxis]
    return xr.DataArray(stacked, dims=("band", "y", "x")).chunk({"y": chunks[0], "x": chunks[1]})


def zones_of(shape: tuple[int, int], dtype: str = "int32") -> NDArray[Any]:
    rows, cols = np.indices(shape)
    return ((rows // 17) * 10 + cols // 23 + (rows * cols) % 2 * 1000 - 5).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "float32", "float64", "bool"])
def test_equals_pandas(dtype: str, engine: str) -> None:
    if engine in ("processes", "client") and dtype not in ("uint16", "float32"):
        pytest.skip("two types are enough for engines of processes")
    values = (pixels((1, *SHAPE), "float64")[0] * 100 - 30).astype(dtype)
    zones = zones_of(SHAPE)
    table = dr.zonal_statistics(raster(values), raster(zones))
    expected = by_pandas(values.astype("float64"), zones, np.ones(SHAPE, bool))
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, check_index_type=False, rtol=1e-12)
    assert table.index.name == "zone"
    assert table.index.dtype == np.int32
    if dtype != "bool" and np.dtype(dtype).kind in "iu":
        assert (table[["min", "max", "sum"]].dtypes == np.int64).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_integers_are_exact_whatever_the_blocks(data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    dtype = np.dtype(data.draw(st.sampled_from(["uint8", "int16", "uint32", "int64", "uint64"])))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    zones = rng.integers(0, 4, shape, data.draw(st.sampled_from(["uint8", "int64"])))
    nodata = int(values.flat[0])
    image = raster(values, (data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20)))).rio.write_nodata(nodata)
    with dask.config.set(scheduler="synchronous"):
        table = dr.zonal_statistics(image, raster(zones).rio.write_nodata(2))
    assert sorted(table.index) == sorted(set(zones.ravel().tolist()) - {2})
    for zone, row in table.iterrows():
        pixels_of = [int(value) for value in values[zones == zone] if value != nodata]
        assert row["count"] == len(pixels_of)
        assert int(table["sum"][zone]) == sum(pixels_of)
        if not pixels_of:
            assert np.isnan(row["mean"])
            assert np.isnan(row["min"])
            continue
        mean = Fraction(sum(pixels_of), len(pixels_of))
        variance = sum((value - mean) ** 2 for value in pixels_of) / len(pixels_of)
        assert row["mean"] == pytest.approx(float(mean), rel=1e-15)
        assert row["stddev"] == pytest.approx(float(variance) ** 0.5, rel=1e-14)
        if (table["count"] > 0).all():
            assert int(table["min"][zone]) == min(pixels_of)
            assert int(table["max"][zone]) == max(pixels_of)


def test_large_floats_keep_their_digits() -> None:
    # A mean of 1e9 with a deviation of 1, over 400 blocks.
    values = 1e9 + np.random.default_rng(0).normal(size=(400, 400))
    zones = (np.indices(values.shape)[1] // 100).astype("uint8")
    table = dr.zonal_statistics(raster(values, (20, 20)), raster(zones))
    for zone, row in table.iterrows():
        exact = [Fraction(value) for value in values[zones == zone]]
        mean = sum(exact) / len(exact)
        variance = sum((value - mean) ** 2 for value in exact) / len(exact)
        assert row["mean"] == pytest.approx(float(mean), rel=2e-16)
        assert row["stddev"] == pytest.approx(float(variance) ** 0.5, rel=1e-13)
        assert row["sum"] == pytest.approx(float(sum(exact)), rel=3e-16)


def test_invalid_pixels_and_zones(make_raster: MakeRaster) -> None:
    values = pixels((2, *SHAPE), "float32")
    values[0, :10] = np.nan
    values[1, 20:30] = -1
    values[1, 40, 40] = np.inf
    zones = zones_of(SHAPE, "uint16")
    zones[50:60] = 9999
    image = dr.open_raster(make_raster(values, nodata=-1), chunks=(32, 48))
    table = dr.zonal_statistics(image, dr.open_raster(make_raster(zones[np.newaxis], "z.tif", nodata=9999)))
    inside = zones != 9999
    for band in (1, 2):
        valid = inside & np.isfinite(values[band - 1]) & (values[band - 1] != -1)
        expected = by_pandas(values[band - 1].astype("float64"), zones, valid)
        present = table[band][table[band]["count"] > 0]
        pd.testing.assert_frame_equal(present, expected, check_dtype=False, check_index_type=False, rtol=1e-12)
    assert table.columns.names == ["band", None]
    assert set(table.index) == set(zones[inside].tolist())


def test_masked_rasters_and_single_bands(make_raster: MakeRaster) -> None:
    values = pixels((3, *SHAPE), "int16")
    path = make_raster(values, nodata=int(values[1, 3, 3]))
    image = dr.open_raster(path, chunks=32)
    zones = raster(zones_of(SHAPE)).assign_coords(image.isel(band=[0]).coords)
    one = dr.zonal_statistics(image.sel(band=2), zones)
    every = dr.zonal_statistics(image, zones)
    pd.testing.assert_frame_equal(every[2], one)
    masked = dr.zonal_statistics(dr.open_raster(path, masked=True), zones)
    pd.testing.assert_frame_equal(masked[2], one, check_dtype=False, rtol=1e-12)
    assert list(dr.zonal_statistics(image.sel(band=[3, 1]), zones).columns.get_level_values(0).unique()) == [3, 1]


def test_of_labels(make_raster: MakeRaster, engine: str) -> None:
    classes = (pixels((1, 60, 60), "uint16") > 30_000).astype("uint8")
    values = pixels((1, 60, 60), seed=4)
    labels = dr.label(dr.open_raster(make_raster(classes), chunks=16))
    table = dr.zonal_statistics(dr.open_raster(make_raster(values, "v.tif"), chunks=32), labels)
    whole = labels.values[0]
    expected = by_pandas(values[0].astype("float64"), whole, whole > 0)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, check_index_type=False, rtol=1e-12)


def test_the_result_is_the_same_to_the_last_bit_on_threads() -> None:
    values, zones = raster(pixels((1, 120, 120), "float64"), (16, 16)), raster(zones_of((120, 120)), (16, 16))
    with dask.config.set(scheduler="synchronous"):
        one = dr.zonal_statistics(values, zones)
    with dask.config.set(scheduler="threads", num_workers=4):
        for _ in range(3):
            pd.testing.assert_frame_equal(dr.zonal_statistics(values, zones), one, check_exact=True)


# --- polygons


def geo() -> Any:
    return pytest.importorskip("geopandas", reason="the extra 'vector' is not installed")


def polygon_frame(overlapping: bool) -> Any:
    geopandas, shapely = geo(), pytest.importorskip("shapely")
    rng = np.random.default_rng(5)
    shapes = []
    for number in range(12):
        if overlapping:
            x, y = 300_000 + rng.uniform(0, 1100), 6_000_000 - rng.uniform(0, 900)
            shapes.append(shapely.Point(x, y).buffer(rng.uniform(40, 300)))
        else:
            left, top = 300_003 + number % 4 * 260, 5_999_993 - number // 4 * 290
            shapes.append(shapely.Polygon([(left, top), (left + 250, top - 20), (left + 130, top - 270)]))
    shapes[3] = shapely.union(shapes[3], shapely.Point(300_950, 5_999_150).buffer(30))
    names = [f"field {number % 9}" for number in range(11)] + ["far away"]
    shapes[11] = shapely.box(0, 0, 10, 10)
    return geopandas.GeoDataFrame({"name": names}, geometry=shapes, crs="EPSG:32755", index=range(100, 112))


def brute_force(values: NDArray[Any], shape: Any, nodata: float) -> NDArray[Any]:
    """The valid pixels whose centres lie in a polygon, by shapely."""
    import shapely

    rows, cols = np.indices(values.shape)
    inside = shapely.contains_xy(shape, 300_000 + (cols + 0.5) * 10, 6_000_000 - (rows + 0.5) * 10)
    return values[inside & (values != nodata)].astype("float64")


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("chunks", [16, (45, 33)])
def test_each_polygon_is_counted_whole(overlapping: bool, chunks: Any, make_raster: MakeRaster) -> None:
    frame = polygon_frame(overlapping)
    values = pixels((1, *SHAPE))
    nodata = int(values[0, 20, 30])
    image = dr.open_raster(make_raster(values, nodata=nodata), chunks=chunks)
    table = dr.zonal_statistics(image, frame)
    assert list(table.index) == list(range(100, 112))
    for zone, row in table.iterrows():
        inside = brute_force(values[0], frame.geometry[zone], nodata)
        assert row["count"] == inside.size
        if inside.size:
            due = (inside.min(), inside.max(), inside.mean(), inside.std(), inside.sum())
            assert tuple(row.iloc[1:]) == pytest.approx(due, rel=1e-12)
        else:
            assert zone == 111
            assert row["sum"] == 0
            assert np.isnan(row["mean"])


def test_polygons_by_name_from_a_file_in_another_crs(make_raster: MakeRaster, tmp_path: Path, engine: str) -> None:
    frame = polygon_frame(overlapping=True)
    values = pixels((2, *SHAPE), "float32")
    image = dr.open_raster(make_raster(values), chunks=32)
    path = tmp_path / "fields.gpkg"
    frame.to_crs("EPSG:4326").to_file(path)
    table = dr.zonal_statistics(image, path, column="name")
    assert list(table.index) == sorted(set(frame["name"]))
    for name, row in table[2].iterrows():
        parts = [brute_force(values[1], shape, np.nan) for shape in frame.geometry[frame["name"] == name]]
        inside = np.concatenate(parts)
        # A vertex moves by less than a micrometre on its way; no centre lies that near an edge here.
        assert row["count"] == inside.size
        if inside.size:
            assert row["mean"] == pytest.approx(inside.mean(), rel=1e-12)
            assert row["stddev"] == pytest.approx(inside.std(), rel=1e-9)


def test_polygons_that_cannot_be_zones(make_raster: MakeRaster, tmp_path: Path) -> None:
    geopandas, shapely = geo(), pytest.importorskip("shapely")
    frame = polygon_frame(overlapping=False)
    image = dr.open_raster(make_raster(pixels((1, *SHAPE))))
    with pytest.raises(OptionError, match="column='age': the zones has the columns name, geometry"):
        dr.zonal_statistics(image, frame, column="age")
    with pytest.raises(OptionError, match="the zones has no CRS"):
        dr.zonal_statistics(image, frame.set_crs(None, allow_override=True))
    with pytest.raises(OptionError, match="1 polygons of the zones have no value there"):
        dr.zonal_statistics(image, frame.assign(name=[None, *["a"] * 11]), column="name")
    with pytest.raises(RasterNotFoundError, match=r"there is no file gone\.gpkg"):
        dr.zonal_statistics(image, "gone.gpkg")
    (tmp_path / "text.gpkg").write_text("no vector")
    with pytest.raises(RasterFormatError, match="cannot be read as a vector file"):
        dr.zonal_statistics(image, tmp_path / "text.gpkg")
    points = geopandas.GeoDataFrame(geometry=[shapely.Point(300_050, 5_999_950)], crs="EPSG:32755")
    with pytest.raises(RasterFormatError, match=r"the zones holds \['Point'\]; zones are polygons"):
        dr.zonal_statistics(image, points)
    assert dr.zonal_statistics(image, frame.iloc[:0]).empty


def test_the_extra_is_named(make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(OptionError, match=r"need geopandas, .* pip install 'daskraster\[vector\]'"):
        dr.zonal_statistics(dr.open_raster(make_raster(pixels((1, 9, 9)))), "x.gpkg")


def test_refused() -> None:
    image, zones = raster(pixels((1, *SHAPE))), raster(zones_of(SHAPE))
    with pytest.raises(RasterArrayError, match="zones are integers: open them without masked=True"):
        dr.zonal_statistics(image, zones.astype("float32"))
    with pytest.raises(RasterArrayError, match="has 2 bands; zones have one"):
        dr.zonal_statistics(image, xr.concat([zones, zones], "band"))
    with pytest.raises(GridMismatchError, match="their sizes differ"):
        dr.zonal_statistics(image, zones.isel(x=slice(0, 50)))
    with pytest.raises(OptionError, match="column='a' goes with polygons"):
        dr.zonal_statistics(image, zones, column="a")
    with pytest.raises(OptionError, match="zones= is a ndarray"):
        dr.zonal_statistics(image, zones.values)
    with pytest.raises(OptionError, match="zonal_statistics works on numbers"):
        dr.zonal_statistics(image.astype(complex), zones)


def test_what_stopped_it_is_told_though_the_scheduler_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        status = "connecting"

        def run(self, *_: Any, **__: Any) -> None:
            raise AttributeError("'NoneType' object has no attribute 'broadcast'")

    def stops(*_: Any) -> None:
        raise dr.WorkerError("its scheduler is gone")

    monkeypatch.setattr(zonal, "run", stops)
    monkeypatch.setattr(engines, "active_client", Gone)
    with pytest.raises(dr.WorkerError, match="its scheduler is gone"):
        dr.zonal_statistics(raster(pixels((1, *SHAPE))), raster(zones_of(SHAPE)), progress=False)


def test_scenes_put_together_along_another_dimension() -> None:
    image, zones = raster(pixels((2, *SHAPE))), raster(zones_of(SHAPE))
    single = image.assign_coords(band=[1, 2]).isel(band=0)
    scenes = xr.concat([single, single + 1], "time")
    assert scenes.coords["band"].ndim == 0
    table = dr.zonal_statistics(scenes, zones, progress=False)
    for number in (1, 2):
        due = dr.zonal_statistics(scenes.isel(time=[number - 1]), zones, progress=False)
        pd.testing.assert_frame_equal(table[number], due)
