"""Attribute tables: those of the real library, and our own there and back."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import daskraster as dr
from daskraster.errors import OptionError, RasterFormatError
from daskraster.formats.kea_tables import Neighbours
from tests.kea_files import reference


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "a.kea"
    dr.write_raster(
        xr.DataArray(np.zeros((2, 5, 6), "u2"), dims=("band", "y", "x")), path, statistics=False, progress=False
    )
    return path


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
        (pd.DataFrame({"a": pd.array([1, None], "Int64")}), "without gaps"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}), "cannot be stored"),
        (pd.DataFrame({"Red": ["a"]}), "which its usage asks for"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "different names"),
        ([1, 2], "not a list"),
    ],
)
def test_what_cannot_be_stored(table: pd.DataFrame, message: str, empty: Path) -> None:
    with pytest.raises(OptionError, match=message):
        dr.write_attribute_table(empty, table)


def test_errors(empty: Path) -> None:
    with pytest.raises(OptionError, match=r"band=3: .* has bands 1 to 2"):
        dr.read_attribute_table(empty, band=3)
    dr.write_attribute_table(empty, pd.DataFrame({"a": [1, 2]}))
    with h5py.File(empty, "r+") as file:
        file["BAND1/ATT/HEADER/SIZE"][0] = 9
    with pytest.raises(RasterFormatError, match="BAND1/ATT/DATA/INT: its shape"):
        dr.read_attribute_table(empty)
