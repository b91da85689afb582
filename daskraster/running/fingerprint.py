"""What makes two runs the same run: inputs, functions, options, grid, blocks, each in words that can be compared.

A run that is gone on with must do what the killed one did. So its plan is written down as a table of short texts, name -> value; where two
tables differ, the names say what. What is looked at of a graph: its sources (path, size, mtime of each file; ETag of a remote one), and
every step: the function's bytecode, constants, defaults and closure with those of the functions it calls in its own module, and all other
arguments by content. Comments and line numbers do not count, and what a function reads from elsewhere is not seen: a user may vouch with ``name=``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask._task_spec import Alias, DataNode, GraphNode, Task, TaskRef
from dask.base import tokenize
from dask.blockwise import Blockwise
from dask.tokenize import TokenizationError
from dask.utils import key_split

from daskraster.lazy.functions import FunctionStep, function_name
from daskraster.lazy.sources import ReadBlock, reads_in
from daskraster.options import WriteOptions

type Plan = dict[str, str]

# Options that change how a run goes, not what comes out.
NOT_OF_THE_FILE = ("progress", "resume", "keep_partial", "retries", "name")
# Tasks of one layer that are looked at: 10,000 take 0.1 s. Of more, evenly spread ones and their number.
MAX_TASKS = 10_000
TIMEOUT_SECONDS = 30.0


def plan_of(data: da.Array, options: WriteOptions, facts: Mapping[str, Any]) -> Plan:
    """The plan of one output.

    Parameters
    ----------
    data
        What will be written, lazy; nothing is computed.
    options
        As the user gave them. With ``name`` the functions are not looked at, and remote files need not tell their state.
    facts
        Further names and values: grid, dtype, blocks.
    """
    plan = {f"option {field.name}": _in_short(getattr(options, field.name)) for field in _fields_of_the_file(options)}
    plan |= {name: str(value) for name, value in facts.items()}
    looked = _Looked(vouched=options.name is not None)
    steps = [looked.layer(name, layer) for name, layer in in_order(data)]
    plan |= looked.inputs
    if options.name is not None:
        plan["name"] = options.name
        return plan
    plan |= looked.functions
    plan["steps"] = _hash(steps)
    return plan


def inputs_of(plan: Mapping[str, str]) -> dict[str, str]:
    """Path of each input of a plan -> its state in words."""
    return {name.removeprefix("input "): text for name, text in plan.items() if name.startswith("input ")}


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between two plans, in words."""
    names = [*then, *(name for name in now if name not in then)]
    found = [
        f"{name}: {then.get(name, 'none')} then, {now.get(name, 'none')} now"
        for name in names
        if then.get(name) != now.get(name)
    ]
    # The order of the steps says little where a function or an input has told already.
    telling = [text for text in found if not text.startswith("steps: ")]
    return telling or found


def _fields_of_the_file(options: WriteOptions) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(options) if field.name not in NOT_OF_THE_FILE]


def _in_short(value: Any) -> str:
    """A short text of an option: the value itself where it is short."""
    text = repr(value)
    return text if len(text) <= 60 and not isinstance(value, np.ndarray) else f"digest {_content(value)}"


def in_order(data: da.Array) -> list[tuple[str, Any]]:
    """The layers that an array depends on, each after those it depends on."""
    layers, dependencies = data.dask.layers, data.dask.dependencies
    done: dict[str, Any] = {}
    waiting = [data.name]
    while waiting:
        name = waiting[-1]
        missing = [other for other in sorted(dependencies.get(name, ()), key=str) if other not in done]
        if name in done or not missing:
            done.setdefault(name, layers[name])
            waiting.pop()
        else:
            waiting += missing
    return list(done.items())


