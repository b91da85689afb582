"""Mosaics against NumPy, plain Python, rasterio.merge and real overlapping tiles."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.merge import merge as rasterio_merge
from rasterio.transform import Affine
from scipy.ndimage import median_filter

import daskraster as dr
from daskraster.blocks.merging import METHODS
from daskraster.formats import warped
from daskraster.formats.mosaic import Member, MosaicSource
from daskraster.grid import Window
from daskraster.lazy import aligning, mosaicking
from daskraster.lazy.arrays import as_raster
from daskraster.lazy.slicing import source_of
from tests.conftest import DATA, TRANSFORM, MakeRaster, pixels, read
from tests.mosaic_oracle import Placed, oracle

TILES = sorted((DATA / "sen2" / "overlapping_tiles").glob("*.tif"))
WHOLE = DATA / "sen2" / "sen2_20210527_aber_subset.tif"


def moved(row: float, col: float) -> Affine:
    """The test grid's transform, some pixels down and right."""
    return TRANSFORM @ Affine.translation(col, row)


def line(first: int, *values: float) -> xr.DataArray:
    return xr.DataArray(
        np.array([values]), dims=("y", "x"), coords={"y": [0.5], "x": np.arange(first, first + len(values)) + 0.5}
    )


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 7 x 5 pixels, so that a small mosaic has many."""

    def chunks(shape: tuple[int, int, int], *_: Any) -> Any:
        return tuple(
            tuple(min(size, n - at) for at in range(0, n, size)) for size, n in zip((7, 5), shape[1:], strict=True)
        )

    monkeypatch.setattr(mosaicking, "auto_chunks", chunks)


@pytest.fixture
def scattered(make_raster: MakeRaster) -> tuple[list[Path], list[Placed]]:
    """Five rasters of two bands that overlap, leave a gap, and have nodata pixels."""
    places = [(0, 0, 12, 9), (5, 4, 10, 13), (3, 10, 6, 6), (20, 2, 5, 5), (11, 12, 12, 8)]
    paths, placed = [], []
    for number, (row, col, height, width) in enumerate(places):
        values = pixels((2, height, width), "uint16", seed=number)
        values[0][np.random.default_rng(number).random((height, width)) < 0.3] = 0
        paths.append(make_raster(values, f"{number}.tif", transform=moved(row, col), nodata=0))
        placed.append((row, col, values))
    return paths, placed


EXAMPLES = [("last", "ab", [5, 5, 3, 9, 7, -1]), ("last", "ba", [5, 5, 3, 5, 7, -1]), ("min", "ab", [5, 5, 3, 5, 7, -1]),
            ("max", "ab", [5, 5, 3, 9, 7, -1]), ("first", "ab", [5, 5, 3, 5, 7, -1]), ("mean", "ab", [5, 5, 3, 7, 7, -1]),
            ("mean", "ba", [5, 5, 3, 7, 7, -1])]  # fmt: skip


@pytest.mark.parametrize(("method", "order", "expected"), EXAMPLES)
@pytest.mark.parametrize("kind", ["paths", "arrays", "mixed"])
def test_worked_examples(method: str, order: str, expected: list[int], kind: str, make_raster: MakeRaster) -> None:
    made = {}
    for name, (col, values) in {"a": (0, [5, 5, 0, 5]), "b": (2, [3, 9, 7, 0])}.items():
        path = make_raster(np.array([[values]], "int16"), f"{name}.tif", transform=moved(0, col))
        computed = dr.open_raster(path) + np.int16(0)
        made[name] = path if kind == "paths" or (kind == "mixed" and name == "a") else computed
    result = dr.mosaic([made[name] for name in order], method=method, skip_value=0, background=-1)
    assert result.values.tolist() == [[expected]]
    assert result.dtype == np.int16


@pytest.mark.usefixtures("nothing_runs")
def test_building_computes_nothing(scattered: tuple[list[Path], list[Placed]]) -> None:
    paths, _ = scattered
    result = dr.mosaic([paths[0], dr.open_raster(paths[1]), dr.open_raster(paths[2]) + np.uint16(0)])
    assert result.shape == (2, 15, 17)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("skip_band", [1, 2])
@pytest.mark.parametrize("kind", ["paths", "cropped", "computed", "mixed", "in memory"])
def test_equal_to_plain_python(
    method: str, skip_band: int, kind: str, scattered: tuple[list[Path], list[Placed]]
) -> None:
    paths, placed = scattered
    changes: dict[str, Callable[[int, Path], Any]] = {
        "paths": lambda _, path: path,
        "cropped": lambda _, path: dr.open_raster(path, chunks=(4, 3)).isel(y=slice(1, None), x=slice(0, -1)),
        "computed": lambda _, path: dr.open_raster(path, chunks=(4, 3)) + np.uint16(0),
        "mixed": lambda n, path: path if n % 2 else dr.open_raster(path, chunks=(5, 2)) + np.uint16(0),
        "in memory": lambda _, path: dr.open_raster(path).load(),
    }
    given = [changes[kind](number, path) for number, path in enumerate(paths)]
    if kind == "cropped":
        placed = [(row + 1, col, values[:, 1:, :-1]) for row, col, values in placed]
    result = dr.mosaic(given, method=method, skip_band=skip_band)
    top = min(row for row, _, _ in placed)
    left = min(col for _, col, _ in placed)
    placed = [(row - top, col - left, values) for row, col, values in placed]
    expected = oracle(
        placed, result.shape[1:], method=method, skips=[0] * len(placed), judge=skip_band - 1, background=[0, 0]
    )
    np.testing.assert_array_equal(result.values, expected)
    assert result.rio.transform() == moved(top, left)
    assert result.rio.nodata == 0
    assert (as_raster(result).view is not None) == (kind in ("paths", "cropped"))
    haloed = dr.apply(lambda block: median_filter(block, (1, 3, 3)), result, overlap=1)
    assert (haloed.values == median_filter(expected, (1, 3, 3))).all()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_window_and_bands(scattered: tuple[list[Path], list[Placed]], data: st.DataObject) -> None:
    paths, _ = scattered
    result = dr.mosaic(paths, method=data.draw(st.sampled_from(METHODS)))
    whole = result.values
    cut = {}
    for axis in ("band", "y", "x"):
        start = data.draw(st.integers(0, result.sizes[axis] - 1))
        cut[axis] = slice(start, data.draw(st.integers(start + 1, result.sizes[axis])))
    part = result.isel(cut)
    assert as_raster(part).view is not None
    np.testing.assert_array_equal(part.values, whole[tuple(cut.values())])
    np.testing.assert_array_equal(dr.apply(lambda block: block, part, overlap=2).values, whole[tuple(cut.values())])


def test_apply_reads_its_halo_through_the_mosaic(scattered: tuple[list[Path], list[Placed]]) -> None:
    result = dr.mosaic(scattered[0])
    (view,) = [source_of(result.data)]
    assert view is not None
    assert isinstance(view.source, MosaicSource)
    applied = dr.apply(lambda block: block, result.chunk(x=5), overlap=2, dtype=result.dtype, bands=2)
    assert applied.shape == result.shape
    haloed = dr.apply(np.negative, result, overlap=2, dtype=result.dtype, bands=2)
    (optimised,) = dask.optimize(haloed.data)
    assert len(dict(optimised.dask)) == result.data.npartitions
    crop = result.isel(y=slice(8, 12), x=slice(6, 10))
    wide = dr.apply(lambda block: block[:, :1] * 0 + block.sum(axis=1, keepdims=True, dtype="uint16") + block * 0,
                    crop, overlap=2, boundary="source")  # fmt: skip
    expected = result.values[:, 6:14, 6:10].sum(axis=1, keepdims=True, dtype="uint16")
    assert (wide.values == expected).all()


def test_after_dask_optimised_an_array_it_is_no_plain_mosaic(scattered: tuple[list[Path], list[Placed]]) -> None:
    for array in (dr.mosaic(scattered[0]), dr.open_raster(scattered[0][0])):
        (changed,) = dask.optimize(array + np.uint16(1))
        assert source_of(changed.data) is None
        assert (dr.apply(lambda block: block, changed, overlap=1).values == array.values + 1).all()


def test_on_every_engine(engine: str, scattered: tuple[list[Path], list[Placed]], tmp_path: Path) -> None:
    paths, placed = scattered
    result = dr.mosaic([*paths[:3], dr.open_raster(paths[3]) + np.uint16(0), paths[4]], method="mean")
    dr.write_raster(result, tmp_path / "out.tif")
    expected = oracle(placed, (25, 20), method="mean", skips=[0] * 5, judge=0, background=[0, 0])
    assert (read(tmp_path / "out.tif") == expected).all()
    dr.write_raster(dr.mosaic(paths, method="mean"), tmp_path / "paths.tif")
    assert (read(tmp_path / "paths.tif") == expected).all()


def test_many_scenes_to_one_cog(scattered: tuple[list[Path], list[Placed]], tmp_path: Path) -> None:
    rio_cogeo = pytest.importorskip("rio_cogeo")
    paths, placed = scattered
    dr.write_raster(dr.mosaic(paths), tmp_path / "cog.tif", driver="COG")
    expected = oracle(placed, (25, 20), method="last", skips=[0] * 5, judge=0, background=[0, 0])
    assert (read(tmp_path / "cog.tif") == expected).all()
    assert rio_cogeo.cog_validate(tmp_path / "cog.tif", strict=True)[0]


@pytest.mark.skipif(not TILES, reason="no data beside the project")
@pytest.mark.parametrize("method", ["last", "first", "min", "max"])
def test_real_tiles_as_rasterio_merges_them(method: str) -> None:
    result = dr.mosaic(TILES, method=method)
    expected, transform = rasterio_merge(TILES, method=method)
    assert (result.values == expected).all()
    assert result.rio.transform() == transform
    assert result.rio.crs == rasterio.open(TILES[0]).crs


@pytest.mark.skipif(not TILES or not WHOLE.exists(), reason="no data beside the project")
def test_real_tiles_against_the_image_they_were_cut_from() -> None:
    whole = dr.open_raster(WHOLE)
    tiles = dr.mosaic(TILES)
    row, col = as_raster(tiles).grid.offset_of(as_raster(whole).grid)
    top, left = max(row, 0), max(col, 0)
    bottom, right = min(row + whole.sizes["y"], tiles.sizes["y"]), min(col + whole.sizes["x"], tiles.sizes["x"])
    assert bottom - top > 100
    assert right - left > 100
    ours = tiles.isel(y=slice(top, bottom), x=slice(left, right)).values
    theirs = whole.isel(y=slice(top - row, bottom - row), x=slice(left - col, right - col)).values
    assert (ours == theirs).all()


def test_two_thousand_inputs(make_raster: MakeRaster, tmp_path: Path) -> None:
    template = make_raster(np.zeros((1, 4, 4), "uint16"), "0.tif", transform=moved(0, 0))
    content = template.read_bytes()
    old = np.array([300_000.0, 6_000_000.0], "<f8").tobytes()
    assert content.count(old) == 1
    paths, expected = [], np.zeros((1, 160, 200), "uint16")
    for number in range(2000):
        row, col = 4 * (number // 50), 4 * (number % 50)
        pixel = np.full((1, 4, 4), number + 1, "<u2").tobytes()
        path = tmp_path / f"{number}.tif"
        new = np.array([300_000.0 + 10 * col, 6_000_000.0 - 10 * row], "<f8").tobytes()
        path.write_bytes(content.replace(old, new)[:-32] + pixel)
        paths.append(path)
        expected[0, row : row + 4, col : col + 4] = number + 1
    assert read(paths[1234])[0, 0, 0] == 1235
    result = dr.mosaic(paths)
    assert (result.values == expected).all()
    view = source_of(result.data)
    assert view is not None
    assert isinstance(view.source, MosaicSource)
    for window in (Window(0, 0, 1, 1), Window(7, 9, 30, 3), Window(0, 0, 160, 200), Window(159, 199, 1, 1)):
        brute = [one for one in view.source.members if all(one.window.clip(window).shape_yx)]
        assert view.source.touching(window) == brute
        assert list(view.source.part(window).members) == brute


def test_a_task_holds_only_the_members_it_touches(
    scattered: tuple[list[Path], list[Placed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mosaicking, "auto_chunks", lambda shape, *_: ((5,) * 5, (5,) * 4))
    result = dr.apply(np.negative, dr.mosaic(scattered[0]), overlap=1, dtype="uint16", bands=2)
    (optimised,) = dask.optimize(result.data)
    tasks = {key[1:]: cloudpickle.dumps(task).decode("latin1") for key, task in dict(optimised.dask).items()}
    held = {key: [n for n in range(5) if f"/{n}.tif" in text] for key, text in tasks.items()}
    assert held[0, 0, 0] == [0, 1]
    assert held[0, 4, 0] == [3]
    assert held[0, 4, 3] == [4]


@pytest.mark.parametrize("way", ["calc", "align", "both"])
def test_what_is_made_of_a_mosaic_travels_in_parts_too(
    scattered: tuple[list[Path], list[Placed]], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(mosaicking, "auto_chunks", lambda shape, *_: ((5,) * 5, (5,) * 4))
    monkeypatch.setattr(aligning, "auto_chunks", lambda shape, *_: ((5,) * 5, (5,) * 4))
    monkeypatch.setattr(warped, "MOST_EXTRA", 0)
    image = dr.mosaic(scattered[0])
    if way != "calc":
        moved_by_pixels = as_raster(image).grid.window_grid(Window(-1, 0, 25, 20))
        image = dr.align(image, like=moved_by_pixels, extent="like")
    if way != "align":
        image = dr.calc("image+1", image=image)
    result = dr.apply(np.negative, image, overlap=1, dtype="uint16", bands=2)
    assert (result.values == np.negative(image.values)).all()
    (optimised,) = dask.optimize(result.data)
    tasks = {key[1:]: cloudpickle.dumps(task).decode("latin1") for key, task in dict(optimised.dask).items()}
    held = {key: [n for n in range(5) if f"/{n}.tif" in text] for key, text in tasks.items()}
    assert held[0, 0, 0] == ([0, 1] if way == "calc" else [0])  # moved by a row, the second begins below
    assert held[0, 4, 3] == [4]
    assert max(map(len, tasks.values())) < 8_000 + 700 * len(scattered[0])


def test_masks_of_members_are_found(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(np.full((1, 32, 32), 3, "uint8"), transform=moved(0, 0))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.eye(32, dtype=bool))
    image = dr.mosaic([path, make_raster(np.ones((1, 32, 32), "uint8"), "b.tif", transform=moved(0, 32))])
    for array in (image, dr.calc("image+1", image=image)):
        with pytest.raises(dr.OptionError, match=r"mask=True: .*tif has a mask"):
            dr.write_raster(array, tmp_path / "out.tif", mask=True, progress=False)


def test_it_survives_pickling_and_tells_changes(scattered: tuple[list[Path], list[Placed]]) -> None:
    paths, _ = scattered
    result = dr.mosaic(paths)
    assert (pickle.loads(pickle.dumps(result)).values == result.values).all()
    assert dr.mosaic(paths).data.name == result.data.name
    assert dr.mosaic(paths[::-1]).data.name != result.data.name
    assert dr.mosaic(paths, method="first").data.name != result.data.name
    assert dr.mosaic(paths, background=7).data.name != result.data.name
    os.utime(paths[2], ns=(1, 1))
    assert dr.mosaic(paths).data.name != result.data.name
    with pytest.raises(dr.RasterReadError, match=r"2\.tif changed") as caught:
        result.compute(scheduler="synchronous")
    assert any("the mosaic of 5 rasters" in note for note in caught.value.__notes__)


NODATA: list[tuple[Any, Any, Any, Any]] = [
    # nodata of a, of b, options, (result, nodata)
    (0, 0, {}, ([5, 5, 3, 9, 7, 0], 0)),
    (None, None, {}, ([5, 5, 3, 9, 7, 0], None)),
    (None, None, {"background": 9}, ([5, 5, 3, 9, 7, 0], None)),
    (0, 9, {"background": 8}, ([5, 5, 3, 5, 7, 0], 8)),
    (0, None, {"background": 8}, ([5, 5, 3, 9, 7, 0], 8)),
    (0, 0, {"skip_value": 9}, ([5, 5, 3, 5, 7, 0], 0)),
    (0, 0, {"background": 8}, ([5, 5, 3, 9, 7, 8], 0)),
]


@pytest.mark.parametrize(("of_a", "of_b", "options", "expected"), NODATA)
def test_nodata(of_a: Any, of_b: Any, options: dict[str, Any], expected: Any, make_raster: MakeRaster) -> None:
    a = make_raster(np.array([[[5, 5, 0, 5]]], "uint8"), "a.tif", transform=moved(0, 0), nodata=of_a)
    b = make_raster(np.array([[[3, 9, 7, 0]]], "uint8"), "b.tif", transform=moved(0, 2), nodata=of_b)
    result = dr.mosaic([a, b], **options)
    assert (result.values[0, 0].tolist(), result.rio.nodata) == expected


def test_nodata_that_differs_asks_for_a_background(make_raster: MakeRaster) -> None:
    a = make_raster(np.ones((1, 2, 2), "uint8"), "a.tif", nodata=0)
    b = make_raster(np.ones((1, 2, 2), "uint8"), "b.tif")
    with pytest.raises(dr.OptionError, match=r"a\.tif has nodata 0, .*b\.tif none: say with background="):
        dr.mosaic([a, b])


def test_int64_nodata_is_exact(make_raster: MakeRaster) -> None:
    big = 2**63 - 1
    a, b = (
        dr.open_raster(make_raster(np.array([[values]]), f"{n}.tif")).assign_attrs(_FillValue=big)
        for n, values in enumerate([(big, big - 1), (7, 8)])
    )
    assert dr.mosaic([b, a]).values.tolist() == [[[7, big - 1]]]
    assert dr.mosaic([b, a], method="mean").values.tolist() == [[[7, 2**62 + 3]]]


def test_nan_is_skipped_as_nodata_and_when_asked(make_raster: MakeRaster) -> None:
    values = [np.array([[[1, np.nan, np.nan]]], "float32"), np.array([[[np.nan, 2, np.nan]]], "float32")]
    plain = [make_raster(one, f"p{n}.tif") for n, one in enumerate(values)]
    told = [make_raster(one, f"t{n}.tif", nodata=float("nan")) for n, one in enumerate(values)]
    np.testing.assert_array_equal(dr.mosaic(told).values[0, 0], [1, 2, np.nan])
    np.testing.assert_array_equal(dr.mosaic(plain).values[0, 0], [np.nan, 2, np.nan])
    skipped = dr.mosaic(plain, skip_value=float("nan"))
    np.testing.assert_array_equal(skipped.values[0, 0], [1, 2, 0])
    np.testing.assert_array_equal(dr.mosaic(plain, method="max").values[0, 0], [1, 2, np.nan])


def test_masked_arrays_are_mosaicked_masked(scattered: tuple[list[Path], list[Placed]], tmp_path: Path) -> None:
    paths, _ = scattered
    masked = dr.mosaic([dr.open_raster(path, masked=True) for path in paths])
    plain = dr.mosaic(paths)
    assert masked.dtype == np.float32
    assert masked.rio.encoded_nodata == 0
    # Each band is masked by its own nodata, the mosaic skips by band 1 in all bands.
    assert ((masked.values[0] == plain.values[0]) | (plain.values[0] == 0)).all()
    assert (np.isnan(masked.values[0]) == (plain.values[0] == 0)).all()
    dr.write_raster(masked, tmp_path / "out.tif", dtype="uint16")
    assert (read(tmp_path / "out.tif")[0] == plain.values[0]).all()


def test_nodata_of_each_band(make_raster: MakeRaster) -> None:
    path = make_raster(np.full((2, 2, 2), 5, "uint8"), nodata=0)
    one = dr.open_raster(path)
    one.attrs["nodatavals"] = (0, 9)
    other = one.assign_coords(x=one.x + 40, y=one.y)
    result = dr.mosaic([one, other])
    assert result.values[:, 0, 2].tolist() == [0, 9]
    assert result.attrs["nodatavals"] == (0, 9)


def test_metadata_where_all_agree(make_raster: MakeRaster) -> None:
    paths = [make_raster(np.ones((2, 3, 3), "uint8"), f"{n}.tif", transform=moved(0, 3 * n)) for n in range(3)]
    for number, path in enumerate(paths):
        with rasterio.open(path, "r+") as dataset:
            dataset.descriptions = ("red", f"other {number}")
            dataset.update_tags(PLATFORM="S2A", TILE=str(number), AREA_OR_POINT="Area")
            dataset.update_tags(1, STATISTICS_MEAN="1", KIND="a")
    result = dr.mosaic(paths)
    assert result.attrs["long_name"] == ("red", "")
    assert result.attrs["PLATFORM"] == "S2A"
    assert "TILE" not in result.attrs
    assert "STATISTICS_MEAN" not in str(result.attrs)
    assert result.attrs["band_tags"][0] == {"KIND": "a"}


def test_palettes(make_raster: MakeRaster) -> None:
    paths = []
    for number in range(2):
        path = make_raster(np.ones((1, 3, 3), "uint8"), f"{number}.tif", transform=moved(3 * number, 0))
        with rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, {1: (255, 0, 0, 255)})
        paths.append(path)
    assert dr.mosaic(paths).attrs["colormap"][1] == (255, 0, 0, 255)
    with pytest.raises(dr.OptionError, match="method='mean' would mix the classes"):
        dr.mosaic(paths, method="mean")


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"transform": moved(0, 2.5)}, dr.GridMismatchError, r"0 rows and 0\.5 columns off(.|\n)*use dr\.align"),
    ({"transform": moved(0.02, 2)}, dr.GridMismatchError, r"0\.02 rows"),
    ({"transform": moved(0, 2) @ Affine.scale(2, 2)}, dr.GridMismatchError, "pixel sizes differ"),
    ({"transform": moved(0, 2) @ Affine.scale(1, -1)}, dr.GridMismatchError, "opposite directions"),
    ({"crs": "EPSG:32756"}, dr.GridMismatchError, r"CRS differ(.|\n)*EPSG:32756"),
    ({"count": 2}, dr.RasterArrayError, r"1 bands of uint8, .*b\.tif 2 of uint8"),
    ({"dtype": "int16"}, dr.RasterArrayError, r"b\.tif 1 of int16; .*astype"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_what_makes_no_mosaic_is_refused(
    change: dict[str, Any], error: type[Exception], message: str, make_raster: MakeRaster
) -> None:
    change = dict(change)
    values = np.ones((change.pop("count", 1), 3, 3), change.pop("dtype", "uint8"))
    a = make_raster(np.ones((1, 3, 3), "uint8"), "a.tif")
    b = make_raster(values, "b.tif", **{"transform": moved(0, 2), **change})
    with pytest.raises(error, match=message) as caught:
        dr.mosaic([a, b])
    assert str(a) in str(caught.value)
    assert str(b) in str(caught.value)


def test_another_scale_is_refused(make_raster: MakeRaster) -> None:
    paths = [make_raster(np.ones((1, 3, 3), "uint8"), f"{n}.tif") for n in range(2)]
    with rasterio.open(paths[1], "r+") as dataset:
        dataset.offsets = (-1000.0,)
    with pytest.raises(dr.RasterArrayError, match=r"band 1 has offset 0\.0 in .*0\.tif, -1000\.0 in .*1\.tif"):
        dr.mosaic(paths)


@pytest.mark.parametrize(
    ("rasters", "options", "error", "message"),
    [
        ([], {}, dr.OptionError, "the list is empty"),
        ("in.tif", {}, dr.OptionError, "got str"),
        (line(0, 1), {}, dr.OptionError, "got DataArray"),
        ([3], {}, dr.OptionError, "raster 1 of the mosaic is a int"),
        ([line(0, 1)], {"method": "median"}, dr.OptionError, "last, first, min, max, mean"),
        ([line(0, 1)], {"skip_band": 0}, dr.OptionError, "skip_band=0"),
        ([line(0, 1)], {"skip_band": 2}, dr.OptionError, "skip_band=2: .* has bands 1 to 1"),
        ([line(0, 1).astype("uint8")], {"skip_value": -1}, dr.OptionError, "skip_value=-1 does not fit uint8"),
        ([line(0, 1).astype("uint8")], {"background": 0.5}, dr.OptionError, r"background=0\.5 does not fit uint8"),
        ([line(0, 1)], {"background": "0"}, dr.OptionError, "background='0' must be a number"),
        ([line(0, 1).astype(complex)], {}, dr.RasterArrayError, "dtype complex128"),
        (["nowhere.tif"], {}, dr.RasterNotFoundError, r"no file nowhere\.tif"),
    ],
)
def test_wrong_arguments(rasters: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        dr.mosaic(rasters, **options)


def test_within_a_hundredth_of_a_pixel_is_the_same_lattice(make_raster: MakeRaster) -> None:
    paths = [make_raster(np.full((1, 2, 2), n, "uint8"), f"{n}.tif", transform=moved(0.009 * n, 2 * n)) for n in (0, 1)]
    result = dr.mosaic(paths)
    assert result.values[0].tolist() == [[0, 0, 1, 1]] * 2
    assert result.rio.transform() == moved(0, 0)


@pytest.mark.parametrize(
    "base",
    [
        Affine(10, 0, 300, 0, -20, 500),
        Affine(10, 0, 300, 0, 20, 500),
        Affine(10, 2, 300, 3, -20, 500),
        Affine(1 / 3600, 0, -3, 0, -1 / 3600, 52),
    ],
    ids=["oblong", "south-up", "rotated", "degrees"],
)
def test_any_lattice(base: Affine, make_raster: MakeRaster) -> None:
    placed: list[Placed] = [
        (3, 5, pixels((1, 4, 6))),
        (0, 7, pixels((1, 5, 3), seed=1)),
        (-2, -1, pixels((1, 3, 9), seed=2)),
    ]
    paths = [
        make_raster(values, f"{n}.tif", transform=base @ Affine.translation(col, row))
        for n, (row, col, values) in enumerate(placed)
    ]
    expected = oracle(
        [(row + 2, col + 1, values) for row, col, values in placed], (9, 12),
        method="last", skips=[None] * 3, judge=0, background=[0],
    )  # fmt: skip
    for given_ in (paths, [dr.open_raster(path) for path in paths]):
        result = dr.mosaic(given_)
        assert (result.values == expected).all()
        np.testing.assert_allclose(result.rio.transform()[:6], (base @ Affine.translation(-1, -2))[:6], rtol=1e-12)


def test_blocks_follow_tiles_where_they_share_a_grid(make_raster: MakeRaster) -> None:
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    paths = [make_raster(pixels((1, 32, 32)), f"{n}.tif", transform=moved(0, 32 * n), **tiled) for n in range(3)]
    view = source_of(dr.mosaic(paths).data)
    assert view is not None
    assert view.source.tile_yx == (16, 16)
    shifted = make_raster(pixels((1, 32, 32)), "s.tif", transform=moved(3, 0), **tiled)
    view = source_of(dr.mosaic([*paths, shifted]).data)
    assert view is not None
    assert view.source.tile_yx == (1, 1)


def test_a_generator_and_one_raster(make_raster: MakeRaster) -> None:
    values: NDArray[Any] = pixels((2, 20, 30))
    path = make_raster(values)
    assert (dr.mosaic(path for _ in range(1)).values == values).all()
    assert (dr.mosaic([dr.open_raster(path).isel(band=1)]).values == values[1:]).all()
    assert (dr.mosaic(itertools.repeat(path, 3), method="mean").values == values).all()


def test_headers_are_read_in_order_and_stop_at_the_first_error(make_raster: MakeRaster, tmp_path: Path) -> None:
    good = make_raster(pixels((1, 3, 3)))
    broken = tmp_path / "broken.tif"
    broken.write_text("no raster")
    with pytest.raises(dr.RasterFormatError, match=r"broken\.tif"):
        dr.mosaic([good] * 300 + [broken] + [good] * 300)


def test_members_are_small(scattered: tuple[list[Path], list[Placed]]) -> None:
    view = source_of(dr.mosaic(scattered[0]).data)
    assert view is not None
    assert isinstance(view.source, MosaicSource)
    assert all(isinstance(member, Member) for member in view.source.members)
    assert len(repr(view.source)) < 200
    assert hash(view.source) == hash(pickle.loads(pickle.dumps(view.source)))
    assert pickle.loads(pickle.dumps(view.source)) == view.source
