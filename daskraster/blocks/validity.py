"""Which pixels of an output are valid, from the block that comes to the masks of the file.

Valid is what is neither nodata nor NaN. As long as a block is under way, an invalid pixel shows by a value, the *marker*, since a value
passes through halving, pieces and strips like any other, where a second array would have to be carried along. What the marker is::

    the file has a nodata value                           that value
    it has none, pixels keep their type                   the nodata value of the array, NaN in floats; no pixel is changed
    it has none, floats or another type become integers   a value outside the file's range, in a wider type

In the last case the file's pixels are cut out of the wider ones where they are written, with a fill where the marker was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.masking import holds
from daskraster.errors import RasterWriteError
from daskraster.metadata import Number

WIDER = {"uint8": "int16", "int8": "int16", "uint16": "int32", "int16": "int32", "uint32": "int64", "int32": "int64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """How the pixels of one output show that they are invalid. Immutable, picklable, safe in threads."""

    file_dtype: np.dtype[Any]
    dtype: np.dtype[Any]
    """Of blocks under way: the file's or a wider one."""
    markers: tuple[Number | None, ...]
    """Of each band; NaN is invalid besides; None: nothing else is."""
    source_nodata: tuple[Number | None, ...] = ()
    """Of each band as it comes, where invalid pixels are to be marked anew; empty where they have their marker already."""
    file_nodata: tuple[Number | None, ...] = ()
    """Of each band of the file, where pixels are marked anew."""
    fills: tuple[Number, ...] = ()
    """What invalid pixels of each band become in a file of integers, where they are marked anew."""

    @property
    def marks_anew(self) -> bool:
        """Whether `marked` has anything to do."""
        return bool(self.source_nodata)

    def marked(self, source: NDArray[Any], converted: NDArray[Any], band_off: int) -> NDArray[Any]:
        """A block under way.

        Parameters
        ----------
        source
            ``(band, y, x)`` as it came.
        converted
            The same in ``file_dtype``.
        band_off
            Number of its first band, from 0.

        Raises
        ------
        RasterWriteError
            A valid 64-bit pixel has the marker's value, beside which no type has room for another.
        """
        if not self.marks_anew:
            return converted
        result = converted.astype(self.dtype)
        for band, (pixels, before, after) in enumerate(zip(result, source, converted, strict=True), band_off):
            invalid = ~valid_pixels(before, self.source_nodata[band])
            invalid |= ~valid_pixels(after, self.file_nodata[band])
            marker = self.markers[band]
            if marker is not None and self.dtype == self.file_dtype and (pixels[~invalid] == marker).any():
                raise RasterWriteError(
                    f"a pixel has the value {marker}, by which invalid pixels of {self.dtype} are marked; give nodata="
                )
            pixels[invalid] = np.nan if marker is None else marker
        return result

    def split(self, block: NDArray[Any], band_off: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A block under way as pixels of the file and where they are valid, both ``(band, y, x)``."""
        markers = self.markers[band_off : band_off + len(block)]
        valid = np.empty(block.shape, bool)
        for pixels, marker, into in zip(block, markers, valid, strict=True):
            into[...] = valid_pixels(pixels, marker)
        if not self.marks_anew or self.file_dtype.kind == "f":
            return block, valid
        pixels = np.empty(block.shape, self.file_dtype)
        for band, (out, values, of_band) in enumerate(zip(pixels, block, valid, strict=True), band_off):
            # "unsafe": the marker does not fit, and is replaced at once.
            np.copyto(out, values, casting="unsafe")
            out[~of_band] = self.fills[band]
        return pixels, valid


def valid_pixels(pixels: NDArray[Any], nodata: Number | None) -> NDArray[np.bool_]:
    """Where pixels are neither ``nodata`` nor NaN; a value that their type cannot hold matches nothing."""
    if pixels.dtype.kind == "b":
        pixels = pixels.view(np.uint8)
    matches = nodata is not None and holds(pixels.dtype, nodata)
    if pixels.dtype.kind != "f":
        return np.asarray(pixels != pixels.dtype.type(nodata)) if matches else np.ones(pixels.shape, bool)
    valid = pixels == pixels  # noqa: PLR0124 - NaN; half the time of isnan and its inverse
    if matches:
        valid &= pixels != pixels.dtype.type(nodata)
    return np.asarray(valid)


def validity(
    source_dtype: np.dtype[Any],
    source_nodata: Sequence[Number | None],
    file_dtype: np.dtype[Any],
    file_nodata: Sequence[Number | None],
    encoded: Number | None = None,
) -> Validity:
    """The rule for an output with masks.

    Parameters
    ----------
    source_dtype, source_nodata
        Of the array: its type, and each band's value for "no data", NaN or None.
    file_dtype, file_nodata
        Of the file: its type, and each band's nodata value, None where the mask alone says it.
    encoded
        What stood in the array's file where it has NaN; stands there again in a file of integers, where it fits.
    """
    if source_dtype.kind == "b":
        source_dtype = np.dtype(np.uint8)
    source = tuple(None if value is None or np.isnan(value) else value for value in source_nodata)
    # Where the file has a label, that alone counts: a new number is a label for other pixels.
    source = tuple(value if label is None else None for value, label in zip(source, file_nodata, strict=True))
    unlabelled = any(label is None for label in file_nodata)
    from_nan = file_dtype.kind != "f" and source_dtype.kind == "f"
    if source_dtype == file_dtype or not ((unlabelled and from_nan) or any(value is not None for value in source)):
        markers = tuple(value if label is None else label for value, label in zip(source, file_nodata, strict=True))
        return Validity(file_dtype=file_dtype, dtype=file_dtype, markers=markers)
    marker: Number | None = None
    dtype = file_dtype
    if file_dtype.kind != "f":
        dtype = np.dtype(WIDER.get(str(file_dtype), str(file_dtype)))
        # 64 bits: next to the largest, which is no float and so comes from no float.
        marker = int(np.iinfo(dtype).min) if dtype != file_dtype else int(np.iinfo(dtype).max) - 1
    fills = (
        [
            next(
                (int(value) for value in (label, encoded, before) if value is not None and holds(file_dtype, value)), 0
            )
            for label, before in zip(file_nodata, source, strict=True)
        ]
        if file_dtype.kind != "f"
        else []
    )
    return Validity(
        file_dtype=file_dtype,
        dtype=dtype,
        markers=(marker,) * len(source),
        source_nodata=source,
        file_nodata=tuple(file_nodata),
        fills=tuple(fills),
    )
