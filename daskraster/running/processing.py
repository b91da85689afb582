"""Files to files in one call: open, apply, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, overload

import xarray as xr

from daskraster.errors import BlockResultError, OptionError
from daskraster.lazy import aligning
from daskraster.lazy.functions import function_name
from daskraster.lazy.neighbourhood import apply
from daskraster.lazy.opening import open_raster
from daskraster.metadata import Number
from daskraster.options import WriteKeywords
from daskraster.running.report import WriteReport
from daskraster.running.writing import write_rasters

type PathLike = str | os.PathLike[str]
type Files = PathLike | Sequence[PathLike] | Mapping[str, PathLike]
BLOCK_NAME = "block"


class ProcessKeywords(WriteKeywords, total=False):
    """Keywords of `process`; ``dtype`` is that of the function's result."""

    overlap: int | tuple[int, int]
    boundary: str | Number
    bands: Any
    with_block: bool
    kwargs: Mapping[str, Any] | None
    chunks: Any
    masked: bool
    align: bool | str | Sequence[str] | Mapping[str, str]
    extent: str | None
    like: Any
    output_options: Mapping[Any, WriteKeywords] | None


@overload
def process(
    func: Callable[..., Any], inputs: Files, outputs: PathLike, **arguments: Unpack[ProcessKeywords]
) -> WriteReport: ...
@overload
def process(
    func: Callable[..., Any],
    inputs: Files,
    outputs: Mapping[str, str] | Mapping[str, Path] | Mapping[str, PathLike],
    **arguments: Unpack[ProcessKeywords],
) -> dict[str, WriteReport]: ...
@overload
def process(
    func: Callable[..., Any],
    inputs: Files,
    outputs: list[str] | list[Path] | list[PathLike] | tuple[PathLike, ...],
    **arguments: Unpack[ProcessKeywords],
) -> list[WriteReport]: ...
def process(
    func: Callable[..., Any],
    inputs: Files,
    outputs: Files,
    *,
    overlap: int | tuple[int, int] = 0,
    boundary: str | Number = "none",
    dtype: Any = None,
    bands: Any = None,
    with_block: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    chunks: Any = "auto",
    masked: bool = False,
    align: bool | str | Sequence[str] | Mapping[str, str] = False,
    extent: str | None = None,
    like: Any = None,
    output_options: Mapping[Any, WriteKeywords] | None = None,
    **options: Any,
) -> WriteReport | list[WriteReport] | dict[str, WriteReport]:
    """Your function from files to files: opened lazily, computed block by block with a halo, written in one pass.

    Parameters
    ----------
    func
        As in `apply`: NumPy arrays ``(band, y, x)`` in, halo included, an array of the same height and width out. How it is called
        follows the inputs, what it returns follows the outputs::

            inputs                               func is called as               with with_block=True
            "in.tif"                             func(image)                     func(image, block)
            ["b4.tif", "b8.tif"]                 func(first, second)             func(first, second, block)
            {"red": "b4.tif", "nir": "b8.tif"}   func(red=.., nir=..)            func(red=.., nir=.., block=..)

            outputs                              func returns
            "out.tif"                            an array
            ["a.tif", "b.tif"]                   a tuple of arrays, in that order
            {"index": "a.tif", "mask": "b.tif"}  a dict of arrays by those names

    inputs
        A path, several, or a dict of name -> path. All on one grid, unless ``align`` is asked for.
    outputs
        A path, several, or a dict of name -> path; formats by their suffixes.
    overlap, boundary, with_block
        As in `apply`.
    dtype, bands
        Of what ``func`` returns, as in `apply`; one for all outputs, or for each one: a list, or a dict by name where ``outputs`` is
        one. (``dtype`` in ``output_options`` converts what comes back.)
    kwargs
        Further keyword arguments of ``func``: RIOS' ``otherargs``.
    chunks, masked
        As in `open_raster`, for every input.
    align
        Inputs on other grids are brought to one, as by `daskraster.align`: True by nearest, or the name of a resampling, or one for each
        input: a list, or a dict by name where ``inputs`` is one (those left out: nearest). False: they are refused.
    extent, like
        As in `daskraster.align`; only together with ``align``. Left out: ``"intersection"``, and the grid of the first input.
    output_options
        Write options of single outputs, by name (or by path, where outputs have no names).
    **options
        Write options of all outputs, as in `write_raster`.

    Returns
    -------
    WriteReport for one path, a list of them for several, a dict of them by name for a dict

    Raises
    ------
    OptionError
        Names that no function can take, options that are unknown or clash; before anything is computed.
    GridMismatchError
        The inputs lie on different grids and ``align`` was not asked for; or they have no pixel in common.
    RasterArrayError
        An input that is to be aligned has no CRS or transform.
    RasterNotFoundError, RasterFormatError
        An input that is missing or no raster.
    BlockResultError
        What the function returned does not fit the outputs: another number of arrays, other names, a wrong shape or dtype.
    RasterMemoryError, FunctionPicklingError, WorkerError
        As `write_raster`.
    RasterWriteError
        An output could not be written; none is published then.
    Exception
        Whatever the function raised, with a note that names the block.

    Examples
    --------
    >>> def index(red, nir):
    ...     return (nir.astype("float32") - red) / (nir + red)
    >>> report = process(index, {"red": "b4.tif", "nir": "b8.tif"}, "ndvi.tif")
    >>> report.shape, report.dtype
    ((1, 100, 100), 'float32')
    """
    if not callable(func):
        raise OptionError(f"the first argument of process must be the function, got {func!r}")
    sources = _Files.of(inputs, "inputs")
    targets = _Files.of(outputs, "outputs")
    _check_names(sources, with_block=with_block, kwargs=kwargs or {})
    resampling = _resampling(align, sources, extent, like)
    rasters = [open_raster(path, chunks=chunks, masked=masked) for path in sources.paths]
    if resampling is not None:
        aligned = aligning.align(*rasters, like=like, extent=extent or "intersection", resampling=resampling)
        rasters = list(aligned) if isinstance(aligned, tuple) else [aligned]
    results = apply(
        _called_by_name(func, sources, targets, with_block=with_block),
        *rasters,
        overlap=overlap,
        boundary=boundary,
        dtype=_by_output(dtype, targets, "dtype"),
        bands=_by_output(bands, targets, "bands"),
        outputs=len(targets.paths),
        with_block=with_block,
        kwargs=kwargs,
    )
    arrays: Sequence[xr.DataArray] = list(results) if isinstance(results, tuple) else [results]
    reports: Any = write_rasters(
        dict(zip(targets.paths, arrays, strict=True)),
        output_options=_options_by_path(output_options, targets),
        **options,
    )
    return targets.like_given(reports)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Paths as they were given: one, several, or by name."""

    paths: tuple[PathLike, ...]
    names: tuple[str, ...] | None
    single: bool

    @classmethod
    def of(cls, given: Any, what: str) -> _Files:
        """Paths from what a user gives.

        Raises
        ------
        OptionError
            There are none, one is no path, or two outputs are one file.
        """
        if isinstance(given, str | os.PathLike):
            return cls(paths=(given,), names=None, single=True)
        if isinstance(given, Mapping):
            names: tuple[str, ...] | None = tuple(given)
            paths = tuple(given.values())
        elif isinstance(given, list | tuple):
            names, paths = None, tuple(given)
        else:
            names, paths = None, (given,)
        wrong = [path for path in paths if not isinstance(path, str | os.PathLike)]
        if wrong or not paths:
            came = repr(wrong[0]) if wrong else "none"
            raise OptionError(f"{what}= must be a path, a list of paths, or a dict of name -> path; got {came}")
        if len(set(map(os.fspath, paths))) < len(paths) and what == "outputs":
            raise OptionError(f"two outputs go to one file: {', '.join(map(str, paths))}")
        return cls(paths=paths, names=names, single=False)

    def like_given(self, reports: list[WriteReport]) -> WriteReport | list[WriteReport] | dict[str, WriteReport]:
        """One report for one path, several in the shape the paths had."""
        if self.names is not None:
            return dict(zip(self.names, reports, strict=True))
        return reports[0] if self.single else reports


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A function whose arrays have names: positional arrays in, a tuple of arrays (one array, where one is due) out."""

    func: Callable[..., Any]
    inputs: tuple[str, ...] | None
    """Keyword of each array, in the order they come; None: they stay positional."""
    outputs: tuple[str, ...] | None
    """Key of each array in the dict that the function returns; None: it returns what `apply` takes."""
    with_block: bool
    alone: bool
    """Whether the outputs are a list of one, so that a tuple of one array may come."""

    @property
    def __name__(self) -> str:
        return function_name(self.func)

    def __call__(self, *arrays: Any, **keywords: Any) -> Any:
        """Call the function by name, take its results by name.

        Raises
        ------
        BlockResultError
            What came back is no dict of the outputs' names.
        """
        if self.inputs is not None:
            names = (*self.inputs, BLOCK_NAME) if self.with_block else self.inputs
            returned = self.func(**dict(zip(names, arrays, strict=True)), **keywords)
        else:
            returned = self.func(*arrays, **keywords)
        if self.outputs is None:
            one = self.alone and isinstance(returned, tuple | list) and len(returned) == 1
            return returned[0] if one else returned
        if not isinstance(returned, Mapping) or set(returned) != set(self.outputs):
            came = (
                f"a dict of {', '.join(map(str, returned))}"
                if isinstance(returned, Mapping)
                else type(returned).__name__
            )
            raise BlockResultError(
                f"{self.__name__} must return a dict of {', '.join(self.outputs)}, the names of outputs=; got {came}"
            )
        results = tuple(returned[name] for name in self.outputs)
        return results if len(results) > 1 else results[0]


