"""`apply` on blocks equals the function on the whole raster."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from dask.optimization import cull
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import daskraster as dr
from tests.conftest import TRANSFORM, Counter, MakeRaster, pixels


def median5(block: NDArray[Any]) -> NDArray[Any]:
    """Looks 2 pixels far, with SciPy's own rule at the edge."""
    return ndimage.median_filter(block, size=(1, 5, 5))


def spread(block: NDArray[Any], *, size: int) -> NDArray[Any]:
    """Looks size // 2 pixels far; one band out."""
    return ndimage.maximum_filter(block, size=(1, size, size)).max(axis=0) - ndimage.minimum_filter(
        block, size=(1, size, size)
    ).min(axis=0)


def file_and_computed(make_raster: MakeRaster, values: NDArray[Any], chunks: Any) -> tuple[xr.DataArray, xr.DataArray]:
    """The same raster twice: one that still has its source, one that has not."""
    path = make_raster(values, f"in{values.dtype}.tif", tiled=True, blockxsize=16, blockysize=16)
    image = dr.open_raster(path, chunks=chunks)
    computed = image.copy(data=image.data.map_blocks(np.array, dtype=image.dtype, meta=image.data._meta))
    return image, computed


def cuts(draw: st.DrawFn, length: int) -> tuple[int, ...]:
    """A partition of an axis into chunks of any sizes."""
    at = sorted(draw(st.sets(st.integers(1, length - 1), max_size=6))) if length > 1 else []
    return tuple(np.diff([0, *at, length]).tolist())


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[tuple[int, ...], tuple[int, ...]], tuple[int, int]]:
    """Shape, chunks and halo: primes, 1 x 1, halos larger than chunks and than the raster."""
    rows, cols = (
        draw(st.one_of(st.integers(1, 40), st.sampled_from([1, 15, 16, 17, 31, 32, 33]))),
        draw(st.integers(1, 45)),
    )
    chunks = cuts(draw, rows), cuts(draw, cols)
    halo = draw(st.tuples(st.integers(0, 50), st.integers(0, 50)))
    return (draw(st.integers(1, 3)), rows, cols), chunks, halo


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cases(),
    st.sampled_from(["none", "nearest", "reflect", 7, "nodata"]),
    st.sampled_from(["uint8", "int16", "float32"]),
)
def test_both_ways_give_the_blocks_of_the_padded_whole(
    make_raster: MakeRaster, case: Any, boundary: Any, dtype: str
) -> None:
    shape, chunks, halo = case
    values = pixels(shape, dtype)
    image, computed = (array.rio.write_nodata(3) for array in file_and_computed(make_raster, values, chunks))
    widths = ((0, 0), (halo[0],) * 2, (halo[1],) * 2)
    if boundary == "none":
        padded, offset = values, (0, 0)
    elif isinstance(boundary, int) or boundary == "nodata":
        padded, offset = np.pad(values, widths, constant_values=3 if boundary == "nodata" else boundary), halo
    else:
        padded, offset = np.pad(values, widths, mode={"nearest": "edge", "reflect": "symmetric"}[boundary]), halo

    def check(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        window = where.window_with_halo
        top, left = window.row_off + offset[0], window.col_off + offset[1]
        np.testing.assert_array_equal(block, padded[:, top : top + window.height, left : left + window.width])
        inside = (
            where.window.grow(halo).clip(dr.Window(0, 0, *shape[1:]))
            if boundary == "none" or not any(halo)
            else where.window.grow(halo)
        )
        assert window == inside
        return block + block.dtype.type(1)

    for array in (image, computed):
        result = dr.apply(check, array, overlap=halo, boundary=boundary, with_block=True, dtype=dtype, bands=shape[0])
        with dask.config.set(scheduler="synchronous"):
            assert (result.values == values + values.dtype.type(1)).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases(), st.integers(0, 3))
