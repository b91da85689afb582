"""What blocks leave behind, taken up as they finish: receipts, statistics, pieces of overviews."""

from __future__ import annotations

from collections.abc import Iterable

from daskraster.blocks.results import BandStatistics
from daskraster.blocks.statistics import PartialStatistics, merge_statistics
from daskraster.formats.protocols import Receipt, Sink
from daskraster.running.blocksets import BlockSet, Index
from daskraster.running.pyramid import Pyramid, SharedLevels
from daskraster.spans import Timeline

# Partial statistics merged at once: up to 128 KB each with 16-bit pixels, and many cost less than one after the other.
MERGED_AT_ONCE = 16


class Gathering:
    """Everything that is known of one output under way. In the leading process, one call at a time; picklable between calls.

    Receipts are folded as they come, so that a run of a million blocks takes 16 bytes a tile and one a block, and nothing else that grows.

    Parameters
    ----------
    sink
        Started.
    pyramid
        The overviews, where there are any.
    bands
        Of the raster.
    numblocks
        Blocks along bands, rows and columns.
    """

    def __init__(self, sink: Sink, pyramid: Pyramid | None, bands: int, numblocks: tuple[int, int, int]) -> None:
        self._sink = sink
        self._shared = None if pyramid is None else SharedLevels(sink, pyramid)
        self._statistics: list[list[PartialStatistics]] = [[] for _ in range(bands)]
        self._blocks = BlockSet(numblocks)
        self._lost: set[Index] = set()
        self._places = sink.no_places()
        self.seconds: dict[str, float] = {}
        """Seconds of each stage, of all blocks and levels."""
        self.timeline = Timeline()
        """When the blocks' stages were."""

    @property
    def blocks(self) -> int:
        """Blocks that are in the file."""
        return len(self._blocks)

    def done(self) -> BlockSet:
        """The blocks that are in the file now."""
        return self._blocks.copy()

    def lose(self, blocks: Iterable[Index]) -> None:
        """Say that blocks are not in the file after all, so that they are computed again; their statistics and pieces stay."""
        for block in blocks:
            self._blocks.discard(block)
            self._lost.add(block)

    def add(self, receipt: Receipt) -> None:
        """Take up a block. Of a block that comes again the place of its tiles counts anew, the rest does not.

        Raises
        ------
        RasterWriteError
            A tile of an overview, complete with this block, could not be written.
        """
        self._fold(receipt)
        if receipt.block in self._blocks:
            return
        self._blocks.add(receipt.block)
        if receipt.block in self._lost:
            return
        self.timeline.add(receipt.spans)
        for band, partial in enumerate(receipt.statistics, receipt.band_off):
            self._statistics[band].append(partial)
            if len(self._statistics[band]) >= MERGED_AT_ONCE:
                self._statistics[band] = [merge_statistics(self._statistics[band])]
        if receipt.piece is not None and self._shared is not None:
            for made in self._shared.add(receipt.piece):
                self._fold(made)

    def _fold(self, receipt: Receipt) -> None:
        self._places.add(receipt.tiles, receipt.offsets, receipt.sizes, receipt.held)
        for name, spent in receipt.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def finish(self, finished: frozenset[str] | None = None) -> tuple[BandStatistics, ...]:
        """Complete the partial file; statistics of each band, none where they were not wanted.

        ``finished``: names of the processes known to write no more; None: all.

        Raises
        ------
        RasterWriteError
            See `daskraster.formats.protocols.Sink.finish`.
        """
        statistics = self.statistics()
        self._sink.finish(self._places, statistics, finished=finished)
        return statistics

    def statistics(self) -> tuple[BandStatistics, ...]:
        """Of each band so far; none where they were not wanted."""
        if not all(self._statistics):
            return ()
        return tuple(merge_statistics(partials).finish() for partials in self._statistics)
