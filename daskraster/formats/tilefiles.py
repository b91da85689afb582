"""Small files for functions that want files: one block written, one block read, nothing kept open or cached.

The usual sinks and sources are used where they say what a file says; but handles and chunk tables that wait for the next window would
keep the room of removed files, which on a RAM disk is memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from daskraster.errors import OptionError, RasterReadError
from daskraster.formats import choosing, kea_chunks
from daskraster.formats.gdal_handles import open_dataset
from daskraster.formats.kea_layout import is_kea
from daskraster.grid import Window
from daskraster.metadata import RasterMetadata
from daskraster.options import WriteOptions

SUFFIXES = {"GTiff": ".tif", "KEA": ".kea"}


def tile_driver(name: str) -> str:
    """The driver that ``name`` means, in any case.

    Raises
    ------
    OptionError
        Blocks cannot be handed over in that format.
    """
    for driver in SUFFIXES:
        if isinstance(name, str) and name.lower() == driver.lower():
            return driver
    raise OptionError(f"format={name!r} cannot be handed to a function; possible are {', '.join(SUFFIXES)}")


def write_tile_file(path: Path, driver: str, block: NDArray[Any], metadata: RasterMetadata) -> None:
    """One block as a file, uncompressed, without statistics and overviews.

    Parameters
    ----------
    path
        The file to be, in a folder that nobody else uses.
    driver
        One of `SUFFIXES`.
    block
        ``(band, y, x)``.
    metadata
        Of the block: its own grid and dtype.

    Raises
    ------
    OptionError
        The format cannot say what ``metadata`` says.
    RasterWriteError
        The disk refused.
    """
    options = WriteOptions(compress="none", statistics=False, overviews=False, progress=False)
    sink = choosing.sink(driver, path, metadata, options).start(many_processes=False)
    try:
        receipt = sink.put(block, Window(0, 0, *metadata.grid.shape_yx), 0, (0, 0, 0))
        places = sink.no_places()
        places.add(receipt.tiles, receipt.offsets, receipt.sizes, receipt.held)
        sink.finish(places)
        sink.publish()
    except BaseException:
        sink.discard()
        raise


def read_tile_file(path: str) -> tuple[NDArray[Any], RasterMetadata]:
    """All pixels ``(band, y, x)`` of a small raster file in its own dtype, and what it says.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        There is no such file; it is no raster.
    RasterReadError
        It is damaged.
    """
    source, metadata, bands = choosing.describe(path, bands=None, masked=False, overview_level=None)
    if is_kea(path):
        try:
            return source.read(Window(0, 0, *source.shape[1:]), bands), metadata
        finally:
            kea_chunks.forget(source.token)
    with open_dataset(path) as dataset:
        try:
            pixels: NDArray[Any] = np.asarray(dataset.read())
        except RasterioError as error:
            raise RasterReadError(f"cannot read {path}: {error}") from error
    return pixels, metadata
