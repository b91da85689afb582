"""The rules of a cloud-optimised GeoTIFF, looked up in the bytes of a file."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rio_cogeo import cog_validate

from daskraster.formats import tiff
from tests.conftest import ignoring_georeference

GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE="


def check_cog(path: Path, *, ordered: bool, masked: bool = False) -> None:
    """GDAL's validate_cloud_optimized_geotiff with its full check, from the bytes, and rio-cogeo's strict validator.

    Directories first and in order, then the first tile of the smallest level, of the next one, and last that of the full
    resolution. ``ordered``: whether the file is to claim GDAL's layout "COG", with all that this means.
    """
    content = path.read_bytes()
    big, directories = tiff.parse(content)
    kinds = [number(one, tiff.NEW_SUBFILE_TYPE) if tiff.NEW_SUBFILE_TYPE in one else 0 for one in directories]
    images = [one for one, kind in zip(directories, kinds, strict=True) if not kind & 4]
    masks = [one for one, kind in zip(directories, kinds, strict=True) if kind & 4]
    levels = len(images)
    if masked:
        assert kinds == [0, 4] + [1] * (levels - 1) + [5] * (levels - 1)
        assert [number(one, 262) for one in masks] == [4] * levels
    else:
        assert kinds == [0] + [1] * (levels - 1)
    first_directory = 16 if big else 8
    claims = content[first_directory:].startswith(GHOST)
    assert claims is ordered
    if claims:
        first_directory += ghost_nbytes(content[first_directory:])
    assert int.from_bytes(content[8:16] if big else content[4:8], "little") == first_directory
    for several in (images, masks):
        sizes = [(number(one, 257), number(one, 256)) for one in several]
        assert sizes == sorted(sizes, reverse=True)
    first = [int(tiles(one)[0, 0]) for one in images]
    assert first == sorted(first, reverse=True)
    margin = 4 if ordered else 0
    every = sorted(
        (int(begin) - margin, int(nbytes) + 2 * margin) for one in directories for begin, nbytes in tiles(one)
    )
    assert every[0][0] >= max(tag_end(content, one) for one in directories)
    for (offset, nbytes), (following, _) in itertools.pairwise(every):
        assert offset + nbytes == following if ordered else offset + nbytes <= following
    assert sum(every[-1]) == len(content)
    if ordered:
        check_order(content, images, masks)
    with ignoring_georeference(), rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == ("COG" if ordered else None)
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert valid, (errors, warnings)


def check_order(content: bytes, images: list[tiff.Directory], masks: list[tiff.Directory]) -> None:
    """Every tile behind the one before it, between its size and its last bytes; the mask's right behind the tile it masks."""
    last = 0
    planar = number(images[0], 284) == 2 and number(images[0], 277) > 1
    assert (b"MASK_INTERLEAVED_WITH_IMAGERY=YES" in content[:300]) is (bool(masks) and not planar)
    assert (b"INTERLEAVE=BAND" in content[:300]) is planar
    for level in reversed(range(len(images))):
        of_image = tiles(images[level]).tolist()
        of_mask = tiles(masks[level]).tolist() if masks else []
        for begin, nbytes in of_image + of_mask:
            assert content[begin - 4 : begin] == nbytes.to_bytes(4, "little")
            assert content[begin + nbytes : begin + nbytes + 4] == content[begin + nbytes - 4 : begin + nbytes]
        for begin, _ in of_image:
            assert begin > last
            last = begin
        if of_mask and not planar:
            for (begin, nbytes), (mask, _) in zip(of_image, of_mask, strict=True):
                assert mask == begin + nbytes + 8
        for begin, _ in of_mask if planar else []:
            assert begin > last
            last = begin


def ghost_nbytes(content: bytes) -> int:
    """Length of what GDAL hides between header and directories, up to the next even byte."""
    line, _, rest = content.partition(b"\n")
    nbytes = int(line.removeprefix(GHOST)[:6])
    text = rest[:nbytes].decode()
    for claim in ("LAYOUT=IFDS_BEFORE_DATA\n", "BLOCK_ORDER=ROW_MAJOR\n", "BLOCK_LEADER=SIZE_AS_UINT4\n"):
        assert claim in text
    assert "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\n" in text
    assert "KNOWN_INCOMPATIBLE_EDITION=NO\n " in text
    total = len(line) + 1 + nbytes
    return total + total % 2


def number(directory: tiff.Directory, code: int) -> int:
    """The first value of a tag."""
    tag = directory[code]
    return int.from_bytes(tag.raw[: len(tag.raw) // tag.count], "little")


def tiles(directory: tiff.Directory) -> NDArray[np.int64]:
    """Offset and size of each tile."""
    columns = []
    for code in (tiff.TILE_OFFSETS, tiff.TILE_BYTE_COUNTS):
        tag = directory[code]
        columns.append(np.frombuffer(tag.raw, f"<u{len(tag.raw) // tag.count}").astype(np.int64))
    return np.stack(columns, axis=1)


def tag_end(content: bytes, directory: tiff.Directory) -> int:
    """Where the last value of a directory ends, found by its bytes."""
    return max(
        (
            content.find(tag.raw) + len(tag.raw)
            for code, tag in directory.items()
            if len(tag.raw) > 8 and code not in (tiff.TILE_OFFSETS, tiff.TILE_BYTE_COUNTS)
        ),
        default=0,
    )
