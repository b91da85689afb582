"""KEA's limit: two threads by hand, chunk addresses from h5py, libdeflate, byte planes in NumPy, ISA-L. No dask, no halo, no HDF5 index."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import imagecodecs
import numpy as np

from daskraster.blocks.shuffle import shuffle, unshuffle


def run(source: Path, target: Path, *, threads: int = 2, level: int = 1) -> None:
    """
    Each chunk of band 1 read, inflated, one added, shuffled, deflated and written where there is room.

    The file holds the encoded chunks in any order and no index; the byte planes are those of `daskraster.blocks.shuffle`, the fastest found.

    Parameters
    ----------
    source
        A KEA file of one band with shuffle and deflate, all chunks written.
    target
        A plain file.
    threads
        Threads; each does everything for its chunk.
    level
        ISA-L's level, 1 to 3.

    Raises
    ------
    OSError
        A file cannot be read or written.
    """
    with h5py.File(source) as file:
        data = file["BAND1/DATA"]
        chunk, dtype, places = data.chunks, data.dtype, []
        data.id.chunk_iter(lambda found: places.append((found.byte_offset, found.size)))
    nbytes = chunk[0] * chunk[1] * dtype.itemsize
    old, new = os.open(source, os.O_RDONLY), os.open(target, os.O_CREAT | os.O_WRONLY, 0o666)
    lock, end, own = threading.Lock(), 0, threading.local()

    def work(number: int) -> None:
        nonlocal end
        if not hasattr(own, "inflated"):
            own.inflated = np.empty(nbytes, np.uint8)
            own.pixels = np.empty(chunk, dtype)
        offset, size = places[number]
        planes: Any = imagecodecs.deflate_decode(os.pread(old, size, offset), out=own.inflated)
        planes = np.asarray(planes).reshape(dtype.itemsize, *chunk)
        unshuffle(planes, own.pixels)
        own.pixels += 1
        shuffle(own.pixels, planes)
        encoded = imagecodecs.isal_encode(planes, level=level)
        with lock:
            start, end = end, end + len(encoded)
        os.pwrite(new, encoded, start)

    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(work, range(len(places)), chunksize=1):
                pass
    finally:
        os.close(old)
        os.close(new)
