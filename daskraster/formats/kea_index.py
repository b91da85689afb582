"""HDF5's own list of chunks, made without HDF5: a version-1 B-tree.

Strategy. h5py makes a file with everything but pixels; workers append chunks behind it, wherever there is room. What is then left to say is
where they lie. For each dataset a tree is laid out at the end of the file, its root's address goes into the dataset's
layout message, and the new end of the file into the superblock: ::

    superblock | objects of h5py ... layout message | chunk | chunk | ... | nodes of the trees
         |                                 |                               ^             ^
         end of file ----------------------|-------------------------------|-------------'
                                           root of the tree ---------------'

Source: HDF5 File Format Specification 3.0, sections II.A (superblock version 0), III.A.1 (version-1 B-trees, node type 1), IV.A.1.a (version-1
object headers), IV.A.2.i (layout message version 3). HDF5 reads such a file, and changes and extends it in place.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from daskraster.formats.hdf5 import h5py

END_OF_FILE_POSITION = 40  # in a version-0 superblock with 8-byte addresses
UNDEFINED = 2**64 - 1
# Half the children of a node; the library's default, which a version-0 superblock does not override.
HALF_CHILDREN = 32
NODE_ALIGN = 8

LAYOUT_MESSAGE, CONTINUATION_MESSAGE = 8, 16
LAYOUT_VERSION, CHUNKED = 3, 2

_ENTRY = np.dtype(
    [("size", "<u4"), ("mask", "<u4"), ("row", "<u8"), ("col", "<u8"), ("element", "<u8"), ("child", "<u8")]
)
_KEY_NBYTES = _ENTRY.itemsize - 8
_HEAD = struct.Struct("<4sBBHQQ")  # signature, node type, level, entries, left and right sibling
NODE_NBYTES = _HEAD.size + 2 * HALF_CHILDREN * _ENTRY.itemsize + _KEY_NBYTES


def chunk_tree(
    row_col: NDArray[np.int64],
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
    *,
    stop_yx: tuple[int, int],
    begin: int,
) -> tuple[int, bytes]:
    """The tree of one dataset.

    Parameters
    ----------
    row_col
        ``(chunk, 2)``: first pixel of each chunk, ascending by row, then column. Not empty.
    offsets, sizes
        Where each chunk's bytes lie and how many they are.
    stop_yx
        First row and column behind the last chunk.
    begin
        Where in the file the tree will stand; a multiple of 8.

    Returns
    -------
    Address of the root, and the bytes to stand at ``begin``.
    """
    entries = np.zeros(len(offsets), _ENTRY)
    entries["row"], entries["col"] = row_col.T
    entries["size"], entries["child"] = sizes, offsets
    stop = np.zeros(1, _ENTRY)
    stop["row"], stop["col"] = stop_yx
    nodes: list[bytes] = []
    level = 0
    while True:
        starts = range(0, len(entries), 2 * HALF_CHILDREN)
        first = begin + len(nodes) * NODE_NBYTES
        # Behind its last child a node tells the first key of the next node.
        followed = np.concatenate([entries, stop])
        for number, start in enumerate(starts):
            children = entries[start : start + 2 * HALF_CHILDREN]
            left = first + (number - 1) * NODE_NBYTES if number else UNDEFINED
            right = first + (number + 1) * NODE_NBYTES if number + 1 < len(starts) else UNDEFINED
            following = followed[start + len(children)].tobytes()[:_KEY_NBYTES]
            head = _HEAD.pack(b"TREE", 1, level, len(children), left, right)
            nodes.append((head + children.tobytes() + following).ljust(NODE_NBYTES, b"\0"))
        if len(starts) == 1:
            return first, b"".join(nodes)
        entries = entries[:: 2 * HALF_CHILDREN].copy()
        entries["child"] = first + NODE_NBYTES * np.arange(len(starts))
        level += 1


def root_positions(header: bytes, items: Sequence[str]) -> list[int]:
    """Where in a file the address of each dataset's tree stands.

    Parameters
    ----------
    header
        The file as h5py made it: superblock version 0, chunked datasets without chunks.
    items
        Paths of the datasets.

    Raises
    ------
    ValueError
        The header is of another kind.
    """
    if header[8] != 0:
        raise ValueError(f"superblock of version {header[8]}, version 0 was due")
    with h5py.File(io.BytesIO(header), "r") as file:
        addresses = [h5py.h5o.get_info(file[item].id).addr for item in items]
    return [_root_position(header, address) for address in addresses]


def _root_position(header: bytes, address: int) -> int:
    """Find the layout message among the messages of a version-1 object header."""
    version, _, _, _, nbytes = struct.unpack_from("<BBHII", header, address)
    if version != 1:
        raise ValueError(f"object header of version {version}, version 1 was due")
    blocks = [(address + 16, nbytes)]
    for start, room in blocks:
        position = start
        while position + 8 <= start + room:
            kind, size = struct.unpack_from("<HH", header, position)
            body = position + 8
            if kind == CONTINUATION_MESSAGE:
                blocks.append(struct.unpack_from("<QQ", header, body))
            if kind == LAYOUT_MESSAGE:
                layout_version, layout_class, _, root = struct.unpack_from("<BBBQ", header, body)
                if (layout_version, layout_class, root) != (LAYOUT_VERSION, CHUNKED, UNDEFINED):
                    raise ValueError("a dataset is not chunked, or has chunks already")
                return body + 3
            position = body + size
    raise ValueError("a dataset without a layout")
