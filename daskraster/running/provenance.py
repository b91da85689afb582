"""Where the pixels of a file come from, as metadata items in it. All of it is known before the run, so it is part of the header.

::

    PROVENANCE_SOFTWARE    daskraster 0.1.0, GDAL 3.9.3, Python 3.13.0
    PROVENANCE_DATE        2024-05-31T12:00:00Z
    PROVENANCE_FUNCTIONS   [{"function": "terrain:slope", "overlap": [1, 1]}, {"expression": "b1*2"}]
    PROVENANCE_INPUTS      [{"name": "dem.tif", "nbytes": 5168, "modified": "2024-05-30T08:15:00Z"}]
    PROVENANCE_OPTIONS     {"compress": "zstd"}

Names of files come without their folders, which may tell more than the user wants to give away with the file. Of arguments and of what lies behind
a URL nothing but the name is told.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask.array as da
from dask.blockwise import Blockwise

from daskraster.formats.versions import library_versions
from daskraster.lazy.calculating import EvaluateBlock
from daskraster.lazy.expression_sources import ExpressionSource
from daskraster.lazy.functions import FunctionStep, function_name
from daskraster.lazy.sources import ReadBlock, reads_in
from daskraster.metadata import PROVENANCE_PREFIX
from daskraster.options import WriteOptions
from daskraster.running.facts import iso_now, plain
from daskraster.running.fingerprint import in_order, paths_of

DATE = f"{PROVENANCE_PREFIX}DATE"
NAMED_INPUTS = 100  # of more the number is told: a mosaic of 10,000 would fill the header
# How a run goes, and what stands elsewhere in the file anyway.
_NOT_TOLD = (
    "progress",
    "provenance",
    "resume",
    "keep_partial",
    "retries",
    "tags",
    "colormap",
    "categories",
    "attribute_table",
)


def provenance_tags(data: da.Array, options: WriteOptions) -> dict[str, str]:
    """The items of a file whose pixels ``data`` will give; computes nothing, asks the file system for sizes and times.

    Parameters
    ----------
    data
        ``(band, y, x)``, lazy.
    options
        Those that differ from the defaults are told, without what describes bands and classes.
    """
    versions = library_versions()
    software = ", ".join(f"{name} {versions[name]}" for name in ("daskraster", "GDAL", "Python") if name in versions)
    steps, paths = _found(data)
    inputs: list[dict[str, Any]] = [_input(path) for path in paths[:NAMED_INPUTS]]
    if len(paths) > NAMED_INPUTS:
        inputs.append({"more": len(paths) - NAMED_INPUTS})
    told = {
        "SOFTWARE": software,
        "DATE": iso_now(),
        "FUNCTIONS": json.dumps(steps),
        "INPUTS": json.dumps(inputs),
        "OPTIONS": json.dumps(_options(options)),
    }
    return {f"{PROVENANCE_PREFIX}{name}": text for name, text in told.items()}


def without_date(tags: Mapping[str, str]) -> dict[str, str]:
    """Items that are the same for the same run on another day."""
    return {name: text for name, text in tags.items() if name != DATE}


def _options(options: WriteOptions) -> dict[str, Any]:
    default = WriteOptions()
    return {
        field.name: plain(value)
        for field in dataclasses.fields(options)
        if field.name not in _NOT_TOLD
        and repr(value := getattr(options, field.name)) != repr(getattr(default, field.name))
    }


def _found(data: da.Array) -> tuple[list[dict[str, Any]], list[str]]:
    """The functions and expressions on the way to an array, in the order of the graph, and the files it comes from."""
    steps: list[dict[str, Any]] = []
    paths: dict[str, None] = {}
    for _, layer in in_order(data):
        if not isinstance(layer, Blockwise):
            continue
        held: list[Any] = reads_in(layer)
        held += [value for value, index in layer.indices if index is None and not isinstance(value, ReadBlock)]
        held += [layer.task.func, *_inner(layer.task.args)]
        for value in held:
            if isinstance(value, ReadBlock):
                steps += _expressions(value.view.source)
                paths |= dict.fromkeys(paths_of(value.view.source))
            elif isinstance(value, FunctionStep):
                steps.append({"function": qualified_name(value.func), "overlap": list(value.windows.halo_yx)})
            elif isinstance(value, EvaluateBlock):
                steps.append({"expression": value.text})
    return _once(steps), list(paths)


def _inner(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _inner(value)
        elif dataclasses.is_dataclass(value):
            yield value


def _once(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A function on two inputs, or a source that is read twice, stands once."""
    return [step for number, step in enumerate(steps) if step not in steps[:number]]


def _expressions(source: Any) -> list[dict[str, Any]]:
    """Expressions in a source, the innermost first."""
    if not isinstance(source, ExpressionSource):
        return []
    below = [step for view in source.inputs for step in _expressions(view.source)]
    return [*below, {"expression": source.text}]


def qualified_name(func: Callable[..., Any]) -> str:
    """``module:qualname`` of a function, or of the type of an object that is called; what only passes arguments on is looked through."""
    while True:
        inner = func.func if isinstance(func, functools.partial) else getattr(func, "func", None)
        if not callable(inner):
            break
        func = inner
    named = func if hasattr(func, "__qualname__") else type(func)
    name = named.__qualname__
    if named is not func and hasattr(func, "__name__"):
        name = f"{name}({function_name(func)})"
    return f"{named.__module__}:{name}"


def _input(path: str) -> dict[str, Any]:
    local = Path(path)
    try:
        status = local.stat()
    except OSError:  # a URL or a name of GDAL's: without user, password and query
        return {"name": path.partition("?")[0].rstrip("/").rpartition("/")[2]}
    modified = datetime.fromtimestamp(int(status.st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"name": local.name, "nbytes": status.st_size, "modified": modified}