class _Looked:
    """What was seen on the way through a graph. Layers are numbered, since their names differ from run to run."""

    def __init__(self, *, vouched: bool) -> None:
        self.inputs: Plan = {}
        self.functions: Plan = {}
        self._vouched = vouched
        self._numbers: dict[str, int] = {}

    def layer(self, name: str, layer: Any) -> str:
        """A text that is the same for the same step."""
        self._numbers[name] = len(self._numbers)
        if isinstance(layer, Blockwise):
            indices = [
                (self._reference(value), index) if isinstance(value, str) else (self._value(value), index)
                for value, index in layer.indices
            ]
            # What a source made of others reads is no index of the layer, it is cut to measure for each block.
            reads = [self._value(read) for read in reads_in(layer)]
            return _hash(["blockwise", layer.output_indices, self._value(layer.task), indices, reads])
        tasks = dict(layer)
        keys = sorted(tasks, key=str)
        step = -(-len(keys) // MAX_TASKS) or 1
        return _hash([key_split(name), len(keys), *(self._task(key, tasks[key]) for key in keys[::step])])

    def _task(self, key: Any, task: Any) -> str:
        return f"{self._reference(key)}: {self._value(task)}"

    def _reference(self, key: Any) -> str:
        """A key with the number of its layer for the layer's name."""
        name, *index = key if isinstance(key, tuple) else (key,)
        return f"{self._numbers.get(name, key_split(name))} {index}"

    def _value(self, value: Any) -> str:
        if isinstance(value, ReadBlock):
            self._source(value.view.source, value.view.window, value.view.bands)
            return f"read {value.view.bands} {value.view.window} {value.windows}"
        if isinstance(value, FunctionStep):
            return self._step(value)
        if isinstance(value, GraphNode | TaskRef):
            return self._node(value)
        if isinstance(value, list | tuple):
            return _hash([type(value).__name__, *map(self._value, value)])
        if isinstance(value, dict):
            return _hash([f"{self._value(key)}: {self._value(part)}" for key, part in value.items()])
        return self._function(value) if callable(value) else _content(value)

    def _node(self, node: Any) -> str:
        """A node of a graph."""
        if isinstance(node, TaskRef):
            return self._reference(node.key)
        if isinstance(node, Alias):
            return f"alias {self._reference(node.target)}"
        if isinstance(node, DataNode):
            return f"data {self._value(node.value)}"
        if isinstance(node, Task):
            parts = [self._function(node.func), *map(self._value, node.args)]
            return _hash([*parts, *(f"{name}={self._value(part)}" for name, part in node.kwargs.items())])
        return _content(node)

    def _step(self, step: FunctionStep) -> str:
        code = function_digest(step.func)
        name = f"function {function_name(step.func)}"
        if self.functions.get(name, code) != code:
            name = f"{name} ({len(self.functions) + 1})"
        self.functions[name] = code
        transform, crs, nodata = step.place or (None, None, None)
        place = [transform, None if crs is None else crs.to_wkt(), nodata]
        return _hash(
            [
                step.windows,
                step.boundary,
                step.fills,
                step.outputs,
                step.several,
                place,
                *_parts(step.kwargs.items(), set()),
            ]
        )

    def _function(self, func: Callable[..., Any]) -> str:
        if isinstance(func, ReadBlock | FunctionStep):
            return self._value(func)
        return function_digest(func)

    def _source(self, source: Any, window: Any, bands: Any) -> None:
        for path in paths_of(source):
            self.inputs[f"input {path}"] = _state_of(path, vouched=self._vouched)
        self.inputs[f"pixels of {source.name}"] = f"bands {list(bands)} in {window}, {_described(source)}"


def paths_of(source: Any) -> list[str]:
    """The files that a source, or the sources it is made of, come from."""
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        fields = {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
        if isinstance(fields.get("path"), str):
            return list(dict.fromkeys([*fields.get("files", ()), *(() if fields.get("files") else (fields["path"],))]))
        return list(dict.fromkeys(path for value in fields.values() for path in paths_of(value)))
    if isinstance(source, tuple | list):
        return list(dict.fromkeys(path for one in source for path in paths_of(one)))
    return []


def _described(source: Any) -> str:
    """Everything of a source but its token and files, which tell of inodes and times."""
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        fields = [field.name for field in dataclasses.fields(source) if field.name not in ("token", "files", "driver")]
        return f"digest {_hash([f'{name}={_described(getattr(source, name))}' for name in fields])}"
    if isinstance(source, tuple | list):
        return _hash([_described(one) for one in source])
    return _content(source)


def _state_of(path: str, *, vouched: bool) -> str:
    """Size and time of a file, ETag of what lies behind a URL."""
    local = Path(path)
    if local.exists():
        status = local.stat()
        return f"{status.st_size} bytes, modified at {status.st_mtime_ns / 1e9:.9f}"
    url = path.removeprefix("/vsicurl/")
    if url.startswith(("http://", "https://")):
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                told = {name: answer.headers.get(name) for name in ("ETag", "Last-Modified", "Content-Length")}
            if told["ETag"] or told["Last-Modified"]:
                return ", ".join(f"{name} {value}" for name, value in told.items() if value)
        except (urllib.error.URLError, OSError, ValueError):
            pass
    # Never the same twice: a file that does not tell its state may have changed.
    return "not looked at" if vouched else f"unknown ({uuid.uuid4().hex[:8]}); name= says that it is the same"


def function_digest(func: Callable[..., Any]) -> str:
    """A text that changes with what a function does, as far as that can be seen; see this module."""
    return _hash(_function_parts(func, set()))


def _function_parts(func: Any, seen: set[int]) -> list[str]:
    if id(func) in seen:
        return ["itself"]
    seen.add(id(func))
    if isinstance(func, functools.partial):
        return ["partial", *_function_parts(func.func, seen), *_parts([*func.args, *func.keywords.items()], seen)]
    if isinstance(func, types.MethodType):
        return [*_function_parts(func.__func__, seen), *_parts([func.__self__], seen)]
    if isinstance(func, types.FunctionType):
        cells = [cell.cell_contents for cell in func.__closure__ or () if _is_filled(cell)]
        called = [func.__globals__[name] for name in _names(func.__code__) if name in func.__globals__]
        near = [value for value in called if _is_near(value, func.__module__)]
        defaults = [*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).items()]
        return [*_code(func.__code__), *_parts([*defaults, *cells, *near], seen)]
    if isinstance(func, type | types.BuiltinFunctionType | np.ufunc) or not callable(func):
        return [f"{getattr(func, '__module__', '')}.{getattr(func, '__qualname__', getattr(func, '__name__', func))}"]
    call = type(func).__call__
    code = _function_parts(call, seen) if isinstance(call, types.FunctionType) else []
    return [type(func).__module__, type(func).__qualname__, *code, _content(func)]


def _parts(values: Iterable[Any], seen: set[int]) -> list[str]:
    found: list[str] = []
    for value in values:
        if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
            found += _function_parts(value, seen)
        elif isinstance(value, tuple | list):
            found += [type(value).__name__, *_parts(value, seen)]
        else:
            found.append(_content(value))
    return found


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where the variable has no value yet
    except ValueError:
        return False
    return True


def _is_near(value: Any, module: str) -> bool:
    """Whether a global belongs to what a function does: a function of its own module, or a plain constant."""
    if isinstance(value, types.FunctionType):
        return value.__module__ == module
    return isinstance(value, bool | int | float | complex | str | bytes | tuple | list | dict | np.ndarray | np.generic)


def _names(code: types.CodeType) -> list[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return sorted({*code.co_names, *(name for one in inner for name in _names(one))})


def _code(code: types.CodeType) -> list[str]:
    """Bytecode, names and constants; not where they stand in a file."""
    constants = [_constant(const) for const in code.co_consts]
    return [code.co_code.hex(), str(code.co_names), str(code.co_varnames), str(code.co_freevars), str(constants)]


def _constant(const: Any) -> Any:
    if isinstance(const, types.CodeType):
        return _code(const)
    # The order of a set of texts differs from process to process.
    return sorted(map(repr, const)) if isinstance(const, frozenset) else repr(const)


def _content(value: Any) -> str:
    """A token of a value's content; a new one each time where there is none."""
    try:
        return str(tokenize(value, ensure_deterministic=True))
    except (TokenizationError, TypeError, ValueError, AttributeError):
        return f"unknown {uuid.uuid4().hex}"


def digest(value: Any) -> str:
    """A short text of bytes, or of anything whose ``repr`` tells all."""
    content = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _hash(parts: Sequence[Any]) -> str:
    return digest(list(parts))
