"""A checked expression as a list of steps on registers: in which type each step computes, which buffer it writes to.

Strategy. Backwards over the nodes, each says in which type it wants its arguments: whole numbers stay in the smallest integer type that
holds them, except where all that use them want floats that hold them exactly; then they are computed as floats at once. Floats are float64; they
are float32 where that gives the same bits: values that are float32 by themselves, and the last of ``+ - * /`` or sqrt, rounded once
(two roundings, to float64 and then to float32, give the same for these five). Forwards, steps are written down, conversions among them,
each once however often it is used. Validity is computed beside the values: of integers as masks, of floats as NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskraster.blocks.expressions import COMPARISONS, LOGICAL, Expression, Node
from daskraster.blocks.ranges import (
    CHECKED,
    DOUBLE_WHOLE,
    SINGLE_WHOLE,
    Typed,
    Variable,
    smallest_type,
    typed,
)

_BOOL, _SINGLE, _DOUBLE = np.dtype(bool), np.dtype(np.float32), np.dtype(np.float64)
_HOSTED = frozenset(("+", "-", "*", "neg", "abs", "min", "max", "where", "sign", "rint"))
_ROUNDED_ONCE = frozenset(("+", "-", "*", "/", "sqrt"))
# These read an argument again after they have begun to write.
_NO_SHARING = frozenset(
    ("cast", "/0", "inf/0", "where", "log", "log2", "log10", "^", "sign", "blank", "zeroed", "rint")
)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on whole registers."""

    operation: str
    inputs: tuple[int, ...]
    output: int
    dtype: np.dtype[Any]
    slot: int = -1
    """Buffer that the output lies in; -1: it makes its own array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An expression, ready to run on any pixels of these types."""

    variables: tuple[Variable, ...]
    """Registers 0 and up hold their pixels; behind them stand their nodata values, then the constants."""
    constants: tuple[Any, ...]
    steps: tuple[Step, ...]
    slots: tuple[int, ...]
    """Bytes per pixel of each buffer."""
    root: int
    """Register of the result."""
    result: Typed
    mask: int | None
    """Register that says where the result is invalid, besides NaN; None: nowhere."""
    dtype: np.dtype[Any]
    """Of the result."""

    @property
    def invalid_possible(self) -> bool:
        """Whether pixels without a valid value can come out."""
        return self.mask is not None or self.result.gaps

    @property
    def gaps_possible(self) -> bool:
        """Whether invalid pixels can come of pixels that are not nodata: NaN, divisions by zero."""
        return self.result.gaps or any(step.operation == "isnan" for step in self.steps)

    @property
    def registers(self) -> int:
        """Their number."""
        return 2 * len(self.variables) + len(self.constants) + len(self.steps)


def lowered(expression: Expression, variables: Mapping[str, Variable], dtype: np.dtype[Any]) -> Program:
    """The steps that compute an expression.

    Parameters
    ----------
    expression
        Checked.
    variables
        By name, at least those it uses.
    dtype
        Of the result.

    Raises
    ------
    ExpressionError
        A bitwise operation on floats.
    """
    rows, root = typed(expression, variables)
    used = tuple(variables[name] for name in expression.variables)
    emitter = _Emitter(rows, used, _types(rows, root, {one.name: one for one in used}, dtype))
    return emitter.program(root, dtype)


def _needed(rows: Sequence[Typed], root: int) -> list[int]:
    needed = {root}
    for place in range(root, -1, -1):
        if place in needed:
            needed.update(rows[place].node.arguments)
    return sorted(needed)


@dataclass(frozen=True, slots=True)
class _Types:
    own: dict[int, np.dtype[Any]]
    """Node -> the type it is computed in."""
    wanted: Mapping[int, tuple[np.dtype[Any] | None, ...]]
    """Node -> the type it wants each argument in; None: as it is."""


def _types(rows: Sequence[Typed], root: int, variables: Mapping[str, Variable], dtype: np.dtype[Any]) -> _Types:
    """In which type each node is computed, found from the result backwards."""
    needed = _needed(rows, root)
    demands: dict[int, set[np.dtype[Any]]] = {place: set() for place in needed}
    if dtype.kind == "f":
        demands[root].add(dtype)
    own: dict[int, np.dtype[Any]] = {}
    wanted: dict[int, tuple[np.dtype[Any] | None, ...]] = {}
    for place in reversed(needed):
        row = rows[place]
        args = [rows[argument] for argument in row.node.arguments]
        if row.node.operation == "variable":
            own[place] = variables[str(row.node.value)].dtype
        elif row.node.operation != "number":
            once = dtype if place == root and row.node.operation in _ROUNDED_ONCE else _DOUBLE
            own[place] = _own_type(row, args, demands[place], once)
            wanted[place] = _wanted_types(row, args, own[place])
            for argument, want in zip(row.node.arguments, wanted[place], strict=True):
                if want is not None:
                    demands[argument].add(want)
    return _Types(own, wanted)


