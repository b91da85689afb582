"""What a block leaves behind, as bytes in a journal and back. No pickle: what is read is text of numbers, and arrays of numbers.

A record is a JSON object and, behind it, the bytes of its arrays: ::

    length of the JSON (4 bytes) | JSON | array | array | ...

Integers of any size and floats are written in hexadecimal, exact.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.bins import BinCounts
from daskraster.blocks.statistics import PartialStatistics
from daskraster.formats.protocols import Piece, Receipt
from daskraster.grid import Window
from daskraster.metadata import Number

_LENGTH = struct.Struct("<I")
# Pixels, counts, offsets: nothing that is more than its bytes.
NUMERIC_KINDS = "iuf"

type Facts = dict[str, Any]
"""What JSON can say."""


def pack(facts: Mapping[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> bytes:
    """A record."""
    described = {**facts, "arrays": [[array.dtype.str, array.shape] for array in arrays]}
    text = json.dumps(described, separators=(",", ":")).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *(np.ascontiguousarray(array).tobytes() for array in arrays)])


def unpack(record: bytes) -> tuple[Facts, list[NDArray[Any]]]:
    """The facts and the arrays of a record; arrays are read-only.

    Raises
    ------
    ValueError
        The bytes are no record.
    """
    try:
        (length,) = _LENGTH.unpack_from(record)
        facts = json.loads(record[_LENGTH.size : _LENGTH.size + length])
        position = _LENGTH.size + length
        arrays: list[NDArray[Any]] = []
        for text, shape in facts.pop("arrays"):
            dtype = np.dtype(str(text))
            if dtype.kind not in NUMERIC_KINDS or dtype.fields is not None:
                raise ValueError(f"an array of {dtype}")
            count = math.prod(shape)
            arrays.append(np.frombuffer(record, dtype, count, position).reshape(shape))
            position += count * dtype.itemsize
    except (struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no record: {error}") from error
    return facts, arrays


def pack_receipt(receipt: Receipt) -> bytes:
    """A receipt with all it carries, as a record."""
    arrays: list[NDArray[Any]] = [receipt.tiles, receipt.offsets, receipt.sizes, receipt.checksums]
    arrays += [np.frombuffer(content, np.uint8) for content in receipt.held.values()]
    statistics = [_statistics_facts(partial, arrays) for partial in receipt.statistics]
    piece: Facts | None = None
    if receipt.piece is not None:
        window = receipt.piece.window
        piece = {
            "level": receipt.piece.level,
            "window": [window.row_off, window.col_off, window.height, window.width],
            "band_off": receipt.piece.band_off,
        }
        arrays.append(receipt.piece.values)
    facts = {
        "kind": "block",
        "block": receipt.block,
        "nbytes": receipt.nbytes,
        "band_off": receipt.band_off,
        "seconds": receipt.seconds,
        "held": list(receipt.held),
        "statistics": statistics,
        "piece": piece,
    }
    return pack(facts, arrays)


def unpack_receipt(facts: Facts, arrays: Sequence[NDArray[Any]]) -> Receipt:
    """The receipt of a record of kind "block".

    Raises
    ------
    ValueError
        Something is missing, or of another kind than was due.
    """
    rest = iter(arrays)
    try:
        tiles, offsets, sizes, checksums = (next(rest) for _ in range(4))
        if not len(tiles) == len(offsets) == len(sizes) == len(checksums):
            raise ValueError("a block whose tiles, offsets, sizes and checksums are not as many")
        held = {int(number): next(rest).tobytes() for number in facts["held"]}
        statistics = tuple(_statistics(one, rest) for one in facts["statistics"])
        piece = facts["piece"]
        band, row, col = map(int, facts["block"])
        return Receipt(
            block=(band, row, col),
            tiles=tiles.astype(np.int64, copy=False),
            offsets=offsets.astype(np.int64, copy=False),
            sizes=sizes.astype(np.int64, copy=False),
            checksums=checksums.astype(np.uint32, copy=False),
            nbytes=int(facts["nbytes"]),
            seconds={str(name): float(spent) for name, spent in facts["seconds"].items()},
            held=held,
            statistics=statistics,
            band_off=int(facts["band_off"]),
            piece=None
            if piece is None
            else Piece(
                level=int(piece["level"]),
                window=Window(*map(int, piece["window"])),
                band_off=int(piece["band_off"]),
                values=next(rest),
            ),
        )
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError(f"no block: {error!r}") from error


def _statistics_facts(partial: PartialStatistics, arrays: list[NDArray[Any]]) -> Facts:
    counts = partial.counts
    facts: Facts = {
        "dtype": partial.dtype.str,
        "thematic": partial.thematic,
        "pixels": partial.pixels,
        "count": partial.count,
        "infinities": partial.infinities,
        "minimum": _text(partial.minimum),
        "maximum": _text(partial.maximum),
        "total": _text(partial.total),
        "squares": _text(partial.squares),
        "counts": None,
    }
    if counts is not None:
        facts["counts"] = [_text(counts.exponent), _text(counts.low), counts.size, counts.bins is not None]
        arrays += [counts.counts] if counts.bins is None else [counts.counts, counts.bins]
    return facts


def _statistics(facts: Facts, arrays: Any) -> PartialStatistics:
    counts: BinCounts | None = None
    if facts["counts"] is not None:
        exponent, low, size, listed = facts["counts"]
        values = next(arrays)
        counts = BinCounts(
            exponent=_integer(exponent),
            low=_integer(low),
            size=int(size),
            counts=values,
            bins=next(arrays) if listed else None,
        )
    return PartialStatistics(
        dtype=np.dtype(str(facts["dtype"])),
        thematic=bool(facts["thematic"]),
        pixels=int(facts["pixels"]),
        count=int(facts["count"]),
        infinities=int(facts["infinities"]),
        minimum=_number(facts["minimum"]),
        maximum=_number(facts["maximum"]),
        total=_integer(facts["total"]),
        squares=_integer(facts["squares"]),
        counts=counts,
    )


def _text(value: Number | None) -> str | None:
    if value is None:
        return None
    return value.hex() if isinstance(value, float) else hex(int(value))


def _number(text: str | None) -> Number | None:
    """A float has a "p" before its exponent in hexadecimal, an integer has none."""
    if text is None:
        return None
    return float.fromhex(text) if "p" in text or "n" in text else int(text, 16)


def _integer(text: str) -> int:
    return int(text, 16)
