"""Texts in HDF5's global heap, read or checked without HDF5.

On a damaged heap HDF5 (2.0) may loop for ever: an object of size 0 that it takes for the next one again and again. So the texts that every
file has are read here, every size checked, and before an attribute table is left to HDF5 its heaps are walked through once.

Source: HDF5 File Format Specification 3.0, sections III.E (global heap) and IV.B (variable-length data).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"GCOL\x01\0\0\0"  # with version 1
HEAD_NBYTES = 16
ALIGN = 8
_REFERENCE = struct.Struct("<IQI")  # length of the text, address of the heap, number of the object
_OBJECT = struct.Struct("<HHIQ")  # number, references, reserved, size
MAX_HEAP_NBYTES = 1 << 28
# What is searched for heaps before a table is read: they stand near the beginning, or, after changes, near the end.
SEARCHED_NBYTES = 1 << 28


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
    """Walk through every heap in the first and last 256 MB of a file.

    Raises
    ------
    ValueError
        One of them is damaged.
    """
    nbytes = file.seek(0, 2)
    for begin in {0, max(0, nbytes - SEARCHED_NBYTES) // ALIGN * ALIGN}:
        content = _read(file, begin, min(SEARCHED_NBYTES, nbytes - begin))
        position = content.find(SIGNATURE)
        while position >= 0:
            if position % ALIGN == 0:
                for _ in _objects(_heap(file, begin + position)):
                    pass
            position = content.find(SIGNATURE, position + 1)


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
