"""The graph of a run with flat tasks: which tasks do the same, and where that travels.

Tasks that do the same with different values get one `daskraster.running.recipes.Recipe`. Tasks are alike when dask gave them one graph, as it does all blocks of a
fused layer; or, for a task of one step, when they call the same object with as many values. Steps, their arguments and their results are those of dask's own task.

A recipe is small, most often, and travels with each task. A large one - a function that holds a model or a table - does so once: `Travel` says how.
"""

from __future__ import annotations

import enum
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any

from dask._task_spec import DataNode, GraphNode, Task, TaskRef, _execute_subgraph
from dask.array.core import _pass_extra_kwargs
from dask.order import order

from daskraster.running.recipes import LARGE_NBYTES, Program, Recipe, call

type _Key = Any


class Travel(enum.Enum):
    """How what blocks share gets to them."""

    WITH_EACH = enum.auto()
    """With each task: nothing is pickled in threads."""
    LARGE_ONCE = enum.auto()
    """The large as tasks of their own, for a cluster. All are pickled now."""
    ONCE = enum.auto()
    """All as tasks of their own, for whatever will run them. Nothing is pickled now."""


class Flattening:
    """Makes the graphs of one run flat.

    Parameters
    ----------
    run
        What `daskraster.running.recipes.forget_recipes` will call it.
    travel
        How recipes get to their tasks.
    """

    def __init__(self, run: str = "", travel: Travel = Travel.WITH_EACH) -> None:
        self._run = run
        self._travel = travel
        self._placed: set[str] = set()

    def flattened(self, graph: Mapping[Any, Any]) -> tuple[dict[Any, Any], frozenset[str]]:
        """The graph with flat tasks in place of those that are alike, and the names of recipes that are tasks of it.

        A large recipe that was in an earlier graph of the run is not in this one, though tasks depend on it.
        """
        one = _One(graph, self)
        flat = {key: one.flat(task) for key, task in graph.items()}
        new = {name: recipe for name, recipe in one.placed.items() if name not in self._placed}
        self._placed |= new.keys()
        return {**{name: Task(name, _same, recipe) for name, recipe in new.items()}, **flat}, frozenset(new)

    def recipe(self, program: Program) -> Recipe:
        """A recipe, settled how it travels."""
        recipe = Recipe(f"{self._run}{uuid.uuid4().hex}", program)
        if self._travel is Travel.WITH_EACH:
            return recipe
        if self._travel is Travel.ONCE:
            recipe.place(f"recipe-{recipe.token}")
            return recipe
        packed = recipe.packed()
        if packed.nbytes >= LARGE_NBYTES and not packed.compressed:
            # The same in the next wave of the run: it is there already.
            recipe.place(f"recipe-{packed.digest}-{self._run}")
        return recipe


def _same(value: Any) -> Any:
    return value


class _Shape:
    """A task's small graph: what it is called, what comes out, the names of what it is given, and that."""

    __slots__ = ("inner", "kind", "names", "out", "values")

    def __init__(self, task: Task) -> None:
        if _is_fused(task):
            self.inner, self.out, self.names = task.args[:3]
            self.values = task.args[3:]
            self.kind: Any = id(self.inner), self.out, self.names
            return
        # A task of one step as a graph of it.
        self.names = tuple(f"value-{number}" for number in range(len(task.args)))
        self.out = "step"
        self.inner = {"step": Task("step", task.func, *map(TaskRef, self.names), **task.kwargs)}
        self.values = tuple(
            value if isinstance(value, GraphNode | TaskRef) else DataNode(None, value) for value in task.args
        )
        keywords = tuple((name, id(value)) for name, value in sorted(task.kwargs.items()))
        self.kind = id(task.func), _is_called(task), len(task.args), keywords


