"""The main job, as a user runs it: `make demo` on a made scene, `make demo IMAGE=in.tif` on yours.

Smooths an image with a halo, writes it, checks a sample against the function on the whole window, leaves a picture.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
        image_path = FOLDER / "scene.tif"
        make_scene(image_path, 8192, 8192)
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


def differing_pixels(source: Path, target: Path, size: int = 512) -> tuple[int, int]:
    """How many pixels of a window over block edges differ from the function run on the window with margin, of how many."""
    with rasterio.open(source) as before, rasterio.open(target) as after:
        row, col = (max(0, min(length - size, 2048 - size // 2)) for length in before.shape)
        height, width = min(size, before.height - row), min(size, before.width - col)
        top, left = min(row, 64), min(col, 64)
        bottom, right = min(before.height - row - height, 64), min(before.width - col - width, 64)
        wide = before.read(window=Window(col - left, row - top, left + width + right, top + height + bottom))
        expected = smooth(wide)[:, top : top + height, left : left + width]
        found = after.read(window=Window(col, row, width, height))
    return int((expected != found).sum()), found.size


def draw(source: Path, target: Path, picture: Path, size: int = 160) -> None:
    """The whole image, and a piece across a block edge before and after, side by side."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with rasterio.open(source) as before, rasterio.open(target) as after:
        row, col = (max(0, min(length - size, 2048 - size // 2)) for length in before.shape)
        window = Window(col, row, min(size, before.width), min(size, before.height))
        factor = max(1, max(before.shape) // 800)
        whole = before.read(1, out_shape=(before.height // factor, before.width // factor))
        pieces = [dataset.read(1, window=window) for dataset in (before, after)]
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    limits = dict(zip(("vmin", "vmax"), np.percentile(pieces[0], (2, 98)), strict=True))
    titles = ("the whole image", f"before: rows {row}.., columns {col}..", "after, across the edges of four blocks")
    for axis, values, title in zip(axes, (whole, *pieces), titles, strict=True):
        axis.imshow(values, cmap="gray", **(limits if values is not whole else {}))
        axis.set_title(title)
        axis.set_axis_off()
    figure.savefig(picture, dpi=80)


if __name__ == "__main__":
    sys.exit(main())
