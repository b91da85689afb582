"""A block's task made flat: what all blocks have in common once, and a fixed order of steps.

dask fuses reading, computing and writing into a task that holds a small graph, and finds the order of its steps anew each time it runs (0.1 ms). Around it
stand the things it works with: the sink, the function, the sizes of all chunks, the same for every block, and pickled and unpickled with each
(3.6 KB and 0.2 ms; twice that at 1000 x 1000 blocks). Here the order is found once, and what is the same for all becomes a `Recipe`: a callable that is pickled once, compressed,
travels with each task as bytes that nobody looks into, and is unpickled by the first task that runs in a process. A task is then ::

    Task(key, recipe, (0, 3, 7))            read, compute and write block (0, 3, 7)

A process that joins late, or takes the place of a dead one, needs nothing but its tasks. Steps, their arguments and their results are those of dask's
own task; whatever is no fused task stays as it is.
"""

from __future__ import annotations

import threading
import uuid
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from dask._task_spec import DataNode, GraphNode, Task, _execute_subgraph
from dask.order import order
from dask.tokenize import normalize_token

COMPRESSED_NBYTES = 1 << 20
"""Compressing takes 10 ms up to here, and chunk sizes all but vanish; what is larger is a model or a table, which takes seconds."""
KEPT = 32
"""Recipes that a process keeps unpickled: one for each kind of task of some waves."""

