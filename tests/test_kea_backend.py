"""xarray's engine "kea"."""

from __future__ import annotations

import pickle
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import daskraster as dr
from tests.conftest import pixels
from tests.kea_files import reference


@pytest.fixture
def scene() -> Path:
    return reference("libkea-1.6.2/bands_overviews.kea")[0]


@pytest.mark.parametrize("engine", ["kea", None])
def test_opens_lazily(scene: Path, engine: str | None) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        dataset = xr.open_dataset(scene, engine=engine)
    expected = dr.open_raster(scene)
    assert list(dataset.data_vars) == ["band_data"]
    assert not dataset["band_data"]._in_memory
    assert dataset["band_data"].dtype == expected.dtype
    xr.testing.assert_equal(dataset["band_data"].drop_attrs(), expected.compute().drop_attrs())
    assert dataset.rio.crs == expected.rio.crs
    assert dataset["band_data"].rio.transform() == expected.rio.transform()
    assert dataset["band_data"].rio.nodata == expected.rio.nodata
    assert dataset["band_data"].attrs["long_name"] == expected.attrs["long_name"]


def test_indexing(scene: Path) -> None:
    values = dr.open_raster(scene).values
    pixels = xr.open_dataset(scene, engine="kea")["band_data"]
    np.testing.assert_array_equal(pixels[1, 500:, 3:9], values[1, 500:, 3:9])
    np.testing.assert_array_equal(pixels[2, 5], values[2, 5])
    np.testing.assert_array_equal(pixels[:, 10:400:7, [3, 600, 1]], values[:, 10:400:7][:, :, [3, 600, 1]])
    np.testing.assert_array_equal(pixels[:, ::-1, -5:], values[:, ::-1, -5:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pixels))[0], values[0])


def test_chunks_and_options(scene: Path, tmp_path: Path) -> None:
    chunked = xr.open_dataset(scene, engine="kea", chunks={})["band_data"]
    assert chunked.chunks == dr.open_raster(scene).chunks
    dr.write_raster(dr.apply(lambda block: block + 1, chunked, overlap=2), tmp_path / "a.kea", progress=False)
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "a.kea").values, dr.open_raster(scene).values + 1)
    overview = xr.open_dataset(scene, engine="kea", bands=[2], overview_level=1, masked=True)["band_data"]
    assert (overview.shape, overview.dtype) == ((1, 130, 175), np.float32)
    assert not xr.open_dataset(scene, engine="kea", drop_variables="band_data").data_vars


def test_takes_the_keywords_that_generic_code_gives(tmp_path: Path) -> None:
    array = xr.DataArray(pixels((1, 20, 20)), dims=("band", "y", "x"))
    dr.write_raster(array, tmp_path / "x.kea", nodata=0, progress=False)
    dataset = xr.open_dataset(
        tmp_path / "x.kea", engine="kea", decode_coords="all", decode_times=False, mask_and_scale=False
    )
    assert dataset.band_data.dtype == "uint16"
    assert xr.open_dataset(tmp_path / "x.kea", engine="kea", mask_and_scale=True).band_data.dtype == "float32"
