"""The tools compared, one module each, with ``run(source, target, **job)``; each is run in a process of its own.

A module imports its tool at its top, so that the time of imports can be told from the time of the run. The job of all
is the pixels of the source plus one, ``benchmarks.peers.functions.add_one``; ``threads`` says how many threads a tool
may use for computing, and how many GDAL's own codec threads are, where it has them.
"""

from pathlib import Path
from typing import Protocol


class Run(Protocol):
    """What each module of this folder offers as ``run``."""

    def __call__(self, source: Path, target: Path, **job: object) -> None:
        """Read ``source``, write ``target``; ``job`` holds what the tool can be told (halo, threads, ...)."""
        ...
