"""Texts in HDF5's global heap, read or checked without HDF5.

On a damaged heap HDF5 (2.0) may loop for ever: an object of size 0 that it takes for the next one again and again. So the texts that every
file has are read here, every size checked, and before texts of an attribute table are left to HDF5 the heaps they name are walked through
once. Only those: a search of the file for heaps costs as much as reading it.

Source: HDF5 File Format Specification 3.0, sections III.E (global heap) and IV.B (variable-length data).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from daskraster.formats.hdf5 import DEFLATE, SHUFFLE, h5py

SIGNATURE = b"GCOL\x01\0\0\0"  # with version 1
HEAD_NBYTES = 16
ALIGN = 8
_REFERENCE = struct.Struct("<IQI")  # length of the text, address of the heap, number of the object
_OBJECT = struct.Struct("<HHIQ")  # number, references, reserved, size
MAX_HEAP_NBYTES = 1 << 28
# What is searched for heaps before a table is read: they stand near the beginning, or, after changes, near the end.
SEARCHED_NBYTES = 1 << 28
PIECE_NBYTES = 1 << 20
KEA_FILTERS = (SHUFFLE, DEFLATE)


def read_text(file: BinaryIO, position: int) -> bytes:
    """The text that a variable-length element at ``position`` of the file refers to.

    Raises
    ------
    ValueError
        The reference or the heap cannot be right.
    """
    length, heap, number = _REFERENCE.unpack(_read(file, position, _REFERENCE.size))
    if not length:
        return b""
    for found, content in _objects(_heap(file, heap)):
        if found == number:
            if length > len(content):
                raise ValueError(f"a text of {length} bytes in a place for {len(content)}")
            return content[:length].split(b"\0")[0]
    raise ValueError(f"the heap at byte {heap} has no object {number}")


def check_heaps(file: BinaryIO) -> None:
    """Walk through every heap in the first and last 256 MB of a file, read in pieces of 1 MB; `check_references` is to be preferred.

    Raises
    ------
    ValueError
        One of them is damaged.
    """
    nbytes = file.seek(0, 2)
    tail = max(0, nbytes - SEARCHED_NBYTES) // ALIGN * ALIGN
    # Pieces and heaps begin on multiples of 8, and a signature has 8 bytes: none is cut in two.
    begins = {*range(0, min(SEARCHED_NBYTES, nbytes), PIECE_NBYTES), *range(tail, nbytes, PIECE_NBYTES)}
    for begin in sorted(begins):
        content = _read(file, begin, min(PIECE_NBYTES, nbytes - begin))
        position = content.find(SIGNATURE)
        while position >= 0:
            if position % ALIGN == 0:
                _check_heap(file, begin + position)
            position = content.find(SIGNATURE, position + 1)


def check_references(file: BinaryIO, dataset: h5py.Dataset) -> None:
    """Walk through the heaps that a dataset of variable-length elements names, before HDF5 reads it.

    ``file`` is the file that ``dataset`` is in. The addresses stand in the dataset's own chunks. Where those are not understood (no
    chunks, other filters, a user block) every heap is looked at, as in `check_heaps`.

    Raises
    ------
    ValueError
        A heap is damaged, or not where the dataset says.
    """
    layout = _layout(dataset.dtype)
    shuffled = _shuffled_nbytes(dataset)
    if layout is None or dataset.chunks is None or shuffled is None or dataset.file.userblock_size:
        check_heaps(file)
        return
    nbytes, positions = layout
    if shuffled not in (0, nbytes):
        raise ValueError(f"its elements of {nbytes} bytes are shuffled as {shuffled}")
    chunks: list[Any] = []
    dataset.id.chunk_iter(chunks.append)
    checked: set[int] = set()
    for chunk in chunks:
        elements = _elements(_read(file, chunk.byte_offset, chunk.size), dataset, chunk.filter_mask, nbytes)
        # Behind the last row a chunk may hold anything.
        rows = elements[: max(0, dataset.shape[0] - chunk.chunk_offset[0])].reshape(-1, nbytes)
        for position in positions:
            found = np.ascontiguousarray(rows[:, position + 4 : position + 12]).view("<u8")
            for address in set(np.unique(found).tolist()) - checked - {0}:
                _check_heap(file, address)
                checked.add(address)


def _layout(dtype: np.dtype[Any]) -> tuple[int, list[int]] | None:
    """Size of an element in the file, and where in it the references stand; None for types that do not occur in KEA.

    In memory a reference is a pointer of 8 bytes, in the file it has 16, so what follows it moves.
    """
    if _is_reference(dtype):
        return _REFERENCE.size, [0]
    if dtype.fields is None:
        return None
    members = sorted((offset, member) for member, offset, *_ in dtype.fields.values())
    if any(member.hasobject and not _is_reference(member) for _, member in members):
        return None
    grown = _REFERENCE.size - np.dtype(object).itemsize
    references = [offset for offset, member in members if member.hasobject]
    positions = [offset + grown * number for number, offset in enumerate(references)]
    return dtype.itemsize + grown * len(references), positions


def _is_reference(dtype: np.dtype[Any]) -> bool:
    text, values = h5py.check_string_dtype(dtype), h5py.check_vlen_dtype(dtype)
    return (text is not None and text.length is None) or (isinstance(values, np.dtype) and not values.hasobject)


def _shuffled_nbytes(dataset: h5py.Dataset) -> int | None:
    """Element size that the shuffle filter works with, 0 where it does not say; None where there are filters other than KEA's."""
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    kinds = [kind for kind, *_ in filters]
    if kinds not in ([], [h5py.h5z.FILTER_SHUFFLE], [h5py.h5z.FILTER_DEFLATE], list(KEA_FILTERS)):
        return None
    # HDF5 tells it no size where the elements are nothing but references, and then leaves it out chunk by chunk.
    return int(filters[0][2][0]) if h5py.h5z.FILTER_SHUFFLE in kinds and filters[0][2] else 0


