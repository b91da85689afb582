"""Whole numbers that may pass 64 bits: looked at as they come, computed in 64 bits where they fit, else one by one, and clamped.

Slower than plain NumPy (two more passes that look for the limits; a hundred times where a block really holds such numbers), so it is
used only where the types of the bands cannot rule them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.ranges import CHECKED, LARGEST, SMALLEST, limits_of, smallest_type

UFUNCS: Mapping[str, np.ufunc] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "neg": np.negative,
    "abs": np.absolute,
    "min": np.minimum,
    "max": np.maximum,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "~": np.invert,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}
"""Operations on whole numbers and what computes them."""


def compute(operation: str, *arguments: NDArray[Any] | int) -> NDArray[Any]:
    """The result of an operation on whole numbers, exact, then clamped to [-2**63, 2**64 - 1].

    Parameters
    ----------
    operation
        An arithmetic or bitwise one, or ``where`` with truth values first.
    *arguments
        Arrays of any integer type, of bool, or of Python's integers; or Python's integers.

    Returns
    -------
    int64 or uint64 where one of them holds every value, else Python's integers (dtype object).
    """
    values = [
        np.asarray(argument, dtype=None if isinstance(argument, np.ndarray) else object) for argument in arguments
    ]
    chosen, values = (values[0], values[1:]) if operation == "where" else (None, values)
    spans = [(int(value.min()), int(value.max())) for value in values]
    limits = limits_of(operation, spans) or (0, 0)
    dtype = _type_for([*limits, *[limit for span in spans for limit in span]])
    values = [value.astype(dtype, copy=False) for value in values]
    if chosen is not None:
        return np.where(chosen.astype(bool), values[0], values[1])
    if operation == "sign":
        return (values[0] > 0).astype(np.int64) - (values[0] < 0)
    result = np.asarray(UFUNCS[operation](*values))
    return narrowed(result) if dtype == CHECKED else result


def _type_for(limits: Sequence[int]) -> np.dtype[Any]:
    smallest = smallest_type(*limits)
    if smallest == CHECKED:
        return smallest
    return np.dtype(np.uint64 if smallest == np.uint64 else np.int64)


def narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Python's integers clamped, in 64 bits where they fit."""
    limited = np.minimum(np.maximum(values, SMALLEST), LARGEST)
    return limited.astype(_type_for([int(limited.min()), int(limited.max())]), copy=False)


def compare(operation: str, first: NDArray[Any] | int, second: NDArray[Any] | int) -> NDArray[np.bool_]:
    """A comparison of whole numbers, exact across signed and unsigned types."""
    return np.asarray(UFUNCS[operation](first, second), dtype=bool)


def limited(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Whole numbers of any size clamped to an integer type, or rounded to a float type."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    bounds = np.iinfo(dtype)
    if values.dtype != CHECKED:
        own = np.iinfo(values.dtype)
        return np.clip(values, max(bounds.min, own.min), min(bounds.max, own.max)).astype(dtype)
    return np.minimum(np.maximum(values, int(bounds.min)), int(bounds.max)).astype(dtype)
