"""A realistic scene of any size as a GeoTIFF: seeded, in flat memory, the same pixels whatever the block size.

``python -m benchmarks.scene out.tif --size 8192``
"""

import argparse
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks import landscape

VERSION = 1
"""To be raised when the pixels change, so that old files are made anew."""

_TAG = "DASKRASTER_SCENE"
_BLOCK = 2048  # 4 x 4 cells: 8 MB of uint16 a band, and whole tiles of every usual size
_TRANSFORM = Affine(10.0, 0.0, 300000.0, 0.0, -10.0, 5900040.0)


def make_scene(
    path: str | Path,
    height: int,
    width: int,
    *,
    dtype: str = "uint16",
    bands: int = 1,
    compress: str = "DEFLATE",
    predictor: int = 2,
    tile: int = 512,
    seed: int = 0,
    nodata: int | None = None,
    block: int = _BLOCK,
    threads: int = 2,
) -> Path:
    """
    Write a scene, unless the same one is there already.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    path
        The GeoTIFF to make; its folder is made too.
    height, width
        Size in pixels of 10 m, in EPSG:32630.
    dtype
        ``"uint16"`` and ``"int32"`` hold the brightness, 1 to 60000; ``"uint8"`` and ``"int16"`` hold it in steps of
        64 (up to 255) and 2; ``"float32"`` and ``"float64"`` hold it divided by 65536.
    bands
        Number of bands.
    compress, predictor, tile
        As GDAL's options ``COMPRESS``, ``PREDICTOR`` and ``BLOCKXSIZE``; ``compress="NONE"`` for none.
    seed
        Two seeds give two landscapes.
    nodata
        Only 0 is possible: then clouds, an eighth of the pixels, are 0 and the file says so. None: all are valid.
    block
        Pixels a side written at once: memory, never pixels, depends on it. Best a multiple of 512 and of ``tile``.
    threads
        Threads that compute, and threads of GDAL that compress.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    ValueError
        If ``dtype`` is another one, or ``nodata`` neither None nor 0.
    rasterio.errors.RasterioError
        If GDAL refuses the options or the disk is full.
    """
    if nodata not in (None, 0):
        raise ValueError(f"nodata={nodata!r} is not possible: None or 0.")
    if dtype not in _STEPS:
        raise ValueError(f"dtype={dtype!r} is not possible: one of {', '.join(_STEPS)}.")
    target = Path(path)
    profile: dict[str, Any] = {
        "height": height, "width": width, "count": bands, "dtype": dtype, "nodata": nodata,
        "compress": compress, "blockxsize": tile, "blockysize": tile,
    }  # fmt: skip
    if compress.upper() not in ("NONE", "PACKBITS"):
        profile["predictor"] = predictor
    recipe = json.dumps({**profile, "seed": seed, "version": VERSION}, sort_keys=True)
    if _is_made(target, recipe):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with rasterio.open(
            partial, "w", driver="GTiff", tiled=True, crs="EPSG:32630", transform=_TRANSFORM,
            num_threads=threads, bigtiff="IF_SAFER", **profile,
        ) as file:  # fmt: skip
            file.update_tags(**{_TAG: recipe})
            blocks = _blocks(height, width, block, bands=bands, dtype=dtype, seed=seed, nodata=nodata, threads=threads)
            for window, pixels in blocks:
                file.write(pixels, window=window)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


# What the brightness is multiplied by, per dtype.
_STEPS = {
    "uint8": 1 / 64, "int16": 1 / 2, "uint16": 1.0, "int32": 1.0, "float32": 2.0**-16, "float64": 2.0**-16,
}  # fmt: skip


def _is_made(path: Path, recipe: str) -> bool:
    """Whether the file is there and was made by the same recipe."""
    if not path.exists():
        return False
    try:
        with rasterio.open(path) as file:
            return bool(file.tags().get(_TAG) == recipe)
    except rasterio.errors.RasterioIOError:
        return False


def _blocks(
    height: int, width: int, block: int, *, bands: int, dtype: str, seed: int, nodata: int | None, threads: int
) -> Iterator[tuple[Window, NDArray[Any]]]:
    """Yield windows in row-major order with their pixels, a few blocks ahead, computed in threads."""
    windows = deque(
        (row, column, min(block, height - row), min(block, width - column))
        for row in range(0, height, block)
        for column in range(0, width, block)
    )

    def pixels(row: int, column: int, rows: int, columns: int) -> NDArray[Any]:
        return _window(row, column, rows, columns, bands=bands, dtype=dtype, seed=seed, nodata=nodata)

    waiting: deque[tuple[Window, Future[NDArray[Any]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while windows or waiting:
            while windows and len(waiting) <= threads:
                row, column, rows, columns = windows.popleft()
                future = pool.submit(pixels, row, column, rows, columns)
                waiting.append((Window(column, row, columns, rows), future))
            window, future = waiting.popleft()
            yield window, future.result()


def _window(
    row: int, column: int, rows: int, columns: int, *, bands: int, dtype: str, seed: int, nodata: int | None
) -> NDArray[Any]:
    """Pixels of any window, put together from whole cells."""
    out = np.empty((bands, rows, columns), dtype=dtype)
    size = landscape.CELL
    for cell_row in range(row // size, (row + rows - 1) // size + 1):
        for cell_column in range(column // size, (column + columns - 1) // size + 1):
            cell = landscape.cell(cell_row, cell_column, bands=bands, seed=seed)
            values = _as_dtype(cell, dtype)
            if nodata is not None:
                values[:, landscape.clouds(cell_row, cell_column, seed=seed)] = nodata
            to_rows, from_rows = _overlap(row, rows, cell_row * size, size)
            to_columns, from_columns = _overlap(column, columns, cell_column * size, size)
            out[:, to_rows, to_columns] = values[:, from_rows, from_columns]
    return out


def _overlap(start: int, length: int, cell_start: int, size: int) -> tuple[slice, slice]:
    """Return the part that window and cell share on one axis, as a slice of the window and as one of the cell."""
    first, last = max(start, cell_start), min(start + length, cell_start + size)
    return slice(first - start, last - start), slice(first - cell_start, last - cell_start)


def _as_dtype(brightness: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Brightness as stored; integers are rounded and stay at 1 or above, so that 0 is free for nodata."""
    stored = brightness * np.float32(_STEPS[np.dtype(dtype).name])
    if np.issubdtype(np.dtype(dtype), np.integer):
        np.clip(np.rint(stored, out=stored), 1, np.iinfo(dtype).max, out=stored)
    return stored.astype(dtype)


def main() -> None:
    """Make one scene from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scene", description="Make a synthetic scene.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", type=int, default=8192, help="height and width in pixels")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--dtype", default="uint16", choices=sorted(_STEPS))
    parser.add_argument("--bands", type=int, default=1)
    parser.add_argument("--compress", default="DEFLATE")
    parser.add_argument("--predictor", type=int, default=2)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodata", type=int, choices=[0])
    asked = vars(parser.parse_args())
    size = asked.pop("size")
    path = asked.pop("path")
    height, width = asked.pop("height") or size, asked.pop("width") or size
    made = make_scene(path, height, width, **asked)
    print(f"{made}: {height} x {width}, {made.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