def _called_by_name(
    func: Callable[..., Any], sources: _Files, targets: _Files, *, with_block: bool
) -> Callable[..., Any]:
    """The function as `apply` calls it: itself, where nothing has a name."""
    alone = not targets.single and len(targets.paths) == 1
    if sources.names is None and targets.names is None and not alone:
        return func
    return Named(func=func, inputs=sources.names, outputs=targets.names, with_block=with_block, alone=alone)


def _check_names(sources: _Files, *, with_block: bool, kwargs: Mapping[str, Any]) -> None:
    taken = {*kwargs, *([BLOCK_NAME] if with_block else [])}
    for name in sources.names or ():
        if not isinstance(name, str) or not name.isidentifier():
            raise OptionError(f"inputs= has the name {name!r}, which cannot be a keyword argument of the function")
        if name in taken:
            raise OptionError(
                f"inputs= has the name {name!r}, which is also an argument of kwargs= or the Block's name"
            )


def _resampling(align: Any, sources: _Files, extent: str | None, like: Any) -> list[str] | None:
    """The resampling of each input; None where they are not to be aligned. `daskraster.align` knows the names."""
    if align is False:
        if extent is not None or like is not None:
            raise OptionError(
                "extent= and like= say how inputs are aligned: give align=True, or a resampling, with them"
            )
        return None
    count = len(sources.paths)
    if align is True:
        return ["nearest"] * count
    if isinstance(align, str):
        return [align] * count
    if isinstance(align, Mapping):
        names = sources.names or ()
        if set(align) - set(names):
            raise OptionError(
                f"align={dict(align)!r} goes by the names of inputs=, which are {', '.join(names) or 'none'}"
            )
        return [align.get(name, "nearest") for name in names]
    if not isinstance(align, list | tuple) or len(align) != count:
        raise OptionError(f"align={align!r} must be True, the name of a resampling, or one for each of {count} inputs")
    return list(align)


def _by_output(value: Any, targets: _Files, what: str) -> Any:
    """``dtype`` or ``bands`` as `apply` takes it: by position."""
    if not isinstance(value, Mapping):
        return value
    names = targets.names or ()
    if set(value) - set(names):
        raise OptionError(
            f"{what}={dict(value)!r} goes by the names of outputs=, which are {', '.join(names) or 'none'}"
        )
    return [value.get(name) for name in names]


def _options_by_path(
    given: Mapping[Any, WriteKeywords] | None, targets: _Files
) -> dict[PathLike, WriteKeywords] | None:
    if given is None:
        return None
    paths = (
        dict(zip(targets.names, targets.paths, strict=True))
        if targets.names is not None
        else {path: path for path in targets.paths}
    )
    unknown = [str(name) for name in given if name not in paths]
    if unknown:
        raise OptionError(
            f"output_options= names {', '.join(unknown)}, which is no output; those are {', '.join(map(str, paths))}"
        )
    return {paths[name]: own for name, own in given.items()}
