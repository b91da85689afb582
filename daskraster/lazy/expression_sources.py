"""An expression over sources as a source: what `calc` of plain files is, for whoever wants a block with its halo."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.evaluation import Calculation
from daskraster.formats.protocols import Source, narrowed
from daskraster.grid import Window
from daskraster.lazy.sources import ReadBlock, SourceView
from daskraster.timing import stage


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ExpressionSource:
    """Serves windows of an expression: reads those of its inputs and computes. Implements `daskraster.formats.protocols.Source`.

    Its pixels are those that all inputs have: where some are pieces of larger files, it reaches as far as the pieces' files do together.
    """

    calculation: Calculation
    inputs: tuple[SourceView, ...]
    """Each raster; its window covers the extent of this source."""
    name: str
    token: str
    """Of expression and inputs."""
    text: str = field(default="", compare=False)
    """The expression as it was written."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return (len(self.calculation.bands), *self.inputs[0].window.shape_yx)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of every window."""
        return self.calculation.program.dtype

    @property
    def tile_yx(self) -> tuple[int, int]:
        """The largest of the inputs' tiles."""
        rows, cols = zip(*[view.source.tile_yx for view in self.inputs], strict=True)
        return max(rows), max(cols)

    def __repr__(self) -> str:
        # Short: sources of sources of sources would fill pages, and graph tokens are made of it.
        return f"ExpressionSource({self.token})"

    @property
    def inner_sources(self) -> tuple[Source, ...]:
        """Those of the inputs."""
        return tuple(view.source for view in self.inputs)

    def part(self, window: Window) -> ExpressionSource:
        """The same, with as much of each input as ``window`` takes."""
        inputs = []
        for view in self.inputs:
            source = narrowed(view.source, window.shift(view.window.row_off, view.window.col_off))
            inputs.append(view if source is view.source else replace(view, source=source))
        return replace(self, inputs=tuple(inputs))

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """Pixels of a window inside the raster, a new array ``(band, y, x)``.

        Raises
        ------
        RasterReadError
            An input could not be read; the message names its file and window.
        """
        wanted = [band - 1 for band in bands]
        # Bands of one file are read together: where they share tiles, these are decoded once.
        together: dict[tuple[Source, Window], list[tuple[int, tuple[int, int]]]] = {}
        for raster, numbers in self.calculation.needed(wanted).items():
            view = self.inputs[raster]
            shifted = window.shift(view.window.row_off, view.window.col_off)
            plan = together.setdefault((view.source, shifted), [])
            plan += [(view.bands[number], (raster, number)) for number in numbers]
        planes: dict[tuple[int, int], NDArray[Any]] = {}
        for (source, shifted), plan in together.items():
            numbers = tuple(sorted({band for band, _ in plan}))
            pixels = dict(zip(numbers, source.read(shifted, numbers), strict=True))
            planes |= {key: pixels[band] for band, key in plan}
        with stage("function"):
            return self.calculation.compute(planes, wanted, window.shape_yx)


def expression_view(calculation: Calculation, views: Sequence[SourceView], text: str) -> SourceView:
    """The view of an array that an expression makes of arrays with these views, all of one shape.

    Parameters
    ----------
    calculation
        Numbers the rasters in the order of ``views``.
    views
        Of each raster.
    text
        Of the expression, for messages.
    """
    extent = views[0].extent
    for view in views[1:]:
        extent = extent.clip(view.extent)
    inputs = tuple(
        SourceView(view.source, view.bands, extent.shift(view.window.row_off, view.window.col_off)) for view in views
    )
    parts = [repr(calculation), *[f"{view.source!r} {view.bands} {view.window}" for view in inputs]]
    names = " and ".join(dict.fromkeys(view.source.name for view in views))
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    source = ExpressionSource(
        calculation=calculation,
        inputs=inputs,
        name=f"calc({shown!r}) of {names if len(names) <= 200 else f'{len(views)} rasters'}",
        text=text,
        token=hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32],
    )
    array = Window(0, 0, *views[0].window.shape_yx)
    return SourceView(source, tuple(range(1, len(calculation.bands) + 1)), array.relative_to(extent))


def leaf_reads(read: ReadBlock) -> list[ReadBlock]:
    """What a reading step reads in the end: itself, or the files below an expression, each with the bands it needs."""
    source = read.view.source
    if not isinstance(source, ExpressionSource):
        return [read]
    leaves: list[ReadBlock] = []
    for raster, numbers in source.calculation.needed([band - 1 for band in read.view.bands]).items():
        below = source.inputs[raster]
        window = read.view.window.shift(below.window.row_off, below.window.col_off)
        view = SourceView(below.source, tuple(below.bands[number] for number in numbers), window)
        leaves += leaf_reads(ReadBlock(view, read.windows))
    return leaves
