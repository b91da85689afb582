"""TIFF directories as data: read from a template that GDAL made, changed, laid out again.

GDAL decides which tags say what; this module only moves them. What GDAL writes for a sparse file is header, directory, values,
and two empty tile arrays; what leaves here is::

    header | directory 0 | its values | directory 1 | ... | tile byte counts 0 | tile offsets 0 | ... | (tiles follow)

Little-endian classic TIFF and BigTIFF. Source of the layout: TIFF 6.0, section 2, and the BigTIFF design page of libtiff.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
PHOTOMETRIC = 262
NEW_SUBFILE_TYPE, JPEG_TABLES, GDAL_METADATA, GDAL_NODATA = 254, 347, 42112, 42113

ASCII, SHORT, LONG, LONG8 = 2, 3, 4, 16
TYPE_NBYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
UNSIGNED = {SHORT: "<u2", LONG: "<u4", LONG8: "<u8"}


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of a directory."""

    type: int
    """TIFF's number of the value type."""
    count: int
    """Number of values."""
    raw: bytes
    """The values' bytes."""

    @classmethod
    def ascii(cls, text: str) -> Tag:
        """A text, NUL-terminated."""
        raw = text.encode() + b"\0"
        return cls(ASCII, len(raw), raw)

    @classmethod
    def short(cls, value: int) -> Tag:
        """A number of 16 bits."""
        return cls(SHORT, 1, struct.pack("<H", value))

    @classmethod
    def long(cls, value: int) -> Tag:
        """A number of 32 bits."""
        return cls(LONG, 1, struct.pack("<I", value))


type Directory = dict[int, Tag]


@dataclass(frozen=True, slots=True)
class TileArray:
    """Where a directory's tile offsets or byte counts lie in the file, to be filled in at the end."""

    position: int
    dtype: str
    count: int

    def encode(self, values: NDArray[np.int64]) -> bytes:
        """The values' bytes.

        Raises
        ------
        OverflowError
            A value does not fit the type that the header announces.
        """
        limit = np.iinfo(self.dtype).max
        if values.size and int(values.max()) > limit:
            raise OverflowError(
                f"{int(values.max())} does not fit the header's {8 * np.dtype(self.dtype).itemsize}-bit entries"
            )
        return values.astype(self.dtype).tobytes()


@dataclass(frozen=True, slots=True)
class Layout:
    """A laid-out header and what must be patched in it."""

    header: bytes
    offsets: Sequence[TileArray]
    """For each directory."""
    byte_counts: Sequence[TileArray]
    """For each directory."""


@dataclass(frozen=True, slots=True)
class _Dialect:
    """The widths in which classic TIFF and BigTIFF differ."""

    big: bool

    @property
    def address(self) -> str:
        return "<Q" if self.big else "<I"

    @property
    def entry_count(self) -> str:
        return "<Q" if self.big else "<H"

    @property
    def inline_nbytes(self) -> int:
        return 8 if self.big else 4

    @property
    def entry_nbytes(self) -> int:
        return 20 if self.big else 12

    @property
    def header_nbytes(self) -> int:
        return 16 if self.big else 8

    def header(self, first: int) -> bytes:
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if self.big else struct.pack("<2sHI", b"II", 42, first)


def parse(buffer: bytes | memoryview) -> tuple[bool, list[Directory]]:
    """All directories of a little-endian TIFF that GDAL made a moment ago, and whether it is a BigTIFF.

    Raises
    ------
    ValueError
        The bytes are no little-endian TIFF.
    """
    signature, version = struct.unpack_from("<2sH", buffer)
    if signature != b"II" or version not in (42, 43):
        raise ValueError("not a little-endian TIFF")
    dialect = _Dialect(version == 43)
    directories: list[Directory] = []
    (offset,) = struct.unpack_from(dialect.address, buffer, 8 if dialect.big else 4)
    while offset:
        (count,) = struct.unpack_from(dialect.entry_count, buffer, offset)
        first = offset + struct.calcsize(dialect.entry_count)
        entries = [first + index * dialect.entry_nbytes for index in range(count)]
        directories.append(dict(_parse_entry(buffer, entry, dialect) for entry in entries))
        (offset,) = struct.unpack_from(dialect.address, buffer, first + count * dialect.entry_nbytes)
    return dialect.big, directories


def _parse_entry(buffer: bytes | memoryview, entry: int, dialect: _Dialect) -> tuple[int, Tag]:
    code, type_number = struct.unpack_from("<HH", buffer, entry)
    (count,) = struct.unpack_from(dialect.address, buffer, entry + 4)
    position = entry + 4 + dialect.inline_nbytes
    nbytes = TYPE_NBYTES[type_number] * count
    if nbytes > dialect.inline_nbytes:
        (position,) = struct.unpack_from(dialect.address, buffer, position)
    return code, Tag(type_number, count, bytes(buffer[position : position + nbytes]))


def lay_out(directories: Sequence[Directory], *, big: bool, ghost: bytes = b"") -> Layout:
    """Directories one behind the other from the start of the file, tile arrays after all of them, as GDAL's COG driver does.

    ``ghost``: bytes between the header and the first directory, which readers skip; even in number.
    """
    dialect = _Dialect(big)
    header = bytearray(dialect.header(dialect.header_nbytes + len(ghost))) + ghost
    waiting: dict[tuple[int, int], tuple[int, Tag]] = {}  # (directory, code) -> position of the entry's value, the tag
    for number, directory in enumerate(directories):
        tags = dict(sorted(directory.items()))
        begin = len(header)
        entries = bytearray(struct.pack(dialect.entry_count, len(tags)))
        values_at = begin + len(entries) + len(tags) * dialect.entry_nbytes + dialect.inline_nbytes
        values = bytearray()
        for code, tag in tags.items():
            entries += struct.pack("<HH", code, tag.type) + struct.pack(dialect.address, tag.count)
            if code in (TILE_OFFSETS, TILE_BYTE_COUNTS):
                waiting[number, code] = begin + len(entries), tag
                entries += bytes(dialect.inline_nbytes)
            elif len(tag.raw) <= dialect.inline_nbytes:
                entries += tag.raw.ljust(dialect.inline_nbytes, b"\0")
            else:
                values += bytes(len(values) % 2)  # values begin on even bytes
                entries += struct.pack(dialect.address, values_at + len(values))
                values += tag.raw
        values += bytes((values_at + len(values)) % 2)
        following = values_at + len(values) if number + 1 < len(directories) else 0
        header += entries + struct.pack(dialect.address, following) + values
    arrays: dict[tuple[int, int], TileArray] = {}
    for key, (value_at, tag) in waiting.items():
        if len(tag.raw) <= dialect.inline_nbytes:
            position = value_at
        else:
            position = len(header)
            struct.pack_into(dialect.address, header, value_at, position)
            header += bytes(len(tag.raw))
            header += bytes(len(header) % 2)
        arrays[key] = TileArray(position, UNSIGNED[tag.type], tag.count)
    numbers = range(len(directories))
    return Layout(
        header=bytes(header),
        offsets=[arrays[number, TILE_OFFSETS] for number in numbers],
        byte_counts=[arrays[number, TILE_BYTE_COUNTS] for number in numbers],
    )