def _elements(stored: bytes, dataset: h5py.Dataset, skipped: int, nbytes: int) -> NDArray[np.uint8]:
    """A chunk's elements as ``(rows, columns, byte)``; bit i of ``skipped`` says that filter i was left out."""
    plist = dataset.id.get_create_plist()
    used = [plist.get_filter(number)[0] for number in range(plist.get_nfilters()) if not skipped >> number & 1]
    count = int(np.prod(dataset.chunks, dtype=object))
    if h5py.h5z.FILTER_DEFLATE in used:
        try:
            stored = zlib.decompressobj().decompress(stored, count * nbytes + 1)
        except zlib.error as error:
            raise ValueError(f"a chunk cannot be inflated: {error}") from error
    if len(stored) != count * nbytes:
        raise ValueError(f"a chunk of {len(stored)} bytes where {count} elements of {nbytes} are due")
    content: NDArray[np.uint8] = np.frombuffer(stored, np.uint8)
    if h5py.h5z.FILTER_SHUFFLE in used:
        content = content.reshape(nbytes, count).T
    return content.reshape(dataset.chunks[0], -1, nbytes)


def _check_heap(file: BinaryIO, address: int) -> None:
    for _ in _objects(_heap(file, address)):
        pass


def _heap(file: BinaryIO, address: int) -> bytes:
    head = _read(file, address, HEAD_NBYTES)
    nbytes = int.from_bytes(head[8:], "little")
    if head[:8] != SIGNATURE or not HEAD_NBYTES <= nbytes <= MAX_HEAP_NBYTES:
        raise ValueError(f"no heap at byte {address}")
    return _read(file, address, nbytes)


def _objects(heap: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of each object of a heap; the last one, number 0, is free room."""
    position = HEAD_NBYTES
    while position + _OBJECT.size <= len(heap):
        number, _, _, size = _OBJECT.unpack_from(heap, position)
        begin = position + _OBJECT.size
        # The size of the free room counts its head too.
        following = position + size if not number else begin + -(-size // ALIGN) * ALIGN
        if not position < following <= len(heap):
            raise ValueError(f"a heap's object of {size} bytes reaches beyond it")
        if number:
            yield number, heap[begin : begin + size]
        position = following


def _read(file: BinaryIO, position: int, nbytes: int) -> bytes:
    end = file.seek(0, 2)
    if position + nbytes > end:
        raise ValueError(f"bytes {position} to {position + nbytes} lie behind the end of the file, {end}")
    file.seek(position)
    return file.read(nbytes)
