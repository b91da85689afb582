"""A plan as data: what a run will do, in numbers and in a few lines of text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskraster.lazy.chunking import ChunksYX
from daskraster.lazy.sources import SourceView
from daskraster.pictures.pages import PlanFacts, page
from daskraster.running.memory import MemoryPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do; see `explain`. Nothing of it has been done."""

    path: Path | None
    """The file to be; None where none was named."""
    driver: str
    """GDAL's name of its format."""
    shape: tuple[int, int, int]
    """Bands, rows, columns."""
    dtype: str
    """Pixel type of the file."""
    chunks_yx: ChunksYX
    """Rows and columns of the blocks."""
    blocks: int
    """Blocks computed and written."""
    tasks: int
    """Tasks that dask's scheduler gets."""
    functions: tuple[str, ...]
    """The functions that run, first to last."""
    halo_yx: tuple[int, int]
    """Rows and columns that blocks are read, or exchanged, beyond their edges."""
    sources: tuple[str, ...]
    """What is read."""
    source_nbytes: int
    """Pixels of the sources, as they are in memory, each once."""
    read_nbytes: int
    """Pixels that all blocks together ask for, halos counted with each block."""
    write_nbytes: int
    """Pixels written, with overviews, before compression."""
    processes: int
    """Worker processes."""
    memory: MemoryPlan
    """Of one worker process."""
    proposed_chunks_yx: ChunksYX
    """The blocks in use where they fit; else the largest that do."""

    view: SourceView | None = field(default=None, repr=False, compare=False)
    """A source of the same rows and columns, for the picture in notebooks; no pixels."""

    @property
    def peak_nbytes(self) -> int:
        """The most memory a worker process needs."""
        return self.memory.peak_nbytes

    @property
    def fits(self) -> bool:
        """Whether a worker process may have that much."""
        return self.memory.fits

    @property
    def read_twice(self) -> float:
        """Share of the sources' pixels that blocks ask for more than once, for their halos; decoded seams are shared, so it costs less."""
        return self.read_nbytes / self.source_nbytes - 1 if self.source_nbytes else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The plan in plain numbers and texts, for JSON."""
        rows, cols = self.chunks_yx
        proposed = [max(sizes) for sizes in self.proposed_chunks_yx]
        return {
            "path": None if self.path is None else str(self.path), "driver": self.driver, "shape": list(self.shape), "dtype": self.dtype,
            "block": [max(rows), max(cols)], "blocks": self.blocks, "tasks": self.tasks, "functions": list(self.functions),
            "halo": list(self.halo_yx), "sources": list(self.sources), "source_nbytes": self.source_nbytes, "read_nbytes": self.read_nbytes,
            "write_nbytes": self.write_nbytes, "processes": self.processes, "threads": self.memory.threads,
            "peak_nbytes": self.peak_nbytes, "limit_nbytes": self.memory.limit_nbytes, "fits": self.fits, "proposed_block": proposed,
        }  # fmt: skip

    def __str__(self) -> str:
        """The plan in a few lines."""
        bands, rows, cols = self.shape
        block_rows, block_cols = (max(sizes) for sizes in self.chunks_yx)
        halo = f", halo {self.halo_yx[0]}" if len(set(self.halo_yx)) == 1 else f", halo {self.halo_yx}"
        memory = self.memory
        advice = "it fits" if self.fits else f"it does not fit; {way_out(self.proposed_chunks_yx, self.chunks_yx)}"
        lines = [
            f"{self.path or 'a raster'}: {self.driver}, {cols} x {rows} x {bands} {self.dtype}",
            f"blocks    {self.blocks} of {block_cols} x {block_rows}{halo if any(self.halo_yx) else ''}; {self.tasks} tasks",
            f"functions {', '.join(self.functions) or 'none'}",
            f"reads     {mb(self.read_nbytes)} of {', '.join(self.sources) or 'arrays in memory or of other libraries'}"
            + (f", {self.read_twice:.1%} of it twice" if self.read_twice > 0.0005 else ""),
            f"writes    {mb(self.write_nbytes)} before compression",
            f"memory    {mb(self.peak_nbytes)} at most for each of {_counted(self.processes, 'process', 'processes')} of {_counted(memory.threads, 'thread', 'threads')}: "
            f"{mb(memory.block_nbytes)} a thread, {mb(memory.shared_nbytes)} shared, {mb(memory.base_nbytes)} to begin with",
            f"limit     {mb(memory.limit_nbytes)}: {advice}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The plan for notebooks: its blocks over a quick look at what is read, one block with its halo, the memory, the numbers."""
        heading, *rest = str(self).splitlines()
        memory = self.memory
        threads = f"for {_counted(memory.threads, 'block', 'blocks')} at a time, {mb(memory.block_nbytes)} each"
        return page(
            PlanFacts(
                heading=heading,
                details=tuple((line[:10].strip(), line[10:]) for line in rest),
                chunks_yx=self.chunks_yx,
                halo_yx=self.halo_yx,
                view=self.view,
                memory=(
                    ("to begin with", memory.base_nbytes),
                    (threads, memory.threads * memory.block_nbytes),
                    ("shared", memory.shared_nbytes),
                ),
                limit_nbytes=memory.limit_nbytes,
            )
        )


def way_out(proposed: ChunksYX, present: ChunksYX) -> str:
    """What to do where a run does not fit."""
    rows, cols = (max(sizes) for sizes in proposed)
    if proposed == present:
        return "use fewer threads, or a worker with more memory"
    return f"open the rasters with chunks=({rows}, {cols}), or use fewer threads"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def mb(nbytes: int) -> str:
    """A size for people: 10^6 bytes, or 10^9 where there are many."""
    return f"{nbytes / 1e6:.0f} MB" if nbytes < 1e10 else f"{nbytes / 1e9:.1f} GB"
