"""KEA written: read back by h5py, compared in structure with the real library's files, changed in place by HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import daskraster as dr
from daskraster.errors import OptionError, RasterWriteError
from daskraster.formats.kea_columns import Neighbours
from daskraster.formats.kea_sink import kea_sink
from daskraster.formats.kea_source import describe
from daskraster.grid import Window
from daskraster.lazy.arrays import as_raster, metadata_of
from daskraster.options import WriteOptions
from daskraster.pixeltypes import PIXEL_TYPES
from tests.conftest import pixels
from tests.kea_files import REFERENCES, reference, structure


def array(values: np.ndarray, **attrs: Any) -> xr.DataArray:
    return xr.DataArray(values, dims=("band", "y", "x"), attrs=attrs)


def by_h5py(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return np.stack([file[f"BAND{band}/DATA"][...] for band in range(1, int(file["HEADER/NUMBANDS"][0]) + 1)])


@pytest.mark.parametrize("name", REFERENCES)
def test_same_structure_and_content_as_the_real_library(name: str, tmp_path: Path) -> None:
    path, expected = reference(name)
    image = dr.open_raster(path)
    copy = tmp_path / "copy.kea"
    block = expected["bands"][0]["block"][0]
    table = dr.read_attribute_table(path) if "rat" in expected["bands"][0] else None
    with h5py.File(path) as file:
        level = file["BAND1/DATA"].compression_opts
    level = None if level == 1 else level
    # The structure of the pixels; statistics and overviews add items of their own.
    plain = {"statistics": False, "overviews": False, "progress": False}
    dr.write_raster(image, copy, blocksize=block, level=level, attribute_table=table, **plain)
    # Overviews and masks are made by other means.
    theirs = {
        key: item for key, item in structure(path).items() if "OVERVIEWS/" not in key and not key.endswith("MASK")
    }
    ours = structure(copy)
    for key, item in theirs.items():
        if isinstance(item, dict) and key.endswith("/DATA"):
            item["fill"] = ours[key]["fill"]  # theirs is 0, ours the nodata value
    assert ours == theirs
    np.testing.assert_array_equal(by_h5py(copy), image.values)
    again = describe(str(copy), bands=None, masked=False, overview_level=None)[1]
    assert again == describe(str(path), bands=None, masked=False, overview_level=None)[1]


@pytest.mark.parametrize("dtype", PIXEL_TYPES, ids=str)
@pytest.mark.parametrize("options", [{}, {"compress": "none"}, {"level": 9}], ids=["deflate", "none", "level 9"])
def test_every_dtype(dtype: np.dtype[Any], options: dict[str, Any], tmp_path: Path) -> None:
    values = pixels((2, 131, 97), dtype)
    report = dr.write_raster(array(values), tmp_path / "a.kea", blocksize=64, progress=False, **options)
    np.testing.assert_array_equal(by_h5py(tmp_path / "a.kea"), values)
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "a.kea").values, values)
    assert report.tiles == 2 * 3 * 2
    assert report.file_nbytes == (tmp_path / "a.kea").stat().st_size


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 140), st.integers(1, 140)),
    blocksize=st.sampled_from([1, 7, 16, 63, 64, 65, 512]),
    chunk=st.integers(20, 150),
)
def test_any_size(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int], blocksize: int, chunk: int
) -> None:
    if blocksize == 1 and shape[1] * shape[2] > 2000:
        blocksize = 16
    values = pixels(shape, "int16")
    path = tmp_path_factory.mktemp("kea") / "a.kea"
    lazy = array(values).chunk(y=chunk, x=chunk + 9)
    dr.write_raster(lazy, path, blocksize=blocksize, progress=False)
    np.testing.assert_array_equal(by_h5py(path), values)
    np.testing.assert_array_equal(dr.open_raster(path, chunks=50).values, values)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_every_scheduler_and_gaps_in_the_file(scheduler: str, tmp_path: Path) -> None:
    values = pixels((3, 700, 650), "int32")
    with dask.config.set(scheduler=scheduler, num_workers=2):
        lazy = array(values).chunk(y=256, x=256)
        dr.write_raster(lazy, tmp_path / "a.kea", blocksize=128, progress=False)
        result = dr.apply(lambda block: block + 1, dr.open_raster(tmp_path / "a.kea"), overlap=5)
        dr.write_raster(result, tmp_path / "b.kea", progress=False)
    np.testing.assert_array_equal(by_h5py(tmp_path / "b.kea"), values + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.kea", "b.kea"]


def test_hdf5_goes_on_writing(tmp_path: Path) -> None:
    values = pixels((2, 500, 300))
    path = tmp_path / "a.kea"
    dr.write_raster(array(values), path, blocksize=64, progress=False)
    noise = np.random.default_rng(0).integers(0, 65536, (200, 200)).astype("u2")  # larger than what it replaces
    with h5py.File(path, "r+") as file:
        file["BAND1/DATA"][10:210, 50:250] = noise
        file["BAND2"].create_dataset("EXTRA", data=np.arange(100_000), chunks=(1000,), compression="gzip")
        file["METADATA"]["later"] = b"yes"
    values[0, 10:210, 50:250] = noise
    np.testing.assert_array_equal(by_h5py(path), values)
    np.testing.assert_array_equal(dr.open_raster(path).values, values)
    with h5py.File(path) as file:
        assert file["BAND2/EXTRA"][-1] == 99_999


def test_a_hundred_thousand_chunks(tmp_path: Path) -> None:
    values = np.arange(640 * 640, dtype="int32").reshape(1, 640, 640)
    dr.write_raster(array(values), tmp_path / "a.kea", blocksize=2, compress="none", progress=False)
    with h5py.File(tmp_path / "a.kea", "r+") as file:
        assert file["BAND1/DATA"].id.get_num_chunks() == 102_400
        np.testing.assert_array_equal(file["BAND1/DATA"][100:301, 77:501], values[0, 100:301, 77:501])
        file["BAND1/DATA"][600:, :40] = 1
    values[0, 600:, :40] = 1
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "a.kea").values, values)


def test_many_bands_each_with_its_own_words(tmp_path: Path) -> None:
    values = pixels((60, 20, 30), "uint8")
    names = tuple(f"Kanal {number} é" for number in range(60))
    nodata = tuple(range(60))
    image = array(
        values, long_name=names, nodatavals=nodata, scales=tuple(range(1, 61)), units=("m",) * 60, **{"ä/b": "x"}
    )
    dr.write_raster(image, tmp_path / "a.kea", progress=False)
    np.testing.assert_array_equal(by_h5py(tmp_path / "a.kea"), values)
    again = dr.open_raster(tmp_path / "a.kea")
    assert again.attrs["long_name"] == names
    assert again.attrs["nodatavals"] == nodata
    assert again.attrs["scales"] == tuple(map(float, range(1, 61)))
    assert again.attrs["units"] == "m"
    assert again.attrs["ä_b"] == "x"
    with h5py.File(tmp_path / "a.kea") as file:
        assert file["BAND7/DATA"].fillvalue == 6


def test_unwritten_chunks_read_as_nodata(tmp_path: Path) -> None:
    metadata = metadata_of(as_raster(array(pixels((1, 100, 100)), _FillValue=9)))
    sink = kea_sink(tmp_path / "a.kea", metadata, WriteOptions(blocksize=64, overviews=False)).start(
        many_processes=False
    )
    receipt = sink.put(pixels((1, 64, 64)), Window(0, 0, 64, 64), 0, (0, 0, 0))
    places = sink.no_places()
    places.add(receipt.tiles, receipt.offsets, receipt.sizes, receipt.held)
    with pytest.raises(RasterWriteError, match="3 of 4 tiles were never written"):
        sink.finish(places)
    sink.started.append_tail(sink.header())
    (tmp_path / "b.kea").write_bytes(sink.header())
    sink.discard()
    assert (by_h5py(tmp_path / "b.kea") == 9).all()
    assert (dr.open_raster(tmp_path / "b.kea").values == 9).all()


def test_thematic_with_colours_and_table(tmp_path: Path) -> None:
    values = np.arange(12, dtype="uint8").reshape(1, 3, 4) % 3
    colors = {0: (0, 0, 0, 0), 1: (10, 20, 30, 255), 2: (40, 50, 60, 255)}
    dr.write_raster(array(values, colormap=colors), tmp_path / "a.kea", thematic=True, progress=False)
    again = dr.open_raster(tmp_path / "a.kea")
    assert again.attrs["colormap"] == colors
    assert again.attrs["thematic"] is True
    table = pd.DataFrame({"Histogram": [4, 4, 4], "Class": ["sea", "forêt", "town"]})
    dr.write_raster(again, tmp_path / "b.kea", attribute_table=table, progress=False)
    written = dr.read_attribute_table(tmp_path / "b.kea")
    assert written["Class"].tolist() == ["sea", "forêt", "town"]
    assert written["Red"].tolist() == [0, 10, 40]
    dr.write_raster(again, tmp_path / "c.kea", attribute_table=tmp_path / "b.kea", statistics=False, progress=False)
    assert list(dr.read_attribute_table(tmp_path / "c.kea").columns) == ["Class", "Red", "Green", "Blue", "Alpha"]


def test_a_table_with_neighbours_is_carried_over(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": range(5)})
    table.attrs["neighbours"] = Neighbours([np.array([(row + 1) % 5]) for row in range(5)])
    image = array(pixels((1, 4, 4), "uint8"))
    dr.write_raster(image, tmp_path / "a.kea", attribute_table=table, progress=False)
    dr.write_raster(image, tmp_path / "b.kea", attribute_table=tmp_path / "a.kea", progress=False)
    again = dr.read_attribute_table(tmp_path / "b.kea")
    pd.testing.assert_frame_equal(again, table, check_flags=False)
    assert again.attrs["neighbours"] == table.attrs["neighbours"]


@pytest.mark.parametrize("red", ["Red", "Rot"])
def test_colours_asked_for_win_over_the_tables(red: str, tmp_path: Path) -> None:
    table = pd.DataFrame({red: [1, 2], "Class": ["a", "b"], "Green": [3, 4], "Blue": [5, 6], "Alpha": [7, 8]})
    table.attrs["usages"] = {red: "Red"}
    image = array(np.zeros((1, 3, 3), "uint8"))
    asked = {0: (10, 20, 30, 40), 1: (50, 60, 70, 80)}

    def written(image: xr.DataArray, **options: Any) -> tuple[Any, pd.DataFrame]:
        path = tmp_path / "a.kea"
        dr.write_raster(image, path, attribute_table=table, statistics=False, progress=False, **options)
        return dr.open_raster(path).attrs.get("colormap"), dr.read_attribute_table(path)

    colors, again = written(image, colormap=asked)
    assert colors == asked
    assert list(again.columns) == list(table.columns)
    assert sorted(again.attrs["usages"].values()) == ["Alpha", "Blue", "Generic", "Green", "Red"]
    # What the array brought along only fills in.
    assert written(array(image.values, colormap=asked))[0] == {0: (1, 3, 5, 7), 1: (2, 4, 6, 8)}
    assert list(written(image, colormap={})[1].columns) == ["Class"]


def test_a_name_alone_makes_no_colour(tmp_path: Path) -> None:
    table = pd.DataFrame({"Red": ["x", "y"]})
    table.attrs["usages"] = {"Red": "Generic"}
    asked = {0: (10, 20, 30, 40), 1: (50, 60, 70, 80)}
    image = array(np.zeros((1, 3, 3), "uint8"), colormap=asked)
    dr.write_raster(image, tmp_path / "a.kea", attribute_table=table, progress=False)
    assert dr.open_raster(tmp_path / "a.kea").attrs["colormap"] == asked
    again = dr.read_attribute_table(tmp_path / "a.kea")
    assert again["Red"].tolist() == ["x", "y"]
    assert again.attrs["usages"]["Red_"] == "Red"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress": "zstd"}, "possible are 'deflate' and 'none'"),
        ({"predictor": 2}, "shuffles bytes"),
        ({"blocksize": (64, 128)}, "square"),
        ({"bigtiff": True}, "bigtiff"),
        ({"attribute_table": {2: pd.DataFrame({"a": [1]})}}, "band 2"),
        ({"attribute_table": 5}, "DataFrame"),
        ({"attribute_table": pd.DataFrame({"a": [1]}, index=[5])}, "reindex"),
        ({"attribute_table": pd.DataFrame({"a": [1j]})}, "cannot be stored"),
    ],
)
def test_what_kea_cannot_hold(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        dr.write_raster(array(pixels((1, 4, 4))), tmp_path / "a.kea", progress=False, **options)
    with pytest.raises(OptionError, match=r"attribute_table= has no place in a GeoTIFF; give sidecar=True"):
        dr.write_raster(array(pixels((1, 4, 4))), tmp_path / "a.tif", attribute_table=pd.DataFrame(), progress=False)
    assert not list(tmp_path.iterdir())


def test_geotiff_and_kea_say_the_same(sentinel: Path, tmp_path: Path) -> None:
    image = dr.open_raster(sentinel)
    dr.write_raster(image, tmp_path / "a.kea", progress=False)
    dr.write_raster(dr.open_raster(tmp_path / "a.kea"), tmp_path / "a.tif", progress=False)
    twin = dr.open_raster(tmp_path / "a.tif")
    xr.testing.assert_equal(twin, image)
    assert (twin.rio.crs, twin.rio.transform()) == (image.rio.crs, image.rio.transform())
