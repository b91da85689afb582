"""Which format reads a file, and which writes one."""

from __future__ import annotations

from pathlib import Path

from daskraster.blocks.validity import Validity
from daskraster.formats import gdal, kea_chunks, kea_source, tilecache
from daskraster.formats.gdal_handles import close_idle_handles
from daskraster.formats.geotiff import geotiff_sink
from daskraster.formats.kea_layout import is_kea
from daskraster.formats.kea_sink import kea_sink
from daskraster.formats.protocols import Sink, Source
from daskraster.grid import Window
from daskraster.metadata import RasterMetadata
from daskraster.options import WriteOptions


def describe(
    path: str, *, bands: tuple[int, ...] | None, masked: bool, overview_level: int | None
) -> tuple[Source, RasterMetadata, tuple[int, ...]]:
    """What a file holds; KEA by our own reader, all else by GDAL. See `daskraster.formats.gdal.describe`.

    Raises
    ------
    RasterNotFoundError, RasterFormatError, OptionError
        No such file; no raster or damaged; bands or an overview that it does not have.
    """
    if is_kea(path):
        return kea_source.describe(path, bands=bands, masked=masked, overview_level=overview_level)
    return gdal.describe(path, bands=bands, masked=masked, overview_level=overview_level)


def hides_mask(source: Source) -> bool:
    """Whether the file of a source has a mask of its own that its pixels do not show, since it was opened with ``masked=False``."""
    return isinstance(source, gdal.GdalSource | kea_source.KeaSource) and source.hides_mask


def sink(
    driver: str, target: Path, metadata: RasterMetadata, options: WriteOptions, validity: Validity | None = None
) -> Sink:
    """A sink of the format that GDAL calls ``driver``; with ``validity`` it writes masks.

    Raises
    ------
    OptionError
        The format cannot meet an option.
    RasterWriteError
        The folder is missing or cannot be written to.
    """
    if driver == "KEA":
        return kea_sink(target, metadata, options, validity)
    return geotiff_sink(target, metadata, options, validity, cloud=driver == "COG")


def release() -> None:
    """Give back what reading keeps for the next block: decoded seams, open handles. For the end of a run."""
    tilecache.clear()
    close_idle_handles()
    kea_chunks.clear()


def reduced(source: Source, bands: tuple[int, ...], part: Window, size: int, *, masked: bool) -> Source:
    """The smallest overview in which ``part`` still has ``size`` pixels along its longer side; without one the source itself.

    Parameters
    ----------
    source
        Of a file; any other comes back as it is, and so does one whose file has changed, which then says so when it is read.
    bands
        Numbers from 1; all must have the overview.
    part
        In pixels of the source.
    size
        Pixels wanted.
    masked
        Whether the pixels are to come as floats with NaN where the file has nodata or a mask, also where the source is not masked.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        The file is gone or damaged.
    """
    if not isinstance(source, gdal.GdalSource | kea_source.KeaSource):
        return source
    masked = masked or source.mask_nodata is not None
    levels = _overview_sizes(source.path, bands)
    enough = [
        (rows * cols, level)
        for level, (rows, cols) in enumerate(levels)
        if rows * cols < source.shape[1] * source.shape[2]
        and max(part.height * rows / source.shape[1], part.width * cols / source.shape[2]) >= size
    ]
    if not enough and masked == (source.mask_nodata is not None):
        return source
    level = min(enough)[1] if enough else source.overview_level
    smaller, _, _ = describe(source.path, bands=bands, masked=masked, overview_level=level)
    assert isinstance(smaller, gdal.GdalSource | kea_source.KeaSource)
    # The token of a file elsewhere is new with each opening and says nothing.
    local = not isinstance(source, gdal.GdalSource) or bool(source.files)
    return source if local and smaller.token != source.token else smaller


def _overview_sizes(path: str, bands: tuple[int, ...]) -> list[tuple[int, int]]:
    """Rows and columns of the overviews that all ``bands`` have."""
    every = kea_source.overview_shapes(path, bands) if is_kea(path) else gdal.overview_shapes(path, bands)
    return [sizes[0] for sizes in zip(*every, strict=False) if len(set(sizes)) == 1]
