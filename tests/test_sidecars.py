"""Class names, attribute tables and histograms beside a GeoTIFF and in KEA, as GDAL reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.shutil
import xarray as xr

import daskraster as dr
from daskraster.files import PartialFile
from tests.conftest import TRANSFORM, MakeRaster, pixels

QUIET: Any = {"progress": False}
NAMES = {0: "water", 2: "forest & <field>", 3: "Wald äöü"}


def classes(shape: tuple[int, int, int] = (1, 40, 50)) -> xr.DataArray:
    array = xr.DataArray(pixels(shape, "uint8") % 4, dims=("band", "y", "x"))
    return array.rio.write_crs("EPSG:32755").rio.write_transform(TRANSFORM)


def table() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "Histogram": [1.0, 2.0, 3.0, 0.1],
            "Red": [1, 2, 3, 255],
            "Class": ["a", "", "c & <d>", "ü"],
            "Area": [0.1, np.nan, np.inf, -1e300],
            "Big": [2**40, -(2**53), 0, 1],
            "Flag": [True, False, True, True],
        }
    )
    frame.attrs["usages"] = {"Class": "Name", "Area": "Min"}
    return frame


def seen_by_gdal(path: Path, folder: Path) -> ElementTree.Element:
    """What GDAL tells of a file in a VRT."""
    rasterio.shutil.copy(path, folder / "seen.vrt", driver="VRT")
    return ElementTree.parse(folder / "seen.vrt").getroot()


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_gdal_reads_all_of_it(driver: str, tmp_path: Path) -> None:
    path = tmp_path / "out.tif"
    report = dr.write_raster(classes(), path, driver=driver, categories=NAMES, attribute_table=table(), thematic=True, sidecar=True, **QUIET)  # fmt: skip
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.tif", "out.tif.aux.xml"]
    assert (path.stat().st_mode & 0o777) == ((tmp_path / "out.tif.aux.xml").stat().st_mode & 0o777)
    band = seen_by_gdal(path, tmp_path).find("VRTRasterBand")
    assert band is not None
    assert [name.text or "" for name in band.iterfind("CategoryNames/Category")] == [NAMES.get(n, "") for n in range(4)]
    attributes = band.find("GDALRasterAttributeTable")
    assert attributes is not None
    assert attributes.get("tableType") == "thematic"
    fields = [[field.findtext(key) for key in ("Name", "Type", "Usage")] for field in attributes.findall("FieldDefn")]
    assert fields == [
        ["Histogram", "1", "1"],
        ["Red", "0", "6"],
        ["Class", "2", "2"],
        ["Area", "1", "3"],
        ["Big", "1", "0"],
        ["Flag", "0", "0"],
    ]
    rows = [[cell.text or "" for cell in row] for row in attributes.findall("Row")]
    assert [row[2] for row in rows] == ["a", "", "c & <d>", "ü"]
    assert [float(row[4]) for row in rows] == [2**40, -(2**53), 0, 1]
    with rasterio.open(path) as dataset:
        assert dataset.tags(1)["LAYER_TYPE"] == "thematic"
    # GDAL's own histogram of the file's pixels.
    item = ElementTree.parse(f"{path}.aux.xml").getroot().find("PAMRasterBand/Histograms/HistItem")
    assert item is not None
    values = classes().values
    edges = np.linspace(float(item.findtext("HistMin", "")), float(item.findtext("HistMax", "")), int(item.findtext("BucketCount", "")) + 1)  # fmt: skip
    assert list(map(int, item.findtext("HistCounts", "").split("|"))) == np.histogram(values, edges)[0].tolist()
    assert isinstance(report, dr.WriteReport)


def test_a_table_comes_back(tmp_path: Path) -> None:
    dr.write_raster(classes((2, 30, 30)), tmp_path / "out.tif", attribute_table={2: table()}, sidecar=True, **QUIET)
    assert dr.read_attribute_table(tmp_path / "out.tif").shape == (0, 0)
    again = dr.read_attribute_table(tmp_path / "out.tif", band=2)
    due = table().astype({"Big": "float64", "Flag": "int64"})  # what GDAL's tables have no type for
    pd.testing.assert_frame_equal(again, due)
    assert again.attrs["usages"] == {
        "Histogram": "PixelCount", "Red": "Red", "Class": "Name", "Area": "Min", "Big": "Generic", "Flag": "Generic",
    }  # fmt: skip
    # The path of a file gives its table without the counts of other pixels.
    dr.write_raster(classes(), tmp_path / "b.tif", attribute_table={1: again}, sidecar=True, **QUIET)
    dr.write_raster(classes(), tmp_path / "c.kea", attribute_table=tmp_path / "b.tif", statistics=False, **QUIET)
    carried = dr.read_attribute_table(tmp_path / "c.kea")
    assert list(carried.columns) == ["Red", "Class", "Area", "Big", "Flag"]
    with pytest.raises(dr.OptionError, match="bands 1 to 2"):
        dr.read_attribute_table(tmp_path / "out.tif", band=3)
    with pytest.raises(dr.RasterNotFoundError):
        dr.read_attribute_table(tmp_path / "none.tif")


def test_a_damaged_sidecar_is_told(make_raster: MakeRaster) -> None:
    path = make_raster(pixels((1, 5, 5), "uint8"))
    sidecar = path.with_name(path.name + ".aux.xml")
    head = '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable><FieldDefn index="0"><Name>a</Name><Type>0</Type></FieldDefn>'  # fmt: skip
    tail = "</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    for row in ("<Row><F>x</F></Row>", "<Row></Row>", '<FieldDefn index="1"><Name>a</Name></FieldDefn>'):
        sidecar.write_text(head + row + tail)
        with pytest.raises(dr.RasterFormatError, match=r"attribute table of band 1 of .* is damaged"):
            dr.read_attribute_table(path)


@pytest.mark.parametrize("suffix", ["kea", "tif"])
def test_class_names_travel(suffix: str, tmp_path: Path) -> None:
    sidecar = {} if suffix == "kea" else {"sidecar": True}
    dr.write_raster(classes(), tmp_path / f"a.{suffix}", categories=["water", "", *list(NAMES.values())[1:]], **sidecar, **QUIET)  # type: ignore[arg-type]  # fmt: skip
    image = dr.open_raster(tmp_path / f"a.{suffix}")
    assert image.attrs["categories"] == NAMES
    same = dr.apply(lambda block: block, image, dtype="uint8", bands=1)
    assert same.attrs["categories"] == NAMES
    assert "categories" not in dr.apply(lambda block: block, image, dtype="float32", bands=1).attrs
    dr.write_raster(same, tmp_path / "b.kea", **QUIET)
    names = dr.read_attribute_table(tmp_path / "b.kea")
    assert names["Class_Names"].tolist() == [NAMES.get(value, "") for value in range(4)]
    assert names.attrs["usages"]["Class_Names"] == "Name"
    assert dr.open_raster(tmp_path / "b.kea").attrs["categories"] == NAMES
    with pytest.warns(dr.DaskRasterWarning, match=r"class names of band 1 are left out of .*sidecar=True"):
        dr.write_raster(same, tmp_path / "c.tif", **QUIET)
    assert "categories" not in dr.open_raster(tmp_path / "c.tif").attrs


def test_class_names_of_bands(tmp_path: Path) -> None:
    image = classes((3, 20, 20))
    image.attrs["categories"] = ({0: "a"}, None, {3: "c"})
    for path, options in ((tmp_path / "a.kea", {}), (tmp_path / "a.tif", {"sidecar": True})):
        dr.write_raster(image, path, **options, **QUIET)  # type: ignore[arg-type]
        assert dr.open_raster(path).attrs["categories"] == ({0: "a"}, None, {3: "c"})
        assert dr.open_raster(path, bands=3).attrs["categories"] == {3: "c"}


def test_names_in_a_table_that_has_some(tmp_path: Path) -> None:
    """Names asked for win over the table's, those the array brought along do not."""
    image = classes()
    image.attrs["categories"] = NAMES
    dr.write_raster(image, tmp_path / "a.kea", attribute_table=table(), **QUIET)
    assert dr.read_attribute_table(tmp_path / "a.kea")["Class"].tolist() == ["a", "", "c & <d>", "ü"]
    dr.write_raster(image, tmp_path / "b.kea", attribute_table=table(), categories=NAMES, **QUIET)
    assert dr.read_attribute_table(tmp_path / "b.kea")["Class"].tolist() == [NAMES.get(n, "") for n in range(4)]
    dr.write_raster(image, tmp_path / "c.kea", colormap={1: (1, 2, 3, 255)}, **QUIET)
    both = dr.read_attribute_table(tmp_path / "c.kea")
    assert both["Class_Names"].tolist() == [NAMES.get(n, "") for n in range(4)]
    assert both["Red"].tolist() == [0, 1, 0, 0]


