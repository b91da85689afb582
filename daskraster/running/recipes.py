"""What a block's task does, made flat: what all blocks have in common once, and a fixed order of steps.

dask fuses reading, computing and writing into a task that holds a small graph, and finds the order of its steps anew each time it runs (0.1 ms). Around it
stand the things it works with: the sink, the function, the sizes of all chunks, the same for every block, and pickled and unpickled with each
(3.6 KB and 0.2 ms; twice that at 1000 x 1000 blocks). Here the order is found once, and what is the same for all becomes a `Recipe`: a callable that is pickled once and
unpickled by the first task that runs in a process. A task is then ::

    Task(key, recipe, (0, 3, 7))                            read, compute and write block (0, 3, 7)

A small recipe travels with each task as compressed bytes that nobody looks into, so a process that joins late, or takes the place of a dead one, needs nothing
but its tasks. One that holds a model or a table of hundreds of megabytes is a task of its own on a cluster, which blocks depend on::

    Task(recipe.name, _same, recipe)
    Task(key, call, TaskRef(recipe.name), (0, 3, 7))

It goes to the scheduler once, to one worker from there, to the others from worker to worker, and if all of these die the scheduler has it still. dask's scheduler of processes
has no place to keep anything (and no pickle is ever read from a disk): there it travels with each task. Which tasks become what is decided in `daskraster.running.flattening`.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from dask._task_spec import GraphNode
from dask.sizeof import sizeof
from dask.tokenize import normalize_token

LARGE_NBYTES = 1 << 20
"""From here on a recipe travels once. Up to here compressing takes 10 ms, and chunk sizes all but vanish; a model would take seconds."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A program as bytes."""

    content: Any
    """Pickled; compressed where it is small."""
    buffers: tuple[Any, ...] = ()
    """Of large arrays, beside it: they are not copied, neither here nor where they arrive."""
    compressed: bool = False

    @classmethod
    def of(cls, program: Program) -> Packed:
        """Pickle a program."""
        import cloudpickle  # noqa: PLC0415 - comes with dask

        buffers: list[pickle.PickleBuffer] = []
        content = cloudpickle.dumps(program, protocol=5, buffer_callback=buffers.append)
        if len(content) + sum(buffer.raw().nbytes for buffer in buffers) >= LARGE_NBYTES:
            return cls(content, tuple(buffer.raw() for buffer in buffers))
        return cls(zlib.compress(cloudpickle.dumps(program), 6), compressed=True)

    @property
    def nbytes(self) -> int:
        """Of all of it."""
        return sum(memoryview(part).nbytes for part in self.parts)

    @property
    def parts(self) -> tuple[Any, ...]:
        """One after the other."""
        return (self.content, *self.buffers)

    @property
    def digest(self) -> str:
        """Of the bytes; 0.1 s for 100 MB."""
        summing = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            summing.update(part)
        return summing.hexdigest()

    def program(self) -> Program:
        """Unpickle it."""
        content = zlib.decompress(self.content) if self.compressed else self.content
        program: Program = pickle.loads(content, buffers=self.buffers)
        return program

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """With large parts beside the pickle, where that can be."""
        parts = self.parts
        if not self.compressed and protocol >= 5:
            parts = tuple(pickle.PickleBuffer(part) for part in parts)
        elif self.buffers:
            parts = (self.content, *(bytearray(part) for part in self.buffers))
        return _packed, (self.compressed, *parts)


def _packed(compressed: bool, content: Any, *buffers: Any) -> Packed:
    return Packed(content, buffers, compressed=compressed)


class Recipe:
    """A `Program` that many tasks share; unpickled when it is first called in a process. Safe in threads."""

    __slots__ = ("__weakref__", "_lock", "_packed", "_program", "placed", "token")

    def __init__(
        self, token: str, program: Program | None, packed: Packed | None = None, *, placed: bool = False
    ) -> None:
        self.token = token
        self.placed = placed
        """Whether it is a task of its own: then it is there as long as the task's result."""
        self._program = program
        self._packed = packed
        self._lock = threading.Lock()

    def __call__(self, *values: Any) -> Any:
        """Run the steps."""
        program = self._program
        return (self._unpacked() if program is None else program)(*values)

    def __reduce__(self) -> tuple[Any, ...]:
        """As bytes, made once."""
        return _known_recipe, (self.token, self.packed(), self.placed)

    def packed(self) -> Packed:
        """The bytes, made once."""
        with self._lock:
            if self._packed is None:
                assert self._program is not None
                self._packed = Packed.of(self._program)
            return self._packed

    def place(self, name: str) -> None:
        """Make it one that is a task of its own, and known by that name in this process, whose scheduler then needs no copy."""
        self.token, self.placed = name, True
        with _lock:
            _known[name] = self

    @property
    def nbytes(self) -> int:
        """Of what travels, as far as it has been made."""
        return 0 if self._packed is None else self._packed.nbytes

    def _unpacked(self) -> Program:
        with self._lock:
            if self._program is None:
                assert self._packed is not None
                self._program = self._packed.program()
            program = self._program
        if not self.placed:
            _keep(self)
        return program


normalize_token.register(Recipe, lambda recipe: ("daskraster-recipe", recipe.token))
sizeof.register(Recipe, lambda recipe: 1000 + recipe.nbytes)


def call(recipe: Recipe, *values: Any) -> Any:
    """Run a recipe that is another task's result."""
    return recipe(*values)


_lock = threading.Lock()
_known: WeakValueDictionary[str, Recipe] = WeakValueDictionary()
_kept: OrderedDict[str, Recipe] = OrderedDict()


def _known_recipe(token: str, packed: Packed, placed: bool) -> Recipe:
    """The recipe of this process, which may be unpickled already."""
    with _lock:
        recipe = _known.get(token)
        if recipe is None:
            recipe = _known[token] = Recipe(token, None, packed, placed=placed)
        return recipe


def _keep(recipe: Recipe) -> None:
    """Keep a recipe between tasks; only where tasks run, so that a scheduler holds no longer what its tasks hold."""
    with _lock:
        _kept[recipe.token] = recipe
        while len(_kept) > KEPT:
            _kept.popitem(last=False)


def forget_recipes(run: str) -> None:
    """Let go of what this process keeps of a run."""
    with _lock:
        for token in [token for token in _kept if token.startswith(run)]:
            del _kept[token]
