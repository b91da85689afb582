"""Headers of many files, read in parallel."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from daskraster.formats import choosing
from daskraster.formats.protocols import Source
from daskraster.metadata import RasterMetadata
from daskraster.showing import progress_line

# A header on a disk takes 1.7 ms, most of it GDAL's, which two cores share in 1.2; one on a network waits for 10-100 ms, and they wait together.
THREADS = 8
SHOWN_AFTER_SECONDS = 1.0

type Header = tuple[Source, RasterMetadata, tuple[int, ...]]
"""The source, its metadata, the numbers of its bands."""


def read_headers(paths: Sequence[str]) -> Generator[Header]:
    """What each file holds, in the order of ``paths``; a line of progress where it takes longer than a second.

    Files stay closed; a header is let go as soon as the next one is asked for.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        One of the files is missing or no raster; the others are not read any more.
    """
    line = progress_line(len(paths), "headers", "file", delay=SHOWN_AFTER_SECONDS, leave=False)
    executor = ThreadPoolExecutor(max(1, min(THREADS, len(paths))), thread_name_prefix="headers")
    try:
        # In portions: nobody holds 10,000 headers that wait for their turn.
        for start in range(0, len(paths), 16 * THREADS):
            for header in executor.map(_describe, paths[start : start + 16 * THREADS]):
                line.update()
                yield header
    finally:
        executor.shutdown(cancel_futures=True)
        line.close()


def absolute(path: str | os.PathLike[str]) -> str:
    """A path that still leads to its file later, perhaps from a worker or after a chdir; URLs and ``/vsi`` names stay."""
    name = os.fspath(path)
    return str(Path(name).absolute()) if Path(name).exists() else name


def _describe(path: str) -> Header:
    return choosing.describe(path, bands=None, masked=False, overview_level=None)
