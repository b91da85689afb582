"""Constant sub-expressions, computed once and exactly: whole numbers stay whole, whatever their size."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daskraster.metadata import Number

LARGEST_BITS = 1024
"""A whole number with more is beyond float64: not finite."""

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
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
    first, last = values[0], values[-1]
    if operation in _COMPARE:
        return int(_COMPARE[operation](first, last))
    if operation in _ARITHMETIC:
        return _ARITHMETIC[operation](first, last)
    match operation:
        case "neg":
            return -first
        case "not":
            return int(not first)
        case "and":
            return int(bool(first) and bool(last))
        case "or":
            return int(bool(first) or bool(last))
        case "&":
            return operator.and_(first, last)
        case "|":
            return operator.or_(first, last)
        case "~":
            return operator.invert(first)
        case "where":
            return values[1] if first else last
        case "min":
            return min(first, last)
        case "max":
            return max(first, last)
        case "/":
            return first / last
        case "abs":
            return abs(first)
        case "sign":
            return (first > 0) - (first < 0)
        case "rint":
            return first if isinstance(first, int) else float(np.floor(first + 0.5))
        case "^" if isinstance(first, int) and isinstance(last, int) and last >= 0:
            return _whole_power(first, last)
    with np.errstate(all="ignore"):
        return float(UFUNCS[operation](*[np.float64(value) for value in values]))


def _whole_power(base: int, exponent: int) -> int:
    """Refused before it is computed where it cannot be finite."""
    if abs(base) > 1 and exponent * (abs(base).bit_length() - 1) > LARGEST_BITS:
        raise OverflowError
    return int(base ** (exponent if abs(base) > 1 else min(exponent, 2 + exponent % 2)))