def test_equals_the_function_on_the_whole_raster(make_raster: MakeRaster, case: Any, extra: int) -> None:
    shape, chunks, _ = case
    values = pixels(shape)
    for array in file_and_computed(make_raster, values, chunks):
        assert (dr.apply(median5, array, overlap=2 + extra).values == median5(values)).all()
        assert (dr.apply(spread, array, overlap=4, kwargs={"size": 9}).values == spread(values, size=9)).all()


def test_on_every_engine(engine: str, make_raster: MakeRaster) -> None:
    values = pixels((2, 101, 97))
    for array in file_and_computed(make_raster, values, (32, 48)):
        assert (dr.apply(median5, array, overlap=2).values == median5(values)).all(), engine


def test_real_scene(landsat: Path) -> None:
    image = dr.open_raster(landsat, chunks=200)
    with rasterio.open(landsat) as dataset:
        whole = median5(dataset.read())
    assert (dr.apply(median5, image, overlap=2).values == whole).all()


def test_source_boundary_reads_real_pixels_beyond_a_crop(make_raster: MakeRaster) -> None:
    values = pixels((1, 80, 90))
    image, computed = file_and_computed(make_raster, values, 32)
    crop = {"y": slice(10, 60), "x": slice(3, 70)}
    result = dr.apply(median5, image.isel(crop), overlap=2, boundary="source").values
    assert (result == median5(values)[:, 10:60, 3:70]).all()
    assert (dr.apply(median5, image, overlap=20, boundary="source").values == median5(values)).all()
    shifted = image.isel(crop).copy(data=image.isel(y=slice(20, 70), x=slice(0, 67)).data)
    both = dr.apply(np.maximum, image.isel(crop), shifted, overlap=7, boundary="source").values
    assert (both == np.maximum(values[:, 10:60, 3:70], values[:, 20:70, 0:67])).all()
    with pytest.raises(dr.OptionError, match="no pixels beyond its edge"):
        dr.apply(median5, computed.isel(crop), overlap=2, boundary="source")


