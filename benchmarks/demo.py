"""The main job, as a user runs it: KEA -> a function with 5 pixels of overlap -> KEA of int32.

`make demo` makes a scene first, `make demo IMAGE=in.tif` takes yours (GeoTIFF then). Writes the result, checks a sample of it against the
function on the whole window, leaves a picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import h5py
import matplotlib as mpl
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage

import daskraster as dr
from benchmarks.scene import make_scene

FOLDER = Path("demo")
OVERLAP = 5


def smooth(block: NDArray[np.generic]) -> NDArray[np.generic]:
    """Gaussian of sigma 1 px, cut off at 5 px: the halo is exactly as wide as the function looks."""
    smoothed = ndimage.gaussian_filter(block, sigma=(0, 1, 1), radius=OVERLAP, output=np.float32)
    kind = block.dtype
    return (np.rint(smoothed) if kind.kind in "iu" else smoothed).astype(kind)


def main() -> int:
    """Run the job; 0 when the sample agrees."""
    parser = argparse.ArgumentParser(description=__doc__, prog="make demo")
    parser.add_argument("image", nargs="?", type=Path, help="your own image; left out: a scene of 8192 x 8192 is made")
    image_path = parser.parse_args().image
    FOLDER.mkdir(exist_ok=True)
    if image_path is None:
        image_path = made_scene()
    target = FOLDER / f"{image_path.stem}_smooth{image_path.suffix}"

    image = dr.open_raster(image_path)
    result = dr.apply(smooth, image, overlap=OVERLAP)
    report = dr.write_raster(result, target)
    print(report)

    wrong = differing_pixels(image_path, target)
    print(f"sample of {wrong[1]} pixels across block edges: {wrong[0]} differ from the function on the whole window")
    picture = FOLDER / "before_after.png"
    draw(image_path, target, picture)
    print(f"picture: {picture}")
    return int(wrong[0] > 0)


def made_scene(size: int = 8192) -> Path:
    """A scene as KEA of int32, the kind of file the tile recipe is used on."""
    path = FOLDER / "scene.kea"
    if not path.exists():
        make_scene(FOLDER / "scene.tif", size, size)
        dr.write_raster(dr.open_raster(FOLDER / "scene.tif"), path, dtype="int32", progress=False)
    return path


def shape_of(path: Path) -> tuple[int, int]:
    """Rows and columns, by h5py or GDAL, not by what is demonstrated."""
    if path.suffix == ".kea":
        with h5py.File(path) as file:
            return file["BAND1/DATA"].shape
    with rasterio.open(path) as dataset:
        return dataset.shape


def read(path: Path, window: Window, step: int = 1) -> NDArray[np.generic]:
    """A window of band 1 ``(1, y, x)``, every ``step``-th pixel, by h5py or GDAL."""
    rows, cols = window.toslices()
    if path.suffix == ".kea":
        with h5py.File(path) as file:
            return file["BAND1/DATA"][rows, cols][np.newaxis, ::step, ::step]
    with rasterio.open(path) as dataset:
        return dataset.read([1], window=window)[:, ::step, ::step]


def differing_pixels(source: Path, target: Path, size: int = 512) -> tuple[int, int]:
    """How many pixels of a window over block edges differ from the function run on the window with margin, of how many."""
    rows, cols = shape_of(source)
    row, col = (max(0, min(length - size, 2048 - size // 2)) for length in (rows, cols))
    height, width = min(size, rows - row), min(size, cols - col)
    top, left = min(row, 64), min(col, 64)
    bottom, right = min(rows - row - height, 64), min(cols - col - width, 64)
    wide = read(source, Window(col - left, row - top, left + width + right, top + height + bottom))
    expected = smooth(wide)[:, top : top + height, left : left + width]
    found = read(target, Window(col, row, width, height))
    return int((expected != found).sum()), found.size


def draw(source: Path, target: Path, picture: Path, size: int = 160) -> None:
    """The whole image, and a piece across block edges before and after, side by side."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows, cols = shape_of(source)
    row, col = (max(0, min(length - size, 2048 - size // 2)) for length in (rows, cols))
    whole = read(source, Window(0, 0, cols, rows), step=max(1, max(rows, cols) // 800))[0]
    pieces = [read(path, Window(col, row, min(size, cols), min(size, rows)))[0] for path in (source, target)]
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    titles = ("the whole image", f"before: rows {row}.., columns {col}..", "after, across the edges of four blocks")
    for axis, values, title in zip(axes, (whole, *pieces), titles, strict=True):
        low, high = np.percentile(pieces[0] if values is not whole else whole, (2, 98))
        axis.imshow(values, cmap="gray", vmin=low, vmax=high)
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    sys.exit(main())