def _own_type(row: Typed, args: Sequence[Typed], demands: set[np.dtype[Any]], once: np.dtype[Any]) -> np.dtype[Any]:
    if row.kind == "b":
        return _BOOL
    operation = row.node.operation
    if row.kind == "f":
        exact = row.single and operation in _HOSTED
        return _SINGLE if exact or (once == _SINGLE and all(arg.single for arg in args)) else _DOUBLE
    counted = args[1:] if operation == "where" else args
    limits = [row.low, row.high, *[limit for arg in counted for limit in (arg.low, arg.high)]]
    if row.checked:
        return CHECKED
    if len(demands) == 1 and operation in _HOSTED:
        host = next(iter(demands))
        if host.kind == "f" and max(map(abs, limits)) <= (SINGLE_WHOLE if host == _SINGLE else DOUBLE_WHOLE):
            return host
    return smallest_type(*limits)


def _wanted_types(row: Typed, args: Sequence[Typed], own: np.dtype[Any]) -> tuple[np.dtype[Any] | None, ...]:
    operation = row.node.operation
    if operation in LOGICAL:
        return (_BOOL,) * len(args)
    if operation in COMPARISONS:
        if any(arg.kind == "f" for arg in args):
            common = _SINGLE if all(arg.single for arg in args) else _DOUBLE
        else:
            common = smallest_type(*[limit for arg in args for limit in (arg.low, arg.high)])
        return (None if common == CHECKED else common,) * 2
    want = None if own == CHECKED else own
    return (_BOOL, want, want) if operation == "where" else (want,) * len(args)


