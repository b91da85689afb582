"""The order of tiles by which GDAL calls a file's layout ``COG``, and how the file says so.

Source: "Header ghost area" in the manual of GDAL's COG driver.
"""

from __future__ import annotations

from collections.abc import Sequence

LEADER_NBYTES = TRAILER_NBYTES = 4
"""Before each tile its size, behind it its last bytes once more: whether the tile was rewritten in place."""


def in_order(first_numbers: Sequence[int], levels: int, *, masked: bool, planar: bool) -> list[int]:
    """Numbers of all tiles in the order in which they are to lie.

    The smallest level first, row by row; with each tile the one of its mask, behind all of the level where it is ``planar``.

    Parameters
    ----------
    first_numbers
        Number of the first tile of each level, then of each level's mask, and of all tiles.
    levels
        Their number.
    masked
        Whether there are masks.
    planar
        Whether bands lie one behind the other.

    >>> in_order([0, 4, 5, 9, 10], 2, masked=True, planar=False)
    [4, 9, 0, 5, 1, 6, 2, 7, 3, 8]
    """
    order: list[int] = []
    for level in range(levels - 1, -1, -1):
        tiles = list(range(first_numbers[level], first_numbers[level + 1]))
        masks = list(range(first_numbers[levels + level], first_numbers[levels + level + 1])) if masked else []
        if masks and not planar:
            order += [number for pair in zip(tiles, masks, strict=True) for number in pair]
        else:
            order += tiles + masks
    return order


def ghost(*, masked: bool, planar: bool) -> bytes:
    """What GDAL's COG driver says of the order between header and first directory, word for word; even in number of bytes."""
    text = "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\nBLOCK_TRAILER=LAST_4_BYTES_REPEATED\n"
    text += "INTERLEAVE=BAND\n" if planar else ""
    text += "KNOWN_INCOMPATIBLE_EDITION=NO\n "  # the blank is room for a YES
    text += "MASK_INTERLEAVED_WITH_IMAGERY=YES\n" if masked and not planar else ""
    content = f"GDAL_STRUCTURAL_METADATA_SIZE={len(text):06d} bytes\n{text}".encode()
    return content + bytes(len(content) % 2)
