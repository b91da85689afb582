"""What is known of every node before any pixel: whole numbers or floats, between which limits, whether NaN can come out.

Whole numbers are computed as such while their limits fit 64 bits; so the limits decide the type, and no pixel has to be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from daskraster.blocks.expressions import COMPARISONS, LOGICAL, Expression, Node, refusal

type Kind = Literal["b", "i", "f"]
"""Truth values, whole numbers, floats."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""Limits of whole intermediate results; beyond them they are clamped."""
SINGLE_WHOLE, DOUBLE_WHOLE = 2**24, 2**53
"""Up to here every whole number is a float32, a float64."""
HIGHEST_POWER = 64
_INTEGERS = tuple(np.dtype(name) for name in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"))
CHECKED = np.dtype(object)
"""Stands for whole numbers that may pass 64 bits: looked at as they come; see `daskraster.blocks.wholes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A band as an expression sees it."""

    name: str
    dtype: np.dtype[Any]
    has_nodata: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A node and what is known of its values."""

    node: Node
    kind: Kind
    low: int = 0
    """Smallest value, of truth values and whole numbers."""
    high: int = 1
    bits: int = 0
    """Width of the unsigned type that the value's bits come from; 0: it has no such width."""
    checked: bool = False
    """Whole numbers that may pass 64 bits before they are clamped."""
    single: bool = False
    """Every value is a float32, exactly."""
    gaps: bool = False
    """NaN may be among the values, which is how floats say nodata."""
    peak: float = math.inf
    """No value is larger, either way."""

    @property
    def number(self) -> int | float | None:
        """The value of a constant."""
        value = self.node.value
        return value if isinstance(value, int | float) else None

    def holds_zero(self) -> bool:
        """Whether 0 may be among the values."""
        if self.number is not None:
            return self.number == 0
        return self.kind == "f" or self.low <= 0 <= self.high


def smallest_type(*limits: int) -> np.dtype[Any]:
    """The smallest integer type that holds all of them, signed before unsigned; `CHECKED` where there is none."""
    low, high = min(limits), max(limits)
    for dtype in _INTEGERS:
        bounds = np.iinfo(dtype)
        if bounds.min <= low and high <= bounds.max:
            return dtype
    return CHECKED


def typed(expression: Expression, variables: Mapping[str, Variable]) -> tuple[tuple[Typed, ...], int]:
    """Every node with what is known of it, and the place of the result; powers of whole numbers written out as products.

    Raises
    ------
    ExpressionError
        A bitwise operation on floats.
    """
    table = _TypedTable(expression.text, variables)
    places: list[int] = []
    for node in expression.nodes:
        places.append(table.add(node, tuple(places[place] for place in node.arguments)))
    return tuple(table.rows), places[-1]


class _TypedTable:
    def __init__(self, text: str, variables: Mapping[str, Variable]) -> None:
        self._text, self._variables = text, variables
        self.rows: list[Typed] = []
        self._places: dict[tuple[object, ...], int] = {}

    def add(self, node: Node, arguments: tuple[int, ...]) -> int:
        """The place of a node whose arguments stand at these places."""
        if node.operation == "^":
            product = self._product(node, arguments)
            if product is not None:
                return product
        return self._put(Node(node.operation, arguments, node.value, node.position))

    def _put(self, node: Node) -> int:
        key = (node.operation, node.arguments, repr(node.value))
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(self._typed(node, [self.rows[place] for place in node.arguments]))
        return self._places[key]

    def _typed(self, node: Node, args: Sequence[Typed]) -> Typed:
        if node.operation == "variable":
            return _variable(node, self._variables[str(node.value)])
        if node.operation == "number":
            return _number(node)
        if node.operation in COMPARISONS or node.operation in LOGICAL:
            return Typed(node=node, kind="b", single=True, peak=1.0)
        if node.operation in ("&", "|", "~"):
            if any(arg.kind == "f" for arg in args):
                raise refusal(
                    self._text,
                    node.position,
                    f"{node.operation!r} works on the bits of whole numbers and on comparisons, not on floats; for logic write && and ||, or compare first",
                )
            return _bitwise(node, args)
        if node.operation == "where":
            args = args[1:]
        limits = _whole_limits(node, args)
        if limits is not None:
            return _whole(node, *limits)
        return _float(node, args)

    def _product(self, node: Node, arguments: tuple[int, ...]) -> int | None:
        """A whole number to a small whole power as a product, where that is exact; a float squared likewise."""
        base, exponent = (self.rows[place] for place in arguments)
        power = exponent.number
        if not isinstance(power, int) or not 0 < power <= HIGHEST_POWER:
            return None
        if base.kind == "f":
            return self._put(Node("*", (arguments[0],) * 2, position=node.position)) if power == 2 else None
        limit = max(abs(base.low), abs(base.high)) ** power
        if limit > (LARGEST if base.low >= 0 else LARGEST // 2):
            return None
        place, square = None, arguments[0]
        while power:
            if power & 1:
                place = square if place is None else self._put(Node("*", (place, square), position=node.position))
            power >>= 1
            if power:
                square = self._put(Node("*", (square, square), position=node.position))
        return place


def _variable(node: Node, variable: Variable) -> Typed:
    dtype = variable.dtype
    if dtype.kind == "b":
        return Typed(node=node, kind="b", single=True, peak=1.0)
    if dtype.kind == "f":
        return Typed(node=node, kind="f", single=dtype.itemsize <= 4, gaps=True)
    limits = np.iinfo(dtype)
    return _whole(node, int(limits.min), int(limits.max), bits=8 * dtype.itemsize if dtype.kind == "u" else 0)


def _number(node: Node) -> Typed:
    value = node.value
    assert isinstance(value, int | float)
    if isinstance(value, int) and SMALLEST <= value <= LARGEST:
        return _whole(node, value, value)
    value = float(value)
    with np.errstate(over="ignore"):
        single = float(np.float32(value)) == value
    return Typed(node=Node("number", value=value, position=node.position), kind="f", single=single, peak=abs(value))


def _whole(node: Node, low: int, high: int, bits: int = 0) -> Typed:
    checked = low < SMALLEST or high > LARGEST
    low, high = clamped(low), clamped(high)
    peak = max(abs(low), abs(high))
    return Typed(
        node=node,
        kind="i",
        low=low,
        high=high,
        bits=bits,
        checked=checked,
        single=peak <= SINGLE_WHOLE,
        peak=float(peak),
    )


def clamped(value: int) -> int:
    """The nearest whole number that an intermediate result may be."""
    return min(max(value, SMALLEST), LARGEST)


def _bitwise(node: Node, args: Sequence[Typed]) -> Typed:
    if all(arg.kind == "b" for arg in args):
        return Typed(node=node, kind="b", single=True, peak=1.0)
    if node.operation == "~":
        arg = args[0]
        if arg.bits:
            return _whole(node, 0, 2**arg.bits - 1, bits=arg.bits)
        return _whole(node, ~arg.high, ~arg.low)
    widths = {arg.bits for arg in args if arg.number is None}
    bits = max(widths) if 0 not in widths else 0
    low, high = min(arg.low for arg in args), max(arg.high for arg in args)
    if node.operation == "&" and any(arg.low >= 0 for arg in args):
        return _whole(node, 0, min(arg.high for arg in args if arg.low >= 0), bits=bits)
    width = max(low.bit_length(), high.bit_length())
    return _whole(node, 0 if low >= 0 else -(2**width), 2**width - 1, bits=bits if width <= bits else 0)


def _whole_limits(node: Node, args: Sequence[Typed]) -> tuple[int, int] | None:
    """Smallest and largest value where whole numbers come out."""
    if any(arg.kind == "f" for arg in args):
        return None
    square = node.operation == "*" and len(set(node.arguments)) == 1
    return limits_of(node.operation, [(arg.low, arg.high) for arg in args], square=square)


def limits_of(operation: str, spans: Sequence[tuple[int, int]], *, square: bool = False) -> tuple[int, int] | None:
    """Smallest and largest result of an operation on whole numbers between limits; None where no whole numbers come out.

    Parameters
    ----------
    operation
        As in `daskraster.blocks.expressions`.
    spans
        Smallest and largest value of each argument.
    square
        Whether the two arguments are the same.

    >>> limits_of("-", [(0, 255), (0, 255)]), limits_of("*", [(-3, 5), (-3, 5)], square=True)
    ((-255, 255), (0, 25))
    """
    if operation not in _LIMITS:
        return None
    if square:
        low, high = _magnitudes(*spans[0])
        return low * low, high * high
    return _LIMITS[operation](*spans[0], *spans[-1])


def _magnitudes(low: int, high: int, *_: int) -> tuple[int, int]:
    return (0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _products(low: int, high: int, other_low: int, other_high: int) -> tuple[int, int]:
    corners = [one * other for one in (low, high) for other in (other_low, other_high)]
    return min(corners), max(corners)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


_LIMITS: Mapping[str, Callable[[int, int, int, int], tuple[int, int]]] = {
    "+": lambda low, high, other_low, other_high: (low + other_low, high + other_high),
    "-": lambda low, high, other_low, other_high: (low - other_high, high - other_low),
    "*": _products,
    "neg": lambda low, high, *_: (-high, -low),
    "abs": _magnitudes,
    "min": lambda low, high, other_low, other_high: (min(low, other_low), min(high, other_high)),
    "max": lambda low, high, other_low, other_high: (max(low, other_low), max(high, other_high)),
    "where": lambda low, high, other_low, other_high: (min(low, other_low), max(high, other_high)),
    "sign": lambda low, high, *_: (_sign(low), _sign(high)),
    "rint": lambda low, high, *_: (low, high),
}
"""From the limits of the first and the last argument."""


def _float(node: Node, args: Sequence[Typed]) -> Typed:
    single = node.operation in ("neg", "abs", "min", "max", "where", "sign") and all(arg.single for arg in args)
    gaps = any(arg.gaps for arg in args) or _makes_gaps(node.operation, args)
    return Typed(node=node, kind="f", single=single, gaps=gaps, peak=_peak(node.operation, args))


def _makes_gaps(operation: str, args: Sequence[Typed]) -> bool:
    """Whether NaN, or what counts as division by zero, can come of values that are none."""
    first, last = args[0], args[-1]
    endless = [math.isinf(arg.peak) for arg in args]
    positive, negative = first.kind != "f" and first.low > 0, first.kind == "f" or first.low < 0
    whole_power = isinstance(last.number, int) and last.number >= 0
    possible: dict[str, bool] = {
        **dict.fromkeys(("+", "-", "*"), any(endless)),  # inf - inf, 0 * inf
        "/": last.holds_zero() or all(endless),
        "sqrt": negative,
        **dict.fromkeys(("log", "log2", "log10"), not positive),
        **dict.fromkeys(("sin", "cos", "tan"), endless[0]),
        **dict.fromkeys(("asin", "acos"), True),
        "^": not (positive or whole_power),
    }
    return possible.get(operation, False)


def _peak(operation: str, args: Sequence[Typed]) -> float:
    """How large the result of an operation on floats can be; inf where nothing is known."""
    first, last = args[0].peak, args[-1].peak
    if operation in ("+", "-"):
        return first + last
    if operation in ("*", "/"):
        least = 1.0 if operation == "*" or args[-1].kind != "f" else abs(args[-1].number or 0.0)
        factor = last if operation == "*" else 1 / least if least > 1e-300 else math.inf
        return first * factor if first and factor else 0.0
    known: dict[str, float] = {
        **dict.fromkeys(("min", "max", "where"), max(first, last)),
        **dict.fromkeys(("neg", "abs"), first),
        **dict.fromkeys(("sin", "cos", "tanh", "sign"), 1.0),
        **dict.fromkeys(("asin", "acos", "atan", "atan2"), 4.0),
        "rint": first + 1,
        "sqrt": math.sqrt(first),
    }
    return known.get(operation, math.inf)


def rule_of(expression: Expression, variables: Mapping[str, Variable]) -> Kind:
    """What decides the type of the result where none is asked for.

    Comparisons and logic give truth values. ``+ - *``, signs, abs, min, max, sum, a choice between two values, and operations on bits keep whole
    numbers whole. All else gives floats.
    """
    rules: list[Kind] = []
    for node in expression.nodes:
        rules.append(_rule(node, [rules[place] for place in node.arguments], variables))
    return rules[-1]


def _rule(node: Node, args: Sequence[Kind], variables: Mapping[str, Variable]) -> Kind:
    if node.operation == "variable":
        kind = variables[str(node.value)].dtype.kind
        return "f" if kind == "f" else "b" if kind == "b" else "i"
    if node.operation == "number":
        return "i" if isinstance(node.value, int) else "f"
    if node.operation in COMPARISONS or node.operation in LOGICAL:
        return "b"
    if node.operation in ("&", "|", "~"):
        return "b" if set(args) == {"b"} else "i"
    if node.operation == "where":
        args = args[1:]
    if node.operation in ("+", "-", "*", "neg", "abs", "min", "max", "where"):
        return "f" if "f" in args else "i"
    return "f"


def result_type(expression: Expression, variables: Mapping[str, Variable]) -> np.dtype[Any]:
    """The pixel type of a result where none is asked for.

    uint8 for truth values; the widest type of the integer bands for whole numbers (one that holds all of them where signs differ; int64 for
    uint64 and a signed type); else float32, or float64 where a band is float64 or an integer of 32 or 64 bits.
    """
    rule = rule_of(expression, variables)
    dtypes = [variables[name].dtype for name in expression.variables]
    whole = [dtype for dtype in dtypes if dtype.kind in "iu"]
    if rule == "b":
        return np.dtype(np.uint8)
    if rule == "i" and (whole or any(dtype.kind == "b" for dtype in dtypes)):
        common = np.result_type(*(whole or [np.dtype(np.uint8)]))
        return common.newbyteorder("=") if common.kind in "iu" else np.dtype(np.int64)
    wide = any(dtype.itemsize > 4 or (dtype.kind in "iu" and dtype.itemsize == 4) for dtype in dtypes)
    return np.dtype(np.float64 if wide else np.float32)