def neighbourly() -> pd.DataFrame:
    from daskraster.formats.kea_columns import Neighbours

    frame = pd.DataFrame({"a": [1, 2]})
    frame.attrs["neighbours"] = Neighbours([np.array([1], "u8"), np.array([0], "u8")])
    return frame


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribute_table": table()}, r"attribute_table= has no place in a GeoTIFF; give sidecar=True"),
        ({"categories": NAMES}, r"categories= has no place in a GeoTIFF; give sidecar=True"),
        ({"sidecar": True, "attribute_table": pd.DataFrame({"a": [2**53 + 1]})}, r"up to 2\*\*53"),
        ({"sidecar": True, "attribute_table": pd.DataFrame({"a": ["\x01"]})}, "no place for its sign"),
        ({"sidecar": True, "categories": ["\x0b"]}, "no place for its sign"),
        ({"sidecar": True, "attribute_table": neighbourly()}, "neighbours"),
        ({"sidecar": True, "categories": {-1: "a"}}, "whole number from 0"),
        ({"sidecar": True, "categories": {1 << 16: "a"}}, "whole number from 0"),
        ({"sidecar": True, "categories": {300: "a"}}, "uint8 cannot hold"),
        ({"sidecar": True, "categories": [3]}, "a name is text"),
        ({"sidecar": True, "categories": NAMES, "dtype": "float32"}, "whole numbers, not with float32"),
        ({"sidecar": 1}, "it must be bool"),
        ({"mask": "yes"}, "it must be bool"),
    ],
)
@pytest.mark.usefixtures("nothing_runs")
def test_what_cannot_be_met_is_refused_before_anything_runs(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(dr.OptionError, match=message):
        dr.write_raster(classes(), tmp_path / "out.tif", **options, **QUIET)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_runs")
def test_kea_needs_no_sidecar(tmp_path: Path) -> None:
    with pytest.raises(dr.OptionError, match="KEA holds everything itself"):
        dr.write_raster(classes(), tmp_path / "out.kea", sidecar=True, **QUIET)
    with pytest.raises(dr.OptionError, match="has 1 rows"):
        dr.write_raster(classes(), tmp_path / "out.kea", categories=NAMES, attribute_table=pd.DataFrame({"a": [1]}), **QUIET)  # fmt: skip


def test_a_sidecar_comes_and_goes_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sidecar = tmp_path / "out.tif", tmp_path / "out.tif.aux.xml"
    dr.write_raster(classes(), path, categories=NAMES, sidecar=True, **QUIET)
    old = sidecar.read_bytes()

    def fail(block: Any) -> Any:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        dr.write_raster(dr.apply(fail, classes(), dtype="uint8", bands=1), path, categories=["other"], sidecar=True, **QUIET)  # fmt: skip
    assert sidecar.read_bytes() == old
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.tif", "out.tif.aux.xml"]
    dr.write_raster(classes(), path, **QUIET)
    assert not sidecar.exists()
    dr.write_raster(classes(), path, categories=NAMES, sidecar=True, statistics=False, **QUIET)
    assert sidecar.exists()
    assert b"Histogram" not in sidecar.read_bytes()

    def refuse(self: PartialFile) -> int:
        raise dr.RasterWriteError("no room")

    monkeypatch.setattr(PartialFile, "publish", refuse)
    with pytest.raises(dr.RasterWriteError, match="no room"):
        dr.write_raster(classes(), path, categories=["x"], sidecar=True, **QUIET)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.tif", "out.tif.aux.xml"]


@pytest.mark.parametrize("engine", ["client"], indirect=True)
def test_on_a_cluster_and_later(engine: str, tmp_path: Path) -> None:
    later = dr.write_raster(
        classes(), tmp_path / "a.tif", attribute_table=table(), sidecar=True, compute=False, **QUIET
    )
    later.compute()  # type: ignore[union-attr]
    dr.write_raster(classes(), tmp_path / "b.tif", attribute_table=table(), sidecar=True, **QUIET)
    assert len(list(tmp_path.iterdir())) == 4
    for name in ("a.tif", "b.tif"):
        assert dr.read_attribute_table(tmp_path / name)["Class"].tolist() == ["a", "", "c & <d>", "ü"]


def test_the_palette_of_a_class_image_is_in_file_and_table(tmp_path: Path) -> None:
    """Colours asked for replace those of the table beside."""
    colors = {value: (value, 2 * value, 7, 255) for value in range(4)}
    dr.write_raster(classes(), tmp_path / "a.tif", colormap=colors, attribute_table=table(), sidecar=True, **QUIET)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert [dataset.colormap(1)[value] for value in range(4)] == list(colors.values())
    beside = dr.read_attribute_table(tmp_path / "a.tif")
    assert beside["Red"].tolist() == [0, 1, 2, 3]
    assert beside["Green"].tolist() == [0, 2, 4, 6]


def test_what_is_no_list_of_names_is_left_alone(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(pixels((1, 5, 5), "uint8"))
    path.with_name(path.name + ".aux.xml").write_text("<PAMDataset>")
    assert "categories" not in dr.open_raster(path).attrs
    with pytest.raises(dr.RasterFormatError, match="is no XML"):
        dr.read_attribute_table(path)
    image = classes()
    for foreign in ("land, sea", [1, 2], 5):
        image.attrs["categories"] = foreign
        dr.write_raster(image, tmp_path / "out.kea", **QUIET)
        assert "categories" not in dr.open_raster(tmp_path / "out.kea").attrs