def test_several_inputs_in_other_chunks_bands_and_dtypes(make_raster: MakeRaster) -> None:
    a, b = pixels((2, 70, 60)), pixels((1, 70, 60), "float32", seed=1)
    file_a, _ = file_and_computed(make_raster, a, 16)
    _, lazy_b = file_and_computed(make_raster, b, (33, 21))
    plain = xr.DataArray(
        a[0] // 2, dims=("y", "x"), coords={"y": file_a.y, "x": file_a.x, "spatial_ref": file_a.spatial_ref}
    )

    def combine(one: NDArray[Any], two: NDArray[Any], three: NDArray[Any]) -> NDArray[Any]:
        assert (one.shape[0], two.shape[0], three.shape[0]) == (2, 1, 1)
        assert (one.dtype, two.dtype, three.dtype) == (np.uint16, np.float32, np.uint16)
        return (median5(one) + two + three).astype("float32")

    result = dr.apply(combine, file_a, lazy_b, plain, overlap=2)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result.values, (median5(a) + b + a[:1] // 2).astype("float32"))


def test_several_outputs_run_the_function_once_a_block(make_raster: MakeRaster) -> None:
    values = pixels((2, 64, 64))
    image, _ = file_and_computed(make_raster, values, 32)
    calls = Counter()

    def both(block: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        calls.add()
        return block.max(axis=0), block.astype("float64") / 2

    first, second = dr.apply(both, image, outputs=2, dtype=["uint16", "float64"], bands=[1, 2])
    assert calls.calls == []
    one, two = dask.compute(first, second, scheduler="threads")
    assert len(calls.calls) == 4
    assert (one.values == values.max(axis=0)).all()
    assert (two.values == values / 2).all()


def test_learns_dtype_and_bands_from_the_smallest_block_only(make_raster: MakeRaster) -> None:
    image, _ = file_and_computed(make_raster, pixels((2, 70, 70)), 32)
    calls = Counter()

    def func(block: NDArray[Any]) -> NDArray[Any]:
        calls.add(block.shape)
        return block.mean(axis=0)

    result = dr.apply(func, image, overlap=3)
    assert calls.calls == [(2, 9, 9)]  # 6 x 6 in the lower right corner, with its halo
    assert (result.dtype, result.shape) == (np.float64, (1, 70, 70))


@pytest.mark.usefixtures("nothing_runs")
def test_runs_nothing_when_told_dtype_and_bands(make_raster: MakeRaster) -> None:
    image, computed = file_and_computed(make_raster, pixels((2, 70, 70)), 32)

    def never(block: NDArray[Any]) -> NDArray[Any]:
        raise AssertionError("called while building")

    for array in (image, computed):
        for boundary in ("none", "reflect"):
            dr.apply(never, array, overlap=3, dtype="int16", bands=5, boundary=boundary)


def test_one_fused_task_a_block_from_file_to_file(make_raster: MakeRaster, tmp_path: Path) -> None:
    from daskraster.options import WriteOptions
    from daskraster.running import outputs, writing

    image, _ = file_and_computed(make_raster, pixels((1, 256, 256)), 64)
    result = dr.apply(median5, image, overlap=2, dtype="uint16", bands=1)
    path = tmp_path / "out.tif"
    (output,) = writing._plan({path: result}, {path: WriteOptions.of({"blocksize": 64})})
    sink = output.sink.start(many_processes=False)
    receipts = outputs.receipts(output, sink)
    keys = list(dask.core.flatten(receipts.__dask_keys__()))
    graph, _ = cull(dict(da.Array.__dask_optimize__(receipts.dask, keys)), keys)
    sink.discard()
    work = [task for task in graph.values() if type(task).__name__ != "Alias"]
    assert len(work) == 16
    assert not any(task.dependencies for task in work)


def test_a_failing_function_keeps_its_exception_and_says_where(engine: str, make_raster: MakeRaster) -> None:
    image, _ = file_and_computed(make_raster, pixels((1, 70, 70)), 32)

    def fails(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (1, 2):
            raise LookupError("no class for this pixel")
        return block

    result = dr.apply(fails, image, overlap=1, with_block=True, dtype="uint16", bands=1)
    with pytest.raises(LookupError, match="no class for this pixel") as caught:
        result.compute()
    notes = "\n".join(caught.value.__notes__)
    assert "fails" in notes
    assert "Window(row_off=32, col_off=64, height=32, width=6)" in notes
    assert "block (1, 2) of (3, 3)" in notes
    assert "inuint16.tif" in notes
    if engine != "processes":  # whose traceback is text
        names = [entry.name for entry in caught.traceback]
        assert "fails" in names


@pytest.mark.parametrize(
    ("func", "match"),
    [
        (lambda block: block[:, 1:], r"expected an array of shape \(.*, 36, 36\) or \(36, 36\), got \(2, 35, 36\)"),
        (lambda block: block[0, 0], r"got \(36,\)"),
        (lambda block: None, "got None: is there a return at its end"),
        (lambda block: block.mean(), "got one value, .* for the whole block"),
        (lambda block: [block, block], "got 2 arrays; give outputs=2"),
        (lambda block: block[:, 2:-2, 2:-2], "the function must return the halo too, apply trims it"),
        (lambda block: block.astype("U3"), "holds no pixels"),
        (lambda block: np.ma.masked_less(block, 3), r"return result\.filled"),
    ],
)
def test_wrong_results_are_refused_by_window(make_raster: MakeRaster, func: Any, match: str) -> None:
    image, _ = file_and_computed(make_raster, pixels((2, 64, 64)), 32)
    with pytest.raises(dr.BlockResultError, match=match) as caught:
        dr.apply(func, image, overlap=4)
    assert "Window(row_off=0, col_off=0, height=32, width=32)" in str(caught.value)


def test_results_that_change_between_blocks_are_refused(make_raster: MakeRaster) -> None:
    image, _ = file_and_computed(make_raster, pixels((2, 70, 64)), 32)

    def dtype_changes(block: NDArray[Any]) -> NDArray[Any]:
        return block if block.shape[1] < 32 else block.astype("float32")

    def bands_change(block: NDArray[Any]) -> NDArray[Any]:
        return block if block.shape[1] < 32 else block[:1]

    with pytest.raises(dr.BlockResultError, match="expected dtype uint16, got float32"):
        dr.apply(dtype_changes, image).compute()
    with pytest.raises(dr.BlockResultError, match=r"expected an array of shape \(2, 32, 32\)"):
        dr.apply(bands_change, image).compute()
    with pytest.raises(dr.BlockResultError, match="a tuple of 2 arrays, got ndarray"):
        dr.apply(dtype_changes, image, outputs=2)


def test_grids_that_differ_are_refused_with_both(make_raster: MakeRaster) -> None:
    one = dr.open_raster(make_raster(pixels((1, 20, 20)), "one.tif"))
    other = dr.open_raster(
        make_raster(pixels((1, 20, 20)), "two.tif", transform=TRANSFORM @ rasterio.Affine.translation(0.5, 0))
    )
    with pytest.raises(
        dr.GridMismatchError, match=r"one\.tif and .*two\.tif lie on different grids .*0\.5 pixels"
    ) as caught:
        dr.apply(np.maximum, one, other)
    assert "use dr.align" in str(caught.value)
    assert str(caught.value).count("EPSG:32755") == 2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"overlap": -1}, "overlap=-1"),
        ({"overlap": 1.5}, r"overlap=1\.5"),
        ({"overlap": (1, 2, 3)}, "overlap="),
        ({"boundary": "periodic"}, "possible are none, nearest, reflect, nodata, source"),
        (
            {"boundary": -1},
            "boundary=-1 does not fit uint16.*; give a number that every raster can hold, or 'nearest'$",
        ),
        ({"boundary": "nodata"}, "has no nodata value"),
        ({"outputs": 0}, "outputs=0"),
        ({"outputs": 2, "bands": [1]}, "one for each of 2 outputs"),
        ({"bands": 0}, "bands=0"),
        ({"dtype": "pixels"}, "is no NumPy dtype"),
    ],
)
@pytest.mark.usefixtures("nothing_runs")
def test_arguments_that_cannot_be(make_raster: MakeRaster, arguments: dict[str, Any], match: str) -> None:
    image, _ = file_and_computed(make_raster, pixels((1, 20, 20)), 10)
    with pytest.raises(dr.OptionError, match=match):
        dr.apply(median5, image, **arguments)


