"""`calc` equals exact arithmetic pixel by pixel, on whichever path it is computed."""

from __future__ import annotations

import math
import pickle
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import daskraster as dr
from daskraster.blocks import evaluation
from daskraster.blocks.conversion import convert
from daskraster.errors import DaskRasterWarning, ExpressionError, GridMismatchError, OptionError, RasterArrayError
from daskraster.lazy.arrays import as_raster
from tests.conftest import MakeRaster, pixels


def array(values: Any, dtype: str, nodata: float | None = None) -> xr.DataArray:
    """A raster in memory; one row from a list, bands from three levels."""
    found = np.asarray(values, dtype=dtype)
    found = found.reshape((1,) * (3 - found.ndim) + found.shape)
    raster = xr.DataArray(found, dims=("band", "y", "x"), coords={"band": np.arange(1, len(found) + 1)})
    if nodata is not None:
        raster.attrs["_FillValue"] = nodata
    return raster


def row(result: xr.DataArray) -> list[Any]:
    return result.values[0, 0].tolist()


NAN = float("nan")

# ---------------------------------------------------------------- types, exactness


@pytest.mark.parametrize(
    ("expression", "dtypes", "expected"),
    [
        ("a+1", "u1", "uint8"), ("a-b", "u2 u1", "uint16"), ("a*b", "i2 u1", "int16"), ("a+b", "u2 i2", "int32"),
        ("a+b", "u8 i1", "int64"), ("min(a,b)", "u1 u4", "uint32"), ("-a", "i8", "int64"), ("a > b", "f8 i8", "uint8"),
        ("a && b", "f4 f4", "uint8"), ("!a", "u2", "uint8"), ("(a>1) & (b<3)", "u2 u2", "uint8"), ("a & 8", "u2", "uint16"),
        ("a/2", "u1", "float32"), ("a/2", "i4", "float64"), ("a/2", "u4", "float64"), ("a/2", "i8", "float64"),
        ("a*0.5", "u2", "float32"), ("a*0.5", "i4", "float64"), ("a+b", "f4 u2", "float32"), ("a+b", "f4 i4", "float64"),
        ("a+b", "f4 f8", "float64"), ("sqrt(a)", "i2", "float32"), ("a^2", "i2", "float32"), ("a^2", "i8", "float64"),
        ("avg(a,b)", "u1 u1", "float32"), ("sum(a,b)", "u1 u1", "uint8"), ("a > 1 ? a : 0", "u2", "uint16"),
        ("where(a > 0.5, 1, 2)", "f4", "float32"), ("abs(a)", "i2", "int16"), ("sign(a)", "i2", "float32"),
        ("a + 70000", "u1", "uint8"), ("(a>1) + (b>1)", "u2 f4", "uint16"), ("7", "u1", "float32"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:calc:daskraster.errors.DaskRasterWarning")
def test_type_where_none_is_asked_for(expression: str, dtypes: str, expected: str) -> None:
    named = {name: array([1, 2], kind) for name, kind in zip("ab", dtypes.split(), strict=False)}
    result = dr.calc(expression, **named)
    assert result.dtype == result.values.dtype == expected


@pytest.mark.parametrize(
    ("expression", "values", "dtype", "out", "expected"),
    [
        ("a+1", [0, 254, 255], "u1", None, [1, 255, 255]),
        ("a-3", [0, 2, 255], "u1", None, [0, 0, 252]),
        ("a*a", [0, 16, 255], "u1", None, [0, 255, 255]),
        ("a*a", [0, 16, 255], "u1", "u2", [0, 256, 65025]),
        ("-a", [-128, 0, 127], "i1", None, [127, 0, -127]),
        ("abs(a)", [-128, 5], "i1", "u1", [128, 5]),
        ("a+1", [2**63 - 1, -(2**63)], "i8", None, [2**63 - 1, -(2**63) + 1]),
        ("a+a", [2**63 - 1, -(2**63)], "i8", None, [2**63 - 1, -(2**63)]),
        ("a*2-a", [2**63 - 1, 5], "i8", None, [2**63 - 1, 5]),
        ("a*a*a", [2**31 - 1, -(2**31), 3], "i4", "i8", [2**63 - 1, -(2**63), 27]),
        ("a+1", [2**64 - 1, 7], "u8", None, [2**64 - 1, 8]),
        ("a-a*2", [2**64 - 1, 7], "u8", "i8", [0, -7]),
        ("0-a", [2**63, 2**63 - 1], "u8", "i8", [-(2**63), -(2**63) + 1]),
        ("abs(a)", [-(2**63), 3], "i8", "u8", [2**63, 3]),
        ("a*3-a*2", [9007199254740993, -9007199254740993], "i8", None, [9007199254740993, -9007199254740993]),
        ("a^2", [9007199254740993 // 2**22, 3], "i8", "i8", [(9007199254740993 // 2**22) ** 2, 9]),
        ("a^3", [3, -3, 100], "i2", "i4", [27, -27, 1000000]),
        ("a > 9007199254740992", [9007199254740992, 9007199254740993], "i8", None, [0, 1]),
        ("a > 2^63", [2**63, 2**63 + 1], "u8", None, [0, 1]),
        ("a == -1", [2**64 - 1, 1], "u8", None, [0, 0]),
        ("a < 300", [5, 255], "u1", None, [1, 1]),
        ("a/2", [1, 3, 5], "u1", "u1", [1, 2, 3]),
        ("0-a/2", [1, 3, 5], "u1", "i1", [-1, -2, -3]),
        ("a*0.1", [5, 15, 25], "u1", "u1", [1, 2, 3]),
        ("a*1000", [200, -200, 0], "i2", "i1", [127, -128, 0]),
        ("a*1e30", [-1, 1, 0], "i2", "i8", [-(2**63), 2**63 - 1, 0]),
        ("exp(a)", [1000, 0], "i2", "u8", [2**64 - 1, 1]),
        ("rint(a/2)", [1, 3, -1, -3], "i2", "i2", [1, 2, 0, -1]),
        ("rint(a)", [2**23 + 1, 2**24 - 1], "u4", "f4", [2**23 + 1, 2**24 - 1]),
        ("rint(a & 16777215)/1", [2**23 + 1, 2**24 - 1], "u4", "f4", [2**23 + 1, 2**24 - 1]),
        ("rint(a*a)", [2**63 - 1, 3], "i8", "u8", [2**64 - 1, 9]),
        ("~a", [0, 250], "u1", None, [255, 5]),
        ("~a", [0, -5], "i2", None, [-1, 4]),
        ("~(a > 3)", [0, 250], "u1", None, [1, 0]),
        ("a & ~8 | 1", [15, 16], "u2", None, [7, 17]),
        ("a & 2^40", [2**40 + 3, 3], "i8", None, [2**40, 0]),
        ("where(a > 2, a, -1)", [1, 5], "i2", None, [-1, 5]),
        ("a > 2 ? a * 300 : 1.5", [1, 3], "u1", "f8", [1.5, 900]),
        ("sign(a)", [-5, 0, 7], "i2", "i1", [-1, 0, 1]),
        ("max(a, 3, -9223372036854775808)", [1, 5], "u8", None, [3, 5]),
        ("a || 0", [0, 3], "u2", None, [0, 1]),
        ("avg(a, a+1, a+5)", [1, 255], "u1", "f8", [3, 257]),
        ("a", [1, 255], "u2", "u1", [1, 255]),
        ("300", [1, 2], "u1", "u1", [255, 255]),
        ("2.5", [1, 2], "u1", "i2", [3, 3]),
        ("a - 18446744073709551615 + 18446744073709551615", [2**64 - 1, 0], "u8", None, [2**64 - 1, 2**63 - 1]),
    ],
)  # fmt: skip
def test_whole_numbers_are_exact_and_clamped(
    expression: str, values: list[int], dtype: str, out: str | None, expected: list[int]
) -> None:
    result = dr.calc(expression, a=array(values, dtype), dtype=out)
    if expression.startswith("a - 18"):
        expected = [2**64 - 1, LOWEST + 2**64 - 1]  # the difference is clamped to -2**63
    assert row(result) == expected


LOWEST = -(2**63)


def exact(node: tuple[Any, ...], values: dict[str, int]) -> Fraction | int | None:
    """A tree of whole numbers in Python's own integers, clamped to 64 bits at each step; None: invalid."""
    if isinstance(node, str):
        return values[node]
    if isinstance(node, int):
        return node
    operation, *inner = node
    args = [exact(one, values) for one in inner]
    if operation == "?":
        return None if args[0] is None else args[1] if args[0] else args[2]
    if None in args:
        return None
    first, last = args[0], args[-1]
    result = {
        "+": lambda: first + last,
        "-": lambda: first - last,
        "*": lambda: first * last,
        "min": lambda: min(first, last),
        "max": lambda: max(first, last),
        "<": lambda: int(first < last),
        "==": lambda: int(first == last),
        "&&": lambda: int(bool(first) and bool(last)),
        "||": lambda: int(bool(first) or bool(last)),
        "neg": lambda: -first,
        "abs": lambda: abs(first),
        "!": lambda: int(not first),
    }[operation]()
    return min(max(result, LOWEST), 2**64 - 1)


def text(node: Any) -> str:
    if not isinstance(node, tuple):
        return f"({node})" if isinstance(node, int) and node < 0 else str(node)
    operation, *inner = map(text, node)
    if operation == "?":
        return f"({inner[0]} ? {inner[1]} : {inner[2]})"
    if operation in ("min", "max", "abs"):
        return f"{operation}({', '.join(inner)})"
    if operation in ("neg", "!"):
        return f"({'-' if operation == 'neg' else '!'}{inner[0]})"
    return f"({inner[0]} {operation} {inner[1]})"


TREES = st.recursive(
    st.one_of(st.sampled_from(["a", "b"]), st.integers(-3, 300)),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "min", "max", "<", "==", "&&", "||"]), inner, inner),
        st.tuples(st.sampled_from(["neg", "abs", "!"]), inner),
        st.tuples(st.just("?"), inner, inner, inner),
    ),
    max_leaves=10,
)
INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]


