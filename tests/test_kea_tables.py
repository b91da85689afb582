"""Attribute tables: those of the real library, and our own there and back."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import daskraster as dr
from daskraster.errors import OptionError, RasterFormatError, RasterWriteError
from daskraster.formats import kea_heap, kea_tables
from daskraster.formats.kea_columns import Neighbours
from tests.kea_files import reference


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "a.kea"
    dr.write_raster(
        xr.DataArray(np.zeros((2, 5, 6), "u2"), dims=("band", "y", "x")), path, statistics=False, progress=False
    )
    return path


def with_attrs(columns: dict[str, list[Any]], **attrs: Any) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    table.attrs.update(attrs)
    return table


@pytest.mark.parametrize("library", ["libkea-1.6.2", "libkea-2.0.0"])
def test_reference_table(library: str) -> None:
    path, expected = reference(f"{library}/thematic_table.kea")
    facts = expected["bands"][0]["rat"]
    table = dr.read_attribute_table(path)
    kinds = {"real": "float64", "integer": "int64", "string": "str"}
    usages = {0: "Generic", 1: "PixelCount", 2: "Name", 6: "Red", 7: "Green", 8: "Blue", 9: "Alpha"}  # GDAL's numbers
    assert len(table) == facts["rows"]
    assert [(name, str(table[name].dtype)) for name in table] == [
        (name, kinds[kind]) for name, kind, _ in facts["columns"]
    ]
    assert table.attrs["usages"] == {name: usages[number] for name, _, number in facts["columns"]}
    for row, texts in enumerate(facts["first_rows"]):
        for value, text in zip(table.iloc[row], texts, strict=True):
            assert str(value) == text or float(value) == pytest.approx(float(text), rel=1e-14)


def test_reference_table_there_and_back(tmp_path: Path) -> None:
    path, _ = reference("libkea-1.6.2/thematic_table.kea")
    copy = Path(shutil.copy(path, tmp_path))
    copy.chmod(0o600)
    table = dr.read_attribute_table(copy)
    table["Area"] = table["Histogram"] * 0.01
    dr.write_attribute_table(copy, table)
    again = dr.read_attribute_table(copy)
    pd.testing.assert_frame_equal(again, table)
    assert again.attrs["usages"] == {**table.attrs["usages"], "Area": "Generic"}
    np.testing.assert_array_equal(dr.open_raster(copy).values, dr.open_raster(path).values)


def test_all_kinds(empty: Path) -> None:
    table = pd.DataFrame(
        {
            "Histogram": np.array([3, 4, 5]),
            "valid": [True, False, True],
            "count": np.array([-1, 2**62, 0]),
            "mean": [0.5, np.nan, np.inf],
            "name": ["", "Wald", "forêt 森"],
            "Red": np.array([1, 2, 3], "uint8"),
            "class": pd.Categorical(["a", "b", "a"]),
        }
    )
    dr.write_attribute_table(empty, table, band=2)
    again = dr.read_attribute_table(empty, band=2)
    expected = table.astype({"Histogram": "float64", "Red": "int64", "class": "str", "name": "str"})
    pd.testing.assert_frame_equal(again, expected)
    assert again.attrs["usages"]["Histogram"] == "PixelCount"
    assert again.attrs["usages"]["Red"] == "Red"
    assert dr.read_attribute_table(empty).shape == (0, 0)
    with h5py.File(empty) as file:
        assert file["BAND2/ATT/HEADER/SIZE"][...].tolist() == [3, 1, 2, 2, 2]


def test_replace_and_add_columns(empty: Path) -> None:
    dr.write_attribute_table(empty, pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    dr.write_attribute_table(empty, pd.DataFrame({"b": [0.5, 1.5], "Red": [7, 8]}), keep_columns=True)
    table = dr.read_attribute_table(empty)
    assert table.to_dict("list") == {"a": [1, 2], "b": [0.5, 1.5], "Red": [7, 8]}
    assert table.attrs["usages"] == {"a": "Generic", "b": "Generic", "Red": "Red"}
    with pytest.raises(OptionError, match="2 rows, the new one 3"):
        dr.write_attribute_table(empty, pd.DataFrame({"c": [1, 2, 3]}), keep_columns=True)
    dr.write_attribute_table(empty, pd.DataFrame({"c": [1, 2, 3]}))
    assert dr.read_attribute_table(empty).to_dict("list") == {"c": [1, 2, 3]}
    dr.write_attribute_table(empty, pd.DataFrame())
    assert dr.read_attribute_table(empty).shape == (0, 0)


def test_neighbours_are_kept(empty: Path) -> None:
    table = pd.DataFrame({"a": [1, 2, 3]})
    table.attrs["neighbours"] = Neighbours([np.array([1, 2]), np.array([], int), np.array([0])])
    dr.write_attribute_table(empty, table)
    again = dr.read_attribute_table(empty)
    assert again.attrs["neighbours"] == table.attrs["neighbours"]
    assert again.attrs["neighbours"][0].tolist() == [1, 2]
    assert again.copy().attrs["neighbours"][2].tolist() == [0]
    dr.write_attribute_table(empty, again)
    with h5py.File(empty) as file:
        assert [list(row) for row in file["BAND1/ATT/NEIGHBOURS/NEIGHBOURS"]] == [[1, 2], [], [0]]
    with pytest.raises(OptionError, match="neighbours of 3 rows"):
        dr.write_attribute_table(empty, again.iloc[:2])


def test_a_million_rows(empty: Path) -> None:
    rows = 1_000_000
    table = pd.DataFrame({"Histogram": np.arange(rows) * 0.5, "id": np.arange(rows), "even": np.arange(rows) % 2 == 0})
    dr.write_attribute_table(empty, table)
    pd.testing.assert_frame_equal(dr.read_attribute_table(empty), table)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"a": [1]}, index=[3]), "reindex"),
        (pd.DataFrame({"a": [2**64 - 1]}, dtype="uint64"), "'a' of uint64"),
        (pd.DataFrame({"a": pd.array([1, None], "Int64")}), r"'a' of Int64 .* row 1 is missing; .*fillna"),
        (pd.DataFrame({"a": pd.array([None, True], "boolean")}), r"'a' of boolean .* row 0 is missing; .*fillna"),
        (pd.DataFrame({"a": pd.Series([1, None], dtype=object)}), r"'a' .* row 1 is missing; .*fillna"),
        (pd.DataFrame({"a": pd.Categorical([1, None])}), r"'a' .* row 1 is missing; .*fillna"),
        (pd.DataFrame({"Red": [1.0, np.inf]}), r"'Red' of float64 .* as int64, .* row 1 has inf"),
        (pd.DataFrame({"Red": [1e30]}), r"'Red' of float64 .* row 0 has 1e\+30"),
        (pd.DataFrame({"Red": [2.0**63]}), r"'Red' of float64 .* row 0 has 9.2"),
        (pd.DataFrame({"Red": [1.0, np.nan]}), r"'Red' of float64 .* row 1 is missing"),
        (pd.DataFrame({"Red": [1, 2.5]}), r"'Red' of float64 .* row 1 has 2.5"),
        (pd.DataFrame({"a": pd.Series([1, 2**63], dtype=object)}), r"'a' of object .* row 1 has 9223372036854775808"),
        (pd.DataFrame({"a": pd.Series(["x", 3], dtype=object)}), r"'a' of object .* row 1 has 3"),
        (pd.DataFrame({"a": pd.Series(["x", "\ud800"], dtype=object)}), r"'a' of .* row 1 has .*ud800.* UTF-8"),
        (pd.DataFrame({"a\ud800": [1]}), "UTF-8"),
        (pd.DataFrame({"a\0b": [1], "a\0c": [2]}), "different names"),
        (with_attrs({"a": [1], "b": [2]}, usages={"a": "Red", "b": "Red"}), "'a', 'b' all have the usage 'Red'"),
        (with_attrs({"a": [1]}, usages=["a"]), "not a list"),
        (with_attrs({"a": [1]}, neighbours=[[0]]), "not a list"),
        (with_attrs({"a": [1, 2]}, neighbours=Neighbours([np.array([1]), np.array([2])])), "neighbours of row 1: 2 is"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}), "cannot be stored"),
        (pd.DataFrame({"Red": ["a"]}), "which its usage asks for"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "different names"),
        ([1, 2], "not a list"),
    ],
)
def test_what_cannot_be_stored(table: pd.DataFrame, message: str, empty: Path) -> None:
    before = empty.read_bytes()
    with pytest.raises(OptionError, match=message):
        dr.write_attribute_table(empty, table)
    assert empty.read_bytes() == before
    assert os.listdir(empty.parent) == [empty.name]


def test_errors(empty: Path) -> None:
    with pytest.raises(OptionError, match=r"band=3: .* has bands 1 to 2"):
        dr.read_attribute_table(empty, band=3)
    dr.write_attribute_table(empty, pd.DataFrame({"a": [1, 2]}))
    with h5py.File(empty, "r+") as file:
        file["BAND1/ATT/HEADER/SIZE"][0] = 9
    with pytest.raises(RasterFormatError, match="BAND1/ATT/DATA/INT: its shape"):
        dr.read_attribute_table(empty)


def test_objects_that_are_numbers(empty: Path) -> None:
    columns = {"ints": [2**62 + 1, -1, np.int8(3)], "bools": [True, False, np.True_], "floats": [0.5, None, 2.0]}
    dr.write_attribute_table(empty, pd.DataFrame(columns, dtype=object))
    table = dr.read_attribute_table(empty)
    assert table.dtypes.astype(str).to_dict() == {"ints": "int64", "bools": "bool", "floats": "float64"}
    assert table["ints"].tolist() == [2**62 + 1, -1, 3]
    assert table["bools"].tolist() == [True, False, True]
    np.testing.assert_array_equal(table["floats"], [0.5, np.nan, 2.0])


def test_failure_leaves_the_file_as_it_was(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dr.write_attribute_table(empty, pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}))
    before = empty.read_bytes()

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kea_tables, "_set", fails)  # after all columns are written
        with pytest.raises(RasterWriteError, match=r"a\.kea, which is as it was: .*No space left"):
            dr.write_attribute_table(empty, pd.DataFrame({"c": [1]}))
    with monkeypatch.context() as patch:
        usage = namedtuple("usage", "total used free")
        patch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
        with pytest.raises(RasterWriteError, match="has 1 free"):
            dr.write_attribute_table(empty, pd.DataFrame({"c": [1]}))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        with pytest.raises(RasterWriteError, match="it is as it was"):
            dr.write_attribute_table(empty, pd.DataFrame({"c": [1]}))
    assert empty.read_bytes() == before
    assert os.listdir(empty.parent) == [empty.name]


def test_permissions_links_and_neighbouring_files_stay(empty: Path) -> None:
    empty.chmod(0o640)
    link = empty.with_name("link.kea")
    link.symlink_to(empty.name)
    sidecar = empty.with_name("a.kea.aux.xml")
    sidecar.write_text("<PAMDataset/>")
    dr.write_attribute_table(link, pd.DataFrame({"a": [1]}))
    assert link.is_symlink()
    assert empty.stat().st_mode & 0o777 == 0o640
    assert dr.read_attribute_table(empty)["a"].tolist() == [1]
    assert sorted(os.listdir(empty.parent)) == ["a.kea", "a.kea.aux.xml", "link.kea"]


def test_kept_columns_are_not_rewritten(empty: Path) -> None:
    rows = 25_000
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.random(rows), "b": rng.integers(0, 2**62, rows), "c": rng.random(rows)})
    table["name"] = [f"n{row}" for row in range(rows)]
    table.attrs["neighbours"] = Neighbours([np.array([row ^ 1]) for row in range(rows)])
    dr.write_attribute_table(empty, table)

    def places(column: int) -> list[int]:
        found: list[Any] = []
        with h5py.File(empty) as file:
            file["BAND1/ATT/DATA/FLOAT"].id.chunk_iter(found.append)
            return [chunk.byte_offset for chunk in found if chunk.chunk_offset[1] == column]

    before, nbytes = places(0), empty.stat().st_size
    new = pd.DataFrame({"c": np.arange(rows) * 0.5, "d": np.arange(rows) * 0.25, "text": ["t"] * rows, "Red": 7})
    dr.write_attribute_table(empty, new, keep_columns=True)
    assert places(0) == before
    assert empty.stat().st_size < nbytes + 1_500_000
    again = dr.read_attribute_table(empty)
    pd.testing.assert_frame_equal(again, table.assign(**{str(name): new[name] for name in new}), check_flags=False)
    assert again.attrs["neighbours"] == table.attrs["neighbours"]
    assert again.attrs["usages"]["Red"] == "Red"
    with h5py.File(empty) as file:
        assert file["BAND1/ATT/HEADER/SIZE"][...].tolist() == [rows, 0, 2, 3, 2]
    dr.write_attribute_table(empty, pd.DataFrame({"c": ["x"] * rows}), keep_columns=True)  # another kind: all anew
    last = dr.read_attribute_table(empty)
    assert list(last.columns) == list(again.columns)
    assert last["c"].unique().tolist() == ["x"]
    pd.testing.assert_frame_equal(last.drop(columns="c"), again.drop(columns="c"), check_flags=False)
    assert last.attrs["neighbours"] == table.attrs["neighbours"]


def test_added_columns_take_no_colour_that_is_there(empty: Path) -> None:
    dr.write_attribute_table(empty, with_attrs({"Rot": [1, 2]}, usages={"Rot": "Red"}))
    dr.write_attribute_table(empty, pd.DataFrame({"Red": [0.5, 1.5]}), keep_columns=True)
    table = dr.read_attribute_table(empty)
    assert table.attrs["usages"] == {"Rot": "Red", "Red": "Generic"}
    assert table["Red"].tolist() == [0.5, 1.5]
    with pytest.raises(OptionError, match="'Rot', 'x' all have the usage 'Red'"):
        dr.write_attribute_table(empty, with_attrs({"x": [1, 2]}, usages={"x": "Red"}), keep_columns=True)


def test_opening_reads_no_more_than_the_table(tmp_path: Path) -> None:
    path = tmp_path / "a.kea"
    image = xr.DataArray(np.zeros((1, 64, 64), "u1"), dims=("band", "y", "x"))
    colors = {value: (value, 0, 255 - value, 255) for value in range(256)}
    table = pd.DataFrame({"name": [f"class {value}" for value in range(256)]})
    dr.write_raster(image, path, colormap=colors, attribute_table=table, progress=False)
    with h5py.File(path, "r+") as file:
        file.create_dataset("FILLER", data=np.zeros(300_000_000, "u1"))
    dr.open_raster(path)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    best = 9.0
    for _ in range(5):
        begin = time.perf_counter()
        opened = dr.open_raster(path)
        best = min(best, time.perf_counter() - begin)
    assert opened.attrs["colormap"] == colors
    assert best < 0.05
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 8_000  # kB


@pytest.mark.parametrize("item", ["HEADER/STRING_FIELDS", "DATA/STRING", "NEIGHBOURS/NEIGHBOURS"])
@pytest.mark.parametrize("filters", [True, False], ids=["filters", "plain"])
def test_a_damaged_heap_is_found_wherever_it_is(
    item: str, filters: bool, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not filters:
        monkeypatch.setattr(kea_tables, "FILTERS", {})
    monkeypatch.setattr(kea_heap, "SEARCHED_NBYTES", 0)
    table = pd.DataFrame({"name": ["a" * 3000, "b" * 3000]})
    table.attrs["neighbours"] = Neighbours([np.arange(2)] * 2)
    dr.write_attribute_table(empty, table)
    assert dr.read_attribute_table(empty)["name"].tolist() == table["name"].tolist()
    with open(empty, "rb") as raw, h5py.File(empty) as file:
        checked: list[int] = []
        monkeypatch.setattr(kea_heap, "_check_heap", lambda _, address: checked.append(address))
        kea_heap.check_references(raw, file[f"BAND1/ATT/{item}"])
    monkeypatch.undo()
    content = bytearray(empty.read_bytes())
    for heap in checked:
        assert content[heap : heap + 4] == b"GCOL"
        content[heap + 24 : heap + 32] = b"\xff" * 8  # size of the first object
    assert checked
    empty.write_bytes(content)
    with pytest.raises(RasterFormatError, match=r"a\.kea.*a heap's object"):
        dr.read_attribute_table(empty)