def test_arrays_that_are_no_rasters() -> None:
    for array, match in (
        (np.zeros((3, 3)), "is a ndarray, not an xarray.DataArray"),
        (xr.DataArray(np.zeros((2, 2, 3, 3)), dims=("time", "band", "y", "x")), r"array\.isel\(time=0\)"),
        (xr.DataArray(np.zeros((3, 3)), dims=("a", "b")), r"a raster has \(band, y, x\)"),
        (xr.DataArray(np.zeros((1, 0, 3)), dims=("band", "y", "x")), "has no pixels"),
        (
            xr.DataArray(np.zeros((3, 3)), dims=("y", "x"), coords={"x": [0.0, 1.0, 5.0], "y": [0.0, 1.0, 2.0]}),
            "not evenly spaced",
        ),
    ):
        with pytest.raises(dr.RasterArrayError, match=match):
            dr.apply(median5, array)  # type: ignore[arg-type]
    with pytest.raises(dr.OptionError, match="the first argument of apply must be the function"):
        dr.apply(xr.DataArray(np.zeros((3, 3)), dims=("y", "x")), median5)  # type: ignore[arg-type]
    with pytest.raises(dr.OptionError, match="at least one raster"):
        dr.apply(median5)


def test_metadata_is_kept_by_rule(make_raster: MakeRaster) -> None:
    path = make_raster(pixels((2, 20, 20)), nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("red", "nir")
        dataset.update_tags(1, STATISTICS_MEAN="1", WAVELENGTH="665")
        dataset.scales = (0.5, 0.5)
    image = dr.open_raster(path)
    same = dr.apply(lambda block: block, image)
    assert same.attrs["long_name"] == ("red", "nir")
    assert same.rio.nodata == 0
    assert same.attrs["scale_factor"] == 0.5
    assert same.attrs["band_tags"][0] == {"WAVELENGTH": "665"}
    ndvi = dr.apply(lambda block: (block[1] / block[0]).astype("float32"), image)
    assert ndvi.rio.nodata is None
    assert set(ndvi.attrs) <= {"AREA_OR_POINT"}
    assert ndvi.rio.crs == image.rio.crs
    assert ndvi.rio.transform() == image.rio.transform()
    masked = dr.open_raster(path, masked=True)
    assert dr.apply(lambda block: block, masked).rio.encoded_nodata == 0


def test_the_block_says_where_it_is(make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((1, 50, 60)), nodata=9), chunks=(32, 40))
    seen: dict[tuple[int, int], dr.Block] = {}

    def look(block: NDArray[Any], other: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        seen[where.index] = where
        return block

    dr.apply(look, image, image + 0.5, overlap=3, with_block=True, dtype="uint16", bands=1).compute()
    last = seen[1, 1]
    assert last.window == dr.Window(32, 40, 18, 20)
    assert last.window_with_halo == dr.Window(29, 37, 21, 23)
    assert last.transform @ (0, 0) == pytest.approx((300_370, 5_999_710))
    assert (last.count, last.nodata) == ((2, 2), (9, 9))
    assert last.crs.to_epsg() == 32755
    assert pickle.loads(pickle.dumps(last)) == last


def test_a_number_beyond_the_edge_of_truth_values() -> None:
    values = np.random.default_rng(3).random((1, 20, 30)) > 0.8
    mask = xr.DataArray(values, dims=("band", "y", "x"))
    around = np.ones((1, 3, 3), bool)

    def grown(block: NDArray[Any]) -> NDArray[Any]:
        return ndimage.binary_dilation(block, around)

    for array in (mask, mask.chunk(y=8, x=8)):
        for edge in (0, 1):
            due = grown(np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=bool(edge)))[:, 1:-1, 1:-1]
            np.testing.assert_array_equal(dr.apply(grown, array, overlap=1, boundary=edge).values, due)
    with pytest.raises(
        dr.OptionError,
        match="boundary=2 does not fit bool, which holds 0 and 1; give a number that every raster can hold",
    ):
        dr.apply(grown, mask, overlap=1, boundary=2)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -9999), ("uint8", float("nan")), ("int16", 0.5)])
