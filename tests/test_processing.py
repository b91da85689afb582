"""Files to files: names in, names out, options of single outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from scipy.ndimage import uniform_filter

import daskraster as dr
from daskraster.errors import BlockResultError, GridMismatchError, OptionError, RasterNotFoundError
from tests.conftest import MakeRaster, pixels, read

RED, NIR = pixels((1, 70, 90), seed=1), pixels((1, 70, 90), seed=2)


def index(red: Any, nir: Any, scale: float = 1.0) -> Any:
    return (nir.astype("float32") - red) * np.float32(scale)


def index_and_mask(red: Any, nir: Any) -> dict[str, Any]:
    return {"mask": (nir > red)[0].astype("uint8"), "index": index(red, nir)}


def smooth(block: Any) -> Any:
    return uniform_filter(block.astype("int32"), size=(1, 3, 3), mode="nearest").astype(block.dtype)


@pytest.fixture
def files(make_raster: MakeRaster) -> dict[str, Path]:
    # In this order: names decide, not places.
    return {"nir": make_raster(NIR, "nir.tif", nodata=0), "red": make_raster(RED, "red.tif")}


def test_one_file_to_one(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((2, 61, 47))
    path = make_raster(values, nodata=7)
    report = dr.process(smooth, path, tmp_path / "out.tif", overlap=1, chunks=16, compress="zstd", statistics=False)
    assert isinstance(report, dr.WriteReport)
    assert report.statistics == ()
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), smooth(values))
    with rasterio.open(tmp_path / "out.tif") as out, rasterio.open(path) as source:
        assert (out.crs, out.transform, out.nodata) == (source.crs, source.transform, 7)
        assert out.profile["compress"] == "zstd"


def test_inputs_by_name_are_keywords(files: dict[str, Path], tmp_path: Path, engine: str) -> None:
    report = dr.process(index, files, str(tmp_path / "out.tif"), chunks=32, kwargs={"scale": 2})
    assert report.path == tmp_path / "out.tif"
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), (NIR.astype("float32") - RED) * 2)


def test_inputs_in_a_list_are_positional(files: dict[str, Path], tmp_path: Path) -> None:
    dr.process(index, [files["red"], files["nir"]], tmp_path / "out.tif")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), NIR.astype("float32") - RED)


def test_outputs_by_name_in_formats_of_their_own(files: dict[str, Path], tmp_path: Path) -> None:
    targets = {"index": tmp_path / "index.tif", "mask": tmp_path / "mask.kea"}
    reports = dr.process(
        index_and_mask, files, targets, chunks=32, overviews=False, output_options={"mask": {"thematic": True}}
    )
    assert {name: report.driver for name, report in reports.items()} == {"index": "GTiff", "mask": "KEA"}
    np.testing.assert_array_equal(read(targets["index"]), NIR.astype("float32") - RED)
    mask = dr.open_raster(targets["mask"])
    np.testing.assert_array_equal(mask.values, (NIR > RED).astype("uint8"))
    assert mask.attrs["thematic"]
    assert "thematic" not in dr.open_raster(targets["index"]).attrs


def test_outputs_in_a_list(files: dict[str, Path], tmp_path: Path) -> None:
    reports = dr.process(
        lambda red, nir: (red, nir > red),
        files,
        [tmp_path / "a.tif", tmp_path / "b.tif"],
        dtype=["uint16", bool],
        bands=1,
    )
    assert [report.dtype for report in reports] == ["uint16", "uint8"]
    np.testing.assert_array_equal(read(tmp_path / "b.tif"), NIR > RED)
    (report,) = dr.process(lambda red, nir: (red + nir,), files, [tmp_path / "c.tif"])
    np.testing.assert_array_equal(read(report.path), RED + NIR)


def test_dtype_and_bands_by_name_run_nothing_beforehand(files: dict[str, Path], tmp_path: Path) -> None:
    calls: list[Any] = []

    def counted(red: Any, nir: Any) -> dict[str, Any]:
        calls.append(1)
        return index_and_mask(red, nir)

    targets = {"index": tmp_path / "index.tif", "mask": tmp_path / "mask.tif"}
    dr.process(counted, files, targets, dtype={"mask": "uint8", "index": "float32"}, bands=1, chunks=(-1, 45))
    assert len(calls) == 1 or len(calls) == 2  # a block each, joined to the output's tiles
    with pytest.raises(OptionError, match=r"goes by the names of outputs=, which are index, mask"):
        dr.process(counted, files, targets, dtype={"other": "uint8"})


def test_the_block_comes_by_name_too(files: dict[str, Path], tmp_path: Path) -> None:
    def rows(red: Any, nir: Any, block: dr.Block) -> Any:
        assert len(block.nodata) == 2
        return np.full(red.shape, block.window.row_off, "int32")

    dr.process(rows, files, tmp_path / "rows.tif", with_block=True, chunks=(32, -1))
    np.testing.assert_array_equal(np.unique(read(tmp_path / "rows.tif")), [0, 32, 64])


def test_an_output_may_replace_its_input(files: dict[str, Path]) -> None:
    dr.process(index, files, files["red"])
    np.testing.assert_array_equal(read(files["red"]), NIR.astype("float32") - RED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"func": "smooth"}, "first argument of process must be the function"),
        ({"inputs": {"a b": "x.tif"}}, "'a b', which cannot be a keyword"),
        ({"inputs": {"block": "x.tif"}, "with_block": True}, "also an argument of kwargs= or the Block"),
        ({"inputs": {"scale": "x.tif"}, "kwargs": {"scale": 1}}, "also an argument of kwargs="),
        ({"inputs": []}, "inputs= must be a path"),
        ({"inputs": 3}, "inputs= must be a path, .* got 3"),
        ({"outputs": {"a": None}}, "outputs= must be a path, .* got None"),
        ({"outputs": ["a.tif", "a.tif"]}, "two outputs go to one file"),
        ({"output_options": {"other": {}}}, "names other, which is no output"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str, files: dict[str, Path], tmp_path: Path) -> None:
    given = {"func": index, "inputs": files, "outputs": tmp_path / "out.tif", **arguments}
    with pytest.raises(OptionError, match=message):
        dr.process(given.pop("func"), given.pop("inputs"), given.pop("outputs"), **given)
    assert not (tmp_path / "out.tif").exists()


def test_a_wrong_option_of_one_output(files: dict[str, Path], tmp_path: Path) -> None:
    targets = {"index": tmp_path / "index.tif", "mask": tmp_path / "mask.tif"}
    with pytest.raises(OptionError, match="compress='rar' is not known"):
        dr.process(index_and_mask, files, targets, output_options={"mask": {"compress": "rar"}})
    assert not list(tmp_path.glob("*[xk].tif"))


def test_wrong_names_come_back(files: dict[str, Path], tmp_path: Path) -> None:
    targets = {"index": tmp_path / "index.tif", "cloud": tmp_path / "mask.tif"}
    with pytest.raises(
        BlockResultError, match=r"must return a dict of index, cloud.* got a dict of mask, index"
    ) as caught:
        dr.process(index_and_mask, files, targets)
    assert "raised by index_and_mask in Window" in caught.value.__notes__[0]
    with pytest.raises(BlockResultError, match="got ndarray"):
        dr.process(index, files, targets, dtype="float32", bands=1)


def test_other_grids_and_missing_files(files: dict[str, Path], make_raster: MakeRaster, tmp_path: Path) -> None:
    other = make_raster(pixels((1, 71, 90)), "other.tif")
    with pytest.raises(GridMismatchError, match="their sizes differ"):
        dr.process(index, {"red": other, "nir": files["nir"]}, tmp_path / "out.tif")
    with pytest.raises(RasterNotFoundError, match=r"there is no file .*gone\.tif"):
        dr.process(index, {"red": tmp_path / "gone.tif", "nir": files["nir"]}, tmp_path / "out.tif")


def test_options_of_single_outputs_in_write_rasters(make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 40, 40))))
    outputs = {tmp_path / "a.tif": image, tmp_path / "b.tif": image}
    dr.write_rasters(outputs, compress="lzw", output_options={tmp_path / "b.tif": {"compress": "none"}})
    for name, codec in (("a", "lzw"), ("b", None)):
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            assert dataset.profile.get("compress") == codec
    with pytest.raises(OptionError, match=r"output_options= names c\.tif, which is no output"):
        dr.write_rasters(outputs, output_options={"c.tif": {}})


def test_inputs_on_other_grids_are_aligned_when_asked(make_raster: MakeRaster, tmp_path: Path) -> None:
    transform = rasterio.Affine(10, 0, 700_000, 0, -10, 5_600_000)
    red = make_raster(RED, "red.tif", crs="EPSG:32630", transform=transform)
    moved = make_raster(
        NIR, "nir.tif", crs="EPSG:32630", nodata=0, transform=transform @ rasterio.Affine.translation(10.25, 5.5)
    )
    files = {"red": red, "nir": moved}
    target = tmp_path / "out.tif"
    with pytest.raises(GridMismatchError, match="align"):
        dr.process(index, files, target)
    # By nearest, pixels of the common rows 6 to 69 and columns 11 to 89 are moved: half a pixel goes to the next one.
    dr.process(index, files, target, align=True, dtype="float32", chunks=32)
    with rasterio.open(target) as out:
        assert out.transform == transform @ rasterio.Affine.translation(11, 6)
        due = NIR[:, 1:65, 1:80].astype("float32") - RED[:, 6:, 11:]
        assert (out.read() == due).all()
    for given in ("bilinear", ["nearest", "bilinear"], {"nir": "bilinear"}):
        dr.process(index, files, target, align=given, dtype="float32")
        red_array, nir_array = (dr.open_raster(path) for path in (red, moved))
        aligned = dr.align(red_array, nir_array, resampling=["nearest", "bilinear"])
        assert (read(target) == index(*(array.values for array in aligned))).all()
    dr.process(index, list(files.values()), target, align=True, extent="like", like=red, dtype="float32", overlap=3)
    assert read(target).shape == RED.shape
    dr.process(smooth, moved, target, align="mode", like=red, extent="like")
    assert read(target).shape == (1, 70, 90)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extent": "union"}, "give align=True"),
        ({"like": "red.tif"}, "give align=True"),
        ({"align": {"blue": "mode"}}, "goes by the names of inputs=, which are nir, red"),
        ({"align": ["mode"]}, "one for each of 2 inputs"),
        ({"align": "gauss"}, "resampling='gauss' is not known"),
        ({"align": True, "extent": "all"}, "extent='all' is not known"),
    ],
)
def test_wrong_align(files: dict[str, Path], tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        dr.process(index, files, tmp_path / "out.tif", **options)
