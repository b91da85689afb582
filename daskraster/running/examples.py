"""A scene to try things on: land, water and clouds that are a function of place, so that neighbouring scenes fit together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.running.writing import write_raster

PIXEL_METRES = 10
WATER, CLOUD = -0.35, 0.75


def example_scene(
    path: str | os.PathLike[str],
    size: int = 1024,
    *,
    offset: tuple[int, int] = (0, 0),
    clouds: bool = False,
    date: int = 0,
) -> Path:
    """Write a made-up satellite scene: the land of all scenes is one, so scenes with other offsets are its neighbours.

    Parameters
    ----------
    path
        The file to make; its name chooses the format, as in `write_raster`.
    size
        Height and width in pixels of 10 m.
    offset
        Rows and columns by which it lies south and east of the first scene.
    clouds
        True: about a fifth is under clouds, nodata.
    date
        Another number has other clouds and noise over the same land.

    Returns
    -------
    pathlib.Path
        ``path``. Two bands of uint16, red and nir, reflectance times 10000; nodata 0; EPSG:32630.

    Raises
    ------
    OptionError
        ``size`` is below 1.
    RasterFormatError, RasterWriteError
        As `write_raster`.

    Examples
    --------
    >>> from daskraster import open_raster
    >>> image = open_raster(example_scene("scene.tif", 200))
    >>> image.shape, image.dtype, image.rio.nodata, image.long_name
    ((2, 200, 200), dtype('uint16'), np.uint16(0), ('red', 'nir'))
    """
    if size < 1:
        raise OptionError(f"size={size!r} must be at least 1 pixel")
    rows = (offset[0] + np.arange(size))[:, np.newaxis]
    cols = (offset[1] + np.arange(size))[np.newaxis]
    land = _waves(rows, cols, seed=1)
    green = np.clip(0.5 + 0.4 * _waves(rows, cols, seed=2) + 0.1 * _waves(rows * 7, cols * 7, seed=3), 0, 1)
    bands = np.stack([2000 - 1500 * green, 900 + 3000 * green])
    bands[:, land < WATER] = np.array([[350], [150]])
    rng = np.random.default_rng([date, offset[0] & 0xFFFFFFFF, offset[1] & 0xFFFFFFFF])
    bands += rng.normal(0, 60, bands.shape)
    pixels = bands.clip(1, 10_000).astype("uint16")
    if clouds:
        pixels[:, _waves(rows, cols, seed=100 + date) > CLOUD] = 0
    x, y = 400_000 + PIXEL_METRES * (cols[0] + 0.5), 5_900_000 - PIXEL_METRES * (rows[:, 0] + 0.5)
    scene = xr.DataArray(
        pixels,
        dims=("band", "y", "x"),
        coords={"band": [1, 2], "y": y, "x": x},
        attrs={"long_name": ("red", "nir"), "_FillValue": 0},
    ).rio.write_crs("EPSG:32630")
    write_raster(scene, path, progress=False)
    return Path(path)


def _waves(rows: NDArray[Any], cols: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """A smooth field of about unit variance: 12 plane waves of 80 to 700 pixels."""
    rng = np.random.default_rng(seed)
    out = np.zeros(np.broadcast_shapes(rows.shape, cols.shape))
    for length, angle, phase in zip(rng.uniform(80, 700, 12), *rng.uniform(0, 2 * np.pi, (2, 12)), strict=True):
        out += np.sin(2 * np.pi * (rows * np.sin(angle) + cols * np.cos(angle)) / length + phase)
    return out / np.sqrt(6)
