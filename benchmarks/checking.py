"""Whether an output has the right pixels: two windows of it against the function on the same windows of the source."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.peers.functions import OPERATIONS, REPEATED
from benchmarks.peers.handwritten import read_window

SIDE = 600
OUTER = 8
"""Pixels at the image's edge that are not compared: tools differ there."""


def wrong_pixels(check: str, tool: str, source: Path, target: Path) -> str:
    """
    Why an output is wrong, or nothing.

    Parameters
    ----------
    check
        A name of `benchmarks.peers.functions.OPERATIONS`; ``"repeat"``: a piece of the source again and again; ``"same"``: the
        source's pixels, of the raster beside it where it is a folder; ``"count"``: a text file with the number of pixels;
        ``"nothing"``: no check.
    tool
        Who wrote it; the hand-written limits write files of their own.
    source, target
        What was read and written.

    Returns
    -------
    str
        Empty where it is right.

    Raises
    ------
    OSError, rasterio.errors.RasterioError
        A file cannot be read.
    """
    if check == "nothing":
        return ""
    if source.is_dir():
        source = source.with_suffix(".tif")
    with _reader(source) as (shape, read):
        if check == "count":
            counted, due = int(target.read_text()), int(np.prod(shape))
            return "" if counted == due else f"{counted} pixels of {due} were read"
        for window in _windows(shape):
            expected = _expected(check, read, shape, window)
            written = _written(tool, target, window, expected.dtype)
            tolerance = OPERATIONS[check].tolerance if check in OPERATIONS else 0.0
            alike = written.dtype == expected.dtype and written.shape == expected.shape
            if not alike or not np.allclose(written, expected, rtol=0, atol=tolerance):
                return f"wrong pixels in the window at row {window.row_off}, column {window.col_off} ({written.dtype})"
    return ""


type _Read = Callable[[Window], NDArray[Any]]


def _windows(shape: tuple[int, int, int]) -> list[Window]:
    """From the border of a tile across three more, in the middle and in the last corner."""
    _, height, width = shape
    made = []
    for row, column in ((height // 2, width // 2), (height - 1, width - 1)):
        top, left = max(row // 512 * 512, 0), max(column // 512 * 512, 0)
        made.append(Window(left, top, min(SIDE, width - left - OUTER), min(SIDE, height - top - OUTER)))
    return made


def _expected(check: str, read: _Read, shape: tuple[int, int, int], window: Window) -> NDArray[Any]:
    top, left, height, width = window.row_off, window.col_off, window.height, window.width
    if check == "same":
        return read(window)
    if check == "repeat":
        piece = read(Window(0, 0, REPEATED, REPEATED))
        rows, cols = (np.arange(start, start + size) % REPEATED for start, size in ((top, height), (left, width)))
        return piece[:, rows[:, np.newaxis], cols]
    wanted = OPERATIONS[check]
    row, column = max(top - wanted.halo, 0), max(left - wanted.halo, 0)
    stop_row, stop_column = min(top + height + wanted.halo, shape[1]), min(left + width + wanted.halo, shape[2])
    pixels = wanted.function(read(Window(column, row, stop_column - column, stop_row - row)))
    return pixels[:, top - row : top - row + height, left - column : left - column + width]


class _reader:  # noqa: N801 - used like a function
    """A raster's shape and a function that reads a window of it; KEA by HDF5, which is not what is measured."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = h5py.File(path) if path.suffix == ".kea" else rasterio.open(path)

    def __enter__(self) -> tuple[tuple[int, int, int], _Read]:
        file = self._file
        if self._path.suffix != ".kea":
            return (file.count, file.height, file.width), lambda window: np.asarray(file.read(window=window))
        data = file["BAND1/DATA"]
        return (1, *data.shape), lambda window: np.asarray(data[window.toslices()])[np.newaxis]

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _written(tool: str, target: Path, window: Window, dtype: np.dtype[Any]) -> NDArray[Any]:
    if tool.partition(":")[0] == "handwritten":
        corner, size = (window.row_off, window.col_off), (window.height, window.width)
        return read_window(target, corner, size, str(dtype))[np.newaxis]
    with _reader(target) as (_, read):
        return read(window)
