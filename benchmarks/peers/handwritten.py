"""The limit: two threads by hand, LIBERTIFF and imagecodecs, tiles into a plain file. No dask, no halo, no TIFF.

The file holds the encoded tiles in any order, then the index: offset and length of each tile, row-major, as int64; then
the shape of the index (rows, columns), as int64.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.peers.functions import OPERATIONS, REPEATED

TILE = 512


class _Blob:
    """A file that takes tiles from any thread, each at an offset no one else owns."""

    def __init__(self, path: Path, rows: int, columns: int) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o666)
        self._lock = threading.Lock()
        self._end = 0
        self._index = np.zeros((rows, columns, 2), dtype=np.int64)

    def put(self, row: int, column: int, encoded: list[list[bytes]]) -> None:
        """Append the tiles of one block, whose first one is (row, column), with one write."""
        lengths = np.array([[len(tile) for tile in line] for line in encoded], dtype=np.int64)
        total = int(lengths.sum())
        with self._lock:
            start, self._end = self._end, self._end + total
        offsets = start + np.cumsum(lengths.ravel()) - lengths.ravel()
        os.pwritev(self._file, [tile for line in encoded for tile in line], start)
        here = self._index[row : row + lengths.shape[0], column : column + lengths.shape[1]]
        here[..., 0], here[..., 1] = offsets.reshape(lengths.shape), lengths

    def close(self) -> None:
        """Append the index and close the file."""
        shape = np.array(self._index.shape[:2], dtype=np.int64)
        os.pwrite(self._file, self._index.tobytes() + shape.tobytes(), self._end)
        os.close(self._file)


def run(
    source: Path, target: Path, *, operation: str = "add", threads: int = 2, block: int = 2048, level: int = 1
) -> None:
    """
    Read blocks in threads, with the halo that the operation needs, compute, encode with predictor 2 and ISA-L, write tiles where there is room.

    Parameters
    ----------
    source
        A GeoTIFF.
    target
        A plain file, see above.
    operation
        One of `benchmarks.peers.functions.OPERATIONS`.
    threads
        Threads; each does everything for its block.
    block
        Pixels a side of a block; a multiple of 512.
    level
        ISA-L's level, 1 to 3.

    Raises
    ------
    rasterio.errors.RasterioError
        If LIBERTIFF does not open the source.
    OSError
        If the disk is full.
    """
    handles = threading.local()
    wanted = OPERATIONS[operation]
    with rasterio.open(source, driver="LIBERTIFF") as file:
        height, width = file.shape
    blob = _Blob(target, -(-height // TILE), -(-width // TILE))

    def work(row: int, column: int) -> None:
        if not hasattr(handles, "file"):
            handles.file = rasterio.open(source, driver="LIBERTIFF", sharing=False)
        bottom, right = min(row + block, height), min(column + block, width)
        top, left = max(row - wanted.halo, 0), max(column - wanted.halo, 0)
        stop_row, stop_column = min(bottom + wanted.halo, height), min(right + wanted.halo, width)
        pixels = handles.file.read(window=Window(left, top, stop_column - left, stop_row - top))
        pixels = wanted.function(pixels)[0, row - top : bottom - top, column - left : right - left]
        blob.put(row // TILE, column // TILE, _encode(pixels, level))

    _all_blocks(work, height, width, block, threads)
    blob.close()


def read(source: Path, target: Path, *, threads: int = 2, block: int = 2048) -> None:
    """Read every pixel, keep none; the number of pixels goes into ``target``. Parameters and errors as of `run`."""
    handles = threading.local()
    with rasterio.open(source, driver="LIBERTIFF") as file:
        height, width = file.shape
    sizes: list[int] = []

    def work(row: int, column: int) -> None:
        if not hasattr(handles, "file"):
            handles.file = rasterio.open(source, driver="LIBERTIFF", sharing=False)
        window = Window(column, row, min(block, width - column), min(block, height - row))
        sizes.append(handles.file.read(window=window).size)

    _all_blocks(work, height, width, block, threads)
    target.write_text(str(sum(sizes)))


def write(source: Path, target: Path, *, threads: int = 2, level: int = 1) -> None:
    """Write a piece of the source again and again until the raster is as large as the source. Parameters and errors as of `run`."""
    with rasterio.open(source, driver="LIBERTIFF") as file:
        piece = file.read(1, window=Window(0, 0, REPEATED, REPEATED))
        height, width = file.shape
    blob = _Blob(target, -(-height // TILE), -(-width // TILE))

    def work(row: int, column: int) -> None:
        pixels = piece[: min(REPEATED, height - row), : min(REPEATED, width - column)]
        blob.put(row // TILE, column // TILE, _encode(pixels, level))

    _all_blocks(work, height, width, REPEATED, threads)
    blob.close()


def _all_blocks(work: Callable[[int, int], None], height: int, width: int, block: int, threads: int) -> None:
    """Every block in row-major order, in threads."""
    with ThreadPoolExecutor(threads) as pool:
        places = ((row, column) for row in range(0, height, block) for column in range(0, width, block))
        for done in [pool.submit(work, *place) for place in places]:
            done.result()


def _encode(pixels: NDArray[Any], level: int) -> list[list[bytes]]:
    """Encode the tiles of a block, those at the edge filled up with zeros."""
    rows, columns = -(-pixels.shape[0] // TILE) * TILE, -(-pixels.shape[1] // TILE) * TILE
    if pixels.shape != (rows, columns):
        pixels = np.pad(pixels, ((0, rows - pixels.shape[0]), (0, columns - pixels.shape[1])))
    return [
        [_encode_tile(pixels[row : row + TILE, column : column + TILE], level) for column in range(0, columns, TILE)]
        for row in range(0, rows, TILE)
    ]


def _encode_tile(tile: NDArray[Any], level: int) -> bytes:
    """Differences along rows, then DEFLATE."""
    return bytes(imagecodecs.isal_encode(imagecodecs.delta_encode(tile, axis=1), level=level))


def read_window(path: Path, start_yx: tuple[int, int], shape_yx: tuple[int, int], dtype: str) -> NDArray[Any]:
    """
    Read any window of a file written by `run`, to check it.

    Parameters
    ----------
    path
        The plain file.
    start_yx, shape_yx
        Window in pixels; it starts at multiples of 512.
    dtype
        Type of the pixels.

    Returns
    -------
    numpy.ndarray
        Pixels (height, width).

    Raises
    ------
    OSError
        If the file is not there.
    """
    (row, column), (height, width) = start_yx, shape_yx
    data = np.memmap(path, dtype=np.uint8, mode="r")
    tile_rows, tile_columns = (int(n) for n in np.frombuffer(data[-16:].tobytes(), dtype=np.int64))
    index_start = len(data) - 16 - tile_rows * tile_columns * 16
    index = np.frombuffer(data[index_start:-16].tobytes(), dtype=np.int64).reshape(tile_rows, tile_columns, 2)
    lines = []
    for y in range(row // TILE, -(-(row + height) // TILE)):
        tiles = []
        for x in range(column // TILE, -(-(column + width) // TILE)):
            offset, length = index[y, x]
            raw = imagecodecs.isal_decode(data[offset : offset + length].tobytes())
            deltas = np.frombuffer(raw, dtype=dtype).reshape(TILE, TILE)
            tiles.append(imagecodecs.delta_decode(deltas, axis=1))
        lines.append(np.hstack(tiles))
    return np.asarray(np.vstack(lines)[:height, :width])