class _One:
    """Tasks of one graph by kind, and the recipe of each kind, made when it is first needed."""

    def __init__(self, graph: Mapping[Any, Any], run: Flattening) -> None:
        self._run = run
        self.placed: dict[str, Recipe] = {}
        """Recipes that tasks of the graph depend on."""
        self._alike: dict[Any, list[_Shape]] = defaultdict(list)
        self._made: dict[Any, tuple[Recipe | Program, tuple[int, ...], tuple[str, ...]]] = {}
        self._collect(graph.values())

    def _collect(self, tasks: Any) -> None:
        """Sort tasks by kind, those inside of others too."""
        inside = []
        for task in tasks:
            if _is_flattened(task):
                shape = _Shape(task)
                kind = self._alike[shape.kind]
                kind.append(shape)
                if len(kind) == 1 and _is_fused(task):
                    inside.append(shape)
        for shape in inside:
            lonely = len(self._alike[shape.kind]) == 1
            self._collect(node for node in shape.inner.values() if lonely or _is_fused(node))

    def flat(self, task: Any) -> Any:
        """A task that does the same; itself where nothing is gained."""
        if not _is_flattened(task):
            return task
        shape = _Shape(task)
        alike = self._alike.get(shape.kind, ())
        if not _is_fused(task) and len(alike) < 2:
            return task
        if shape.kind not in self._made:
            self._made[shape.kind] = self._recipe(alike)
        func, places, names = self._made[shape.kind]
        values = [*map(TaskRef, names), *(_bare(shape.values[place]) for place in places)]
        if isinstance(func, Recipe) and func.placed:
            self.placed[func.token] = func
            return Task(task.key, call, TaskRef(func.token), *values, _data_producer=task.data_producer)
        return Task(task.key, func, *values, _data_producer=task.data_producer)

    def _recipe(self, alike: Sequence[_Shape]) -> tuple[Recipe | Program, tuple[int, ...], tuple[str, ...]]:
        """What tasks of one kind do, which of their values each brings along, and which recipes are called inside."""
        shape = alike[0]
        columns = list(zip(*[one.values for one in alike], strict=True))
        shared = {name: column[0].value for name, column in zip(shape.names, columns, strict=True) if _is_same(column)}
        places: dict[Any, list[int]] = defaultdict(list)
        for place, column in enumerate(columns):
            if shape.names[place] not in shared:
                places[_numbers(column) or place].append(place)
        inner = {key: self._inside(node, lonely=len(alike) == 1) for key, node in shape.inner.items()}
        called = tuple(sorted({name for node in inner.values() for name in node.dependencies if name in self.placed}))
        program = Program(
            steps=_ordered(inner, shape.out, [*called, *shape.names]),
            out=shape.out,
            shared=shared,
            own=(*((name,) for name in called), *(tuple(shape.names[place] for place in equal) for equal in places.values())),
        )  # fmt: skip
        # A task without its like gains nothing from bytes made once.
        func = program if len(alike) == 1 else self._run.recipe(program)
        return func, tuple(equal[0] for equal in places.values()), called

    def _inside(self, node: GraphNode, *, lonely: bool) -> GraphNode:
        """A step, flat where it is a graph again, or where the steps around it are those of one task only."""
        flat: GraphNode = self.flat(node) if lonely or _is_fused(node) else node
        return flat


def _is_fused(task: Any) -> bool:
    return type(task) is Task and task.func is _execute_subgraph and not task.kwargs


def _is_called(task: Task) -> Any:
    """What is called, where dask stands between to pass the number of the block."""
    if task.func is not _pass_extra_kwargs or not task.args:
        return None
    called = task.args[0]
    return id(called.value if isinstance(called, DataNode) else called)


def _is_flattened(task: Any) -> bool:
    """Whether a task is a graph of steps, or one step of which much may be the same for all: functions that are found by name are not."""
    if type(task) is not Task:
        return False
    if _is_fused(task) or task.func is _pass_extra_kwargs:
        return True
    plain = isinstance(task.func, BuiltinFunctionType | type) or (
        isinstance(task.func, FunctionType) and "<" not in task.func.__qualname__
    )
    return not plain and not any(isinstance(value, GraphNode) for value in task.kwargs.values())


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