class _Emitter:
    """Writes steps down, each once."""

    def __init__(self, rows: Sequence[Typed], variables: tuple[Variable, ...], types: _Types) -> None:
        self._rows, self._variables, self._types = rows, variables, types
        self._numbers = {one.name: number for number, one in enumerate(variables)}
        self._constants: dict[str, tuple[int, Any]] = {}
        self._steps: dict[tuple[str, tuple[int, ...], np.dtype[Any]], int] = {}
        self._values: dict[int, int] = {}
        self._masks: dict[int, frozenset[int]] = {}
        # Constants are numbered from below: how many there are is known at the end.
        self._exact = any(dtype == CHECKED for dtype in types.own.values())

    def program(self, root: int, dtype: np.dtype[Any]) -> Program:
        for place in _needed(self._rows, root):
            self._emit(place)
        number = self._rows[root].number
        value = self._value(root, None) if number is None else self._constant(np.asarray(number)[()])
        mask = self._any(self._masks[root])
        return self._numbered(value, mask, self._rows[root], dtype)

    def _numbered(self, root: int, mask: int | None, result: Typed, dtype: np.dtype[Any]) -> Program:
        """Constants lie behind the variables and their nodata, outputs of steps behind the constants."""
        first = 2 * len(self._variables)
        shift = first + len(self._constants)

        def final(register: int) -> int:
            if register >= _STEPS:
                return register - _STEPS + shift
            return first + register - _CONSTANTS if register >= _CONSTANTS else register

        steps = tuple(
            Step(operation, tuple(map(final, inputs)), final(output), kind)
            for (operation, inputs, kind), output in self._steps.items()
        )
        root, mask = final(root), None if mask is None else final(mask)
        steps, slots = _with_slots(steps, {root, mask})
        return Program(
            variables=self._variables,
            constants=tuple(value for _, value in self._constants.values()),
            steps=steps,
            slots=slots,
            root=root,
            # Without its place in the text: equal programs are equal, whatever the spaces in it.
            result=replace(result, node=Node(result.node.operation, value=result.node.value)),
            mask=mask,
            dtype=dtype,
        )

    def _step(self, operation: str, inputs: Sequence[int], dtype: np.dtype[Any]) -> int:
        return self._steps.setdefault((operation, tuple(inputs), dtype), _STEPS + len(self._steps))

    def _constant(self, value: Any) -> int:
        key = f"{type(value).__name__} {value!r}"
        return self._constants.setdefault(key, (_CONSTANTS + len(self._constants), value))[0]

    def _emit(self, place: int) -> None:
        row, own = self._rows[place], self._types.own.get(place)
        arguments = row.node.arguments
        if row.node.operation == "number":
            self._masks[place] = frozenset()
            return
        assert own is not None
        if row.node.operation == "variable":
            self._emit_variable(place, own)
            return
        wanted = self._types.wanted[place]
        inputs = [self._value(argument, want) for argument, want in zip(arguments, wanted, strict=True)]
        operation = row.node.operation
        if operation == "~" and row.kind == "i" and row.bits:
            operation = "flip"  # within the bits of an unsigned type
            inputs.append(self._constant(row.high if own == CHECKED else own.type(row.high)))
        if operation == "/" and self._rows[arguments[1]].holds_zero():
            operation = "inf/0" if np.isinf(self._rows[arguments[0]].peak) else "/0"
        if operation == "rint" and row.kind == "i":  # whole already; adding a half could round
            self._masks[place] = self._masks[arguments[0]]
            self._values[place] = inputs[0]
            self._types.own[place] = self._types.own[arguments[0]] if own == CHECKED else own
            return
        if operation == "where":
            self._masks[place] = self._chosen_masks(arguments, inputs[0])
        else:
            self._masks[place] = frozenset().union(*[self._masks[argument] for argument in arguments])
            if row.kind == "b":
                self._masks[place] |= {mask for argument in arguments for mask in self._gaps(argument)}
        self._values[place] = self._step(operation, inputs, own)

    def _emit_variable(self, place: int, own: np.dtype[Any]) -> None:
        number = self._numbers[str(self._rows[place].node.value)]
        variable = self._variables[number]
        self._values[place] = number
        self._masks[place] = frozenset()
        if not variable.has_nodata:
            return
        mask = self._step("nodata", (number, len(self._variables) + number), _BOOL)
        if own.kind == "f":
            self._values[place] = self._step("blank", (number, mask), own)
            return
        self._masks[place] = frozenset((mask,))
        if self._exact and own.itemsize == 8:
            # Nodata is often the largest or smallest integer there is: no reason to count one by one.
            self._values[place] = self._step("zeroed", (number, mask), own)

    def _value(self, place: int, wanted: np.dtype[Any] | None) -> int:
        """The register that holds a node's values in a type."""
        row = self._rows[place]
        if row.number is not None:
            value: Any = row.number
            if wanted == _BOOL:
                value = np.bool_(bool(value))
            elif wanted is not None:
                value = wanted.type(value)
            return self._constant(value)
        register, own = self._values[place], self._types.own[place]
        if wanted is None or own == wanted:
            return register
        return self._step("truth" if wanted == _BOOL else "cast", (register,), wanted)

    def _gaps(self, place: int) -> list[int]:
        """The mask of a float's NaN."""
        row = self._rows[place]
        return [self._step("isnan", (self._values[place],), _BOOL)] if row.gaps and row.kind == "f" else []

    def _any(self, masks: frozenset[int]) -> int | None:
        result: int | None = None
        for mask in sorted(masks):
            result = mask if result is None else self._step("or", (result, mask), _BOOL)
        return result

    def _chosen_masks(self, arguments: tuple[int, ...], condition: int) -> frozenset[int]:
        """Invalid: where the condition is, and where the value chosen is."""
        first, second = (self._masks[argument] for argument in arguments[1:])
        masks = self._masks[arguments[0]] | (first & second) | set(self._gaps(arguments[0]))
        only_first, only_second = self._any(first - second), self._any(second - first)
        if only_first is not None:
            masks |= {self._step("and", (condition, only_first), _BOOL)}
        if only_second is not None:
            masks |= {self._step("and", (self._step("not", (condition,), _BOOL), only_second), _BOOL)}
        return frozenset(masks)


_CONSTANTS, _STEPS = 1 << 40, 1 << 50


def _with_slots(steps: Sequence[Step], kept: set[int | None]) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """Give each step a buffer; one is used again as soon as what it holds is not needed any more."""
    last_use = {register: number for number, step in enumerate(steps) for register in step.inputs}
    holds: dict[int, int] = {}
    free: dict[int, list[int]] = {}
    slots: list[int] = []
    placed: list[Step] = []
    for number, step in enumerate(steps):
        dying = [
            register
            for register in set(step.inputs)
            if register in holds and last_use[register] == number and register not in kept
        ]
        released = [(slots[holds[register]], holds.pop(register)) for register in dying]
        if step.operation not in _NO_SHARING:
            for size, slot in released:
                free.setdefault(size, []).append(slot)
        if step.dtype != CHECKED:
            size = step.dtype.itemsize
            if not free.get(size):
                slots.append(size)
                free.setdefault(size, []).append(len(slots) - 1)
            holds[step.output] = free[size].pop()
        placed.append(replace(step, slot=holds.get(step.output, -1)))
        if step.operation in _NO_SHARING:
            for size, slot in released:
                free.setdefault(size, []).append(slot)
    return tuple(placed), tuple(slots)
