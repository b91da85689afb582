"""Constant sub-expressions, computed once and exactly: whole numbers stay whole, whatever their size."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daskraster.metadata import Number

LARGEST_BITS = 1024
"""A whole number with more is beyond float64: not finite."""

_PYTHON: Mapping[str, Callable[..., Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "neg": operator.neg,
    "abs": abs,
    "min": min,
    "max": max,
    "&": operator.and_,
    "|": operator.or_,
    "~": operator.invert,
    "not": operator.not_,
    "and": lambda first, last: bool(first) and bool(last),
    "or": lambda first, last: bool(first) or bool(last),
    "where": lambda condition, first, last: first if condition else last,
    "sign": lambda value: (value > 0) - (value < 0),
    "rint": lambda value: value if isinstance(value, int) else float(np.floor(value + 0.5)),
}
"""Operations that Python's numbers do exactly where they are whole."""
UFUNCS: Mapping[str, np.ufunc] = {
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "^": np.power,
}
"""Functions of floats and what computes them."""


def folded(operation: str, values: Sequence[Number]) -> Number | None:
    """The value of an operation on numbers.

    Returns
    -------
    An int or a finite float; None where the value is not finite: overflow, division by zero, a logarithm of 0.

    Raises
    ------
    TypeError
        A bitwise operation on a float.
    """
    try:
        value = _folded(operation, values)
    except (OverflowError, ZeroDivisionError):
        return None
    if isinstance(value, int):
        return int(value) if value.bit_length() <= LARGEST_BITS else None
    value = float(value)
    return value if np.isfinite(value) else None


def _folded(operation: str, values: Sequence[Number]) -> Number:
    if operation in _PYTHON:
        return _PYTHON[operation](*values)
    if operation == "^" and all(isinstance(value, int) for value in values) and values[1] >= 0:
        return _whole_power(int(values[0]), int(values[1]))
    with np.errstate(all="ignore"):
        return float(UFUNCS[operation](*[np.float64(value) for value in values]))


def _whole_power(base: int, exponent: int) -> int:
    """Refused before it is computed where it cannot be finite."""
    if abs(base) > 1 and exponent * (abs(base).bit_length() - 1) > LARGEST_BITS:
        raise OverflowError
    return int(base ** (exponent if abs(base) > 1 else min(exponent, 2 + exponent % 2)))
