"""`align`: which grid, which pixels, on every way through the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from affine import Affine
from dask.optimization import cull
from rasterio.warp import reproject

import daskraster as dr
from daskraster.lazy.arrays import as_raster
from tests.conftest import MakeRaster, pixels

ORIGIN = Affine(10, 0, 700_000, 0, -10, 5_600_000)
ZONE31 = dr.Grid(pyproj.CRS(32631), Affine(12, 0, 274_000, 0, -12, 5_600_900), (140, 131))


@pytest.fixture
def image(make_raster: MakeRaster) -> xr.DataArray:
    path = make_raster(
        pixels((2, 150, 160)) + np.uint16(1), "a.tif", crs="EPSG:32630", transform=ORIGIN, nodata=0,
        tiled=True, blockxsize=64, blockysize=64,
    )  # fmt: skip
    return dr.open_raster(path, chunks=64)


def shifted(make_raster: MakeRaster, rows: float, cols: float, name: str = "b.tif", **profile: Any) -> xr.DataArray:
    transform = ORIGIN @ Affine.translation(cols, rows)
    path = make_raster(pixels((1, 100, 120), seed=3), name, crs="EPSG:32630", transform=transform, **profile)
    return dr.open_raster(path, chunks=50)


def computed(array: xr.DataArray) -> xr.DataArray:
    return array.copy(data=array.data.map_blocks(np.array, dtype=array.dtype, meta=array.data._meta))


def test_nearest_on_every_engine_equals_gdal(engine: str, image: xr.DataArray) -> None:
    expected = np.zeros((2, *ZONE31.shape_yx), "uint16")
    reproject(
        image.compute(scheduler="synchronous").values, expected, src_transform=ORIGIN, src_crs="EPSG:32630",
        dst_transform=ZONE31.transform, dst_crs="EPSG:32631", tolerance=0, src_nodata=0,
    )  # fmt: skip
    for array in (image, computed(image)):
        aligned = dr.align(array, like=ZONE31, extent="like")
        assert (aligned.values == expected).all(), engine
    assert aligned.rio.crs.to_epsg() == 32631
    assert aligned.rio.transform() == ZONE31.transform
    assert aligned.rio.nodata == 0


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "cubic", "mode"])
def test_files_computed_and_numpy_arrays_give_the_same(image: xr.DataArray, kernel: str) -> None:
    expected = dr.align(image, like=ZONE31, extent="like", resampling=kernel).values
    for other in (computed(image), computed(image).chunk(y=33, x=47), image.compute()):
        assert (dr.align(other, like=ZONE31, extent="like", resampling=kernel).values == expected).all()


def test_extents_on_one_lattice_are_copied(make_raster: MakeRaster, image: xr.DataArray) -> None:
    other = shifted(make_raster, 30, -20, nodata=65535)
    a, b = dr.align(image, other)
    assert (a.values == image.values[:, 30:130, :100]).all()
    assert (b.values == other.values[:, :, 20:]).all()
    for one, two in ((image, other), (computed(image), computed(other))):
        a, b = dr.align(one, two, extent="union")
        assert a.shape[1:] == b.shape[1:] == (150, 180)
        expected = np.zeros((2, 150, 180), "uint16")
        expected[:, :, 20:] = image.values
        assert (a.values == expected).all()
        expected = np.full((1, 150, 180), 65535, "uint16")
        expected[:, 30:130, :120] = other.values
        assert (b.values == expected).all()
    assert as_raster(a).grid.difference(as_raster(b).grid) is None
    (again,) = (dr.align(image, like=image),)
    assert (again.values == image.values).all()
    assert again.chunks == image.chunks


def test_snapping(make_raster: MakeRaster, image: xr.DataArray) -> None:
    other = shifted(make_raster, 30.5, 20.25, nodata=65535)
    a, b = dr.align(image, other)
    assert a.rio.transform() == ORIGIN @ Affine.translation(21, 31)
    assert a.shape[1:] == b.shape[1:] == (99, 119)
    a, _ = dr.align(image, shifted(make_raster, -30.5, -20.25, "c.tif", nodata=65535), extent="union")
    assert a.rio.transform() == ORIGIN @ Affine.translation(-21, -31)
    near = shifted(make_raster, 30.004, 20.004, "d.tif", nodata=65535)
    assert (dr.align(image, near)[1].values == near.values).all()


def test_a_halo_reads_real_pixels_beyond_the_intersection(make_raster: MakeRaster, image: xr.DataArray) -> None:
    def largest(block: Any) -> Any:
        from scipy.ndimage import maximum_filter

        return maximum_filter(block, (1, 7, 7))

    other = shifted(make_raster, 30, 20)
    a, b = dr.align(image, other)
    expected = largest(image.values)[:, 30:130, 20:140]
    assert (dr.apply(largest, a, overlap=3, boundary="source").values == expected).all()
    both = dr.apply(lambda one, two: largest(one), a, b, overlap=3, boundary="source")
    assert (both.values == expected).all()
    a = dr.align(image, like=ZONE31, extent="like")
    window = {"y": slice(20, 60), "x": slice(31, 90)}
    inner = dr.apply(largest, a.isel(window), overlap=3, boundary="source").values
    assert (inner == largest(a.values)[:, 20:60, 31:90]).all()


def test_masked_pixels_stay_nan(image: xr.DataArray) -> None:
    path = Path(as_raster(image).name)
    masked = dr.align(dr.open_raster(path, masked=True), like=ZONE31, extent="like")
    plain = dr.align(image, like=ZONE31, extent="like").values
    assert masked.rio.encoded_nodata == 0
    assert np.array_equal(masked.values, np.where(plain == 0, np.nan, plain), equal_nan=True)


@pytest.mark.usefixtures("nothing_runs")
def test_building_computes_nothing(image: xr.DataArray) -> None:
    for array in (image, computed(image)):
        dr.align(array, like=ZONE31, resampling="cubic")


def test_one_task_a_block_into_a_file(image: xr.DataArray, tmp_path: Path) -> None:
    from daskraster.options import WriteOptions
    from daskraster.running import outputs, writing

    aligned = dr.align(image, like=ZONE31, extent="like")
    dr.write_raster(aligned, tmp_path / "out.tif", progress=False)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.read() == aligned.values).all()
        assert (dataset.transform, dataset.nodata) == (ZONE31.transform, 0)
    two = tmp_path / "two.tif"
    (output,) = writing._plan({two: aligned}, {two: WriteOptions.of({"blocksize": 64})})
    sink = output.sink.start(many_processes=False)
    receipts = outputs.receipts(output, sink)
    keys = list(dask.core.flatten(receipts.__dask_keys__()))
    graph, _ = cull(dict(da.Array.__dask_optimize__(receipts.dask, keys)), keys)
    sink.discard()
    work = [task for task in graph.values() if type(task).__name__ != "Alias"]
    assert len(work) == len(keys)
    assert not any(task.dependencies for task in work)


def test_no_nodata_is_said(make_raster: MakeRaster, image: xr.DataArray) -> None:
    other = shifted(make_raster, 30, -20)
    with pytest.warns(dr.DaskRasterWarning, match=r"b\.tif has no nodata value"):
        _, b = dr.align(image, other, extent="union")
    assert (b.values[:, 0] == 0).all()


def test_what_cannot_be(make_raster: MakeRaster, image: xr.DataArray) -> None:
    far = shifted(make_raster, 5000, 0)
    with pytest.raises(dr.GridMismatchError, match=r"no pixel in common.*\n.*a\.tif: x 700000 .*\n.*b\.tif: x 700000"):
        dr.align(image, far)
    with pytest.raises(dr.OptionError, match="extent='all' is not known; possible are intersection, union, like"):
        dr.align(image, extent="all")
    with pytest.raises(dr.OptionError, match="resampling='gauss' is not known; possible are nearest, bilinear"):
        dr.align(image, resampling="gauss")
    with pytest.raises(dr.OptionError, match="one for each of 1 rasters"):
        dr.align(image, resampling=["nearest", "mode"])
    with pytest.raises(dr.OptionError, match="at least one raster"):
        dr.align()
    with pytest.raises(dr.OptionError, match="like= must be a DataArray, a Grid or the path"):
        dr.align(image, like=3)  # type: ignore[arg-type]
    bare = xr.DataArray(np.zeros((1, 4, 4)), dims=("band", "y", "x"))
    with pytest.raises(dr.RasterArrayError, match="has no CRS"):
        dr.align(image, bare)
    with pytest.raises(dr.RasterArrayError, match="has no transform"):
        dr.align(bare.rio.write_crs("EPSG:4326"))
    with pytest.raises(dr.RasterArrayError, match="dtype bool, which GDAL does not warp"):
        dr.align(image > 3, like=ZONE31)


def test_like_may_be_a_path(make_raster: MakeRaster, image: xr.DataArray) -> None:
    other = shifted(make_raster, 30, 20)
    by_path = dr.align(image, like=as_raster(other).name)
    assert by_path.shape == (2, 100, 120)
    assert (by_path.values == image.values[:, 30:130, 20:140]).all()


def test_scenes_put_together_along_another_dimension(make_raster: MakeRaster, image: xr.DataArray) -> None:
    scenes = xr.concat([image.isel(band=0), image.isel(band=0) + 1], "time")
    assert scenes.coords["band"].ndim == 0
    other = shifted(make_raster, 2, 3)
    for result, due in zip(dr.align(scenes, other), dr.align(scenes.drop_vars("band"), other), strict=True):
        np.testing.assert_array_equal(result.values, due.values)
        assert result.coords["band"].values.tolist() == due.coords["band"].values.tolist()
    # A single band keeps its number.
    one, _ = dr.align(image.isel(band=-1), other)
    assert one.coords["band"].values.tolist() == [int(image.coords["band"][-1])]
