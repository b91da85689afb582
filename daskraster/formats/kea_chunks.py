"""Pixels of an HDF5 dataset read past HDF5: chunk addresses listed once, chunks inflated by whoever needs them.

HDF5 has one lock for the whole process and inflates under it. So h5py is asked only where the chunks lie (100,000 of them: 0.2 s,
2 MB), once in each process; from then on a window is positioned reads, libdeflate and byte planes, none of which holds a lock.
Every address is checked before it is used: inside the file, on the chunk grid, no two chunks on the same bytes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.scratch import Scratch
from daskraster.blocks.shuffle import unshuffle
from daskraster.errors import RasterReadError
from daskraster.formats.gdal_handles import check_unchanged
from daskraster.formats.hdf5 import DEFLATE, SHUFFLE, h5py
from daskraster.formats.kea_layout import KeaFile, open_kea
from daskraster.grid import Window

CACHE_FILES = 64  # descriptors held open for reading
CACHE_NBYTES = 64 << 20  # addresses of some three million chunks
MAX_CHUNK_NBYTES = 2**32  # HDF5's own limit
CONTIGUOUS_ROWS = 64  # rows read at once where a dataset has no chunks


class _OpenFile:
    """A descriptor for positioned reads, closed when the last chunk table that uses it is gone."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.nbytes = os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTable:
    """Where the chunks of one dataset lie. Threads: `read` in any number of them at once. Never pickled."""

    path: str
    item: str
    chunk_yx: tuple[int, int]
    dtype: np.dtype[Any]
    fill: Any
    """Value of pixels whose chunk was never written."""
    filters: tuple[int, ...]
    """What a chunk went through, in order: none, or shuffle, deflate, or both."""
    offsets: NDArray[np.int64]
    """``(chunk row, chunk column)``; 0 where the chunk was never written."""
    sizes: NDArray[np.int64]
    masks: NDArray[np.uint32]
    """Bit i: this chunk skipped filter i."""
    file: _OpenFile

    @property
    def nbytes(self) -> int:
        """Memory the table takes."""
        return self.offsets.nbytes + self.sizes.nbytes + self.masks.nbytes

    def read(self, window: Window, out: NDArray[Any]) -> None:
        """Fill ``out`` ``(y, x)`` with the pixels of a window inside the dataset.

        Raises
        ------
        RasterReadError
            A chunk is damaged or cannot be read.
        """
        rows, cols = self.chunk_yx
        cover = window.snap(self.chunk_yx)
        for row in range(cover.row_off // rows, cover.row_stop // rows):
            for col in range(cover.col_off // cols, cover.col_stop // cols):
                chunk = Window(row * rows, col * cols, rows, cols)
                part = chunk.clip(window)
                self._read_chunk(row, col, part.relative_to(chunk), out[part.relative_to(window).slices])

    def _read_chunk(self, row: int, col: int, part: Window, out: NDArray[Any]) -> None:
        if not self.offsets[row, col]:
            out[...] = self.fill
            return
        try:
            # Into a buffer used again: new memory for each chunk took twice as long as reading it.
            buffer = _read_scratch.of(int(self.sizes[row, col]))
            content = buffer[: os.preadv(self.file.descriptor, [buffer], int(self.offsets[row, col]))]
        except OSError as error:
            raise RasterReadError(f"cannot read {self.path}, item {self.item}, chunk {row}, {col}: {error}") from error
        done = [kind for bit, kind in enumerate(self.filters) if not self.masks[row, col] >> bit & 1]
        values = self._inflated(content, row, col) if DEFLATE in done else content
        if values.nbytes != self.chunk_yx[0] * self.chunk_yx[1] * self.dtype.itemsize:
            raise RasterReadError(
                f"{self.path} is damaged, item {self.item}: chunk {row}, {col} has {values.nbytes} bytes, "
                f"{self.chunk_yx[0]} x {self.chunk_yx[1]} pixels of {self.dtype} were due"
            )
        if SHUFFLE in done and self.dtype.itemsize > 1:
            planes = values.reshape(self.dtype.itemsize, *self.chunk_yx)
            unshuffle(planes[(slice(None), *part.slices)], out)
        else:
            out[...] = values.view(self.dtype).reshape(self.chunk_yx)[part.slices]

    def _inflated(self, content: NDArray[np.uint8], row: int, col: int) -> NDArray[np.uint8]:
        """The chunk's bytes; they stay valid until this thread inflates the next chunk."""
        nbytes = self.chunk_yx[0] * self.chunk_yx[1] * self.dtype.itemsize
        try:
            # libdeflate checks zlib's checksum, ISA-L (1.2 instead of 1.7 GB/s) does not. Without out= it allocates again and
            # again until the result fits: 0.4 GB/s.
            return np.asarray(imagecodecs.deflate_decode(content, out=_scratch.of(nbytes)))  # type: ignore[arg-type]
        except imagecodecs.DeflateError as error:
            raise RasterReadError(
                f"{self.path} is damaged, item {self.item}: chunk {row}, {col} does not inflate: {error}"
            ) from error


_scratch = Scratch()
_read_scratch = Scratch()


def list_chunks(kea: KeaFile, item: str, file: _OpenFile | None = None) -> ChunkTable | None:
    """Where the chunks of a dataset lie, every address checked; None where only HDF5 itself can read it.

    ``file`` is the descriptor to read by, shared by the tables of a file; None opens one.

    That is a dataset with other filters (lzf, szip, checksums), without chunks, in foreign byte order, or in a file whose addresses do not
    count from its first byte.

    Raises
    ------
    RasterFormatError
        The list of chunks cannot be right.
    """
    dataset = kea.dataset(item)
    filters = _filters(dataset)
    if dataset.chunks is None or filters is None or kea.file.userblock_size or not dataset.dtype.isnative:
        return None
    rows, cols = dataset.chunks
    if rows * cols * dataset.dtype.itemsize >= MAX_CHUNK_NBYTES:
        raise kea.error(f"its chunks of {rows} x {cols} pixels are larger than HDF5 allows")
    counts_yx = -(-dataset.shape[0] // rows), -(-dataset.shape[1] // cols)
    found: list[tuple[int, int, int, int, int]] = []
    dataset.id.chunk_iter(
        lambda chunk: found.append((*chunk.chunk_offset, chunk.byte_offset, chunk.size, chunk.filter_mask))
    )
    table = ChunkTable(
        path=kea.path,
        item=item,
        chunk_yx=(rows, cols),
        dtype=dataset.dtype,
        fill=dataset.fillvalue,
        filters=filters,
        offsets=np.zeros(counts_yx, np.int64),
        sizes=np.zeros(counts_yx, np.int64),
        masks=np.zeros(counts_yx, np.uint32),
        file=file or _OpenFile(kea.path),
    )
    if found:
        _fill_in(kea, table, np.array(found, dtype=np.uint64))
    return table


def _filters(dataset: h5py.Dataset) -> tuple[int, ...] | None:
    plist = dataset.id.get_create_plist()
    filters = tuple(plist.get_filter(number)[0] for number in range(plist.get_nfilters()))
    return filters if filters in ((), (SHUFFLE,), (DEFLATE,), (SHUFFLE, DEFLATE)) else None


def _fill_in(kea: KeaFile, table: ChunkTable, found: NDArray[np.uint64]) -> None:
    y, x, offsets, sizes, masks = found.T
    row, col = y // table.chunk_yx[0], x // table.chunk_yx[1]
    inside = (row < table.offsets.shape[0]) & (col < table.offsets.shape[1])
    if not np.all(inside & (y % table.chunk_yx[0] == 0) & (x % table.chunk_yx[1] == 0)):
        raise kea.error("a chunk lies outside the raster or off the chunk grid")
    end = np.uint64(table.file.nbytes)
    if not np.all((offsets > 0) & (offsets < end) & (sizes > 0) & (sizes <= end - np.minimum(offsets, end))):
        raise kea.error("a chunk lies outside the file, which may have been cut off")
    if np.any(masks >> np.uint64(len(table.filters))):
        raise kea.error("a chunk skips filters that there are not")
    order = np.argsort(offsets)
    if np.any(offsets[order][1:] < (offsets + sizes)[order][:-1]) or len(np.unique(row * np.uint64(2**32) + col)) < len(
        row
    ):
        raise kea.error("two chunks share bytes or pixels")
    table.offsets[row, col] = offsets
    table.sizes[row, col] = sizes
    table.masks[row, col] = masks


class _Cache:
    """This process's chunk tables, the most recently used; None stands for a dataset that only HDF5 can read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[str, str], ChunkTable | None] = OrderedDict()
        # One descriptor a file, not one a band; closed with the last table that reads by it.
        self._files: WeakValueDictionary[str, _OpenFile] = WeakValueDictionary()

    def get(self, path: str, token: str, item: str) -> ChunkTable | None:
        """The table of a dataset, listed if need be; one thread lists, the others wait and find it done."""
        with self._lock:
            if (token, item) in self._tables:
                self._tables.move_to_end((token, item))
                return self._tables[token, item]
            check_unchanged(path, (path,), token)
            file = self._files.get(token)
            if file is None:
                file = self._files[token] = _opened(path)
            with open_kea(path) as kea:
                table = self._tables[token, item] = list_chunks(kea, item, file)
            total = sum(_nbytes(old) for old in self._tables.values())
            while (total > CACHE_NBYTES or len(self._files) > CACHE_FILES) and len(self._tables) > 1:
                total -= _nbytes(self._tables.popitem(last=False)[1])
            return table

    def forget(self, token: str) -> None:
        """Drop the tables of one file."""
        with self._lock:
            for key in [key for key in self._tables if key[0] == token]:
                del self._tables[key]

    def clear(self) -> None:
        """Drop every table, and with them the descriptors, which keep the space of replaced files."""
        with self._lock:
            self._tables.clear()


def _opened(path: str) -> _OpenFile:
    try:
        return _OpenFile(path)
    except OSError as error:
        raise RasterReadError(f"cannot read {path}: {error.strerror or error}") from error


def _nbytes(table: ChunkTable | None) -> int:
    return 0 if table is None else table.nbytes


_cache = _Cache()


def chunk_table(path: str, token: str, item: str) -> ChunkTable | None:
    """The chunks of a dataset of a file known by its token; see `list_chunks`.

    Raises
    ------
    RasterFormatError, RasterReadError
        The file is damaged; gone or changed.
    """
    return _cache.get(path, token, item)


def forget(token: str) -> None:
    """Give back what reading keeps of one file, which is about to be removed."""
    _cache.forget(token)


def clear() -> None:
    """Give back what reading keeps for the next block, at the end of a run."""
    _cache.clear()


def read_by_hdf5(path: str, item: str, window: Window, out: NDArray[Any]) -> None:
    """Fill ``out`` ``(y, x)`` with a window through HDF5's own filters, one thread at a time.

    Raises
    ------
    RasterFormatError, RasterNotFoundError
        The file is gone, damaged here, or needs a filter that this HDF5 has not.
    """
    with open_kea(path) as kea:
        dataset = kea.dataset(item)
        out[...] = dataset[window.slices]


def tile_rows_cols(dataset: h5py.Dataset) -> tuple[int, int]:
    """Rows and columns that are read together."""
    if dataset.chunks is None:
        return min(CONTIGUOUS_ROWS, dataset.shape[0]), int(dataset.shape[1])
    return int(dataset.chunks[0]), int(dataset.chunks[1])


def windows_of_rows(rows: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Runs ``start, stop`` of ascending row numbers that span at most ``most`` rows, at least one number each.

    >>> list(windows_of_rows(np.array([0, 4, 8, 100]), 10))
    [(0, 3), (3, 4)]
    """
    start = 0
    while start < len(rows):
        stop = max(int(np.searchsorted(rows, rows[start] + most)), start + 1)
        yield start, stop
        start = stop
