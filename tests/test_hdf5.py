"""What is known of h5py without importing it."""

from __future__ import annotations

import h5py

from daskraster.formats import hdf5


def test_codes_and_type_are_those_of_h5py() -> None:
    assert (hdf5.SHUFFLE, hdf5.DEFLATE) == (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE)
    wanted = h5py.string_dtype("ascii")
    assert wanted == hdf5.VLEN_TEXT
    assert hdf5.VLEN_TEXT.metadata == wanted.metadata


def test_h5py_comes_with_its_first_attribute() -> None:
    assert hdf5.h5py.File is h5py.File
