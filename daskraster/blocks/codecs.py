"""A tile to bytes and back: predictor, then compression.

The bytes are those a TIFF reader expects; every call was checked against GDAL's reader for all pixel types. All of them release
the GIL, so threads encode side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

type Encoded = bytes | bytearray | memoryview | NDArray[np.uint8]

# MB/s per core on uint16 scenes with predictor 2: ISA-L 1 280-366, ISA-L 3 203-286, libdeflate 6 72-86, zlib 6 16; files of
# ISA-L 1 are 1-2 % larger than libdeflate's at 6. Level 0 of ISA-L (212 MB/s, 40 % larger) is worse in both.
ISAL_LEVEL = 1
# zstd is chosen for its speed: 586 MB/s at level 1, 36 at GDAL's default of 9 for a file 11 % smaller.
ZSTD_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCodec:
    """How one tile becomes bytes; immutable, picklable, safe in threads."""

    compress: str
    """One of ``daskraster.options.COMPRESSIONS``."""
    predictor: int = 1
    """1 none, 2 horizontal differences, 3 floating point."""
    level: int | None = None
    """Effort as the user asked; None: the fastest good one (deflate then by ISA-L)."""
    quality: int | None = None
    """jpeg and webp, 1-100; None: 75 for jpeg, lossless for webp."""
    max_error: float = 0.0
    """lerc: largest error a pixel may get; 0 is lossless."""
    ycbcr: bool = False
    """jpeg: store three bands as YCbCr 4:2:0."""

    @property
    def lossy(self) -> bool:
        """Whether pixels may come back otherwise."""
        return self.compress == "jpeg" or self.max_error > 0 or (self.compress == "webp" and self.quality is not None)

    def encode(self, tile: NDArray[Any]) -> Encoded:
        """Bytes of one whole tile.

        Parameters
        ----------
        tile
            ``(y, x)`` or ``(y, x, sample)``, any strides; edge tiles padded to full size.

        Raises
        ------
        imagecodecs.ImcdError and its kin
            The codec refused the tile; never an empty result.
        """
        tile = tile.astype(tile.dtype.newbyteorder("<"), copy=False)
        if self.predictor == 2:
            tile = imagecodecs.delta_encode(_as_unsigned(tile), axis=1)
        elif self.predictor == 3:
            tile = imagecodecs.floatpred_encode(np.ascontiguousarray(tile), axis=1)
        else:
            tile = np.ascontiguousarray(tile)
        return _ENCODERS[self.compress](self, tile)


def _as_unsigned(tile: NDArray[Any]) -> NDArray[Any]:
    """Floats as the integers of the same bits: TIFF's predictor 2 differences bits, not values."""
    if tile.dtype.kind == "f":
        return tile.view(f"<u{tile.dtype.itemsize}")
    return tile


def _encode_none(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    return tile.reshape(-1).view(np.uint8)


def _encode_deflate(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    if codec.level is None:
        return imagecodecs.isal_encode(tile, level=ISAL_LEVEL)
    return imagecodecs.deflate_encode(tile, level=codec.level)


def _encode_zstd(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    return imagecodecs.zstd_encode(tile, level=ZSTD_LEVEL if codec.level is None else codec.level)


def _encode_lzw(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    return imagecodecs.lzw_encode(tile)


def _encode_packbits(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    # PackBits runs must not cross rows, so rows are bytes along the last axis.
    return imagecodecs.packbits_encode(tile.reshape(tile.shape[0], -1).view(np.uint8), axis=-1)


def _encode_lzma(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    return imagecodecs.lzma_encode(tile, level=codec.level)


def _encode_lerc(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    if tile.ndim == 3 and tile.dtype.kind == "f":
        missing = np.isnan(tile)
        if (missing != missing[..., :1]).any():
            # LERC has one mask for all samples of a pixel; the others would come back as -3.4e38.
            raise ValueError("LERC cannot hold NaN in some bands of a pixel only; give interleave='band'")
    inner: dict[str, Any] = {}
    if codec.compress != "lerc":
        inner["compression"] = codec.compress.removeprefix("lerc_")
    if codec.level is not None:
        inner["compressionargs"] = {"level": codec.level}
    return imagecodecs.lerc_encode(tile, level=codec.max_error, **inner)


def _encode_jpeg(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    color: dict[str, Any] = {"outcolorspace": "YCBCR", "subsampling": "420"} if codec.ycbcr else {}
    return imagecodecs.jpeg8_encode(tile, level=75 if codec.quality is None else codec.quality, **color)


def _encode_webp(codec: TileCodec, tile: NDArray[Any]) -> Encoded:
    if codec.quality is None:
        return imagecodecs.webp_encode(tile, lossless=True)
    return imagecodecs.webp_encode(tile, lossless=False, level=codec.quality)


_ENCODERS: dict[str, Callable[[TileCodec, NDArray[Any]], Encoded]] = {
    "none": _encode_none,
    "deflate": _encode_deflate,
    "zstd": _encode_zstd,
    "lzw": _encode_lzw,
    "packbits": _encode_packbits,
    "lzma": _encode_lzma,
    "lerc": _encode_lerc,
    "lerc_deflate": _encode_lerc,
    "lerc_zstd": _encode_lerc,
    "jpeg": _encode_jpeg,
    "webp": _encode_webp,
}


def checksum(content: Encoded) -> int:
    """CRC32 of some bytes: by ISA-L, at 20 times zlib's 3 GB/s."""
    return int(imagecodecs.isal_crc32(content))