@settings(max_examples=150, deadline=None)
@given(TREES, st.sampled_from(INTEGERS), st.sampled_from(INTEGERS), st.sampled_from(["i8", "u8", "i2", "u1", "f8", "f4"]), st.data())  # fmt: skip
def test_any_tree_of_whole_numbers_equals_pythons_integers(
    node: Any, first: str, second: str, out: str, data: st.DataObject
) -> None:
    def draw(kind: str) -> list[int]:
        limits = np.iinfo(kind)
        near = st.integers(max(limits.min, -5), 20)
        anywhere = st.one_of(near, st.integers(limits.min, limits.max), st.sampled_from([limits.min, limits.max]))
        return data.draw(st.lists(anywhere, min_size=4, max_size=4))

    rasters = {
        "a": array(draw(first), first, data.draw(st.sampled_from([None, 3]))),
        "b": array(draw(second), second, data.draw(st.sampled_from([None, 0]))),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DaskRasterWarning)
        result = dr.calc(text(node), **rasters, dtype=out)
    fill = result.attrs.get("_FillValue", 0)
    invalid = {name: raster.attrs.get("_FillValue") for name, raster in rasters.items()}
    for place, value in enumerate(result.values[0, 0]):
        pixel = {name: int(raster.values[0, 0, place]) for name, raster in rasters.items()}
        known = {name: None if one == invalid[name] else one for name, one in pixel.items()}
        due = exact(node, known)  # type: ignore[arg-type]
        if due is None:
            assert value == fill or (np.isnan(value) and np.isnan(fill))
        elif out.startswith("f"):
            assert value == np.dtype(out).type(np.float64(due))
        else:
            limits = np.iinfo(out)
            assert int(value) == min(max(due, limits.min), limits.max)


