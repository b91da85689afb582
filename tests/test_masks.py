"""Masks in GeoTIFF, COG and KEA equal what NumPy says of the whole array, at every level, whatever says it."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import daskraster as dr
from daskraster.formats.geotiff import GeoTiffSink
from daskraster.formats.tiles import TileSink
from tests.cog_files import check_cog
from tests.conftest import TRANSFORM, ignoring_georeference, pixels

QUIET: Any = {"progress": False}
SUFFIXES = {"GTiff": "tif", "COG": "tif", "KEA": "kea"}
NONE = {"nodata": None}


def raster(values: Any, *, attrs: Any = None, encoding: Any = None) -> xr.DataArray:
    array = xr.DataArray(values, dims=("band", "y", "x")).rio.write_crs("EPSG:32755").rio.write_transform(TRANSFORM)
    array.attrs.update(attrs or {})
    array.encoding.update(encoding or {})
    return array


def holey(values: NDArray[Any], invalid: float, seed: int = 0) -> NDArray[Any]:
    """A hole larger than a cell in all bands, scattered pixels in each."""
    rng = np.random.default_rng(seed)
    values[rng.random(values.shape) < 0.3] = invalid
    values[:, : values.shape[1] // 2, : values.shape[2] // 3] = invalid
    return values


def masks_of(path: Path) -> list[NDArray[Any]]:
    """The masks of the bands at each level, ``(band, y, x)`` of 0 and 255; of KEA, which GDAL cannot read here, the full one."""
    if path.suffix == ".kea":
        with h5py.File(path) as file:
            return [np.stack([file[f"BAND{band}/MASK"][()] for band in range(1, int(file["HEADER/NUMBANDS"][0]) + 1)])]
    found = []
    with ignoring_georeference():
        with rasterio.open(path) as dataset:
            found.append(dataset.read_masks())
            assert (dataset.dataset_mask() == found[0]).all()
            count = len(dataset.overviews(1))
        for level in range(count):
            with rasterio.open(path, overview_level=level) as dataset:
                found.append(dataset.read_masks())
    return found


def pixels_of(path: Path, level: int | None = None) -> NDArray[Any]:
    """What the file holds, whatever it calls valid."""
    values: NDArray[Any] = dr.open_raster(path, overview_level=level).values
    return values


def half(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a cell of 2 x 2 pixels has any valid one."""
    padded = np.pad(valid, ((0, 0), (0, valid.shape[1] % 2), (0, valid.shape[2] % 2)))
    return padded.reshape(len(valid), padded.shape[1] // 2, 2, padded.shape[2] // 2, 2).any(axis=(2, 4))


def mean_of_valid(values: NDArray[Any], valid: NDArray[np.bool_], band: int, row: int, col: int) -> float | None:
    """Mean of the valid pixels of a cell, half away from zero."""
    cell = (band, slice(2 * row, 2 * row + 2), slice(2 * col, 2 * col + 2))
    kept = values[cell][valid[cell]].tolist()
    if not kept:
        return None
    if values.dtype.kind == "f":
        return float(sum(kept) / len(kept))
    whole = math.floor(abs(Fraction(sum(kept), len(kept))) + Fraction(1, 2))
    return whole if sum(kept) >= 0 else -whole


def check(path: Path, report: Any, values: NDArray[Any], valid: NDArray[np.bool_]) -> None:
    """Masks, statistics and the first overview of a file against the whole array; ``values`` as stored where valid."""
    found = masks_of(path)
    due = valid
    for level, mask in enumerate(found):
        due = half(due) if level else due
        of_level = due if path.suffix == ".kea" else np.broadcast_to(due.any(axis=0), due.shape)
        np.testing.assert_array_equal(mask, np.where(of_level, 255, 0))
    assert len(found) == (1 if path.suffix == ".kea" else 1 + len(report.overviews))
    stored = pixels_of(path)
    assert stored.dtype == values.dtype
    np.testing.assert_array_equal(stored[valid], values[valid])
    for band, of_band in enumerate(report.statistics):
        kept = values[band][valid[band]]
        assert (of_band.pixels, of_band.count) == (values[band].size, kept.size)
        if kept.size:
            assert (of_band.minimum, of_band.maximum) == (kept.min(), kept.max())
            assert of_band.mean == pytest.approx(float(kept.astype(np.longdouble).mean()), rel=1e-12)
    if report.overviews:
        level = pixels_of(path, 0)
        for band, row, col in list(np.ndindex(level.shape))[:: max(level.size // 200, 1)]:
            mean = mean_of_valid(values, valid, band, row, col)
            if mean is not None:
                cell = level[band, row, col].item()
                assert cell == (mean if isinstance(mean, int) else pytest.approx(mean, rel=1e-6))


def write(array: xr.DataArray, path: Path, **options: Any) -> Any:
    report = dr.write_raster(array, path, mask=True, **QUIET, **options)
    with_labels = "nodata" not in options or options["nodata"] is not None
    if path.suffix == ".tif" and not with_labels:
        with rasterio.open(path) as dataset:
            assert dataset.nodata is None
    return report


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_blocks_any_format(tmp_path: Path, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(2, 90)))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint16", "int32", "float32"]))
    driver = data.draw(st.sampled_from(["GTiff", "COG", "KEA"]))
    values = holey(pixels(shape, dtype), 7)
    chunks = data.draw(st.tuples(st.integers(1, 3), st.integers(5, 90), st.integers(5, 90)))
    interleave = "pixel" if driver == "KEA" else data.draw(st.sampled_from(["pixel", "band"]))
    nodata = data.draw(st.sampled_from([{}, NONE]))
    array = raster(da.from_array(values, chunks=chunks), attrs={"_FillValue": 7})
    path = tmp_path / f"out.{SUFFIXES[driver]}"
    report = write(array, path, driver=driver, blocksize=16, interleave=interleave, **nodata)
    assert (pixels_of(path) == values).all()  # labels rewrite no pixel
    check(path, report, values, values != 7)
    if driver == "COG":
        check_cog(path, ordered=True, masked=True)


@pytest.mark.parametrize("driver", ["GTiff", "KEA"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32"])
def test_masked_floats_become_integers_and_zero_stays_valid(driver: str, dtype: str, tmp_path: Path) -> None:
    wide = "float32" if np.dtype(dtype).itemsize <= 2 else "float64"
    values = np.abs(pixels((2, 75, 83), dtype)) % 90
    values[:, 40:, 40:] = 0
    floats = holey(values.astype(wide), np.nan)
    path = tmp_path / f"out.{SUFFIXES[driver]}"
    report = write(raster(da.from_array(floats, chunks=(2, 32, 48))), path, dtype=dtype, blocksize=16)
    check(path, report, values, ~np.isnan(floats))
    stored = pixels_of(path)[np.isnan(floats)]
    assert np.isnan(stored).all() if dtype == "float32" else (stored == 0).all()


def test_what_nodata_stood_for_is_in_the_mask_alone(tmp_path: Path) -> None:
    values = pixels((1, 61, 67), "int16") % 100
    floats = holey(values.astype("float32"), np.nan)
    encoded = raster(floats, encoding={"_FillValue": 5})
    report = write(encoded, tmp_path / "a.tif", dtype="int16", nodata=None, blocksize=16)
    check(tmp_path / "a.tif", report, values, ~np.isnan(floats))
    assert (values[~np.isnan(floats)] == 5).any()  # valid, though the file it came from had no such pixel
    assert (pixels_of(tmp_path / "a.tif")[np.isnan(floats)] == 5).all()
    # Another type, in which the old label has no place or means something else.
    for dtype, nodata in (("uint8", -9999), ("float64", 7), ("int32", 7)):
        values = holey(pixels((1, 61, 67), "int16") % 100, nodata)
        report = write(raster(values, attrs={"_FillValue": nodata}), tmp_path / "b.tif", dtype=dtype, nodata=None, blocksize=16)  # fmt: skip
        with np.errstate(invalid="ignore"):
            check(tmp_path / "b.tif", report, values.astype(dtype), values != nodata)
    # A number is a label for other pixels than before, and rewrites none.
    values = holey(pixels((1, 61, 67), "uint8"), 7)
    values[0, 50:, :9] = 200
    report = write(raster(values, attrs={"_FillValue": 7}), tmp_path / "c.tif", nodata=200, blocksize=16)
    check(tmp_path / "c.tif", report, values, values != 200)


def test_bands_of_different_nodata(tmp_path: Path) -> None:
    values = holey(pixels((2, 45, 50), "uint8"), 7)
    values[1][values[1] == 7] = 9
    array = raster(da.from_array(values, chunks=(1, 16, 32)), attrs={"nodatavals": (7, 9)})
    valid = np.stack([values[0] != 7, values[1] != 9])
    report = write(array, tmp_path / "out.kea", blocksize=16)
    check(tmp_path / "out.kea", report, values, valid)
    report = write(array, tmp_path / "out.tif", nodata=None, blocksize=16)
    check(tmp_path / "out.tif", report, values, valid)


def test_on_every_engine(engine: str, tmp_path: Path) -> None:
    values = holey(pixels((2, 300, 330)), 0)
    array = raster(da.from_array(values, chunks=(2, 64, 128)), attrs={"_FillValue": 0})
    paths = [tmp_path / "a.tif", tmp_path / "a.kea"]
    reports = dr.write_rasters(dict.fromkeys(paths, array), mask=True, blocksize=32, nodata=None, **QUIET)
    for path, report in zip(paths, reports, strict=True):  # type: ignore[call-overload]
        check(path, report, values, values != 0)


@pytest.mark.parametrize("engine", ["threads", "client"], indirect=True)
def test_a_cog_on_threads_and_a_cluster(engine: str, tmp_path: Path) -> None:
    values = holey(pixels((2, 300, 330)), 0)
    array = raster(da.from_array(values, chunks=(2, 64, 128)), attrs={"_FillValue": 0})
    check(tmp_path / "a.tif", write(array, tmp_path / "a.tif", driver="COG", blocksize=32), values, values != 0)
    check_cog(tmp_path / "a.tif", ordered=engine == "threads", masked=True)


def test_later(tmp_path: Path) -> None:
    values = holey(pixels((1, 100, 130)), 0)
    array = raster(da.from_array(values, chunks=(1, 48, 64)), attrs={"_FillValue": 0})
    later = dr.write_raster(array, tmp_path / "out.tif", driver="COG", mask=True, blocksize=16, compute=False, **QUIET)
    check(tmp_path / "out.tif", later.compute(), values, values != 0)  # type: ignore[union-attr]
    check_cog(tmp_path / "out.tif", ordered=False, masked=True)


@pytest.mark.parametrize("resampling", ["nearest", "mode", "bilinear"])
def test_other_resamplings(resampling: str, tmp_path: Path) -> None:
    """A level's mask says where its own pixels are valid: the same as of nodata that no pixel can be."""
    values = pixels((1, 101, 123), "uint8")
    floats = holey(values.astype("float32"), np.nan)
    options: Any = {"blocksize": 16, "overview_resampling": resampling}
    write(raster(da.from_array(floats, chunks=(1, 48, 48))), tmp_path / "a.tif", dtype="uint8", **options)
    outside = raster(np.where(np.isnan(floats), -1, values.astype("int16")), attrs={"_FillValue": -1})
    dr.write_raster(outside, tmp_path / "b.tif", **options, **QUIET)
    for level, mask in enumerate(masks_of(tmp_path / "a.tif")[1:]):
        due = pixels_of(tmp_path / "b.tif", level)
        np.testing.assert_array_equal(mask, np.where(due == -1, 0, 255))
        np.testing.assert_array_equal(pixels_of(tmp_path / "a.tif", level), np.where(due == -1, 0, due))


@pytest.mark.parametrize("suffix", ["kea", "tif"])
def test_a_copy_keeps_the_mask_or_is_refused(suffix: str, tmp_path: Path) -> None:
    values = pixels((2, 60, 70), "uint8") % 50
    floats = holey(values.astype("float32"), np.nan)
    floats[1] = np.where(np.isnan(floats[0]), np.nan, values[1])
    source = tmp_path / f"in.{suffix}"
    write(raster(floats), source, dtype="uint8", blocksize=16, nodata=None)
    masked = dr.open_raster(source, masked=True, chunks=32)
    path = tmp_path / "copy.kea"
    check(path, write(masked, path, dtype="uint8", blocksize=16), values, ~np.isnan(dr.open_raster(source, masked=True).values))  # fmt: skip
    assert (masks_of(path)[0][0] == masks_of(source)[0][0]).all()
    assert (pixels_of(path) == pixels_of(source)).all()
    plain = dr.open_raster(source, chunks=32)
    for array in (
        plain,
        plain.isel(band=0),
        dr.apply(lambda block: block + 1, plain, dtype="uint8", bands=2),
        plain * 2,
    ):
        with pytest.raises(
            dr.OptionError, match=r"mask=True: .*in\.\w+ has a mask .* open_raster\(\.\.\., masked=True\)"
        ):
            dr.write_raster(array, tmp_path / "no.tif", mask=True, **QUIET)
    assert not (tmp_path / "no.tif").exists()


def test_all_valid_and_none(tmp_path: Path) -> None:
    for value, due in ((1, 255), (0, 0)):
        values = np.full((1, 40, 40), value, "uint8")
        write(raster(values, attrs={"_FillValue": 0}), tmp_path / "out.tif", blocksize=16)
        assert all((mask == due).all() for mask in masks_of(tmp_path / "out.tif"))


@pytest.mark.parametrize("compress", ["none", "jpeg", "lerc_zstd", "packbits", "lzma"])
def test_masks_are_exact_whatever_the_codec(compress: str, tmp_path: Path) -> None:
    values = holey(pixels((1, 70, 90), "uint8"), 0)
    write(raster(values, attrs={"_FillValue": 0}), tmp_path / "out.tif", driver="COG", compress=compress, blocksize=16)
    assert (masks_of(tmp_path / "out.tif")[0] == np.where(values, 255, 0)).all()
    check_cog(tmp_path / "out.tif", ordered=True, masked=True)


def test_the_kea_mask_is_as_kealib_has_it(tmp_path: Path) -> None:
    values = holey(pixels((1, 100, 90)), 0)
    write(raster(values, attrs={"_FillValue": 0}), tmp_path / "out.kea", blocksize=64)
    with h5py.File(tmp_path / "out.kea", "r+") as file:
        mask, data = file["BAND1/MASK"], file["BAND1/DATA"]
        assert (mask.dtype, mask.shape, mask.chunks) == (np.dtype("u1"), data.shape, data.chunks)
        assert (mask.fillvalue, mask.shuffle, mask.compression) == (255, True, "gzip")
        assert set(mask.attrs) == {"CLASS", "IMAGE_VERSION"}
        mask[3, 4] = 0
    assert np.isnan(dr.open_raster(tmp_path / "out.kea", masked=True).values[0, 3, 4])


def test_a_lost_mask_tile_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = TileSink._encoded

    def losing(self: Any, *block: Any) -> Any:
        return ((number, part) for number, part in real(self, *block) if number != self.first_numbers[-1] - 1)

    monkeypatch.setattr(TileSink, "_encoded", losing)
    for name in ("out.tif", "out.kea"):
        with pytest.raises(dr.RasterWriteError, match="1 of 8 tiles were never written"):
            dr.write_raster(raster(pixels((1, 30, 30))), tmp_path / name, mask=True, blocksize=16, overviews=False, **QUIET)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_header_without_its_mask_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskraster.formats import geotiff, geotiff_directories, tiff

    def wrong(mask: Any, **options: Any) -> Any:
        directory = geotiff_directories.mask_directory(mask, **options)
        directory[tiff.NEW_SUBFILE_TYPE] = tiff.Tag.long(2)
        return directory

    monkeypatch.setattr(geotiff, "mask_directory", wrong)
    with pytest.raises(dr.RasterWriteError, match="is not what was asked: GDAL finds"):
        dr.write_raster(raster(pixels((1, 30, 30))), tmp_path / "out.tif", mask=True, **QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_that_cannot_be_encoded_names_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, valid: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(GeoTiffSink, "encode_mask", refuse)
    with pytest.raises(dr.RasterWriteError, match=r"cannot encode a tile .*Window"):
        dr.write_raster(raster(pixels((1, 30, 30))), tmp_path / "out.tif", mask=True, **QUIET)
    assert list(tmp_path.iterdir()) == []


def test_booleans_and_nan_labels(tmp_path: Path) -> None:
    values = pixels((1, 33, 35), "uint8") > 100
    for dtype in ("uint8", "int16"):
        report = write(
            raster(values, attrs={"_FillValue": 0}), tmp_path / "a.tif", dtype=dtype, nodata=None, blocksize=16
        )
        check(tmp_path / "a.tif", report, values.astype(dtype), values)
    floats = holey(pixels((2, 33, 35), "float32"), np.nan)
    report = write(raster(floats), tmp_path / "b.tif", nodata=float("nan"), blocksize=16)
    check(tmp_path / "b.tif", report, floats, ~np.isnan(floats))
    with rasterio.open(tmp_path / "b.tif") as dataset:
        assert np.isnan(dataset.nodata)


def test_sixty_four_bits_are_compared_exactly(tmp_path: Path) -> None:
    top = np.iinfo("uint64").max
    values = np.full((1, 20, 20), top - 2, "uint64")
    values[0, 4:9] = top
    array = raster(values, attrs={"_FillValue": int(top)})
    for nodata in ({}, NONE):
        check(tmp_path / "a.tif", write(array, tmp_path / "a.tif", blocksize=16, **nodata), values, values != top)
    # By the marker of 64 bits, which a valid pixel may have only where another type was converted.
    signed = np.full((1, 20, 20), 2**63 - 2, "uint64")
    signed[0, 0, 0] = 5
    with pytest.raises(dr.RasterWriteError, match="by which invalid pixels of int64 are marked; give nodata="):
        dr.write_raster(raster(signed, attrs={"_FillValue": 5}), tmp_path / "b.tif", dtype="int64", nodata=None, mask=True, **QUIET)  # fmt: skip


def test_alpha_is_a_mask_that_plain_pixels_do_not_show(tmp_path: Path) -> None:
    values = pixels((4, 40, 40), "uint8")
    values[3] = np.where(values[0] > 100, 255, 0)
    image = raster(values, attrs={"colors": ("red", "green", "blue", "alpha")})
    dr.write_raster(image, tmp_path / "rgba.tif", **QUIET)
    with pytest.raises(dr.OptionError, match=r"\(or alpha\)"):
        dr.write_raster(dr.open_raster(tmp_path / "rgba.tif"), tmp_path / "a.tif", mask=True, **QUIET)
    masked = dr.open_raster(tmp_path / "rgba.tif", masked=True, bands=[1, 2, 3])
    write(masked, tmp_path / "a.tif", dtype="uint8", blocksize=16)
    assert (masks_of(tmp_path / "a.tif")[0][0] == values[3]).all()
    write(image, tmp_path / "b.tif", blocksize=16)  # both, as asked: the mask is what GDAL looks at
    assert (masks_of(tmp_path / "b.tif")[0] == 255).all()


@pytest.mark.parametrize("size", [50, 300, 1100])
def test_no_larger_than_gdals_masked_cog_and_equal_in_full(size: int, tmp_path: Path) -> None:
    values = holey(pixels((2, size, size), "uint8"), 0)
    valid = (values != 0).any(axis=0)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            tmp_path / "in.tif",
            "w",
            driver="GTiff",
            count=2,
            height=size,
            width=size,
            dtype="uint8",
            crs="EPSG:32755",
            transform=TRANSFORM,
        ) as dataset,  # fmt: skip
    ):
        dataset.write(values)
        dataset.write_mask(valid)
    rasterio.shutil.copy(tmp_path / "in.tif", tmp_path / "gdal.tif", driver="COG", compress="deflate", level=6, predictor="YES", overview_resampling="average")  # fmt: skip
    image = raster(da.from_array(values, chunks=(2, 512, 512)), attrs={"_FillValue": 0})
    write(image, tmp_path / "out.tif", driver="COG", nodata=None, level=6, statistics=False)
    check_cog(tmp_path / "out.tif", ordered=True, masked=True)
    assert (masks_of(tmp_path / "out.tif")[0] == masks_of(tmp_path / "gdal.tif")[0]).all()
    assert (tmp_path / "out.tif").stat().st_size <= 1.05 * (tmp_path / "gdal.tif").stat().st_size
