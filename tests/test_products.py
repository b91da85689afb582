"""Statistics and overviews of one pass equal those of a second one, whatever the blocks, the tiles, the engine."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import Resampling

import daskraster as dr
from daskraster.blocks.overviews import halve
from tests.conftest import TRANSFORM, MakeRaster, ignoring_georeference, pixels, read

QUIET: Any = {"progress": False}
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
SUFFIXES = {"GTiff": "tif", "COG": "tif", "KEA": "kea"}


def raster(values: NDArray[Any], chunks: Any = None, nodata: float | None = None) -> xr.DataArray:
    data = values if chunks is None else da.from_array(values, chunks=chunks)
    array = xr.DataArray(data, dims=("band", "y", "x")).rio.write_crs("EPSG:32755").rio.write_transform(TRANSFORM)
    return array if nodata is None else array.rio.write_nodata(nodata)


def with_holes(values: NDArray[Any], nodata: float | None, seed: int = 0) -> NDArray[Any]:
    """Scattered nodata, a hole larger than a cell, and NaN in floats."""
    rng = np.random.default_rng(seed)
    if nodata is not None:
        values[rng.random(values.shape) < 0.2] = nodata
        values[:, : values.shape[1] // 3, : values.shape[2] // 4] = nodata
    if values.dtype.kind == "f":
        values[rng.random(values.shape) < 0.1] = np.nan
    return values


def levels(path: Path) -> list[NDArray[Any]]:
    """Pixels of every overview, by our readers, of which GDAL is one."""
    found: list[NDArray[Any]] = []
    while True:
        try:
            found.append(dr.open_raster(path, overview_level=len(found)).values)
        except dr.OptionError:
            return found


def half(level: NDArray[Any], nodata: float | None, resampling: str, partial: bool) -> NDArray[Any]:
    """The plain rule for a whole level, from its words: cells of 2 x 2 pixels, cut off or dropped at the end."""
    rows, cols = ((size + partial) // 2 for size in level.shape[1:])
    if resampling == "nearest":
        return level[:, ::2, ::2][:, :rows, :cols]
    if resampling == "bilinear":
        return halve(level, nodata, resampling, partial_cells=partial)  # in one piece
    result = np.empty((len(level), rows, cols), level.dtype)
    for band, row, col in np.ndindex(result.shape):
        cell = level[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel().tolist()
        valid = [value for value in cell if value == value and value != nodata]  # noqa: PLR0124 - NaN
        if not valid:
            result[band, row, col] = np.nan if nodata is None else nodata
            continue
        if resampling == "mode":
            counts = [valid[: place + 1].count(value) for place, value in enumerate(valid)]
            result[band, row, col] = valid[counts.index(max(counts))]
            continue
        mean = sum(valid) / len(valid)
        if level.dtype.kind != "f":
            mean = int(math.copysign(math.floor(abs(mean) + 0.5), mean))
            if mean == nodata:
                mean += 1 if mean < np.iinfo(level.dtype).max else -1
        result[band, row, col] = mean
    return result


def check_levels(path: Path, values: NDArray[Any], nodata: float | None, resampling: str, count: int) -> None:
    partial = path.suffix != ".kea"
    found = levels(path)
    assert len(found) == count
    for level in found:
        values = half(values, nodata, resampling, partial)
        if values.dtype.kind == "f":
            np.testing.assert_allclose(level, values, rtol=1e-6, equal_nan=True)
        else:
            np.testing.assert_array_equal(level, values)
        values = level


def check_statistics(path: Path, report: dr.WriteReport, values: NDArray[Any], nodata: float | None) -> None:
    tags = dr.open_raster(path).attrs.get("band_tags")
    with_gdal = [{}] * len(values)
    if path.suffix == ".tif":
        with ignoring_georeference(), rasterio.open(path) as dataset:
            with_gdal = [dataset.tags(band) for band in dataset.indexes]
    assert tags is None or not any("STATISTICS_MEAN" in items for items in tags)  # derived: not carried on
    assert len(report.statistics) == len(values)
    for band, of_band, items in zip(values, report.statistics, with_gdal, strict=True):
        valid = ~np.isnan(band) if band.dtype.kind == "f" else np.ones(band.shape, bool)
        if nodata is not None:
            valid &= band != nodata
        kept = band[valid]
        assert (of_band.pixels, of_band.count) == (band.size, kept.size)
        if not kept.size:
            assert of_band.mean is None
            assert not any(key.startswith("STATISTICS_") for key in items)
            continue
        wide = kept.astype(np.longdouble)
        assert (of_band.minimum, of_band.maximum) == (kept.min(), kept.max())
        assert of_band.mean == pytest.approx(float(wide.mean()), rel=1e-12, abs=1e-12)
        assert of_band.stddev == pytest.approx(float(wide.std()), rel=1e-12, abs=1e-12)
        if items:
            assert float(items["STATISTICS_MEAN"]) == of_band.mean
            assert float(items["STATISTICS_STDDEV"]) == of_band.stddev
            assert type(kept[0].item())(items["STATISTICS_MINIMUM"]) == kept.min()
            assert type(kept[0].item())(items["STATISTICS_MAXIMUM"]) == kept.max()
            assert float(items["STATISTICS_VALID_PERCENT"]) == pytest.approx(100 * kept.size / band.size, abs=0.01)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_blocks_any_tiles_any_format(tmp_path: Path, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90)))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "uint32", "float32"]))
    nodata = data.draw(st.sampled_from([None, 0, 7]))
    values = with_holes(pixels(shape, dtype), nodata)
    chunks = []
    for length in shape:
        at = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=4))) if length > 1 else []
        chunks.append(tuple(np.diff([0, *at, length]).tolist()))
    driver = data.draw(st.sampled_from(["GTiff", "COG", "KEA"]))
    resampling = data.draw(st.sampled_from(["average", "nearest", "mode", "bilinear"]))
    options: dict[str, Any] = {"interleave": data.draw(st.sampled_from(["pixel", "band"]))} if driver != "KEA" else {}
    block = data.draw(st.sampled_from([16, 32, (16, 48), None] if driver != "KEA" else [7, 16, 32, None]))
    path = tmp_path / f"out.{SUFFIXES[driver]}"
    report = dr.write_raster(
        raster(values, tuple(chunks), nodata),
        path,
        driver=driver,
        blocksize=block,
        overview_resampling=resampling,
        **options,
        **QUIET,
    )
    assert isinstance(report, dr.WriteReport)
    np.testing.assert_array_equal(dr.open_raster(path).values, values)
    check_levels(path, values, nodata, resampling, len(report.overviews))
    check_statistics(path, report, values, nodata)
    if driver != "KEA":
        tile = (block, block) if isinstance(block, int) else block or (512, 512)
        last = levels(path)[-1].shape[1:] if report.overviews else shape[1:]
        assert all(size <= most for size, most in zip(last, tile, strict=True))


@pytest.mark.parametrize("driver", SUFFIXES)
def test_on_every_engine(engine: str, driver: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = with_holes(pixels((2, 251, 303)), 0)
    image = dr.open_raster(make_raster(values, nodata=0), chunks=96)
    path = tmp_path / f"out.{SUFFIXES[driver]}"
    for compute in (True, False):
        written = dr.write_raster(image, path, driver=driver, blocksize=32, compute=compute, **QUIET)
        report = written if compute else written.compute()
        assert (dr.open_raster(path).values == values).all()
        assert report.overviews == (2, 4, 8, 16)
        check_levels(path, values, 0, "average", 4)
        check_statistics(path, report, values, 0)
        assert sorted(one.name for one in tmp_path.iterdir()) == sorted(["in.tif", path.name])


@pytest.mark.parametrize("resampling", ["average", "nearest", "mode", "bilinear"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_gdals_second_pass_where_sizes_are_even(dtype: str, resampling: str, tmp_path: Path) -> None:
    """With small numbers, since GDAL's 64-bit integers go through float64; and none near nodata, which GDAL hits by rounding."""
    for nodata in (None, 0):
        values = (20 + pixels((2, 128, 192), dtype) % 80).astype(dtype)
        if nodata is not None:
            values[np.random.default_rng(1).random(values.shape) < 0.3] = nodata
        path = tmp_path / "ours.tif"
        dr.write_raster(
            raster(values, (2, 48, 64), nodata), path, blocksize=16, overview_resampling=resampling, **QUIET
        )
        other = tmp_path / "gdal.tif"
        with rasterio.open(other, "w", driver="GTiff", count=2, height=128, width=192, dtype=dtype, nodata=nodata, transform=TRANSFORM) as dataset:  # fmt: skip
            dataset.write(values)
            dataset.build_overviews([2, 4, 8], Resampling[resampling])
        for ours, theirs in zip(levels(path), levels(other), strict=False):
            if dtype.startswith("float"):
                np.testing.assert_allclose(ours, theirs, rtol=1e-6)
            elif resampling in ("nearest", "mode"):
                np.testing.assert_array_equal(ours, theirs)
            else:
                # On ties GDAL rounds some types in another way.
                assert np.abs(ours.astype(float) - theirs.astype(float)).max() <= 1


