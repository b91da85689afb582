"""COGs by GDAL's rules and rio-cogeo's strict validator, whatever the size, the blocks, the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import daskraster as dr
from tests.cog_files import check_cog
from tests.conftest import TRANSFORM, MakeRaster, pixels, read

QUIET: Any = {"progress": False}


def raster(values: Any) -> xr.DataArray:
    array = xr.DataArray(values, dims=("band", "y", "x"))
    return array.rio.write_crs("EPSG:32755").rio.write_transform(TRANSFORM)


# rio-cogeo calls any overview of a raster one column wide invalid, GDAL's own ones too: its factor is that of the columns.
SIZES = st.tuples(st.integers(1, 700), st.integers(2, 700))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, st.integers(40, 300), st.sampled_from(["pixel", "band"]), st.booleans())
@example((501, 500), 256, "pixel", True)
@example((1, 513), 64, "pixel", False)
@example((600, 128), 64, "band", False)
def test_any_size_any_chunks(
    tmp_path: Path, shape_yx: tuple[int, int], chunk: int, interleave: str, threads: bool
) -> None:
    import dask

    values = pixels((2, *shape_yx), "uint8")
    with dask.config.set(scheduler="threads" if threads else "synchronous", num_workers=2):
        dr.write_raster(
            raster(da.from_array(values, chunks=(2, chunk, chunk))),
            tmp_path / "out.tif",
            driver="COG",
            blocksize=64,
            interleave=interleave,
            **QUIET,
        )
    assert (read(tmp_path / "out.tif") == values).all()
    check_cog(tmp_path / "out.tif", ordered=True)


@pytest.mark.parametrize(
    ("shape", "chunk", "block"),
    [
        # odc-geo issue 185: shapes and chunks for which its writer asserts or pads
        ((1, 2001, 3003), 1024, 512),
        ((1, 2049, 2047), 2048, 512),
        ((1, 1025, 4097), 512, 256),
        ((3, 1999, 1601), 1000, 256),
        ((1, 511, 513), 100, 512),
    ],
)
def test_shapes_that_others_fail_on(shape: tuple[int, int, int], chunk: int, block: int, tmp_path: Path) -> None:
    values = pixels(shape)
    dr.write_raster(
        raster(da.from_array(values, chunks=(shape[0], chunk, chunk))),
        tmp_path / "out.tif",
        driver="COG",
        blocksize=block,
        **QUIET,
    )
    assert (read(tmp_path / "out.tif") == values).all()
    check_cog(tmp_path / "out.tif", ordered=True)


def test_on_every_engine(engine: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 700, 900))
    image = dr.open_raster(make_raster(values, nodata=0), chunks=256)
    report = dr.write_raster(image, tmp_path / "out.tif", driver="COG", blocksize=64, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert report.driver == "COG"
    assert (read(tmp_path / "out.tif") == values).all()
    check_cog(tmp_path / "out.tif", ordered=engine in ("synchronous", "threads"))


def gdals_cog(values: NDArray[Any], folder: Path, **options: Any) -> int:
    plain = folder / "plain.tif"
    with rasterio.open(
        plain, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, crs="EPSG:32755", transform=TRANSFORM,
    ) as dataset:  # fmt: skip
        dataset.write(values)
    rasterio.shutil.copy(plain, folder / "gdal.tif", driver="COG", overview_resampling="average", **options)
    return (folder / "gdal.tif").stat().st_size


@pytest.mark.parametrize("engine", ["threads", "client"], indirect=True)
def test_no_larger_than_gdals(engine: str, tmp_path: Path) -> None:
    for values, compress in (
        (pixels((1, 2100, 3000)), "deflate"),
        (np.zeros((1, 2100, 3000), "uint16"), "deflate"),
        (pixels((3, 1500, 1400), "uint8"), "zstd"),
        (pixels((1, 1536, 1024), "float32"), "lzw"),
    ):
        level = {"zstd": 9, "deflate": 6}.get(compress)
        theirs = gdals_cog(values, tmp_path, compress=compress, predictor="YES")
        image = dr.open_raster(tmp_path / "plain.tif", chunks=1024)
        dr.write_raster(image, tmp_path / "out.tif", driver="COG", compress=compress, level=level, **QUIET)
        check_cog(tmp_path / "out.tif", ordered=engine == "threads")
        # With several processes the header ends with its page.
        most = 1.05 * theirs + (4096 if engine == "client" else 0)
        assert (tmp_path / "out.tif").stat().st_size <= most, (compress, values.dtype)


@pytest.mark.parametrize("shape", [(1, 40, 50), (1, 300, 200), (3, 600, 700), (1, 1100, 900)])
@pytest.mark.parametrize("content", ["noise", "zeros", "scene"])
def test_no_larger_than_gdals_at_any_size(shape: tuple[int, int, int], content: str, tmp_path: Path) -> None:
    """Overviews that compress badly and well, files of one tile; in order and not."""
    values = np.random.default_rng(0).integers(0, 65536, shape).astype("uint16")
    if content != "noise":
        values = np.zeros(shape, "uint16") if content == "zeros" else pixels(shape)
    theirs = gdals_cog(values, tmp_path, compress="deflate", level=6, predictor="YES")
    image = dr.open_raster(tmp_path / "plain.tif", chunks=512)
    # Statistics are no part of GDAL's file.
    options: Any = {"driver": "COG", "level": 6, "statistics": False, **QUIET}
    dr.write_raster(image, tmp_path / "out.tif", **options)
    check_cog(tmp_path / "out.tif", ordered=True)
    dr.write_raster(image, tmp_path / "later.tif", compute=False, **options).compute()  # type: ignore[union-attr]
    check_cog(tmp_path / "later.tif", ordered=False)
    assert (tmp_path / "out.tif").stat().st_size <= 1.05 * theirs
    assert (tmp_path / "later.tif").stat().st_size <= 1.05 * theirs + 4096


def test_a_large_one_makes_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskraster.formats import geotiff

    values = pixels((2, 300, 500), "uint8")
    monkeypatch.setattr(geotiff, "ORDERED_NBYTES", values.nbytes - 1)
    dr.write_raster(raster(da.from_array(values, chunks=(2, 64, 128))), tmp_path / "out.tif", driver="COG", blocksize=32, **QUIET)  # fmt: skip
    check_cog(tmp_path / "out.tif", ordered=False)
    monkeypatch.setattr(geotiff, "ORDERED_NBYTES", values.nbytes)
    dr.write_raster(raster(da.from_array(values, chunks=(2, 64, 128))), tmp_path / "out.tif", driver="COG", blocksize=32, bigtiff=True, **QUIET)  # fmt: skip
    check_cog(tmp_path / "out.tif", ordered=True)
    assert (read(tmp_path / "out.tif") == values).all()


def test_everything_is_in_before_closing(tmp_path: Path) -> None:
    values = pixels((1, 300, 300), "uint8") % 5
    palette = {number: (number, 10, 20, 255) for number in range(5)}
    dr.write_raster(
        raster(values), tmp_path / "out.tif", driver="COG", blocksize=64, colormap=palette, band_names=["classes"],
        tags={"PROJECT": "north"}, nodata=4, **QUIET,
    )  # fmt: skip
    check_cog(tmp_path / "out.tif", ordered=True)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.descriptions == ("classes",)
        assert dataset.tags()["PROJECT"] == "north"
        assert dataset.colormap(1)[3] == (3, 10, 20, 255)
        assert float(dataset.tags(1)["STATISTICS_MEAN"]) == values[values != 4].mean()
        assert dataset.nodata == 4
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as dataset:
        assert dataset.nodata == 4
