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