# ---------------------------------------------------------------- floats


@pytest.mark.parametrize("strip", [1, 500, 1 << 19])
@pytest.mark.parametrize(
    ("expression", "numpy"),
    [
        ("(a-b)/(a+b)", lambda a, b: (a - b) / (a + b)),
        ("a*0.0001-b/3", lambda a, b: a * 0.0001 - b / 3),
        ("sqrt(a^2+b^2)", lambda a, b: np.sqrt(a * a + b * b)),
        ("a^0.5 + b^3", lambda a, b: a**0.5 + b**3),
        ("log(a+1)*log2(b+2)-log10(a+3)", lambda a, b: np.log(a + 1) * np.log2(b + 2) - np.log10(a + 3)),
        ("exp(-a/100)+tanh(b)", lambda a, b: np.exp(-a / 100) + np.tanh(b)),
        ("atan2(a, b+1) + sin(a)*cos(b) - tan(a/10)", lambda a, b: np.arctan2(a, b + 1) + np.sin(a) * np.cos(b) - np.tan(a / 10)),
        ("asin(a/300)+acos(b/300)-atan(a)", lambda a, b: np.arcsin(a / 300) + np.arccos(b / 300) - np.arctan(a)),
        ("avg(a,b,7)+max(a,b*0.5)-min(a,2.5)", lambda a, b: (a + b + 7) / 3 + np.maximum(a, b * 0.5) - np.minimum(a, 2.5)),
        ("a > b*0.7 ? a/3 : -b", lambda a, b: np.where(a > b * 0.7, a / 3, -b)),
        ("rint(a/7)+sign(a-b*0.5)+abs(a-b)", lambda a, b: np.floor(a / 7 + 0.5) + np.sign(a - b * 0.5) + np.abs(a - b)),
        ("sinh(a/100)-cosh(b/100)", lambda a, b: np.sinh(a / 100) - np.cosh(b / 100)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_floats_are_float64_rounded_once(
    monkeypatch: pytest.MonkeyPatch, strip: int, expression: str, numpy: Any, dtype: str
) -> None:
    monkeypatch.setattr(evaluation, "STRIP_NBYTES", strip)
    a, b = (np.random.default_rng(seed).integers(1, 200, (1, 5, 9)).astype(dtype) for seed in (1, 2))
    due = numpy(a.astype("f8"), b.astype("f8"))
    for out in ("f4", "f8"):
        found = dr.calc(expression, a=array(a, dtype), b=array(b, dtype), dtype=out).values
        # SIMD loops of NumPy differ by a digit with the length of what they are given.
        np.testing.assert_allclose(found, due.astype(out), rtol=1e-6 if out == "f4" else 1e-13)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["+", "-", "*", "/"]),
    st.lists(st.floats(width=32, allow_nan=False), min_size=8, max_size=8),
    st.lists(st.floats(width=32, allow_nan=False), min_size=8, max_size=8),
)
def test_the_last_operation_in_float32_gives_the_bits_of_float64(
    sign: str, first: list[float], second: list[float]
) -> None:
    a, b = (np.array(values, "f4").reshape(1, 1, -1) for values in (first, second))
    with np.errstate(all="ignore"):
        wide = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}[sign](a.astype("f8"), b.astype("f8"))
        due = np.where((b == 0) & (sign == "/"), np.nan, wide).astype("f4")
    found = dr.calc(f"a{sign}b", a=array(a, "f4"), b=array(b, "f4")).values
    np.testing.assert_array_equal(found, due)