def test_beyond_the_edge_is_no_nodata_that_pixels_cannot_have(dtype: str, nodata: float) -> None:
    image = xr.DataArray(np.ones((1, 20, 30), dtype), dims=("band", "y", "x"), attrs={"_FillValue": nodata})
    with pytest.raises(dr.OptionError, match=rf"no pixel of .* can be nodata: nodata={nodata} does not fit {dtype}"):
        dr.apply(np.copy, image, overlap=1, boundary="nodata", dtype=dtype, bands=1)
    floats = image.astype("float32").assign_attrs(_FillValue=nodata)
    dr.apply(np.copy, floats, overlap=1, boundary="nodata", dtype="float32", bands=1).compute()


@pytest.mark.parametrize("nodata", [255, 0])
def test_truth_values_that_keep_the_attrs_of_what_was_compared(make_raster: MakeRaster, nodata: int) -> None:
    class Copies:
        def predict(self, rows: NDArray[Any]) -> NDArray[Any]:
            return rows[:, 0]

    values = pixels((1, 40, 50)).astype("uint8")
    image = dr.open_raster(make_raster(values, nodata=nodata), chunks=16)
    mask = (image > 100).assign_attrs(image.attrs)
    due = values > 100
    np.testing.assert_array_equal(dr.apply(np.copy, mask, overlap=1).values, due)
    np.testing.assert_array_equal(dr.align(mask, like=image).values, due)
    np.testing.assert_array_equal(dr.predict(Copies(), mask, dtype="uint8", nodata=9).values, due)
