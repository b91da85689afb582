"""A program on pixels: strip by strip, each small enough for the cache, into buffers that are used again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks import folding, wholes
from daskraster.blocks.conversion import convert
from daskraster.blocks.lowering import Program, Step
from daskraster.blocks.masking import holds
from daskraster.blocks.ranges import CHECKED, Typed
from daskraster.blocks.scratch import Scratch
from daskraster.metadata import Number

STRIP_NBYTES = 1 << 19
"""Buffers of a strip together. They fit the second cache (1 MiB a core) beside the pixels; smaller strips cost more calls of NumPy: 2048 x 2048 of
NDVI take 6.7 ms in strips of 8,192 pixels, 4.1 ms of 32,768, 3.6 ms of 65,536."""

_scratch = Scratch()


class _Poles:
    """Told by NumPy that something finite was divided by zero; looking at every divisor would cost a pass."""

    def __init__(self) -> None:
        self.met = False

    def __call__(self, kind: str, flag: int) -> None:
        self.met = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculation:
    """A program and the bands it works on; NumPy in, NumPy out. Small, picklable, immutable."""

    program: Program
    bands: tuple[tuple[tuple[int, int], ...], ...]
    """For each band of the result and each variable: raster, band from 0."""
    nodata: tuple[tuple[Number | None, ...], ...]
    """For each band of the result and each variable: the value of invalid pixels in its band."""
    fills: tuple[Number, ...]
    """For each band of the result: what invalid pixels become; NaN in float results without nodata, 0 in integers without."""

    def needed(self, wanted: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """Bands, from 0, of each raster that these bands of the result need."""
        needed: dict[int, set[int]] = {}
        for band in wanted:
            for raster, number in self.bands[band]:
                needed.setdefault(raster, set()).add(number)
        return {raster: tuple(sorted(numbers)) for raster, numbers in needed.items()}

    def compute(
        self, planes: Mapping[tuple[int, int], NDArray[Any]], wanted: Sequence[int], shape_yx: tuple[int, int]
    ) -> NDArray[Any]:
        """Some bands of the result.

        Parameters
        ----------
        planes
            Pixels ``(y, x)`` of each (raster, band from 0) that is needed.
        wanted
            Bands of the result, from 0.
        shape_yx
            Rows and columns.

        Returns
        -------
        A new array ``(band, y, x)`` of the program's dtype.
        """
        result = np.empty((len(wanted), *shape_yx), dtype=self.program.dtype)
        with _Run(self.program, shape_yx) as run:
            for plane, band in zip(result, wanted, strict=True):
                run.band([planes[one] for one in self.bands[band]], self.nodata[band], self.fills[band], plane)
        return result


class _Run:
    """One block: its buffers, and NumPy told to be quiet."""

    def __init__(self, program: Program, shape_yx: tuple[int, int]) -> None:
        self._program = program
        rows, self._cols = shape_yx
        rounds = program.result.kind == "f" and program.dtype.kind != "f"
        pixel_nbytes = sum(program.slots) + program.dtype.itemsize + 2 * 8 * rounds
        self._rows = min(max(STRIP_NBYTES // pixel_nbytes // self._cols, 1), rows)
        pixels = self._rows * self._cols
        sizes = [-(-size * pixels // 64) * 64 for size in program.slots]
        memory = _scratch.of(sum(sizes))
        starts = np.cumsum([0, *sizes])
        self._buffers = [memory[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        self._work = np.empty((2, self._rows if rounds else 0, self._cols))
        self._poles = _Poles()
        self._quiet = np.errstate(divide="call", invalid="ignore", over="ignore", under="ignore", call=self._poles)

    def __enter__(self) -> _Run:
        self._quiet.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._quiet.__exit__(*error)

    def band(
        self, planes: Sequence[NDArray[Any]], nodata: Sequence[Number | None], fill: Number, result: NDArray[Any]
    ) -> None:
        """One band of the result, into ``result``."""
        program = self._program
        registers: list[Any] = [None] * program.registers
        count = len(program.variables)
        for number, (variable, value) in enumerate(zip(program.variables, nodata, strict=True)):
            known = value is not None and holds(variable.dtype, value)
            registers[count + number] = variable.dtype.type(value) if known else None
        registers[2 * count : 2 * count + len(program.constants)] = program.constants
        for row in range(0, len(result), self._rows):
            strip = result[row : row + self._rows]
            registers[:count] = [plane[row : row + self._rows] for plane in planes]
            self._strip(registers, strip, fill)

    def _strip(self, registers: list[Any], strip: NDArray[Any], fill: Number) -> None:
        program = self._program
        pixels = strip.size
        for step in program.steps:
            out: Any = None
            if step.output == program.root and step.dtype == strip.dtype:
                out = strip
            elif step.slot >= 0:
                out = self._buffers[step.slot][: pixels * step.dtype.itemsize].view(step.dtype).reshape(strip.shape)
            registers[step.output] = _KERNELS[step.operation](
                step, out, [registers[number] for number in step.inputs], self._poles
            )
        _finish(program.result, registers[program.root], strip, fill, self._work)
        if program.mask is not None:
            np.copyto(strip, strip.dtype.type(fill), where=registers[program.mask])


def _finish(result: Typed, value: Any, strip: NDArray[Any], fill: Number, work: NDArray[np.float64]) -> None:
    """Convert the values of a strip into the result, never wrapping, and fill NaN."""
    gaps = result.kind == "f" and result.gaps
    if strip.dtype.kind == "f":
        if value is not strip:
            np.copyto(strip, wholes.limited(value, strip.dtype) if _is_checked(value) else value, casting="unsafe")
        if gaps and not np.isnan(fill):
            np.copyto(strip, fill, where=np.isnan(strip))
    elif result.kind == "f":
        _round(value, strip, fill, result, work)
    elif _is_checked(value):
        strip[...] = wholes.limited(value, strip.dtype)
    elif value is not strip:
        _narrow(value, strip, result.low, result.high)


def _is_checked(value: Any) -> bool:
    return isinstance(value, int) or value.dtype == CHECKED


def _narrow(value: Any, strip: NDArray[Any], low: int, high: int) -> None:
    """Whole numbers within limits into an integer type, clamped where the limits are wider."""
    bounds = np.iinfo(strip.dtype)
    if high > bounds.max:
        value = np.minimum(value, value.dtype.type(bounds.max))
    if low < bounds.min:
        value = np.maximum(value, value.dtype.type(bounds.min))
    np.copyto(strip, value, casting="unsafe")


def _round(value: Any, strip: NDArray[Any], fill: Number, result: Typed, work: NDArray[np.float64]) -> None:
    """Floats into an integer type: rounded half away from zero, clamped, NaN filled; `convert` without its temporaries.

    ``work`` is room for two strips of float64.
    """
    bounds = np.iinfo(strip.dtype)
    if strip.dtype.itemsize == 8:  # whose limits are no floats
        strip[...] = convert(np.broadcast_to(value, strip.shape), strip.dtype, fill)
        return
    whole, rest = work[:, : len(strip)]
    np.clip(value, bounds.min, bounds.max, out=rest)
    np.trunc(rest, out=whole)
    np.subtract(rest, whole, out=rest)
    np.add(rest, rest, out=rest)
    np.trunc(rest, out=rest)
    np.add(whole, rest, out=whole)
    if result.gaps:
        np.copyto(whole, fill, where=np.isnan(whole))
    np.copyto(strip, whole, casting="unsafe")


type _Kernel = Callable[[Step, Any, list[Any], _Poles], Any]


def _ufunc(function: np.ufunc, whole: str | None = None) -> _Kernel:
    """A kernel of one NumPy function; ``whole``: what it is called for whole numbers of any size."""

    def kernel(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
        if out is None and whole is not None:
            return wholes.compute(whole, *inputs)
        return function(*inputs, out=out)

    return kernel


def _comparison(operation: str) -> _Kernel:
    function = wholes.UFUNCS[operation]

    def kernel(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
        if any(_is_checked(one) for one in inputs):
            out[...] = wholes.compare(operation, *inputs)
            return out
        return function(*inputs, out=out)

    return kernel


def _divide(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    """A quotient; NaN where the divisor is 0."""
    poles.met = False
    np.divide(inputs[0], inputs[1], out=out)
    if poles.met:
        np.copyto(out, np.nan, where=np.equal(inputs[1], 0))
    return out


def _divide_infinite(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    """A quotient of what may be infinite: inf / 0 raises no flag."""
    np.divide(inputs[0], inputs[1], out=out)
    np.copyto(out, np.nan, where=np.equal(inputs[1], 0))
    return out


def _logarithm(function: np.ufunc) -> _Kernel:
    def kernel(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
        function(inputs[0], out=out)
        np.copyto(out, np.nan, where=np.equal(inputs[0], 0))
        return out

    return kernel


def _power(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    """A power; 0 to a negative one is a division by zero."""
    base, exponent = inputs
    np.power(base, exponent, out=out)
    # 1 ** NaN and NaN ** 0 are 1 to C.
    invalid = np.isnan(base) | np.isnan(exponent) | (np.equal(base, 0) & np.less(exponent, 0))
    np.copyto(out, np.nan, where=invalid)
    return out


def _rint(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    """floor(x + 0.5)."""
    np.add(inputs[0], inputs[0].dtype.type(0.5), out=out)
    return np.floor(out, out=out)


def _where(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    if out is None:
        return wholes.compute("where", *inputs)
    condition, chosen, other = inputs
    np.copyto(out, other)
    np.copyto(out, chosen, where=condition)
    return out


def _cast(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    np.copyto(out, inputs[0], casting="unsafe")
    return out


def _truth(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    return np.not_equal(inputs[0], 0, out=out)


def _nodata(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    """Where a band has its nodata value."""
    pixels, value = inputs
    if value is None:
        out[...] = False
        return out
    return np.equal(pixels, value, out=out)


def _replaced(value: float) -> _Kernel:
    def kernel(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
        np.copyto(out, inputs[0], casting="unsafe")
        np.copyto(out, out.dtype.type(value), where=inputs[1])
        return out

    return kernel


def _flip(step: Step, out: Any, inputs: list[Any], poles: _Poles) -> Any:
    """All bits of an unsigned type turned."""
    return wholes.compute("-", inputs[1], inputs[0]) if out is None else np.subtract(inputs[1], inputs[0], out=out)


_KERNELS: Mapping[str, _Kernel] = {
    **{name: _ufunc(folding.UFUNCS[name]) for name in folding.UFUNCS if name not in ("log", "log2", "log10", "^")},
    **{name: _logarithm(folding.UFUNCS[name]) for name in ("log", "log2", "log10")},
    **{name: _ufunc(wholes.UFUNCS[name], name) for name in ("+", "-", "*", "neg", "abs", "min", "max", "&", "|", "~")},
    **{name: _comparison(name) for name in ("<", "<=", ">", ">=", "==", "!=")},
    "sign": _ufunc(np.sign, "sign"),
    "/": _ufunc(np.divide),
    "/0": _divide,
    "inf/0": _divide_infinite,
    "^": _power,
    "rint": _rint,
    "where": _where,
    "and": _ufunc(np.logical_and),
    "or": _ufunc(np.logical_or),
    "not": _ufunc(np.logical_not),
    "truth": _truth,
    "cast": _cast,
    "nodata": _nodata,
    "isnan": _ufunc(np.isnan),
    "blank": _replaced(float("nan")),
    "zeroed": _replaced(0),
    "flip": _flip,
}