@pytest.mark.parametrize("out", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_rounding_equals_that_of_whatever_is_written(out: str) -> None:
    limits = np.iinfo(out)
    edges = [float(limits.min), float(limits.max)]
    near = [
        value + step for value in (*edges, 0.0, 2.0**31, 2.0**52) for step in (-1.5, -1, -0.5, -0.25, 0, 0.5, 1, 1.5)
    ]
    values = np.array([*near, 0.49999999999999994, -0.49999999999999994, 1e300, -1e300, np.inf, -np.inf, np.nan])
    due = convert(values, np.dtype(out), 7)
    found = dr.calc("a", a=array(values, "f8", NAN), dtype=out, nodata=7)
    assert row(found) == due.tolist()
    assert row(dr.calc("a*1.0", a=array(values, "f8"), dtype=out, nodata=7)) == due.tolist()


def test_long_expressions() -> None:
    text = "+".join(["a"] * 4000)
    assert row(dr.calc(text, a=array([1, 20], "u1"))) == [255, 255]
    assert row(dr.calc(text, a=array([1, 20], "u1"), dtype="i4")) == [4000, 80000]
    program = as_raster(dr.calc(text, a=array([1, 20], "u1"))).data
    assert program.npartitions == 1


# ---------------------------------------------------------------- nodata


@pytest.mark.parametrize(
    ("expression", "a", "b", "out", "nodata_and_row"),
    [
        ("a+b", ([1, 0, 3], "u1", 0), ([1, 1, 9], "u1", 9), None, (0, [2, 0, 0])),
        ("a+b", ([1, 7, 3], "i2", 7), ([1, 1, 9], "i4", None), None, (7, [2, 7, 12])),
        ("(a-b)/(a+b)", ([3, 0, 1], "u1", None), ([1, 0, 1], "u1", None), None, (NAN, [0.5, NAN, 0])),
        ("(a-b)/(a+b)", ([3, 0, 1], "u1", 0), ([1, 5, 1], "u1", 0), None, (NAN, [0.5, NAN, 0])),
        ("a*0.5", ([3, -9999, 1], "i2", -9999), ([1, 5, 1], "u1", 0), None, (-9999, [1.5, -9999, 0.5])),
        ("a*0.5", ([3, 0], "f4", 0), ([1, 5], "u1", 0), None, (0, [1.5, 0])),
        ("a > 2", ([3, 0, 1], "u1", 0), ([1, 5, 1], "u1", None), None, (255, [1, 255, 0])),
        ("a > 2 && b < 3", ([3, 0, 1], "u1", 9), ([1, 5, 9], "u1", 9), None, (9, [1, 0, 9])),
        ("a > 2", ([3, NAN, 1], "f4", None), ([1, 5, 1], "u1", 7), None, (None, [1, 0, 0])),
        ("a > 2", ([3, NAN, 1], "f4", NAN), ([1, 5, 1], "u1", 7), None, (255, [1, 255, 0])),
        ("a > 2", ([3, -5, 1], "f8", -5), ([1, 5, 1], "u1", 7), "i2", (-5, [1, -5, 0])),
        ("a ? b : 5", ([1, 0, 3], "u1", 3), ([7, 7, 1], "u1", 7), None, (3, [3, 5, 3])),
        ("where(a > b, a, 0)", ([1, 2, 3], "u1", 3), ([0, 5, 1], "u1", 5), None, (3, [1, 3, 3])),
        ("a ? 1/b : 7", ([1, 0, 1], "u1", None), ([0, 0, 2], "u1", None), None, (NAN, [NAN, 7, 0.5])),
        ("log(a)", ([0, 1], "u1", None), ([0, 0], "u1", None), None, (NAN, [NAN, 0])),
        ("a^-1", ([0, 2], "u1", None), ([0, 0], "u1", None), None, (NAN, [NAN, 0.5])),
        ("a^0", ([NAN, 2], "f4", None), ([0, 0], "u1", None), None, (NAN, [NAN, 1])),
        ("1^a", ([NAN, 2], "f4", None), ([0, 0], "u1", None), None, (NAN, [NAN, 1])),
        ("a/b", ([math.inf, 1], "f4", None), ([0, 0], "u1", None), None, (NAN, [NAN, NAN])),
        ("max(a, b)", ([NAN, 1], "f4", None), ([0, 0], "u1", None), None, (NAN, [NAN, 1])),
        ("a + 1", ([-1, 3], "i2", -1), ([0, 0], "u1", None), "u2", (65535, [65535, 4])),
        ("a + 1", ([300, 3], "i2", 300), ([0, 0], "u1", None), "i1", (-128, [-128, 4])),
        ("a * 2", ([-(2**63), 3], "i8", -(2**63)), ([0, 0], "u1", None), None, (-(2**63), [-(2**63), 6])),
        ("a + 1", ([2**63 - 1, 3], "i8", 2**63 - 1), ([0, 0], "u1", None), None, (2**63 - 1, [2**63 - 1, 4])),
        ("a", ([-3.4028234663852886e38, 3], "f4", -3.4028234663852886e38), ([0, 0], "u1", None), "f8", (-3.4028234663852886e38, [-3.4028234663852886e38, 3])),
        ("a", ([-1e300, 3], "f8", -1e300), ([0, 0], "u1", None), "f4", (NAN, [NAN, 3])),
        ("b", ([1, 2], "u1", 1), ([1, 2], "u1", None), None, (None, [1, 2])),
        ("a*0.5", ([1, 2], "u1", None), ([1, 2], "u1", 3), None, (None, [0.5, 1])),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:calc:daskraster.errors.DaskRasterWarning")
def test_nodata_in_gives_nodata_out(expression: str, a: Any, b: Any, out: Any, nodata_and_row: Any) -> None:
    nodata, expected = nodata_and_row
    result = dr.calc(expression, a=array(*a), b=array(*b), dtype=out)
    found = result.attrs.get("_FillValue")
    assert found == nodata or (found is not None and np.isnan(found) and np.isnan(nodata))
    np.testing.assert_array_equal(result.values[0, 0], np.array(expected, result.dtype))


def test_nodata_asked_for() -> None:
    a = array([1, 0, 5], "u1", 0)
    assert row(dr.calc("a+1", a=a, nodata=9)) == [2, 9, 6]
    assert dr.calc("a+1", a=a, nodata=9).rio.nodata == 9
    assert row(dr.calc("1/(a-1)", a=a, nodata=-1)) == [-1, -1, 0.25]
    assert row(dr.calc("a/2", a=a, nodata=np.float32(-1))) == [0.5, -1, 2.5]
    result = dr.calc("a/2", a=a, nodata=None)
    assert result.rio.nodata is None
    assert np.isnan(row(result)[1])
    with pytest.warns(DaskRasterWarning, match="become 0"):
        result = dr.calc("a+1", a=a, nodata=None)
    assert row(result) == [2, 0, 6]
    assert result.rio.nodata is None
    with pytest.raises(OptionError, match="nodata=300 does not fit uint8"):
        dr.calc("a+1", a=a, nodata=300)
    with pytest.raises(OptionError, match="nodata='x' must be"):
        dr.calc("a+1", a=a, nodata="x")  # type: ignore[arg-type]


def test_an_integer_result_without_nodata_warns_once_and_only_where_pixels_may_be_invalid() -> None:
    a = array([1, 0], "u1")
    with pytest.warns(DaskRasterWarning, match="have no value|has no nodata") as told:
        result = dr.calc("1/a", a=a, dtype="u1")
    assert len(told) == 1
    assert row(result) == [1, 0]
    dr.calc("a*3.5+sqrt(a)", a=a, dtype="u1")  # nothing can be invalid: no warning, which would be an error here


def test_bands_of_different_nodata() -> None:
    image = array([[[1, 2, 3]], [[1, 2, 3]]], "u1")
    image.attrs["nodatavals"] = (1, None)
    result = dr.calc("image*2", image=image)
    assert result.values.tolist() == [[[1, 4, 6]], [[2, 4, 6]]]
    assert result.attrs["nodatavals"] == (1, None)
    assert row(dr.calc("b2", image)) == [1, 2, 3]
    assert row(dr.calc("b2+b1", image)) == [1, 4, 6]
    assert row(dr.calc("image_b2", image=image)) == [1, 2, 3]


def test_masked_arrays_stay_masked(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 8, 9), "int16")
    values[0, 2, 3] = -9999
    path = make_raster(values, nodata=-9999)
    image = dr.open_raster(path, masked=True)
    result = dr.calc("b1*2", image)
    assert result.dtype == "float32"
    assert result.encoding["_FillValue"] == -9999
    assert "_FillValue" not in result.attrs
    assert np.isnan(result.values[0, 2, 3])
    dr.write_raster(result, tmp_path / "out.tif", progress=False)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.nodata == -9999
        assert file.read(1)[2, 3] == -9999
    whole = dr.calc("b1*2", image, dtype="int32")
    assert whole.attrs["_FillValue"] == -9999
    assert (whole.values == np.where(values == -9999, -9999, values.astype("i4") * 2)).all()


def test_a_zero_computed_from_masked_bands_is_a_value_in_the_file_too(make_raster: MakeRaster, tmp_path: Path) -> None:
    """Where the file's nodata is 0, NaN stands for it; an index of 0 is none of these."""
    path = make_raster(np.array([[[100, 100, 0, 7]], [[100, 50, 3, 7]]], "uint16"), nodata=0)
    for masked in (False, True):
        result = dr.calc("(b1-b2)/(b1+b2)", dr.open_raster(path, masked=masked))
        dr.write_raster(result, tmp_path / "index.tif", progress=False)
        with rasterio.open(tmp_path / "index.tif") as file:
            assert np.isnan(file.nodata)
            written = file.read(1)[0]
        np.testing.assert_array_equal(written, np.array([0, 1 / 3, np.nan, 0], "float32"))


# ---------------------------------------------------------------- names, bands, grids


def test_bands_by_number_and_rasters_by_name() -> None:
    image, other = array([[[1, 2]], [[10, 20]]], "u2"), array([5, 6], "u2")
    assert dr.calc("b1+1", image).values.tolist() == [[[2, 3]]]
    assert row(image.dr.calc("b2-b1")) == [9, 18]
    assert row(dr.calc("b3-b1", image, other)) == [4, 4]
    assert row(image.dr.calc("b3-b1", other)) == [4, 4]
    assert dr.calc("image+other", image=image, other=other).values.tolist() == [[[6, 8]], [[15, 26]]]
    assert dr.calc("other+image", image=image, other=other).values.tolist() == [[[6, 8]], [[15, 26]]]
    assert dr.calc("b1+1", b1=image).values.tolist() == [[[2, 3]], [[11, 21]]]
    assert row(dr.calc("image_b2*gain+b1", other, image=image, gain=np.float32(0.5))) == [10, 16]
    assert row(dr.calc("e*1", e=other)) == [5, 6]
    shadowed = dr.calc("image_b1", image=image, image_b1=other)
    assert row(shadowed) == [5, 6]
    assert shadowed.band.values.tolist() == [1]


@pytest.mark.parametrize(
    ("expression", "rasters", "named", "error", "match"),
    [
        ("b3", 1, {}, ExpressionError, "there are b1 to b2, pi, e"),
        ("image_b3", 0, {"image": 2}, ExpressionError, "did you mean image_b"),
        ("a+b", 0, {"a": 2, "b": 3}, ExpressionError, "a has 2 bands and b has 3"),
        ("b1", 1, {"b2": 1}, OptionError, "b2= is taken"),
        ("b1", 1, {"sin": 1}, OptionError, "a function of expressions"),
        ("b1", 1, {"my band": 1}, OptionError, "no name that an expression can have"),
        ("1", 0, {}, OptionError, "at least one raster"),
    ],
)
def test_what_does_not_go_together(expression: str, rasters: int, named: Any, error: Any, match: str) -> None:
    made = {name: array(np.ones((count, 1, 2)), "u1") for name, count in named.items()}
    with pytest.raises(error, match=match):
        dr.calc(expression, *[array(np.ones((2, 1, 2)), "u1")] * rasters, **made)


def test_what_is_no_raster_or_no_type() -> None:
    a = array([1], "u1")
    with pytest.raises(RasterArrayError, match="red is a str"):
        dr.calc("red", red="red.tif")
    with pytest.raises(RasterArrayError, match="red is a bool"):
        dr.calc("red", red=True)
    with pytest.raises(RasterArrayError, match="complex64"):
        dr.calc("a", a=a.astype("complex64"))
    with pytest.raises(OptionError, match="complex64"):
        dr.calc("a", a=a, dtype="complex64")
    with pytest.raises(ExpressionError, match=r"bits of whole numbers.*\n  a & 1\n    \^"):
        dr.calc("a & 1", a=a.astype("f4"))
    with pytest.raises(OptionError, match="no NumPy dtype"):
        dr.calc("a", a=a, dtype="nonsense")


def test_truth_values_as_input() -> None:
    a = array([True, False], "bool")
    assert row(dr.calc("a ? 3 : 4", a=a, dtype="u1")) == [3, 4]
    assert row(dr.calc("~a & 1 == 1", a=a)) == [0, 1]
    result = dr.calc("a", a=a.assign_attrs(_FillValue=0))
    assert result.dtype == "uint8"
    assert row(result) == [1, 0]
    assert result.rio.nodata is None


def test_grids_must_be_one(make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((1, 20, 30))))
    with pytest.raises(GridMismatchError, match="use dr"):
        dr.calc("a+b", a=image, b=image.assign_coords(x=image.x + 5))
    # What differs in the last digits is one grid, and never joined by its labels.
    near = image.assign_coords(x=image.x + 1e-7, band=[7])
    assert dr.calc("a+b", a=image, b=near).shape == image.shape


def test_metadata_by_rule(make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((2, 20, 30)), nodata=0))
    image.attrs |= {"long_name": ("a", "b"), "scale_factor": 0.1, "STATISTICS_MAXIMUM": 3, "colors": ("red", "green"), "units": "m"}  # fmt: skip
    result = dr.calc("image+1", image=image)
    assert result.attrs == {"_FillValue": 0, "AREA_OR_POINT": "Area"}
    assert result.attrs["_FillValue"].dtype == "uint16" if hasattr(result.attrs["_FillValue"], "dtype") else True
    assert result.rio.crs == image.rio.crs
    assert result.rio.transform() == image.rio.transform()
    assert (result.x == image.x).all()
    assert result.band.values.tolist() == [1, 2]


