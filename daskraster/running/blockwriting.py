"""The last step of every block: converted, counted, halved, encoded, written; what is left of it is a receipt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.conversion import convert
from daskraster.blocks.statistics import PartialStatistics, partial_statistics
from daskraster.blocks.validity import Validity
from daskraster.errors import BlockResultError, RasterWriteError
from daskraster.formats.protocols import Piece, Receipt, Sink
from daskraster.grid import Window
from daskraster.metadata import Number
from daskraster.running.pyramid import Halves, Pyramid
from daskraster.timing import stage


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBlock:
    """Last step of every block: pixels -> receipt. Travels with every task, so it holds only small things."""

    sink: Sink | None
    """None where the started sink comes with each call, from the first task of the graph."""
    dtype: np.dtype[Any]
    fills: tuple[Number | None, ...]
    """See `Output`; of all bands of the file."""
    source_dtype: np.dtype[Any]
    """What the lazy array says of its blocks."""
    chunks: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Bands, rows and columns of each block, without halo."""
    statistics: tuple[tuple[Number | None, bool], ...]
    """Marker of each band's invalid pixels and whether it is thematic; empty where statistics are not wanted."""
    validity: Validity | None
    pyramid: Pyramid | None

    def __call__(self, block: NDArray[Any], started: Any = None, *, block_id: tuple[int, int, int]) -> Receipt:
        """Convert, encode, write.

        Raises
        ------
        BlockResultError
            The block is not what the lazy array says it is.
        RasterWriteError
            It could not be encoded or written.
        """
        sink: Sink = started.sink if self.sink is None else self.sink
        window, band_off = self._place(block_id)
        self._check(block, window, self.chunks[0][block_id[0]], sink)
        with stage("encode"):
            source, block = block, self._converted(block, self.fills[band_off : band_off + len(block)])
            if self.validity is not None:
                block = self.validity.marked(source, block, band_off)
        core = block if self.pyramid is None else self.pyramid.without_halo(block, window)
        statistics = self._statistics(core, band_off)
        try:
            receipt = sink.put(core, window, band_off, block_id)
            if self.pyramid is not None:
                halves = self.pyramid.upper_levels(block, window, band_off)
                receipt = self._with_overviews(self.pyramid, sink, receipt, halves, band_off)
        except RasterWriteError as error:
            error.add_note(f"while writing {window}, block {block_id[1:]} of {sink.target}")
            raise
        return dataclasses.replace(receipt, statistics=statistics, band_off=band_off)

    def _place(self, block_id: tuple[int, int, int]) -> tuple[Window, int]:
        """Window and first band of a block."""
        band, row, col = (sum(sizes[:number]) for sizes, number in zip(self.chunks, block_id, strict=True))
        return Window(row, col, self.chunks[1][block_id[1]], self.chunks[2][block_id[2]]), band

    def _check(self, block: NDArray[Any], window: Window, bands: int, sink: Sink) -> None:
        haloed = window if self.pyramid is None else self.pyramid.with_halo(window)
        due = bands, haloed.height, haloed.width
        if block.shape != due or block.dtype != self.source_dtype:
            raise BlockResultError(
                f"the lazy array written to {sink.target} says that its block in {window} has shape {due} and dtype "
                f"{self.source_dtype}, got {block.shape} and {block.dtype}; correct the dtype=, meta= or chunks= it was made with"
            )

    def _statistics(self, block: NDArray[Any], band_off: int) -> tuple[PartialStatistics, ...]:
        if not self.statistics:
            return ()
        rules = self.statistics[band_off : band_off + len(block)]
        with stage("statistics"):
            if self.validity is None or self.validity.dtype == self.dtype:
                return tuple(
                    partial_statistics(values, nodata, thematic=thematic)
                    for values, (nodata, thematic) in zip(block, rules, strict=True)
                )
            # In the file's own type, which decides on bins; the valid ones, since no value of it tells them.
            pixels, valid = self.validity.split(block, band_off)
            return tuple(
                dataclasses.replace(
                    partial_statistics(values[of_band][np.newaxis], None, thematic=thematic), pixels=values.size
                )
                for values, of_band, (_, thematic) in zip(pixels, valid, rules, strict=True)
            )

    def _with_overviews(self, pyramid: Pyramid, sink: Sink, receipt: Receipt, halves: Halves, band_off: int) -> Receipt:
        """The receipt with the tiles that a block's halves fill, and the piece that is left."""
        receipts: list[Receipt] = []
        piece: Piece | None = None
        while True:
            with stage("overviews"):
                half = next(halves, None)
            if half is None:
                break
            level, window, values = half
            if not values.size:
                continue
            if level == pyramid.shared:
                piece = Piece(level=level, window=window, band_off=band_off, values=values)
            elif pyramid.levels[level].stored:
                receipts.append(sink.put(values, window, band_off, receipt.block, level))
        return dataclasses.replace(receipt.joined(*receipts), piece=piece)

    def _converted(self, block: NDArray[Any], fills: tuple[Number | None, ...]) -> NDArray[Any]:
        """The block in the file's dtype, NaN replaced, band by band where bands differ."""
        if len(set(map(repr, fills))) > 1:
            parts = [self._converted(block[band : band + 1], (fill,)) for band, fill in enumerate(fills)]
            return np.concatenate(parts)
        fill = fills[0]
        converted = convert(block, self.dtype, fill)
        if self.dtype.kind == "f" and block.dtype.kind == "f" and fill is not None and not np.isnan(fill):
            # In the file's type: -9999.1 in the block's, where that is narrower, would be another number than the file's nodata value.
            converted = np.where(np.isnan(converted), self.dtype.type(fill), converted)
        return converted
