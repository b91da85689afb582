"""Headers that were made a moment ago."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine

import daskraster as dr
from daskraster.blocks.codecs import TileCodec
from daskraster.blocks.tiling import TileArray
from daskraster.formats import geotiff_directories, kea_sink, tiff
from daskraster.formats.choosing import sink
from daskraster.formats.memo import Memo
from daskraster.grid import Grid, crs_of
from daskraster.metadata import BandMetadata, RasterMetadata
from daskraster.options import WriteOptions

WKT = rasterio.CRS.from_epsg(32755).to_wkt()


def metadata(rows: int = 40, name: str = "one") -> RasterMetadata:
    return RasterMetadata(
        grid=Grid(crs_of(WKT), Affine(10, 0, 5e5, 0, -10, 6e6), (rows, 50)),
        dtype=np.dtype("uint16"),
        bands=[BandMetadata(nodata=7, name=name, tags={"a": "b"})],
    )


def test_what_was_made_comes_again_until_others_have_come() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    memo: Memo[str] = Memo(most=2, most_nbytes=5)
    for name in ("a", "b", "a", "c", "a", "b", "too large", "too large"):
        assert memo.of({"is": name}, lambda name=name: make(name)) == name  # type: ignore[misc]
    assert made == ["a", "b", "c", "b", "too large", "too large"]
    assert len(memo) == 2


def test_nothing_is_kept_of_what_fails() -> None:
    memo: Memo[str] = Memo(most=2, most_nbytes=5)
    with pytest.raises(ZeroDivisionError, match="by zero"):
        memo.of(1, lambda: str(1 // 0))
    assert memo.of(1, lambda: "one") == "one"


def test_a_directory_is_its_callers_own_and_equal_to_a_new_one() -> None:
    tiles = TileArray(shape=(1, 40, 50), tile_yx=(16, 16), band_interleaved=False)
    codec = TileCodec(compress="deflate", predictor=2)
    first = geotiff_directories.directory_of(metadata(), codec, tiles, big=False)
    options = geotiff_directories._creation_options(codec, tiles, big=False)
    _, (fresh,) = tiff.parse(geotiff_directories._template(metadata(), options))
    fresh[tiff.GDAL_NODATA] = tiff.Tag.ascii("7")
    assert first == fresh
    first.clear()
    assert geotiff_directories.directory_of(metadata(), codec, tiles, big=False) == fresh
    assert geotiff_directories.directory_of(metadata(name="two"), codec, tiles, big=False) != fresh


def test_gdals_settings_make_another_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    template = geotiff_directories._template
    monkeypatch.setattr(
        geotiff_directories, "_template", lambda *described: made.append(described) or template(*described)
    )
    options = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    raster = metadata(rows=41)
    for _ in range(2):
        geotiff_directories._made(raster, options)
    assert len(made) == 1
    with rasterio.Env(GTIFF_WRITE_ANGULAR_PARAMS_IN_DEGREE="YES"):
        geotiff_directories._made(raster, options)
    assert len(made) == 2
    monkeypatch.setitem(os.environ, "GDAL_TIFF_DEFLATE_SUBCODEC", "ZLIB")
    geotiff_directories._made(raster, options)
    assert len(made) == 3


def test_a_kea_header_comes_again_and_equals_a_new_one(tmp_path: Path) -> None:
    one = sink("KEA", tmp_path / "one.kea", metadata(), WriteOptions())
    other = sink("KEA", tmp_path / "other.kea", metadata(), WriteOptions())
    named = sink("KEA", tmp_path / "one.kea", metadata(name="two"), WriteOptions())
    assert isinstance(one, kea_sink.KeaSink)
    assert isinstance(other, kea_sink.KeaSink)
    assert isinstance(named, kea_sink.KeaSink)
    assert one.header() is other.header()
    assert one.header() == one._header()
    assert named.header() == named._header() != one.header()


def test_what_cannot_be_pickled_is_made_again() -> None:
    memo: Memo[bytes] = Memo(most=4, most_nbytes=100)
    for description in (MappingProxyType({1: 2}), defaultdict(lambda: 3), lambda: 4):
        assert memo.of(description, lambda: b"made") == b"made"
    assert len(memo) == 0


@pytest.mark.parametrize("suffix", [".tif", ".kea"])
def test_a_colour_table_of_any_mapping(tmp_path: Path, suffix: str) -> None:
    colors = {0: (0, 0, 0, 255), 1: (10, 20, 30, 255)}
    image = xr.DataArray(np.ones((1, 20, 30), "uint8"), dims=("band", "y", "x"))
    dr.write_raster(image, tmp_path / f"out{suffix}", colormap=MappingProxyType(colors), progress=False)
    found = dr.open_raster(tmp_path / f"out{suffix}").attrs["colormap"]
    assert {value: found[value] for value in colors} == colors