# ---------------------------------------------------------------- lazily, blocks, sources


def files(make_raster: MakeRaster) -> tuple[xr.DataArray, xr.DataArray, NDArray[Any], NDArray[Any]]:
    """Two files of one grid with different tiles and chunks, nodata 0, and their pixels."""
    first, second = pixels((3, 90, 120), seed=1), pixels((3, 90, 120), seed=2)
    first[:, ::7, ::5] = 0
    second[:, 3::11] = 0
    a = dr.open_raster(make_raster(first, "a.tif", tiled=True, blockxsize=16, blockysize=16, nodata=0), chunks=(32, 48))
    b = dr.open_raster(
        make_raster(second, "b.tif", tiled=True, blockxsize=32, blockysize=32, nodata=0), chunks=(41, 120)
    )
    return a, b, first, second


def ndvi(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """By hand, in one piece."""
    wide_a, wide_b = a.astype("f8"), b.astype("f8")
    with np.errstate(all="ignore"):
        result = ((wide_a - wide_b) / (wide_a + wide_b)).astype("f4")
    result[(a == 0) | (b == 0) | (wide_a + wide_b == 0)] = np.nan
    return result


@pytest.mark.usefixtures("nothing_runs")
def test_nothing_is_read_before_it_is_wanted(make_raster: MakeRaster) -> None:
    a, b, _, _ = files(make_raster)
    result = dr.calc("(a-b)/(a+b)", a=a, b=b)
    assert isinstance(result.data, da.Array)
    assert result.data.numblocks == (1, 3, 3)
    dr.apply(lambda block: block, result, overlap=3, dtype="f4", bands=3)


def computed(raster: xr.DataArray) -> xr.DataArray:
    """The same without its source."""
    return raster.copy(data=raster.data.map_blocks(np.array, dtype=raster.dtype, meta=raster.data._meta))


def test_both_ways_give_the_whole(make_raster: MakeRaster) -> None:
    a, b, first, second = files(make_raster)
    due = ndvi(first, second)
    for one, other in ((a, b), (computed(a), b), (a, computed(b)), (computed(a), computed(b).chunk(x=17, band=1))):
        result = dr.calc("(a-b)/(a+b)", a=one, b=other)
        assert (as_raster(result).view is not None) == (one is a and other is b)
        np.testing.assert_array_equal(result.values, due)
        np.testing.assert_array_equal(dr.apply(lambda block: block, result, overlap=5).values, due)
    in_memory = dr.calc("(a-b)/(a+b)", a=a.compute(), b=b)
    np.testing.assert_array_equal(in_memory.values, due)


CUTS: list[Any] = [
    lambda raster: raster.isel(y=slice(7, 71), x=slice(30, 101)),
    lambda raster: raster.rio.clip_box(300_205, 5_999_405, 300_905, 5_999_905),
    lambda raster: raster.isel(y=slice(33, 34), x=slice(5, 6)),
]


@pytest.mark.parametrize("cut", CUTS)
def test_slices_before_and_after_stay_sources(make_raster: MakeRaster, cut: Any) -> None:
    a, b, first, second = files(make_raster)
    after = cut(dr.calc("(a-b)/(a+b)", a=a, b=b))
    before = dr.calc("(a-b)/(a+b)", a=cut(a), b=cut(b))
    due = cut(a.copy(data=ndvi(first, second))).values
    for result in (before, after, after.isel(band=slice(0, 3)), dr.calc("x+0.0", x=after)):
        assert as_raster(result).view is not None
        np.testing.assert_array_equal(result.values, due)
        assert result.rio.transform() == cut(a).rio.transform()
    np.testing.assert_array_equal(after.isel(band=1).values, due[1])
    np.testing.assert_array_equal(after.isel(band=slice(1, 3)).values, due[1:])


@pytest.mark.parametrize("cut", CUTS)
def test_real_pixels_beyond_a_crop(make_raster: MakeRaster, cut: Any) -> None:
    a, b, first, second = files(make_raster)

    def spread(block: NDArray[Any]) -> NDArray[Any]:
        padded = np.pad(block, ((0, 0), (2, 2), (2, 2)), mode="edge")
        return padded[:, 4:, 2:-2] - padded[:, 2:-2, :-4]

    whole = a.copy(data=ndvi(first, second))
    due = cut(whole.copy(data=spread(whole.values)))
    for crop in (dr.calc("(a-b)/(a+b)", a=cut(a), b=cut(b)), cut(dr.calc("(a-b)/(a+b)", a=a, b=b))):
        found = dr.apply(spread, crop, overlap=2, boundary="source", dtype="f4", bands=3)
        np.testing.assert_array_equal(found.values, due.values)


def test_pieces_of_files_of_different_extent(make_raster: MakeRaster) -> None:
    a, _, first, _ = files(make_raster)
    part = pixels((1, 40, 50), "int16", seed=5)
    small = dr.open_raster(
        make_raster(part, "small.tif", transform=a.rio.transform() @ rasterio.Affine.translation(20, 10))
    )
    piece = a.isel(y=slice(10, 50), x=slice(20, 70))
    result = dr.calc("a_b2 - small", a=piece, small=small, dtype="i4")
    view = as_raster(result).view
    assert view is not None
    assert view.source.shape == (1, 40, 50)
    due = first[1, 10:50, 20:70].astype("i4") - part[0]
    due[first[1, 10:50, 20:70] == 0] = 0
    np.testing.assert_array_equal(result.values[0], due)


def test_one_task_a_block_reads_with_its_halo(make_raster: MakeRaster, tmp_path: Path) -> None:
    a, b, first, second = files(make_raster)
    twice = dr.calc("n*2", n=dr.calc("(a-b)/(a+b)", a=a, b=b))
    result = dr.apply(lambda block: block, twice, overlap=4, dtype="f4", bands=3)
    (graph,) = dask.optimize(result.data)
    assert len(dict(graph.dask)) == result.data.npartitions
    report = dr.write_raster(result, tmp_path / "out.tif", progress=False)
    assert report.shape == (3, 90, 120)
    with rasterio.open(tmp_path / "out.tif") as file:
        np.testing.assert_array_equal(file.read(), ndvi(first, second) * 2)
        assert math.isnan(file.nodata)


def test_only_the_bands_used_are_read(make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskraster.formats.gdal import GdalSource

    a, _, first, _ = files(make_raster)
    seen: list[Any] = []
    read = GdalSource.read
    monkeypatch.setattr(GdalSource, "read", lambda self, window, bands: seen.append(bands) or read(self, window, bands))  # type: ignore[func-returns-value]
    np.testing.assert_array_equal(dr.calc("b3 > 5", a).values[0], np.where(first[2] == 0, 255, first[2] > 5))
    assert set(seen) == {(3,)}
    seen.clear()
    result = dr.calc("(n-r)/(n+r)", n=a.isel(band=2), r=a.isel(band=0))
    np.testing.assert_array_equal(result.values[0], ndvi(first[2], first[0]))
    assert set(seen) == {(1, 3)}
    assert len(seen) == result.data.npartitions


def test_the_plan_counts_the_files_below(make_raster: MakeRaster) -> None:
    a, b, first, second = files(make_raster)
    n = dr.calc("(a-b_b2)/(a+b_b2)", a=a.isel(band=2), b=b)
    plan = dr.explain(dr.apply(lambda block: block, dr.calc("n*2", n=n), overlap=1, dtype="f4", bands=1))
    assert [Path(name).name for name in plan.sources] == ["a.tif", "b.tif"]
    assert plan.source_nbytes == first[2].nbytes + second[1].nbytes


def test_tokens_follow_the_pixels(make_raster: MakeRaster) -> None:
    a, b, _, _ = files(make_raster)
    names = [
        dr.calc(text, a=one, b=other, nodata=nodata).data.name
        for text, one, other, nodata in (
            ("a+b", a, b, 0),
            ("a-b", a, b, 0),
            ("a+b", a, a, 0),
            ("a+b", a, b, 1),
            ("a+b", computed(a), b, 0),
            ("a+b", a.isel(y=slice(0, 90)), b, 5),
            ("a+b", a.rio.write_nodata(3), b, 0),
        )
    ]
    assert len(set(names)) == len(names)
    assert dr.calc("a+b", a=a, b=b).data.name == dr.calc(" a + b", a=a, b=b).data.name


def test_every_engine_and_pickling(make_raster: MakeRaster, engine: str) -> None:
    a, b, first, second = files(make_raster)
    due = ndvi(first, second)
    result = pickle.loads(pickle.dumps(dr.calc("(a-b)/(a+b)", a=a, b=b)))
    np.testing.assert_array_equal(result.values, due)
    np.testing.assert_array_equal(dr.calc("(a-b)/(a+b)", a=computed(a), b=b).values, due)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 45), st.integers(1, 45), st.sampled_from(["u1", "i2", "f4", "i8"]))  # fmt: skip
def test_any_size_and_chunks(rows: int, cols: int, chunk_rows: int, chunk_cols: int, dtype: str) -> None:
    values = pixels((2, rows, cols), dtype)
    raster = xr.DataArray(da.from_array(values, chunks=(1, chunk_rows, chunk_cols)), dims=("band", "y", "x"))
    found = dr.calc("b1*3-b2", raster, dtype="f8").values
    np.testing.assert_array_equal(found[0], values[0].astype("f8") * 3 - values[1])


def test_rotated_grids_and_other_dimensions_names(make_raster: MakeRaster) -> None:
    turned = rasterio.Affine(10, 2, 300_000, 2, -10, 6_000_000)
    image = dr.open_raster(make_raster(pixels((1, 12, 13)), transform=turned))
    result = dr.calc("b1+1", image)
    assert as_raster(result).grid.transform.almost_equals(turned)
    plain = xr.DataArray(np.ones((3, 4), "u1"), dims=("lat", "lon"))
    assert dr.calc("b1+1", plain).values.tolist() == [[[2] * 4] * 3]
