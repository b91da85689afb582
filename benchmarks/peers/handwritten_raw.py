"""The limits without a codec: read, add, write at the same place, in two threads; and the disk alone."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import rasterio

PIECE = 8 << 20


def run(source: Path, target: Path, *, threads: int = 2) -> None:
    """
    Add one to the pixels of an uncompressed GeoTIFF of one band, whatever tile they are in; everything else is copied as it is.

    Parameters
    ----------
    source
        A GeoTIFF whose tiles lie side by side.
    target
        The same with other pixels.
    threads
        Threads; each reads, adds and writes 8 MiB at a time.

    Raises
    ------
    ValueError
        The source's tiles do not lie side by side.
    OSError
        A file cannot be read or written.
    """
    begin, end, dtype = _pixels(source)
    size = source.stat().st_size
    old, new = os.open(source, os.O_RDONLY), os.open(target, os.O_CREAT | os.O_WRONLY, 0o666)

    def work(start: int) -> None:
        buffer = np.fromfile(source, dtype, min(PIECE, end - start) // dtype.itemsize, offset=start)
        os.pwrite(new, (buffer + 1).data, start)

    try:
        for start, stop in ((0, begin), (end, size)):
            os.pwrite(new, os.pread(old, stop - start, start), start)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(work, range(begin, end, PIECE)):
                pass
    finally:
        os.close(old)
        os.close(new)


def copy(source: Path, target: Path, *, threads: int = 1) -> None:
    """Copy the bytes of a file in one thread and flush them to the disk: what the disk gives. Errors as of `run`."""
    with open(source, "rb") as old, open(target, "wb") as new:
        # Not shutil.copyfile: on some file systems that shares the blocks and writes nothing.
        shutil.copyfileobj(old, new, PIECE)
        new.flush()
        os.fsync(new.fileno())


def _pixels(source: Path) -> tuple[int, int, np.dtype[np.generic]]:
    """Where the pixels begin and end."""
    with rasterio.open(source) as file:
        rows, cols = (-(-size // step) for size, step in zip(file.shape, file.block_shapes[0], strict=True))
        dtype = np.dtype(file.dtypes[0])
        tile = file.block_shapes[0][0] * file.block_shapes[0][1] * dtype.itemsize
        names = [f"BLOCK_OFFSET_{col}_{row}" for row in range(rows) for col in range(cols)]
        offsets = sorted(int(file.get_tag_item(name, "TIFF", bidx=1)) for name in names)
    if any(second - first != tile for first, second in pairwise(offsets)):
        raise ValueError(f"the tiles of {source} do not lie side by side")
    return offsets[0], offsets[-1] + tile, dtype
