"""What a lazy array is made of: what is read, which functions run, where neighbours are exchanged. Found in its graph; computes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import dask.array as da
from dask.blockwise import Blockwise
from dask.layers import ArrayOverlapLayer

from daskraster.lazy.expression_sources import leaf_reads
from daskraster.lazy.functions import FunctionStep
from daskraster.lazy.sources import ReadBlock, reads_in

# Layers of `label` between its two passes: a few numbers a block.
BETWEEN_PASSES = ("label-", "checkpoint-")

type Key = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionLayer:
    """A user's function in the graph."""

    step: FunctionStep
    inputs: tuple[str, ...]
    """Names of the arrays of haloed blocks it takes."""

    def input_keys(self, row: int, col: int) -> list[Key]:
        """Keys of what the function gets for a block."""
        return [(name, 0, row, col) for name in self.inputs]


@runtime_checkable
class WorkingStep(Protocol):
    """A step of our own that takes memory of its own: labelling, prediction."""

    what: str
    """Its name in a plan."""

    def work_nbytes(self, pixels: int, bands: int, itemsize: int) -> int:
        """Bytes it needs for a block of so many pixels, beside what it gets: ``bands`` of ``itemsize`` bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Where blocks get their halo from their neighbours in the graph."""

    halo_yx: tuple[int, int]
    chunks: tuple[tuple[int, ...], ...]
    """Of the array without halo, ``(band, y, x)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """The parts of a lazy array's graph that cost time or memory."""

    reads: tuple[ReadBlock, ...]
    """Of files, and of what is made of them by merging or warping."""
    roots: tuple[ReadBlock, ...]
    """The steps whose results are blocks of the graph: an expression is one, and reads several files."""
    steps: tuple[WorkingStep, ...]
    functions: tuple[FunctionLayer, ...]
    exchanges: tuple[Exchange, ...]
    others: int
    """Layers that are none of these and no plain step from block to block: re-chunking, arrays in memory, other libraries' doing."""


def anatomy(data: da.Array) -> Anatomy:
    """The parts of an array ``(band, y, x)``; nothing is computed."""
    roots: list[ReadBlock] = []
    steps: list[WorkingStep] = []
    functions: list[FunctionLayer] = []
    exchanges: list[Exchange] = []
    others = 0
    for name, layer in data.dask.layers.items():
        if isinstance(layer, ArrayOverlapLayer):
            depth = {axis: _depth(halo) for axis, halo in layer.axes.items()}
            exchanges.append(Exchange(halo_yx=(depth.get(1, 0), depth.get(2, 0)), chunks=layer.chunks))
        elif isinstance(layer, Blockwise):
            held: list[Any] = [value for value, index in layer.indices if index is None]
            roots += reads_in(layer)
            steps += [value for value in (*held, getattr(layer.task, "func", None)) if isinstance(value, WorkingStep)]
            functions += [
                FunctionLayer(step=value, inputs=tuple(_arrays(layer)))
                for value in held
                if isinstance(value, FunctionStep)
            ]
        elif not name.startswith(BETWEEN_PASSES):
            others += 1
    reads = [leaf for read in roots for leaf in leaf_reads(read)]
    return Anatomy(
        reads=tuple(reads),
        roots=tuple(roots),
        steps=tuple(steps),
        functions=tuple(functions),
        exchanges=tuple(exchanges),
        others=others,
    )


def _depth(halo: Any) -> int:
    return max(halo) if isinstance(halo, tuple) else int(halo)


def _arrays(layer: Blockwise) -> Iterator[str]:
    """The arrays a layer takes block by block; what dask passes along with a function is no array."""
    for name, index in layer.indices:
        if index is not None and isinstance(name, str) and name not in layer.io_deps:
            yield name
