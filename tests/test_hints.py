"""What is said to who typed a name that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

import daskraster as dr
from daskraster.hints import missing_file, near
from tests.conftest import MakeRaster, pixels


def test_near() -> None:
    assert near("UINT8", ["uint8", "int8"]) == "; did you mean uint8?"
    assert near("compres", ["level", "compress"]) == "; did you mean compress?"
    assert near("qqq", ["level", "compress"]) == ""


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scene.tif").touch()
    assert missing_file("scen.tif") == f"there is no file scen.tif in {tmp_path}; did you mean scene.tif?"
    assert missing_file(f"{tmp_path}/scen.tif") == f"there is no file {tmp_path}/scen.tif; did you mean scene.tif?"
    assert missing_file("other.tif") == f"there is no file other.tif in {tmp_path}"
    gone = tmp_path / "a" / "b"
    assert missing_file("a/b/c.tif") == f"there is no file a/b/c.tif: the folder {gone} does not exist; {tmp_path} does"


def test_readers_say_it(make_raster: MakeRaster, tmp_path: Path) -> None:
    make_raster(pixels((1, 20, 20)), "scene.tif")
    image = dr.open_raster(tmp_path / "scene.tif")
    for ask in (
        lambda: dr.open_raster(tmp_path / "scenes.tif"),
        lambda: dr.info(tmp_path / "scenes.tif"),
        lambda: dr.mosaic([tmp_path / "scene.tif", tmp_path / "scenes.tif"]),
        lambda: dr.read_attribute_table(tmp_path / "scenes.tif"),
    ):
        with pytest.raises(dr.RasterNotFoundError, match=r"did you mean scene\.tif"):
            ask()
    with pytest.raises(dr.OptionError, match="no option compres; did you mean compress"):
        dr.write_raster(image, tmp_path / "out.tif", compres="zstd")  # type: ignore[call-overload]
    with pytest.raises(dr.OptionError, match="no NumPy dtype; did you mean uint8"):
        dr.write_raster(image, tmp_path / "out.tif", dtype="unit8")
    with pytest.raises(dr.OptionError, match="the second argument of write_raster must be the path, got a DataArray"):
        dr.write_raster("out.tif", image)  # type: ignore[call-overload]
