"""Band arithmetic from text: names to bands, the type and nodata of the result, and the layer that computes it.

Strategy. Everything is decided before any pixel: the text is checked, every name found, the type of every step chosen. Where all rasters are
plain pieces of sources the result is one source layer again (`daskraster.lazy.expression_sources`), so that slices stay sources and a later
`apply` reads its halo through the expression; else it is one Blockwise step over the rasters' blocks. Both run the same calculation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from daskraster.blocks.evaluation import Calculation
from daskraster.blocks.expressions import FUNCTIONS, Expression, refusal
from daskraster.blocks.lowering import Program, lowered
from daskraster.blocks.masking import holds
from daskraster.blocks.parsing import parse
from daskraster.blocks.ranges import Variable, result_type, rule_of
from daskraster.errors import DaskRasterWarning, OptionError, RasterArrayError
from daskraster.lazy.arrays import Raster, as_raster, band_attrs, encoded_nodata, like, metadata_of
from daskraster.lazy.expression_sources import expression_view
from daskraster.lazy.neighbourhood import check_same_grid
from daskraster.lazy.sources import source_array
from daskraster.metadata import BandMetadata, Number, RasterMetadata
from daskraster.options import INHERIT, Inherit
from daskraster.pixeltypes import check_nodata, pixel_type
from daskraster.timing import stage


def calc(
    expression: str,
    *rasters: xr.DataArray,
    dtype: Any = None,
    nodata: Number | Inherit | None = INHERIT,
    **named: Any,
) -> xr.DataArray:
    """Band arithmetic written as text; lazy, one pass over the blocks however long the text.

    Parameters
    ----------
    expression
        Operators ``+ - * / ^ **``, ``< <= > >= == !=``, ``&& || !``, ``& | ~``, ``c ? a : b``; functions sin cos tan asin acos atan atan2
        sinh cosh tanh log (ln) log2 log10 exp sqrt sign rint abs where, and min max sum avg of any number of values; ``pi`` and ``e``. NumPy's arcsin,
        arccos, arctan, arctan2, minimum and maximum too. ``^`` is a power and ``-b1^2`` is ``-(b1^2)``; ``log`` is natural; ``rint(x)`` is ``floor(x + 0.5)``.
        `daskraster.blocks.expressions` has the table of precedence.
    *rasters
        Their bands, counted through, are ``b1``, ``b2``, ...: of one image its bands, of several one-band rasters the rasters. A name
        that stands for one band gives one band: ``calc("b1+1", image)`` is band 1 of the image plus one, whatever bands it has more.
    dtype
        Of the result. None: uint8 for comparisons and logic; the widest integer type of the bands for ``+ - *``, signs, abs, min, max,
        sum, bits, and choices between whole numbers; else float32, or float64 where a band is float64 or an integer of 32 or 64 bits.
    nodata
        Nodata value of the result, which invalid pixels get. Left out: that of the first band used that has one. Where the result's dtype cannot hold that
        value, or the value may be a result (0 in floats made of integers or of masked pixels, 0 and 1 in comparisons), another takes its place: NaN in
        floats, the largest value of an unsigned type, the smallest of a signed one. Floats that may become invalid otherwise, as by a division by
        zero, have NaN. None: no nodata value.
    **named
        Rasters by name, taken whole: the expression is applied band by band, so ``calc("image+1", image=image)`` has all bands; rasters of
        one band go with any number of bands. ``image_b2`` is band 2 of a raster named image. Numbers are constants.

    Returns
    -------
    xarray.DataArray
        Lazy, ``(band, y, x)`` on the grid of the first raster, in its blocks. (Where a raster is no plain file, in the blocks of the first such.) Of
        the metadata it has the grid and nodata, nothing else.

    Whole numbers are computed exactly while they fit 64 bits, clamped beyond, never wrapped; the result is rounded half away from zero and
    clamped to its type. A pixel that is nodata or NaN in a band used is invalid in the result; so are quotients by 0, logarithms of 0, roots
    of negative numbers. ``c ? a : b`` is invalid where c is, and where the value chosen is.

    Raises
    ------
    ExpressionError
        The text cannot be understood: an unknown name or sign, chained comparisons, a wrong number of arguments, more than 10,000
        characters, more than 100 levels, a constant part that is not finite. The message points at the place. Or band counts that do not go together.
    GridMismatchError
        The rasters lie on different grids.
    OptionError
        ``dtype`` or ``nodata`` is not possible, or a name is.
    RasterArrayError
        An argument is no raster.

    Warns
    -----
    DaskRasterWarning
        An integer result has no nodata value, and pixels may be invalid: they become 0.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> image = xr.DataArray(np.array([[[1, 2, 250]], [[3, 2, 255]]], "uint8"), dims=("band", "y", "x"))
    >>> calc("b1 + 10", image).values.tolist()
    [[[11, 12, 255]]]
    >>> calc("image + 10", image=image).values.tolist()
    [[[11, 12, 255]], [[13, 12, 255]]]
    >>> calc("(nir - red) / (nir + red)", nir=image[1], red=image[0]).values.tolist()
    [[[0.5, 0.0, 0.009900989942252636]]]
    """
    bands = named_bands(rasters, named)
    checked = checked_expression(expression, {name: one.count for name, one in bands.bands.items()}, bands.numbers)
    check_same_grid(bands.rasters)
    calculation, metadata, masked = planned(checked, bands, dtype, nodata)
    data = _computed(calculation, bands.rasters, checked.text)
    attrs, encoding = band_attrs(metadata, masked=masked)
    return like(data, bands.rasters[0], attrs, encoding)


@dataclass(frozen=True, slots=True)
class NamedBands:
    """What a name of an expression stands for."""

    raster: int
    first: int
    """Its first band, from 0."""
    count: int
    """How many bands: 1, or all of a raster."""

    def band(self, number: int) -> tuple[int, int]:
        """Raster and band that make band ``number`` of the result."""
        return self.raster, self.first + (number if self.count > 1 else 0)


@dataclass(frozen=True, slots=True)
class GivenBands:
    """Rasters in the order given, and what each name stands for."""

    rasters: tuple[Raster, ...]
    bands: Mapping[str, NamedBands]
    numbers: Mapping[str, Number]


def checked_expression(text: str, names: Mapping[str, int], numbers: Mapping[str, Number] | None = None) -> Expression:
    """The part of `calc` that looks at the text only.

    Parameters
    ----------
    text
        The expression.
    names
        Name -> how many bands it stands for.
    numbers
        Name -> constant.

    Raises
    ------
    ExpressionError
        As `calc`.
    """
    expression = parse(text, names.keys(), numbers, known=_listed(names, numbers or {}))
    several = {name: names[name] for name in expression.variables if names[name] > 1}
    if len(set(several.values())) > 1:
        (first, count), *others = several.items()
        other, other_count = next(item for item in others if item[1] != count)
        position = next(node.position for node in expression.nodes if node.value == other)
        raise refusal(
            text,
            position,
            f"{first} has {count} bands and {other} has {other_count}; band counts must be equal or 1 (one band of a raster is {other}_b1)",
        )
    return expression


def _listed(names: Mapping[str, int], numbers: Mapping[str, Number]) -> str:
    """The names there are, in words; runs of numbered bands as one."""
    shown: list[str] = []
    for name in names:
        stem, _, number = name.rpartition("b")
        numbered = number.isdecimal() and (not stem or stem.endswith("_")) and names[name] == 1
        if numbered and shown and int(number) > 1:
            begin = f"{stem}b1"
            if shown[-1] == begin or shown[-1].startswith(f"{begin} to "):
                shown[-1] = f"{begin} to {name}"
                continue
        shown.append(name)
    return ", ".join([*shown, *numbers])


def named_bands(rasters: Sequence[xr.DataArray], named: Mapping[str, Any]) -> GivenBands:
    """Rasters and what each name stands for.

    Raises
    ------
    OptionError, RasterArrayError
        No raster, a name that cannot be, or something that is none.
    """
    seen: list[Raster] = []
    bands: dict[str, NamedBands] = {}
    for number, array in enumerate(rasters, 1):
        seen.append(_raster(array, f"raster {number} of calc"))
        for band in range(seen[-1].data.shape[0]):
            bands[f"b{len(bands) + 1}"] = NamedBands(len(seen) - 1, band, 1)
    numbers: dict[str, Number] = {}
    own: dict[str, NamedBands] = {}
    for name, value in named.items():
        _check_name(name, bands)
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            numbers[name] = value.item() if isinstance(value, np.number) else value
            continue
        seen.append(_raster(value, name))
        own[name] = NamedBands(len(seen) - 1, 0, seen[-1].data.shape[0])
    for name, one in own.items():
        bands[name] = one
        for band in range(one.count):
            if f"{name}_b{band + 1}" not in named:
                bands[f"{name}_b{band + 1}"] = NamedBands(one.raster, band, 1)
    if not seen:
        raise OptionError("calc needs at least one raster, as in calc('b1+1', image) or calc('nir-red', nir=a, red=b)")
    return GivenBands(tuple(seen), bands, numbers)


def _check_name(name: str, bands: Mapping[str, Any]) -> None:
    if name in bands:
        raise OptionError(
            f"{name}= is taken: the rasters given without a name have the bands {_listed(dict.fromkeys(bands, 1), {})}"
        )
    if not name.isidentifier() or name in FUNCTIONS:
        why = "a function of expressions" if name in FUNCTIONS else "no name that an expression can have"
        raise OptionError(f"{name!r} is {why}; give the raster another name")


def _raster(array: Any, name: str) -> Raster:
    raster = as_raster(array, name)
    dtype = raster.data.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise RasterArrayError(
            f"{raster.name} has dtype {dtype}; calc works on integers, floats of up to 64 bits, and bool"
        )
    return raster


def planned(
    expression: Expression, bands: GivenBands, dtype: Any, nodata: Number | Inherit | None
) -> tuple[Calculation, RasterMetadata, bool]:
    """The calculation, what the result says of itself, and whether its nodata are NaN that stand for a number."""
    used = [bands.bands[name] for name in expression.variables]
    count = max((one.count for one in used), default=1)
    inputs = tuple(tuple(one.band(number) for one in used) for number in range(count))
    values = tuple(tuple(_pixel_nodata(bands.rasters[raster], band) for raster, band in row) for row in inputs)
    variables = {
        name: Variable(
            name=name,
            dtype=(kind := bands.rasters[one.raster].data.dtype.newbyteorder("=")),
            has_nodata=any(row[place] is not None and holds(kind, _known(row[place])) for row in values),
        )
        for place, (name, one) in enumerate(zip(expression.variables, used, strict=True))
    }
    due = pixel_type(dtype) if dtype is not None else result_type(expression, variables)
    program = lowered(expression, variables, due)
    comparison = rule_of(expression, variables) == "b"
    labels, masked = _labels(program, bands, inputs, nodata, comparison=comparison)
    fills = tuple(_fill(label, due, masked=masked) for label in labels)
    possible = program.invalid_possible if nodata is None else program.gaps_possible
    if due.kind != "f" and possible and None in labels:
        warnings.warn(
            f"calc({expression.text[:60]!r}) to {due} has no nodata: pixels without a value, as of a division by zero, become 0; "
            "give nodata=",
            DaskRasterWarning,
            stacklevel=3,
        )
    calculation = Calculation(program=program, bands=inputs, nodata=values, fills=fills)
    first = bands.rasters[0]
    tags = {key: text for key, text in metadata_of(first).tags.items() if key == "AREA_OR_POINT"}
    metadata = RasterMetadata(
        grid=first.grid,
        dtype=due,
        bands=[BandMetadata(nodata=label) for label in labels],
        tags=tags,
        has_transform=first.has_transform,
    )
    return calculation, metadata, masked


def _pixel_nodata(raster: Raster, band: int) -> Number | None:
    """The value of invalid pixels; truth values have none, whatever attrs they kept from what was compared."""
    return None if raster.data.dtype.kind == "b" else raster.nodata[band]


def _known(value: Number | None) -> Number:
    return math.nan if value is None else value


def _fill(label: Number | None, dtype: np.dtype[Any], *, masked: bool) -> Number:
    """What invalid pixels become."""
    if dtype.kind == "f":
        return math.nan if label is None or masked else label
    return 0 if label is None else label


def _labels(
    program: Program,
    bands: GivenBands,
    inputs: Sequence[Sequence[tuple[int, int]]],
    nodata: Number | Inherit | None,
    *,
    comparison: bool,
) -> tuple[tuple[Number | None, ...], bool]:
    """The nodata value of each band of the result, and whether pixels have NaN in its place.

    Raises
    ------
    OptionError
        The type of the result cannot hold the value asked for.
    """
    dtype = program.dtype
    if not isinstance(nodata, Inherit):
        if isinstance(nodata, bool) or not (nodata is None or isinstance(nodata, int | float | np.number)):
            raise OptionError(f"nodata={nodata!r} must be a number, or None for none")
        value = nodata.item() if isinstance(nodata, np.number) else nodata
        return (check_nodata(value, dtype),) * len(inputs), False
    labels: list[Number | None] = []
    masked = False
    for row in inputs:
        found = [(bands.rasters[raster], band) for raster, band in row]
        label: Number | None = None
        for raster, band in found:
            encoded = encoded_nodata(raster.array)
            own = _pixel_nodata(raster, band) if encoded is None else encoded
            if own is not None:
                # Where NaN stand for the 0 of a file, a 0 in the result is a value, as in floats made of integers.
                counted = raster.data.dtype.kind != "f" or encoded is not None
                label = _fitting(own, dtype, zero_is_value=counted, comparison=comparison)
                masked = masked or (encoded is not None and dtype.kind == "f" and not math.isnan(label))
                break
        if label is None and dtype.kind == "f" and program.gaps_possible:
            label = math.nan
        labels.append(label)
    return tuple(labels), masked


def _fitting(value: Number, dtype: np.dtype[Any], *, zero_is_value: bool, comparison: bool) -> Number:
    """A nodata value that the type holds and that no result of these is bound to have."""
    if dtype.kind == "f":
        taken = value == 0 and zero_is_value
        fits = not taken and (math.isnan(value) or abs(value) <= float(np.finfo(dtype).max))
        return check_nodata(value, dtype) if fits else math.nan  # type: ignore[return-value]
    limits = np.iinfo(dtype)
    if holds(dtype, value) and not (comparison and value in (0, 1)):
        return int(value)
    return int(limits.min if dtype.kind == "i" else limits.max)


@dataclass(frozen=True, slots=True)
class EvaluateBlock:
    """A step of the graph: blocks ``(band, y, x)`` of the rasters -> the result's."""

    calculation: Calculation
    text: str = ""
    """The expression."""

    def __call__(self, *blocks: NDArray[Any]) -> NDArray[Any]:
        wanted = range(len(self.calculation.bands))
        planes = {
            (raster, band): blocks[raster][band]
            for raster, bands in self.calculation.needed(wanted).items()
            for band in bands
        }
        with stage("function"):
            return self.calculation.compute(planes, wanted, blocks[0].shape[1:])


def _computed(calculation: Calculation, rasters: Sequence[Raster], text: str) -> da.Array:
    """The pixels of the result: a source layer, or one step over the rasters' blocks."""
    views = [raster.view for raster in rasters if raster.view is not None]
    blocks = [raster for raster in rasters if raster.view is None] or rasters
    chunks_yx = (blocks[0].data.chunks[1], blocks[0].data.chunks[2])
    if len(views) == len(rasters):
        return source_array(expression_view(calculation, views, text), chunks_yx)
    arrays = [
        source_array(raster.view, chunks_yx) if raster.view is not None else raster.data.rechunk((-1, *chunks_yx))
        for raster in rasters
    ]
    return da.map_blocks(
        EvaluateBlock(calculation, text),
        *arrays,
        chunks=((len(calculation.bands),), *chunks_yx),
        dtype=calculation.program.dtype,
        meta=np.empty((0, 0, 0), dtype=calculation.program.dtype),
        name=f"calc-{tokenize(repr(calculation), [array.name for array in arrays])}",
    )