@pytest.mark.parametrize("driver", SUFFIXES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_statistics_of_every_dtype(dtype: str, driver: str, tmp_path: Path) -> None:
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    huge = np.full((1, 40, 40), 1e9 if np.dtype(dtype).itemsize > 2 else 100, dtype)
    huge[0, ::2] += 1
    extreme = np.zeros((1, 40, 40), dtype)
    extreme[0, 0, :2] = limits.max // 4 if np.dtype(dtype).kind in "iu" else 1e30, limits.min // 4 if np.dtype(dtype).kind in "iu" else -1e30  # fmt: skip
    path = tmp_path / f"out.{SUFFIXES[driver]}"
    for values, nodata in (
        (huge, None),
        (extreme, None),
        (np.full((1, 40, 40), 5, dtype), 5),
        (pixels((2, 61, 77), dtype), 0),
    ):
        report = dr.write_raster(raster(values, (1, 16, 16), nodata), path, driver=driver, blocksize=16, **QUIET)
        assert isinstance(report, dr.WriteReport)
        check_statistics(path, report, values, nodata)
        assert (dr.open_raster(path).values == values).all()


def test_infinities_are_counted_and_left_out(tmp_path: Path) -> None:
    values = pixels((1, 50, 50), "float32")
    values[0, :2, 0] = np.inf, -np.inf
    report = dr.write_raster(raster(values, (1, 16, 16)), tmp_path / "out.tif", blocksize=16, **QUIET)
    assert isinstance(report, dr.WriteReport)
    (band,) = report.statistics
    assert (band.infinities, band.count) == (2, 2498)
    assert band.mean == pytest.approx(values[np.isfinite(values)].astype(float).mean(), rel=1e-12)


def test_masked_arrays_count_and_shrink_without_their_holes(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = with_holes(pixels((1, 100, 120)), 0)
    image = dr.open_raster(make_raster(values, nodata=0), masked=True, chunks=32)
    for dtype in (None, "uint16"):
        report = dr.write_raster(image, tmp_path / "out.tif", blocksize=16, dtype=dtype, **QUIET)
        assert isinstance(report, dr.WriteReport)
        check_statistics(tmp_path / "out.tif", report, read(tmp_path / "out.tif"), 0)
        check_levels(tmp_path / "out.tif", read(tmp_path / "out.tif"), 0, "average", 3)


@pytest.mark.parametrize("driver", SUFFIXES)
def test_only_the_levels_that_were_asked_for(driver: str, tmp_path: Path) -> None:
    values = pixels((2, 200, 203))
    path = tmp_path / f"out.{SUFFIXES[driver]}"
    report = dr.write_raster(raster(values, (2, 48, 64)), path, driver=driver, blocksize=16, overviews=[8, 2], **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.overviews == (2, 8)
    first, second = levels(path)
    partial = driver != "KEA"
    np.testing.assert_array_equal(first, half(values, None, "average", partial))
    np.testing.assert_array_equal(second, half(half(first, None, "average", partial), None, "average", partial))
    report = dr.write_raster(raster(values), path, driver=driver, overviews=False, statistics=False, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert (report.overviews, report.statistics, levels(path)) == ((), (), [])


def test_classes_are_never_averaged(tmp_path: Path) -> None:
    values = pixels((1, 100, 100), "uint8") % 5
    palette = {number: (number, 0, 0, 255) for number in range(5)}
    for options in ({"thematic": True}, {"colormap": palette}):
        for name in ("out.tif", "out.kea"):
            dr.write_raster(raster(values, (1, 32, 32)), tmp_path / name, blocksize=16, **options, **QUIET)
            check_levels(tmp_path / name, values, None, "nearest", 3)
            with pytest.raises(dr.OptionError, match="would mix the classes or palette colours"):
                dr.write_raster(raster(values), tmp_path / name, overview_resampling="average", **options, **QUIET)
    dr.write_raster(raster(values), tmp_path / "classes.tif", thematic=True, **QUIET)
    again = dr.open_raster(tmp_path / "classes.tif")
    assert again.attrs["thematic"]
    dr.write_raster(again, tmp_path / "values.tif", thematic=False, **QUIET)
    assert "thematic" not in dr.open_raster(tmp_path / "values.tif").attrs
    with rasterio.open(tmp_path / "out.tif", overview_level=1) as dataset:
        assert dataset.colormap(1)[3] == (3, 0, 0, 255)


def test_kea_has_histogram_and_items(tmp_path: Path) -> None:
    import h5py
    import pandas as pd

    values = pixels((1, 90, 100), "uint8") % 7
    table = pd.DataFrame({"Name": list("abcd"), "Area": [1.5, 2, 3, 4]})
    dr.write_raster(
        raster(values, (1, 32, 32), 6),
        tmp_path / "out.kea",
        blocksize=16,
        attribute_table=table,
        thematic=True,
        **QUIET,
    )
    counts = np.bincount(values[values != 6].ravel(), minlength=7)
    found = dr.read_attribute_table(tmp_path / "out.kea")
    assert list(found.columns) == ["Name", "Area", "Histogram"]
    assert found["Histogram"].tolist() == counts[: len(found)].tolist()
    assert found["Name"].tolist() == ["a", "b", "c", "d", "", ""]
    assert found.attrs["usages"]["Histogram"] == "PixelCount"
    with h5py.File(tmp_path / "out.kea") as file:
        items = {key: item[0].decode() for key, item in file["BAND1/METADATA"].items()}
    assert items["STATISTICS_HISTOBINFUNCTION"] == "direct"
    assert items["STATISTICS_MODE"] == str(counts.argmax())
    assert items["STATISTICS_EXCLUDEDVALUES"] == "6"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"overviews": [3]}, "powers of two"),
        ({"overviews": [1, 2]}, "powers of two"),
        ({"overviews": "all"}, "must be bool or list or tuple"),
        ({"overviews": [64]}, "goes too far"),
        ({"overview_resampling": "cubic"}, "possible are average, bilinear, mode, nearest"),
        ({"overviews": False, "overview_resampling": "mode"}, "does not go with overviews=False"),
        ({"statistics": "some"}, "must be bool"),
        ({"statistics": 1}, "must be bool"),
    ],
)
@pytest.mark.usefixtures("nothing_runs")
def test_wishes_that_cannot_be_met(options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(dr.OptionError, match=match):
        dr.write_raster(raster(pixels((1, 20, 20))), tmp_path / "out.tif", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_tile_of_an_overview_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskraster.running.pyramid import SharedLevels

    monkeypatch.setattr(SharedLevels, "add", lambda self, piece: [])
    with pytest.raises(dr.RasterWriteError, match=r"1 of 21 tiles were never written \(the first is number 20\)"):
        dr.write_raster(raster(pixels((1, 128, 128)), (1, 64, 64)), tmp_path / "out.tif", blocksize=32, overviews=[2, 4], **QUIET)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_says_something_else_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskraster.formats import geotiff_directories

    real = geotiff_directories._overview_metadata
    values = raster(pixels((1, 128, 128)), (1, 64, 64))

    def wrong(metadata: Any, level: Any) -> Any:
        made = real(metadata, level)
        import dataclasses

        from daskraster.grid import Grid

        return dataclasses.replace(made, grid=Grid(None, made.grid.transform, (64, 63)))

    monkeypatch.setattr(geotiff_directories, "_overview_metadata", wrong)
    with pytest.raises(dr.RasterWriteError, match=r"is not what was asked: GDAL finds .*\(1, 64, 63, "):
        dr.write_raster(values, tmp_path / "out.tif", blocksize=32, overviews=[2], **QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_block_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskraster.running import writing

    values = pixels((1, 200, 230))
    run = writing.run

    def twice(outputs: Any, on_receipt: Any, **how: Any) -> None:
        run(outputs, on_receipt, **how)
        run(outputs, on_receipt, **how)

    monkeypatch.setattr(writing, "run", twice)
    for driver, suffix in SUFFIXES.items():
        path = tmp_path / f"out.{suffix}"
        report = dr.write_raster(raster(values, (1, 48, 64)), path, driver=driver, blocksize=16, **QUIET)
        assert isinstance(report, dr.WriteReport)
        check_statistics(path, report, values, None)
        check_levels(path, values, None, "average", 4)


def test_statistics_of_a_large_mean_keep_their_digits_over_many_blocks(tmp_path: Path) -> None:
    values = (1e9 + np.random.default_rng(0).standard_normal((1, 400, 400))).astype("float64")
    report = dr.write_raster(raster(values, (1, 16, 16)), tmp_path / "out.tif", blocksize=16, overviews=False, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.statistics[0].stddev == pytest.approx(float(values.astype(np.longdouble).std()), rel=1e-12)


def test_memory_stays_where_it_was(tmp_path: Path) -> None:
    """Peak memory of a process with and without statistics and overviews, and with a raster 16 times as large."""
    script = textwrap.dedent(f"""
        import sys, dask, dask.array as da, xarray as xr
        import daskraster as dr
        wanted, size = sys.argv[1] == "yes", int(sys.argv[2])
        data = da.random.default_rng(0).integers(0, 3000, (1, size, size), dtype="uint16", chunks=(1, 2048, 2048))
        array = xr.DataArray(data, dims=("band", "y", "x"))
        with dask.config.set(scheduler="threads", num_workers=2):
            report = dr.write_raster(array, {str(tmp_path / "out.tif")!r}, statistics=wanted, overviews=wanted, progress=False)
        print(report.peak_nbytes)
    """)

    def peak(wanted: str, size: int) -> int:
        command = [sys.executable, "-c", script, wanted, str(size)]
        return int(subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout)

    plain = peak("no", 8192)
    assert peak("yes", 8192) < 1.2 * plain
    assert peak("yes", 16384) < 1.2 * plain
