"""Our GeoTIFF and GDAL's hold the same pixels and say the same."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
import xarray as xr
from rasterio.io import MemoryFile

import daskraster as dr
from daskraster.formats import tiff
from tests.conftest import TRANSFORM, ignoring_georeference, pixels, read

DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
LOSSLESS = ["none", "deflate", "zstd", "lzw", "packbits", "lzma", "lerc", "lerc_deflate", "lerc_zstd"]
SHAPES = [(1, 1, 1), (1, 15, 16), (2, 64, 33), (3, 97, 131)]


def raster(values: np.ndarray[Any, Any]) -> xr.DataArray:
    array = xr.DataArray(values, dims=("band", "y", "x"))
    return array.rio.write_crs("EPSG:32755").rio.write_transform(TRANSFORM)


@pytest.mark.parametrize(("dtype", "compress"), list(itertools.product(DTYPES, LOSSLESS)))
def test_pixels_as_gdal_reads_them(tmp_path: Path, dtype: str, compress: str) -> None:
    if compress.startswith("lerc") and dtype in ("uint64", "int64"):
        with pytest.raises(dr.OptionError, match=f"cannot hold {dtype}"):
            dr.write_raster(raster(pixels((1, 5, 5), dtype)), tmp_path / "o.tif", compress=compress)
        return
    for shape, interleave in itertools.product(SHAPES, ("pixel", "band")):
        values = pixels(shape, dtype)
        path = tmp_path / "out.tif"
        dr.write_raster(
            raster(values), path, compress=compress, interleave=interleave, blocksize=(32, 48), progress=False
        )
        with rasterio.open(path) as dataset:
            assert (dataset.read() == values).all()
            assert dataset.block_shapes[0] == (32, 48)
            assert dataset.dtypes[0] == dtype
            assert dataset.compression is None or dataset.compression.name in (compress, "lerc", "packbits")
            if shape[0] > 1:
                assert dataset.interleaving.name == interleave


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw"])
def test_every_predictor_that_gdal_reads(tmp_path: Path, dtype: str, compress: str) -> None:
    values = pixels((2, 70, 90), dtype)
    for predictor in (1, 2, 3):
        path = tmp_path / "out.tif"
        if predictor == 3 and not dtype.startswith("float"):
            with pytest.raises(dr.OptionError, match="predictor=3"):
                dr.write_raster(raster(values), path, compress=compress, predictor=predictor)
            continue
        for interleave in ("pixel", "band"):
            dr.write_raster(
                raster(values), path, compress=compress, predictor=predictor, interleave=interleave, blocksize=32
            )
            assert (read(path) == values).all()
            with tifffile.TiffFile(path) as file:
                assert file.pages[0].predictor == predictor


@pytest.mark.parametrize("level", [1, 6, 9, 12])
def test_a_level_is_honoured(tmp_path: Path, level: int) -> None:
    import imagecodecs

    values = pixels((1, 64, 64))
    dr.write_raster(raster(values), tmp_path / "out.tif", level=level, blocksize=64)
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        page = file.pages[0]
        assert page.databytecounts[0] == len(
            imagecodecs.deflate_encode(imagecodecs.delta_encode(values[0], axis=1), level=level)
        )


@pytest.mark.parametrize("compress", ["lerc", "lerc_deflate", "lerc_zstd"])
def test_lerc_keeps_nan_or_says_that_it_cannot(tmp_path: Path, compress: str) -> None:
    values = pixels((2, 40, 40), "float32")
    values[:, 3:9, 5] = np.nan
    dr.write_raster(raster(values), tmp_path / "out.tif", compress=compress, blocksize=32)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), values)
    values[1, 20, 20] = np.nan
    with pytest.raises(dr.RasterWriteError, match="give interleave='band'"):
        dr.write_raster(raster(values), tmp_path / "out.tif", compress=compress, blocksize=32)
    dr.write_raster(raster(values), tmp_path / "out.tif", compress=compress, blocksize=32, interleave="band")
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), values)


def test_lossy_codecs_stay_within_what_was_asked(tmp_path: Path) -> None:
    values = np.linspace(0, 200, 3 * 130 * 90).reshape(3, 130, 90)
    dr.write_raster(raster(values.astype("float32")), tmp_path / "l.tif", compress="lerc", max_error=0.5, blocksize=64)
    error = np.abs(read(tmp_path / "l.tif") - values.astype("float32")).max()
    assert 0 < error <= 0.5
    smooth = values.astype("uint8")
    for options in (
        {"compress": "jpeg", "quality": 95},
        {"compress": "jpeg", "quality": 95, "interleave": "band"},
        {"compress": "webp", "quality": 95},
    ):
        dr.write_raster(raster(smooth), tmp_path / "j.tif", blocksize=64, **options)
        assert np.abs(read(tmp_path / "j.tif").astype(int) - smooth).mean() < 3
    dr.write_raster(raster(smooth), tmp_path / "w.tif", compress="webp", blocksize=64)
    assert (read(tmp_path / "w.tif") == smooth).all()
    dr.write_raster(raster(smooth[:1]), tmp_path / "g.tif", compress="jpeg", blocksize=64)
    assert np.abs(read(tmp_path / "g.tif").astype(int) - smooth[:1]).mean() < 3


def gdals_own(path: Path, values: np.ndarray[Any, Any], describe: Any, **profile: Any) -> None:
    bands, rows, cols = values.shape
    with (
        ignoring_georeference(),
        rasterio.open(
            path, "w", driver="GTiff", count=bands, height=rows, width=cols, dtype=values.dtype, **profile
        ) as dataset,
    ):
        dataset.write(values)
        describe(dataset)


def everything(path: Path) -> dict[str, Any]:
    """All that GDAL says of a file, but for how it is stored."""
    with ignoring_georeference(), rasterio.open(path) as d:
        facts = {
            "profile": {
                key: d.profile[key] for key in ("dtype", "nodata", "width", "height", "count", "crs", "transform")
            },
            "tags": d.tags(),
            "names": d.descriptions,
            "scales": d.scales,
            "offsets": d.offsets,
            "units": d.units,
            "colors": d.colorinterp,
            "band tags": [d.tags(band) for band in d.indexes],
            "gcps": [(p.row, p.col, p.x, p.y) for p in d.gcps[0]],
            "colormap": d.colormap(1) if d.colorinterp[0].name == "palette" else None,
        }
    return {key: repr(value) for key, value in facts.items()}


def describe_scene(d: Any) -> None:
    d.update_tags(ACQUIRED="2026-06-01", AREA_OR_POINT="Point")
    d.set_band_description(1, "rot")
    d.set_band_description(2, "näheres Infrarot")
    d.scales, d.offsets, d.units = (0.0001, 0.0002), (-0.1, 0.0), ("1", "1")
    d.update_tags(1, WAVELENGTH="665")


def describe_classes(d: Any) -> None:
    d.write_colormap(1, {0: (0, 0, 0, 0), 1: (10, 200, 30, 255), 7: (250, 0, 1, 255)})


@pytest.mark.parametrize(
    ("values", "describe", "profile"),
    [
        (pixels((2, 40, 50)), describe_scene, {"crs": "EPSG:32755", "transform": TRANSFORM, "nodata": 0}),
        (pixels((1, 40, 50), "uint8") % 8, describe_classes, {"crs": "EPSG:4326", "transform": TRANSFORM}),
        (
            pixels((1, 40, 50), "float32"),
            lambda d: None,
            {"crs": "EPSG:3031", "transform": TRANSFORM @ rasterio.Affine.rotation(30), "nodata": np.nan},
        ),
        (
            pixels((1, 40, 50), "int16"),
            lambda d: None,
            {"crs": "EPSG:27700", "transform": rasterio.Affine(10, 0, 5, 0, 10, 7), "nodata": -32768},
        ),
        (pixels((3, 40, 50), "uint8"), lambda d: None, {}),
        (
            pixels((4, 40, 50), "uint8"),
            lambda d: None,
            {"photometric": "RGB", "crs": "EPSG:32755", "transform": TRANSFORM},
        ),
    ],
    ids=["scene", "classes", "rotated", "south-up", "nowhere", "rgba"],
)
def test_opened_and_written_again_says_the_same(tmp_path: Path, values: Any, describe: Any, profile: Any) -> None:
    gdals_own(tmp_path / "in.tif", values, describe, **profile)
    dr.write_raster(dr.open_raster(tmp_path / "in.tif"), tmp_path / "out.tif", statistics=False)
    assert everything(tmp_path / "out.tif") == everything(tmp_path / "in.tif")
    assert (read(tmp_path / "out.tif") == values).all()


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("int64", -(2**62) - 1),
        ("uint64", 2**64 - 1),
        ("int64", 2**53 + 1),
        ("int8", -128),
        ("float32", -3.4028234663852886e38),
    ],
)
def test_nodata_is_exact(tmp_path: Path, dtype: str, nodata: float) -> None:
    path = tmp_path / "out.tif"
    dr.write_raster(raster(pixels((1, 20, 20), dtype)), path, nodata=nodata)
    again = dr.open_raster(path)
    assert again.rio.nodata == nodata
    assert again.attrs["_FillValue"].dtype == dtype
    with tifffile.TiffFile(path) as file:
        assert float(file.pages[0].tags["GDAL_NODATA"].value) == float(nodata)
    if dtype.endswith("int64"):
        with tifffile.TiffFile(path) as file:
            assert int(file.pages[0].tags["GDAL_NODATA"].value.strip("\0")) == nodata


def test_a_large_raster_becomes_bigtiff_and_a_small_one_not() -> None:
    from daskraster.formats.geotiff import geotiff_sink
    from daskraster.grid import Grid
    from daskraster.metadata import BandMetadata, RasterMetadata
    from daskraster.options import WriteOptions

    def big(side: int, **options: Any) -> bool:
        metadata = RasterMetadata(
            grid=Grid(None, TRANSFORM, (side, side)), dtype=np.dtype("uint16"), bands=[BandMetadata()]
        )
        return geotiff_sink(Path("out.tif"), metadata, WriteOptions.of(options)).big

    assert not big(1000)
    assert not big(30_000)  # 1.8 GB
    assert big(33_000)  # 2.2 GB, which noise and overviews could carry over 4 GB
    assert big(1000, bigtiff=True)
    assert not big(33_000, bigtiff=False)
    with pytest.raises(dr.OptionError, match="classic TIFF ends at 4 GB"):
        big(50_000, bigtiff=False, compress="none")


@pytest.mark.parametrize("big", ["YES", "NO"])
def test_a_directory_read_and_laid_out_again_is_gdals(big: str) -> None:
    with ignoring_georeference(), MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=700,
            height=500,
            count=3,
            dtype="uint16",
            tiled=True,
            blockxsize=64,
            blockysize=64,
            BIGTIFF=big,
            SPARSE_OK="TRUE",
        ) as dataset:
            dataset.update_tags(KEY="value")
        is_big, directories = tiff.parse(bytes(memory.getbuffer()))
        layout = tiff.lay_out(directories, big=is_big)
    assert is_big == (big == "YES")
    again, (directory,) = tiff.parse(layout.header)
    assert again == is_big
    assert directory == directories[0]
    assert layout.offsets[0].count == 8 * 11
    with ignoring_georeference(), MemoryFile(layout.header) as memory, memory.open() as dataset:
        assert dataset.shape == (500, 700)
        assert dataset.tags()["KEY"] == "value"
    with pytest.raises(ValueError, match="not a little-endian TIFF"):
        tiff.parse(b"MM\0*" + bytes(20))


def test_values_that_do_not_fit_the_header_are_refused() -> None:
    array = tiff.TileArray(0, "<u2", 2)
    with pytest.raises(OverflowError, match="65536 does not fit the header's 16-bit"):
        array.encode(np.array([1, 65536]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"compress": "gzip"}, "possible are none, deflate"),
        ({"level": 13}, "deflate takes 1 to 12"),
        ({"compress": "lzw", "level": 3}, "level= does not go with compress='lzw'"),
        ({"compress": "none", "predictor": 2}, "does not go with compress='none'"),
        ({"predictor": 3}, "predictor=3 goes with float32"),
        ({"compress": "jpeg"}, "only uint8"),
        ({"compress": "webp"}, "only uint8"),
        ({"compress": "deflate", "quality": 90}, "quality= does not go with"),
        ({"compress": "deflate", "max_error": 1.0}, "max_error= goes with compress='lerc'"),
        ({"blocksize": 100}, "multiples of 16"),
        ({"blocksize": (16, 0)}, "must be a number of pixels up to"),
        ({"interleave": "line"}, "possible are 'pixel' and 'band'"),
        ({"nodata": -1}, "whole numbers from 0 to 65535"),
        ({"nodata": 1.5}, "whole numbers"),
        ({"nodata": float("nan")}, "whole numbers"),
        ({"dtype": "complex64"}, "complex64 cannot be written"),
        ({"dtype": "words"}, "no NumPy dtype"),
        ({"band_names": ["a", "b"]}, "2 names for 1 bands"),
        ({"colormap": {1: (0, 0, 0, 0)}, "dtype": "int32"}, "colormap= goes with one band"),
        ({"driver": "PNG"}, "driver='PNG' cannot be written"),
        ({"compres": "zstd"}, "no option compres"),
        ({"bigtiff": "NO"}, "bigtiff='NO' is a str; it must be bool"),
        ({"blocksize": 16.0}, "blocksize=16.0 is a float"),
        ({"blocksize": 2**20}, "up to 16384"),
        ({"nodata": "x"}, "nodata='x' is a str"),
        ({"nodata": True}, "nodata=True is a bool"),
        ({"max_error": "a"}, "max_error='a' is a str"),
        ({"driver": 3}, "driver=3 is a int"),
        ({"tags": {"a=b": "x"}}, "without '=' and ':'"),
        ({"colormap": {1: (1, 2)}}, "a colour is"),
        ({"colormap": {1: (1, 2, 999)}}, "a colour is"),
        ({"colormap": {300: (1, 2, 3)}, "dtype": "uint8"}, "pixel value 300, which uint8 cannot hold"),
    ],
)
@pytest.mark.usefixtures("nothing_runs")
def test_wishes_that_cannot_be_met_are_told_before_anything_runs(
    tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(dr.OptionError, match=match):
        dr.write_raster(raster(pixels((1, 20, 20))), tmp_path / "out.tif", **options)
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(dr.OptionError, match=r"suffix '.xyz'.*give driver="):
        dr.write_raster(raster(pixels((1, 20, 20))), tmp_path / "out.xyz")
    report = dr.write_raster(raster(pixels((1, 20, 20))), tmp_path / "out.xyz", driver="gtiff")
    assert report.driver == "GTiff"


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_metadata_items_of_any_name(tmp_path: Path, driver: str) -> None:
    # "ns" and "bidx" are parameters of rasterio's update_tags.
    image = xr.DataArray(
        np.ones((2, 20, 30), "uint8"),
        dims=("band", "y", "x"),
        attrs={"ns": "1 < 2 & ü", "A": "all", "band_tags": ({"bidx": "7", "B": "one"}, {"ns": "two"})},
    )
    for statistics in (True, False):
        dr.write_raster(
            image, tmp_path / "out.tif", driver=driver, tags={"bidx": "2"}, statistics=statistics, progress=False
        )
        with rasterio.open(tmp_path / "out.tif") as dataset:
            found = dataset.tags()
            assert {name: found.get(name) for name in ("ns", "A", "bidx")} == {
                "ns": "1 < 2 & ü",
                "A": "all",
                "bidx": "2",
            }
            first, second = dataset.tags(1), dataset.tags(2)
            assert (first["bidx"], first["B"], second["ns"]) == ("7", "one", "two")
            assert ("STATISTICS_MEAN" in first) == statistics