type _Key = Any


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Steps in a fixed order; called with the values of ``own``."""

    steps: tuple[tuple[_Key, GraphNode, tuple[_Key, ...]], ...]
    """What each is called, what it does, and whose results nobody needs after it."""
    out: _Key
    shared: Mapping[_Key, Any]
    """Values by name, the same in every call."""
    own: tuple[tuple[_Key, ...], ...]
    """Names of each value that comes with the call."""

    def __call__(self, *values: Any) -> Any:
        """The result of the last step."""
        known = dict(self.shared)
        for names, value in zip(self.own, values, strict=True):
            known.update(dict.fromkeys(names, value))
        for key, node, done in self.steps:
            known[key] = node(known)
            for name in done:
                del known[name]
        return known[self.out]


class Recipe:
    """A `Program` that many tasks share; unpickled when it is first called in a process. Safe in threads."""

    __slots__ = ("__weakref__", "_lock", "_packed", "_program", "token")

    def __init__(self, token: str, program: Program | None, packed: bytes | None = None) -> None:
        self.token = token
        self._program = program
        self._packed = packed
        self._lock = threading.Lock()

    def __call__(self, *values: Any) -> Any:
        """Run the steps."""
        program = self._program
        return (self._unpacked() if program is None else program)(*values)

    def __reduce__(self) -> tuple[Any, ...]:
        """As bytes, made once."""
        return _known_recipe, (self.token, self._pack())

    def _pack(self) -> bytes:
        import cloudpickle  # noqa: PLC0415 - comes with dask

        with self._lock:
            if self._packed is None:
                content = cloudpickle.dumps(self._program)
                small = len(content) < COMPRESSED_NBYTES
                self._packed = b"z" + zlib.compress(content, 6) if small else b" " + content
            return self._packed

    def _unpacked(self) -> Program:
        import cloudpickle  # noqa: PLC0415 - as above

        with self._lock:
            if self._program is None:
                assert self._packed is not None
                content = memoryview(self._packed)[1:]
                program: Program = cloudpickle.loads(zlib.decompress(content) if self._packed[:1] == b"z" else content)
                self._program = program
            program = self._program
        _keep(self)
        return program


normalize_token.register(Recipe, lambda recipe: ("daskraster-recipe", recipe.token))

_lock = threading.Lock()
_known: WeakValueDictionary[str, Recipe] = WeakValueDictionary()
_kept: OrderedDict[str, Recipe] = OrderedDict()


def _known_recipe(token: str, packed: bytes) -> Recipe:
    """The recipe of this process, which may be unpickled already."""
    with _lock:
        recipe = _known.get(token)
        if recipe is None:
            recipe = _known[token] = Recipe(token, None, packed)
        return recipe


def _keep(recipe: Recipe) -> None:
    """Keep a recipe between tasks; only where tasks run, so that a scheduler holds no longer what its tasks hold."""
    with _lock:
        _kept[recipe.token] = recipe
        while len(_kept) > KEPT:
            _kept.popitem(last=False)


def forget_recipes(run: str) -> None:
    """Let go of what this process keeps of a run, which may be a model of hundreds of megabytes."""
    with _lock:
        for token in [token for token in _kept if token.startswith(run)]:
            del _kept[token]


def flattened(graph: Mapping[str, Any], run: str = "") -> dict[str, Any]:
    """The graph with flat tasks in place of the fused ones.

    Parameters
    ----------
    graph
        Tasks by key, as dask's optimisation leaves them.
    run
        What `forget_recipes` will call the run.
    """
    flattening = _Flattening(graph.values(), run)
    return {key: flattening.flat(task) for key, task in graph.items()}


class _Flattening:
    """Fused tasks of a graph by kind, and the recipe of each kind, made when it is first needed."""

    def __init__(self, tasks: Iterable[Any], run: str) -> None:
        self._run = run
        self._alike: dict[Any, list[Task]] = defaultdict(list)
        self._made: dict[Any, tuple[Recipe | Program, tuple[int, ...]]] = {}
        self._collect(tasks)

    def _collect(self, tasks: Iterable[Any]) -> None:
        """Sort fused tasks by kind, those inside of others too."""
        for task in tasks:
            if _is_fused(task):
                kind = self._alike[_kind(task)]
                kind.append(task)
                if len(kind) == 1:
                    self._collect(task.args[0].values())

    def flat(self, task: Any) -> Any:
        """A task that does the same; itself where it is not fused."""
        if not _is_fused(task):
            return task
        kind = _kind(task)
        if kind not in self._made:
            self._made[kind] = self._recipe(self._alike[kind])
        func, places = self._made[kind]
        values = task.args[3:]
        return Task(task.key, func, *[_bare(values[place]) for place in places], _data_producer=task.data_producer)

    def _recipe(self, alike: Sequence[Task]) -> tuple[Recipe | Program, tuple[int, ...]]:
        """What tasks of one kind do, and which of their values each brings along."""
        inner, out, names = alike[0].args[:3]
        columns = list(zip(*[task.args[3:] for task in alike], strict=True))
        shared = {name: column[0].value for name, column in zip(names, columns, strict=True) if _is_same(column)}
        places: dict[Any, list[int]] = defaultdict(list)
        for place, column in enumerate(columns):
            if names[place] not in shared:
                places[_numbers(column) or place].append(place)
        program = Program(
            steps=_ordered({key: self.flat(node) for key, node in inner.items()}, out, names),
            out=out,
            shared=shared,
            own=tuple(tuple(names[place] for place in equal) for equal in places.values()),
        )
        # A task without its like gains nothing from bytes made once.
        func = program if len(alike) == 1 else Recipe(f"{self._run}{uuid.uuid4().hex}", program)
        return func, tuple(equal[0] for equal in places.values())


def _is_fused(task: Any) -> bool:
    return type(task) is Task and task.func is _execute_subgraph and not task.kwargs


def _kind(task: Task) -> Any:
    """The same for tasks that do the same with different values: dask gives all blocks of a fused layer one graph."""
    inner, out, names = task.args[:3]
    return id(inner), out, names


def _is_same(column: Sequence[Any]) -> bool:
    """Whether a value is one object in all tasks."""
    first = column[0]
    return isinstance(first, DataNode) and all(
        isinstance(value, DataNode) and value.value is first.value for value in column
    )


def _numbers(column: Sequence[Any]) -> tuple[tuple[int, ...], ...] | None:
    """The values of all tasks where they are tuples of whole numbers, as the numbers of blocks are: each layer has them once more."""
    values = tuple(value.value for value in column if isinstance(value, DataNode))
    plain = len(values) == len(column) and all(
        type(value) is tuple and all(type(part) is int for part in value) for value in values
    )
    return values if plain else None


def _bare(value: Any) -> Any:
    return value.value if isinstance(value, DataNode) else value


def _ordered(inner: Mapping[_Key, GraphNode], out: _Key, names: Sequence[_Key]) -> Any:
    """Steps in dask's order, each with what is needed no more after it."""
    ranks = order({**inner, **{name: DataNode(name, None) for name in names}})
    steps = sorted(inner.items(), key=lambda item: ranks[item[0]])
    last = {name: key for key, node in steps for name in node.dependencies if name != out}
    done: dict[_Key, list[_Key]] = defaultdict(list)
    for name, key in last.items():
        done[key].append(name)
    return tuple((key, node, tuple(done[key])) for key, node in steps)
