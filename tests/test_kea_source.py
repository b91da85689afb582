"""KEA read: every reference file of the real library, and files it never wrote."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import daskraster as dr
from daskraster.errors import OptionError, RasterFormatError, RasterNotFoundError, RasterReadError
from daskraster.formats.kea_source import describe
from daskraster.grid import Window
from tests.conftest import DATA, pixels
from tests.kea_files import REFERENCES, reference

VIRTUAL = ("LAYER_TYPE", "STATISTICS_HISTONUMBINS", "ATTRIBUTETABLE_CHUNKSIZE")  # GDAL invents these


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_file_is_what_gdal_reads(name: str) -> None:
    path, expected = reference(name)
    image = dr.open_raster(path)
    source, metadata, _ = describe(str(path), bands=None, masked=False, overview_level=None)
    values = image.values
    assert image.sizes == {"band": len(expected["bands"]), "y": expected["size"][1], "x": expected["size"][0]}
    assert list(metadata.grid.transform.to_gdal()) == expected["geotransform"]
    assert metadata.grid.crs is not None
    assert expected["wkt_name"] == metadata.grid.crs.name
    assert dict(metadata.tags) == expected["metadata"]
    assert [list(point[2:]) + list(point[:2]) for point in metadata.gcps] == expected.get("gcps", [])
    for number, (band, facts) in enumerate(zip(expected["bands"], metadata.bands, strict=True)):
        assert str(image.dtype) == band["dtype"]
        assert digest(values[number]) == band["sha256"]
        assert facts.nodata == band["nodata"]
        assert type(facts.nodata) in (type(None), float if image.dtype.kind == "f" else int)
        assert facts.name == band["description"]
        assert facts.thematic is (band["metadata"]["LAYER_TYPE"] == "thematic")
        assert (facts.color or "gray") == band["colorinterp"].lower()
        assert dict(facts.tags) == {key: text for key, text in band["metadata"].items() if key not in VIRTUAL}
        assert source.tile_yx == tuple(band["block"])
        for level, (width, height, sha256) in enumerate(band["overviews"]):
            overview = dr.open_raster(path, bands=number + 1, overview_level=level)
            assert overview.shape == (1, height, width)
            assert digest(overview.values[0]) == sha256
        with pytest.raises(OptionError, match=f"has {'overviews 0 to' if band['overviews'] else 'no overviews'}"):
            dr.open_raster(path, overview_level=len(band["overviews"]))


@pytest.mark.parametrize("library", ["libkea-1.6.2", "libkea-2.0.0"])
def test_mask_band_and_nan_where_masked(library: str) -> None:
    path, expected = reference(f"{library}/rotated_mask.kea")
    with h5py.File(path) as file:
        mask, values = file["BAND1/MASK"][...], file["BAND1/DATA"][...]
    assert int(mask.sum()) == expected["bands"][0]["mask_sum"]
    masked = dr.open_raster(path, masked=True).values[0]
    np.testing.assert_array_equal(masked, np.where(mask == 0, np.nan, values))


def test_mask_of_an_overview_is_the_nearest_pixel(tmp_path: Path) -> None:
    path, _ = reference("libkea-1.6.2/rotated_mask.kea")
    copy = Path(shutil.copy(path, tmp_path))
    copy.chmod(0o600)
    with h5py.File(copy, "r+") as file:
        mask = file["BAND1/MASK"][...]
        file["BAND1/OVERVIEWS"].create_dataset("OVERVIEW1", data=np.ones((50, 66), "f4"), chunks=(50, 50))
    rows, cols = ((np.arange(n) + 0.5) * full / n for n, full in ((50, 150), (66, 200)))
    expected = mask[np.ix_(rows.astype(int), cols.astype(int))] == 0
    np.testing.assert_array_equal(np.isnan(dr.open_raster(copy, masked=True, overview_level=0).values[0]), expected)


def test_real_scene_equals_its_geotiff(sentinel: Path) -> None:
    scene = dr.open_raster(sentinel.with_name("sen2_20210527_aber_subset_kea.kea"))
    twin = dr.open_raster(sentinel)
    np.testing.assert_array_equal(scene.values, twin.values)
    np.testing.assert_allclose(scene.x, twin.x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scene.y, twin.y, rtol=0, atol=1e-6)
    assert scene.rio.crs == twin.rio.crs


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "sen2").glob("*.kea")))
def test_real_files_equal_h5py(name: str) -> None:
    path = DATA / "sen2" / name
    image = dr.open_raster(path)
    with h5py.File(path) as file:
        for band in image.band.values:
            np.testing.assert_array_equal(image.sel(band=band).values, file[f"BAND{band}/DATA"][...])


@pytest.mark.parametrize(
    "window", [Window(0, 0, 1, 1), Window(511, 511, 2, 2), Window(500, 3, 23, 697), Window(522, 699, 1, 1)]
)
def test_windows_that_cut_chunks(window: Window) -> None:
    path, _ = reference("libkea-1.6.2/bands_overviews.kea")
    source, _, _ = describe(str(path), bands=None, masked=False, overview_level=None)
    with h5py.File(path) as file:
        expected = np.stack([file[f"BAND{band}/DATA"][window.slices] for band in (3, 1)])
    np.testing.assert_array_equal(source.read(window, (3, 1)), expected)
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.parametrize(("bands", "halo"), [((1,), 5), ((2, 1), 33), ((3, 1, 2), 64)])
def test_blocks_with_a_halo_are_what_hdf5_reads(tmp_path: Path, bands: tuple[int, ...], halo: int) -> None:
    path = written(tmp_path, "halo.kea", pixels((3, 300, 410), "int32"), blocksize=64, overviews=False)
    source, _, _ = describe(str(path), bands=None, masked=False, overview_level=None)
    with h5py.File(path) as file:
        whole = np.stack([file[f"BAND{band}/DATA"][...] for band in bands])
    raster = Window(0, 0, 300, 410)
    for row in range(0, 300, 128):
        for col in range(0, 410, 128):
            window = Window(row, col, 128, 128).clip(raster).grow((halo, halo)).clip(raster)
            np.testing.assert_array_equal(source.read(window, bands), whole[(slice(None), *window.slices)])


FILTERS = {
    "lzf": {"compression": "lzf", "chunks": (64, 64)},
    "checksum": {"fletcher32": True, "compression": "gzip", "chunks": (64, 64)},
    "gzip alone": {"compression": "gzip", "chunks": (50, 70)},
    "shuffle alone": {"shuffle": True, "chunks": (64, 64)},
    "no filter": {"chunks": (64, 64)},
    "no chunks": {},
    "big endian": {"chunks": (64, 64), "dtype": ">i4", "compression": "gzip"},
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_any_filter_of_hdf5(filters: dict[str, object], tmp_path: Path) -> None:
    path = written(tmp_path, "a.kea", pixels((1, 150, 131), "int32"))
    expected = pixels((1, 150, 131), "int32", seed=1)
    with h5py.File(path, "r+") as file:
        del file["BAND1/DATA"]
        file["BAND1"].create_dataset("DATA", data=expected[0], **filters)
    np.testing.assert_array_equal(dr.open_raster(path, chunks=64).values, expected)


def test_filter_masks_and_missing_chunks(tmp_path: Path) -> None:
    path = written(tmp_path, "a.kea", pixels((1, 128, 192), "int16"), blocksize=64)
    tile = pixels((1, 64, 64), "int16", seed=2)[0]
    with h5py.File(path, "r+") as file:
        del file["BAND1/DATA"]
        data = file["BAND1"].create_dataset(
            "DATA", (128, 192), "<i2", chunks=(64, 64), shuffle=True, compression="gzip", fillvalue=-7
        )
        data.id.write_direct_chunk((0, 64), tile.tobytes(), filter_mask=0b11)
        planes = np.frombuffer(tile.tobytes(), np.uint8).reshape(-1, 2).T.tobytes()
        data.id.write_direct_chunk((64, 128), planes, filter_mask=0b10)
        file.flush()
        expected = data[...]
    assert (expected[:64, 64:128] == tile).all()
    assert (expected[:64, :64] == -7).all()
    np.testing.assert_array_equal(dr.open_raster(path).values[0], expected)


@pytest.mark.parametrize("nodata", [2**63 - 1, -(2**63) + 1, 9007199254740993])
def test_nodata_of_64_bit_integers_is_exact(nodata: int, tmp_path: Path) -> None:
    values = np.array([[[nodata, nodata - 1, 5]]], "int64")
    path = written(tmp_path, "a.kea", values, nodata=nodata)
    assert int(dr.open_raster(path).rio.nodata) == nodata
    assert np.isnan(dr.open_raster(path, masked=True).values[0, 0]).tolist() == [True, False, False]


@pytest.mark.parametrize(("version", "step"), [("1.0", "<f4"), ("1.1", "<f8"), ("2.0", "<f8")])
def test_versions(version: str, step: str, tmp_path: Path) -> None:
    path = written(tmp_path, "a.kea", pixels((1, 5, 6)))
    with h5py.File(path, "r+") as file:
        file["HEADER/VERSION"][0] = version.encode()
        del file["HEADER/RES"]
        file["HEADER/RES"] = np.array([2.5, -2.5], step)
    assert dr.open_raster(path).rio.resolution() == (2.5, -2.5)


@pytest.mark.parametrize(
    ("item", "new"),
    [("DATA", {"dtype": "<f4", "chunks": (64, 64)}), ("DATA", {"dtype": "<u2", "chunks": (32, 32)})],
    ids=["dtype", "block size"],
)
def test_bands_that_differ_are_named(item: str, new: dict[str, object], tmp_path: Path) -> None:
    path = written(tmp_path, "a.kea", pixels((3, 100, 90)), blocksize=64)
    with h5py.File(path, "r+") as file:
        values = file["BAND2/DATA"][...]
        del file["BAND2/DATA"]
        file["BAND2"].create_dataset(item, data=values.astype(new["dtype"]), **new)
        file["BAND2/DATATYPE"][0] = 9 if new["dtype"] == "<f4" else 6
    with pytest.raises(RasterFormatError, match=r"bands \[1, 3\].*bands \[2\].*choose"):
        dr.open_raster(path)
    np.testing.assert_array_equal(dr.open_raster(path, bands=2).values[0], values)
    assert dr.open_raster(path, bands=[3, 1]).band.values.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("HEADER", "FILETYPE"), ("HEADER/FILETYPE", "FILETYPE: it is missing"), ("HEADER/SIZE", "SIZE: it is missing"),
        ("HEADER/NUMBANDS", "NUMBANDS"), ("HEADER/TL", "TL"), ("HEADER/RES", "RES"), ("HEADER/ROT", "ROT"),
        ("HEADER/WKT", "WKT"), ("BAND1", "BAND1/DATA"), ("BAND1/DATA", "BAND1/DATA: it is missing"),
        ("BAND1/DATATYPE", "DATATYPE"), ("HEADER/VERSION", "VERSION"),
    ],
)  # fmt: skip
def test_missing_items_are_named(item: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, "a.kea", pixels((1, 5, 6)))
    with h5py.File(path, "r+") as file:
        del file[item]
    with pytest.raises(RasterFormatError, match=rf"a\.kea .*{message}"):
        dr.open_raster(path)


@pytest.mark.parametrize(
    ("item", "value", "message"),
    [
        ("HEADER/FILETYPE", b"TIF", "'TIF', not 'KEA'"),
        ("HEADER/VERSION", b"3.0", "version '3.0' is not known"),
        ("HEADER/WKT", b"PROJCS[nonsense", "no CRS can be made"),
        ("HEADER/NUMBANDS", 2, "BAND2/DATA: it is missing"),
        ("HEADER/SIZE", [9, 5], "HEADER/SIZE says"),
        ("HEADER/RES", [0.0, 0.0], "no transform"),
        ("HEADER/TL", [np.nan, 0.0], "no transform"),
        ("BAND1/DATATYPE", 99, "pixel type 99"),
        ("BAND1/DATATYPE", 1, "it says int8, the pixels are uint16"),
    ],
)
def test_wrong_items_are_named(item: str, value: object, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, "a.kea", pixels((1, 5, 6)))
    with h5py.File(path, "r+") as file:
        file[item][...] = value
    with pytest.raises(RasterFormatError, match=message):
        dr.open_raster(path)


def test_no_kea(tmp_path: Path) -> None:
    with pytest.raises(RasterNotFoundError, match="there is no file"):
        dr.open_raster(tmp_path / "none.kea")
    (tmp_path / "text.kea").write_text("not a raster")
    with pytest.raises(RasterFormatError, match=r"text\.kea as HDF5"):
        dr.open_raster(tmp_path / "text.kea")
    with h5py.File(tmp_path / "other.kea", "w") as file:
        file["x"] = 1
    with pytest.raises(RasterFormatError, match="FILETYPE: it is missing"):
        dr.open_raster(tmp_path / "other.kea")
    path = written(tmp_path, "a.kea", pixels((1, 5, 6)))
    with pytest.raises(OptionError, match="bands 1 to 1"):
        dr.open_raster(path, bands=2)
    # Told by its content where the suffix does not.
    np.testing.assert_array_equal(dr.open_raster(path.rename(tmp_path / "a.dat")).values, pixels((1, 5, 6)))


def test_cut_and_changed_files_raise(tmp_path: Path) -> None:
    path = written(tmp_path, "a.kea", pixels((1, 300, 300)), blocksize=64)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RasterFormatError, match=r"a\.kea"):
        dr.open_raster(path)
    path.write_bytes(whole)
    image = dr.open_raster(path, chunks=64)
    damaged = bytearray(whole)
    with h5py.File(path) as file:
        info = file["BAND1/DATA"].id.get_chunk_info(3)
    damaged[info.byte_offset + info.size // 2] ^= 0x10
    (tmp_path / "b.kea").write_bytes(damaged)
    with pytest.raises(RasterReadError, match=r"b\.kea is damaged, item BAND1/DATA: chunk 0, 3"):
        dr.open_raster(tmp_path / "b.kea").compute()
    assert (dr.open_raster(tmp_path / "b.kea", chunks=64)[0, 100:, 100:].values == image[0, 100:, 100:].values).all()


def written(folder: Path, name: str, values: np.ndarray, **options: object) -> Path:
    """A KEA file of our own."""
    import xarray as xr

    path = folder / name
    dr.write_raster(xr.DataArray(values, dims=("band", "y", "x")), path, progress=False, **options)
    return path


def test_one_descriptor_a_file_and_none_after_a_run(tmp_path: Path) -> None:
    import os

    if not Path("/proc/self/fd").exists():
        pytest.skip("the platform does not list descriptors")

    def descriptors() -> int:
        links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return sum(str(tmp_path) in link for link in links)

    values = pixels((30, 20, 20))
    for number in range(5):
        dr.write_raster(xr.DataArray(values, dims=("band", "y", "x")), tmp_path / f"{number}.kea", progress=False)
    for number in range(5):
        dr.open_raster(tmp_path / f"{number}.kea")
    assert descriptors() <= 5
    for _ in range(3):
        dr.write_raster(dr.open_raster(tmp_path / "0.kea"), tmp_path / "0.kea", progress=False)
    assert descriptors() == 0


@pytest.mark.parametrize(("nodata", "kind"), [(-9999.0, "f8"), (np.inf, "f8"), (np.nan, "f8"), (0.5, "f4")])
def test_nodata_that_no_pixel_can_be_masks_nothing(tmp_path: Path, nodata: float, kind: str) -> None:
    values = pixels((1, 20, 20), "uint8")
    path = tmp_path / "x.kea"
    dr.write_raster(xr.DataArray(values, dims=("band", "y", "x")), path, nodata=0, progress=False)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["BAND1/NO_DATA_VAL"].attrs)
        del file["BAND1/NO_DATA_VAL"]
        file["BAND1"].create_dataset("NO_DATA_VAL", data=np.array([nodata], kind)).attrs.update(attributes)
    assert (dr.open_raster(path).values == values).all()
    assert (dr.open_raster(path, masked=True).values == values).all()


def test_what_other_programs_put_among_the_metadata(tmp_path: Path) -> None:
    values = pixels((1, 20, 20))
    path = tmp_path / "x.kea"
    dr.write_raster(
        xr.DataArray(values, dims=("band", "y", "x")),
        path,
        tags={"_FillValue": "5", "bands": "9", "FINE": "yes"},
        progress=False,
    )
    with h5py.File(path, "r+") as file:
        file["METADATA"].create_dataset("NUMBER", data=np.array([3.5]))
        file["METADATA"].create_group("GROUP")
        text = file["BAND1/METADATA"].create_dataset("SCALE", shape=(1,), dtype=h5py.string_dtype("ascii"))
        text[0] = b"1:10000"
    image = dr.open_raster(path)
    assert image.rio.nodata is None
    assert image.attrs["FINE"] == "yes"
    assert "NUMBER" not in image.attrs
    assert image.attrs["band_tags"] == ({"SCALE": "1:10000"},)
    dr.write_raster(image, tmp_path / "y.kea", progress=False)
    assert (dr.open_raster(tmp_path / "y.kea").values == values).all()


def test_each_band_keeps_its_own_layer_type_and_colours(tmp_path: Path) -> None:
    colors = {0: (0, 0, 0, 0), 3: (10, 20, 30, 255)}
    array = xr.DataArray(pixels((2, 20, 20), "uint8") % 4, dims=("band", "y", "x"))
    array.attrs.update(thematic=(False, True), colormaps=(None, colors))
    dr.write_raster(array, tmp_path / "x.kea", progress=False)
    with h5py.File(tmp_path / "x.kea") as file:
        assert [int(file[f"BAND{band}/LAYER_TYPE"][0]) for band in (1, 2)] == [0, 1]
    again = dr.open_raster(tmp_path / "x.kea")
    assert again.attrs["thematic"] == (False, True)
    assert again.attrs["colormaps"][0] is None
    assert again.attrs["colormaps"][1][3] == (10, 20, 30, 255)
    one = again.isel(band=[1])
    dr.write_raster(one, tmp_path / "y.kea", progress=False)
    assert dr.open_raster(tmp_path / "y.kea").attrs["colormap"][3] == (10, 20, 30, 255)
