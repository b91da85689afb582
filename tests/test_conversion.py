"""Rounding and clamping against exact decimals."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskraster.blocks.conversion import convert

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def exactly(value: float, dtype: Any) -> int:
    """Half away from zero, clamped, in exact arithmetic."""
    limits = np.iinfo(dtype)
    if math.isinf(value):
        return limits.max if value > 0 else limits.min
    exact = abs(Fraction(value)) + Fraction(1, 2)
    whole = (exact.numerator // exact.denominator) * (1 if value >= 0 else -1)
    return max(limits.min, min(limits.max, whole))


@given(
    st.sampled_from(INTEGERS),
    st.lists(
        st.one_of(st.floats(allow_nan=False), st.floats(-70000, 70000), st.integers(-300, 300).map(lambda n: n / 2)),
        min_size=1,
    ),
)
def test_floats_to_integers(dtype: str, values: list[float]) -> None:
    result = convert(np.array(values), np.dtype(dtype), None)
    assert result.dtype == dtype
    assert [int(value) for value in result] == [exactly(value, dtype) for value in values]


@given(st.sampled_from(INTEGERS), st.sampled_from(INTEGERS), st.data())
def test_integers_to_integers_clamp(source: str, target: str, data: st.DataObject) -> None:
    limits, due = np.iinfo(source), np.iinfo(target)
    values = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1))
    values += [int(limits.min), int(limits.max)]
    result = convert(np.array(values, source), np.dtype(target), None)
    assert [int(value) for value in result] == [max(due.min, min(due.max, value)) for value in values]


@pytest.mark.parametrize(("nodata", "expected"), [(None, 0), (255, 255)])
def test_nan_becomes_nodata(nodata: int | None, expected: int) -> None:
    assert convert(np.array([np.nan, 1.0]), np.dtype("uint8"), nodata).tolist() == [expected, 1]


def test_floats_and_booleans_are_numpys_own() -> None:
    assert convert(np.array([1e300]), np.dtype("float32"), None)[0] == np.inf
    assert convert(np.array([True, False]), np.dtype("uint8"), None).tolist() == [1, 0]
    same = np.zeros(3, "int16")
    assert convert(same, np.dtype("int16"), 0) is same
