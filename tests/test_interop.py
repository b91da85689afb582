"""What xarray, rioxarray, odc-geo and dask make goes through apply and write_raster: equal pixels, and where it belongs.

Expected pixels are NumPy's or the other package's own, expected georeference is read by GDAL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import correlate

import daskraster as dr
from tests.conftest import TRANSFORM, MakeRaster, ignoring_georeference, pixels

CRS = "EPSG:32755"
ALIGNED = (3, 70, 90)


def blur(block: NDArray[Any]) -> NDArray[Any]:
    """Looks two pixels far."""
    # uniform_filter carries NaN along whole rows; this does not.
    return correlate(block.astype("float64"), np.full((1, 5, 5), 0.04), mode="nearest").round(6)


def whole(values: NDArray[Any]) -> NDArray[Any]:
    """`blur` of everything at once."""
    return blur(values if values.ndim == 3 else values[np.newaxis])


def check(
    array: xr.DataArray, folder: Path, *, crs: str | None = CRS, transform: Affine = TRANSFORM, blurs: bool = True
) -> None:
    """Write an array, and `apply` over it, and compare both files with what xarray itself computes."""
    expected = array.transpose(..., *array.dims[-2:]).values
    expected = expected if expected.ndim == 3 else expected[np.newaxis]
    products = {"plain.tif": (array, expected)}
    if blurs:
        products["blurred.tif"] = (dr.apply(blur, array, overlap=2, boundary="nearest"), whole(expected))
    for name, (result, wanted) in products.items():
        dr.write_raster(result, folder / name, progress=False)
        with ignoring_georeference(), rasterio.open(folder / name) as file:
            np.testing.assert_array_equal(file.read(), wanted, err_msg=name)
            assert file.transform.almost_equals(transform, 1e-9), name
            assert (file.crs is None) if crs is None else (file.crs == rasterio.CRS.from_string(crs)), name


@pytest.fixture
def scene(make_raster: MakeRaster) -> Path:
    """Three bands of uint16 with nodata 0."""
    return make_raster(pixels(ALIGNED), nodata=0, tiled=True, blockxsize=32, blockysize=32)


@pytest.fixture
def lazy(scene: Path) -> xr.DataArray:
    """The scene as rioxarray opens it, in chunks."""
    return rioxarray.open_rasterio(scene, chunks={"band": 1, "x": 40, "y": 32})  # type: ignore[return-value]


def stack_of(times: int = 4) -> xr.DataArray:
    """(time, band, y, x) as stackstac and odc-stac make them: chunks of one band at one time, coordinates per scene, a CRS."""
    values = np.stack([pixels(ALIGNED, "float32", seed=seed) for seed in range(times)])
    values[1, :, 10:20, 10:20] = np.nan
    _, rows, cols = ALIGNED
    return xr.DataArray(
        da.from_array(values, chunks=(1, 1, 32, 40)),
        dims=("time", "band", "y", "x"),
        coords={
            "time": pd.date_range("2024-05-01", periods=times, freq="5D"),
            "band": ["red", "nir", "swir16"],
            "y": TRANSFORM.f + TRANSFORM.e * (np.arange(rows) + 0.5),
            "x": TRANSFORM.c + TRANSFORM.a * (np.arange(cols) + 0.5),
            "eo:cloud_cover": ("time", np.linspace(0, 30, times)),
            "common_name": ("band", ["red", "nir", "swir16"]),
            "epsg": 32755,
        },
        attrs={"spec": "RasterSpec(epsg=32755)", "resolution": 10, "transform": TRANSFORM},
        name="stackstac-0123",
    ).rio.write_crs(CRS)


# -- rioxarray ---------------------------------------------------------------------------------------------------------


def test_open_rasterio_eager_and_lazy(scene: Path, lazy: xr.DataArray, tmp_path: Path) -> None:
    for array in (lazy, rioxarray.open_rasterio(scene)):
        check(array, tmp_path)  # type: ignore[arg-type]
        with rasterio.open(tmp_path / "plain.tif") as file:
            assert file.nodatavals == (0, 0, 0)


def test_open_rasterio_masked_writes_the_files_nodata(scene: Path, tmp_path: Path) -> None:
    masked = rioxarray.open_rasterio(scene, masked=True, chunks=True)
    dr.write_raster(masked, tmp_path / "ours.tif", progress=False)  # type: ignore[arg-type]
    masked.rio.to_raster(tmp_path / "theirs.tif")  # type: ignore[union-attr]
    with rasterio.open(tmp_path / "ours.tif") as ours, rasterio.open(tmp_path / "theirs.tif") as theirs:
        np.testing.assert_array_equal(ours.read(masked=True).filled(0), theirs.read(masked=True).filled(0))
        assert ours.nodata == theirs.nodata
        assert ours.transform == theirs.transform


def test_band_as_variable_and_to_array(scene: Path, tmp_path: Path) -> None:
    dataset = rioxarray.open_rasterio(scene, band_as_variable=True, chunks=True)
    check(dataset["band_2"], tmp_path)  # type: ignore[index]
    check(dataset.to_array("band"), tmp_path)  # type: ignore[union-attr]


def test_band_data_of_xarrays_engine(scene: Path, tmp_path: Path) -> None:
    with xr.open_dataset(scene, engine="rasterio", chunks={}, mask_and_scale=False) as dataset:
        check(dataset["band_data"], tmp_path)


def test_a_dataset_says_which_variable(scene: Path, tmp_path: Path) -> None:
    with xr.open_dataset(scene, engine="rasterio", chunks={}) as dataset:
        with pytest.raises(dr.RasterArrayError, match=r"is a Dataset.*dataset\['band_data'\].*to_array"):
            dr.write_raster(dataset, tmp_path / "out.tif")  # type: ignore[arg-type]
        with pytest.raises(dr.RasterArrayError, match=r"is a Dataset.*dataset\['band_data'\].*to_array"):
            dr.apply(blur, dataset)


def test_reprojected(lazy: xr.DataArray, tmp_path: Path) -> None:
    there = lazy.rio.reproject("EPSG:4326")
    check(there, tmp_path, crs="EPSG:4326", transform=there.rio.transform())


def test_clipped_to_a_shape(lazy: xr.DataArray, tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    left, top = TRANSFORM @ (11.0, 7.0)
    triangle = shapely.Polygon([(left, top), (left + 400, top - 50), (left + 100, top - 400)])
    clipped = lazy.rio.clip([triangle])
    assert clipped.shape != lazy.shape
    check(clipped, tmp_path, transform=clipped.rio.transform())


def test_clip_box_and_isel(lazy: xr.DataArray, tmp_path: Path) -> None:
    box = lazy.rio.clip_box(300_100, 5_999_500, 300_555, 5_999_870)
    check(box, tmp_path, transform=box.rio.transform())
    check(lazy.isel(y=slice(5, 60), x=slice(7, 80)), tmp_path, transform=TRANSFORM @ Affine.translation(7, 5))
    check(lazy.isel(x=slice(None, None, 2)), tmp_path, transform=TRANSFORM @ Affine(2, 0, -0.5, 0, 1, 0))


def test_without_crs(lazy: xr.DataArray, tmp_path: Path) -> None:
    bare = lazy.drop_vars("spatial_ref")
    bare.attrs, bare.encoding = {}, {}
    check(bare, tmp_path, crs=None)


# -- xarray and dask ---------------------------------------------------------------------------------------------------


def test_arithmetic_where_fillna_clip_rolling(lazy: xr.DataArray, tmp_path: Path) -> None:
    for array in (
        lazy.where(lazy > 20_000).fillna(-1),
        lazy.clip(10_000, 30_000),
        (lazy.astype("float32") - lazy.mean("band")) / 2,
        lazy.astype("float64").rolling(x=3, y=3, center=True, min_periods=1).mean().round(3),
        lazy.max("band"),
        lazy.sortby("band", ascending=False),
        lazy.coarsen(y=2, x=2, boundary="trim").mean()[:, :0:-1, :][:, ::-1],
    ):
        kept = array.shape[-2:] == ALIGNED[1:]
        transform = TRANSFORM if kept else TRANSFORM @ Affine(2, 0, 0, 0, 2, 2)
        check(array, tmp_path, transform=transform)


def test_where_keeps_nan_as_nodata(lazy: xr.DataArray, tmp_path: Path) -> None:
    holes = lazy.where(lazy > 20_000)
    dr.write_raster(holes, tmp_path / "holes.tif", nodata=float("nan"), progress=False)
    with rasterio.open(tmp_path / "holes.tif") as file:
        np.testing.assert_array_equal(file.read(), holes.values)


def test_map_blocks_and_apply_ufunc(lazy: xr.DataArray, tmp_path: Path) -> None:
    check(xr.map_blocks(lambda block: block + 1, lazy, template=lazy), tmp_path)
    check(xr.apply_ufunc(np.sqrt, lazy, dask="parallelized", output_dtypes=["float32"]), tmp_path)
    means = xr.apply_ufunc(
        lambda values: values.mean(-1),
        lazy.chunk(band=-1),
        input_core_dims=[["band"]],
        dask="parallelized",
        output_dtypes=["float64"],
    )
    check(means, tmp_path)


def test_persisted_computed_optimised(lazy: xr.DataArray, tmp_path: Path) -> None:
    once = dr.apply(blur, lazy, overlap=2)
    (persisted,) = dask.persist(once)
    (optimised,) = dask.optimize(once)
    (computed,) = dask.compute(once)
    for array in (persisted, optimised, computed, once.persist(), once.compute()):
        check(array, tmp_path)


def test_persisted_on_workers(lazy: xr.DataArray, tmp_path: Path, client: Any) -> None:
    persisted = dr.apply(np.sqrt, lazy).persist()
    check(persisted, tmp_path)


def test_concat_and_bands_of_names(lazy: xr.DataArray, tmp_path: Path) -> None:
    check(xr.concat([lazy, lazy + 1], dim="band"), tmp_path)
    named = lazy.assign_coords(band=["red", "green", "blue"])
    check(named, tmp_path)
    with rasterio.open(tmp_path / "plain.tif") as file:
        assert file.descriptions == ("red", "green", "blue")


@pytest.mark.parametrize("names", [("latitude", "longitude"), ("lat", "lon")])
def test_geographic_dims(names: tuple[str, str], tmp_path: Path) -> None:
    values = pixels(ALIGNED, "float32")
    y, x = names
    coords = {y: 50 - 0.1 * np.arange(ALIGNED[1]), x: 5 + 0.1 * np.arange(ALIGNED[2])}
    array = xr.DataArray(values, dims=("time", y, x), coords=coords).rio.write_crs("EPSG:4326")
    transform = Affine(0.1, 0, 4.95, 0, -0.1, 50.05)
    check(array, tmp_path, crs="EPSG:4326", transform=transform)
    check(array.isel(time=0).chunk({y: 20}), tmp_path, crs="EPSG:4326", transform=transform)


def test_int_coordinates_and_none(tmp_path: Path) -> None:
    values = pixels(ALIGNED)
    rows, cols = ALIGNED[1:]
    coords = {"y": 6_000_000 - 10 * np.arange(rows), "x": 300_000 + 10 * np.arange(cols)}
    array = xr.DataArray(values, dims=("band", "y", "x"), coords=coords).rio.write_crs(CRS)
    check(array, tmp_path, transform=TRANSFORM @ Affine.translation(-0.5, -0.5))
    check(xr.DataArray(values, dims=("band", "y", "x")), tmp_path, crs=None, transform=Affine.identity())


def test_float32_coordinates(lazy: xr.DataArray, tmp_path: Path) -> None:
    check(lazy.assign_coords(x=lazy.x.astype("float32"), y=lazy.y.astype("float32")), tmp_path)


# -- stacks and odc-geo ------------------------------------------------------------------------------------------------


def test_stack_time_by_time(tmp_path: Path) -> None:
    stack = stack_of()
    for time in stack.time:
        check(stack.sel(time=time), tmp_path)
        with rasterio.open(tmp_path / "plain.tif") as file:
            assert file.descriptions == ("red", "nir", "swir16")
    for _, scene in stack.groupby("time"):
        check(scene.squeeze("time"), tmp_path, blurs=False)


def test_stack_reduced(tmp_path: Path) -> None:
    stack = stack_of()
    check(stack.chunk(time=-1).median("time"), tmp_path)
    check(stack.mean("time", keep_attrs=True), tmp_path)
    check(stack.sel(band="nir"), tmp_path)


def test_stack_whole_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for act in (lambda: dr.write_raster(stack_of(), tmp_path / "out.tif"), lambda: dr.apply(blur, stack_of())):
        with pytest.raises(dr.RasterArrayError, match=r"\('time', 'band', 'y', 'x'\)") as caught:
            act()
        for way in ("isel(time=0)", 'median("time")', "for each time"):
            assert way in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_stack_as_bands(tmp_path: Path) -> None:
    stacked = stack_of(2).stack(layer=("time", "band")).transpose("layer", "y", "x")
    dr.write_raster(stacked, tmp_path / "out.tif", progress=False)
    with rasterio.open(tmp_path / "out.tif") as file:
        np.testing.assert_array_equal(file.read(), stacked.values)


def test_odc_geo_boxes(tmp_path: Path) -> None:
    geobox = pytest.importorskip("odc.geo.geobox")
    odc = pytest.importorskip("odc.geo.xr")
    for crs, transform in ((CRS, TRANSFORM), ("EPSG:4326", Affine(0.25, 0, 5, 0, -0.25, 50))):
        box = geobox.GeoBox(ALIGNED[1:], transform, crs)
        array = odc.wrap_xr(pixels(ALIGNED), box, axis=1, nodata=0)
        check(array, tmp_path, crs=crs, transform=transform)
        result = dr.apply(blur, array, overlap=2)
        assert result.odc.geobox == box
    ours = dr.open_raster(tmp_path / "plain.tif")
    assert ours.odc.geobox == box


@pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")  # odc-geo's own
def test_odc_reproject_equals_its_own(lazy: xr.DataArray, tmp_path: Path) -> None:
    pytest.importorskip("odc.geo.xr")
    there = lazy.odc.reproject("EPSG:3577", resolution=20)
    check(there, tmp_path, crs="EPSG:3577", transform=there.odc.geobox.transform)
