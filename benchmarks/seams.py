"""The picture in README: where the tile recipe leaves seams, and daskraster none.

``python -m benchmarks.seams [docs/seams.png]``: a 5 x 5 mean on 2000 x 2000 pixels, once with tiles of 500 and an overlap of 5 that are joined as the recipe
joins them, once with `daskraster`, both compared with the mean of the whole image.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

import daskraster as dr
from benchmarks.scene import make_scene

SIZE, TILE, OVERLAP = 2000, 500, 5


def mean(block: NDArray[np.generic]) -> NDArray[np.generic]:
    """5 x 5 mean in float64; looks 2 pixels around each, less than the overlap."""
    return uniform_filter(block.astype(np.float64), size=(1, 5, 5))


def by_recipe(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """Tiles with their overlap, each put in its place in order: what a later tile cut off covers its neighbour's good pixels."""
    result = np.empty(image.shape)
    for window in dr.tile_windows(in_blocks(image), TILE, TILE, OVERLAP):
        rows, cols = window.slices
        result[:, rows, cols] = mean(image[:, rows, cols])
    return result


def in_blocks(image: NDArray[np.generic]) -> xr.DataArray:
    """The image as a DataArray in blocks as large as the tiles."""
    return xr.DataArray(image, dims=("band", "y", "x")).chunk(y=TILE, x=TILE)


def main(picture: Path) -> None:
    """Make the picture."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with tempfile.TemporaryDirectory() as folder:
        scene = make_scene(Path(folder, "scene.tif"), SIZE, SIZE)
        image = dr.open_raster(scene).values
    whole = mean(image)
    found = {
        f"the tile recipe: tiles of {TILE}, overlap {OVERLAP}": by_recipe(image),
        f"daskraster: blocks of {TILE}, overlap {OVERLAP}": dr.apply(mean, in_blocks(image), overlap=OVERLAP).values,
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.9), layout="constrained")
    low, high = np.percentile(image, (2, 98))
    axes[0].imshow(image[0], cmap="gray", vmin=low, vmax=high)
    axes[0].set_title("the image")
    shown = None
    for axis, (name, result) in zip(axes[1:], found.items(), strict=True):
        error = np.abs(result - whole)[0]
        # The running sums of the filter round in the last digit where an array begins elsewhere: 2e-12, no seam.
        wrong = error > 1e-6
        # Seams are two pixels wide: the largest error of each 4 x 4 pixels can be seen.
        coarse = error.reshape(SIZE // 4, 4, SIZE // 4, 4).max(axis=(1, 3))
        extent = (0, SIZE, SIZE, 0)
        drawn = axis.imshow(
            np.ma.masked_less(coarse, 1e-6),
            norm=LogNorm(0.1, 1000),
            cmap="inferno_r",
            extent=extent,
            interpolation="nearest",
        )
        shown = shown or drawn
        axis.set_title(
            f"{name}\n{wrong.sum():,} pixels wrong" + (f", by up to {error.max():.0f}" if wrong.any() else "")
        )
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    if shown is not None:
        figure.colorbar(shown, ax=axes, shrink=0.8, label="error of the 5 x 5 mean")
    figure.savefig(picture, dpi=75)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/seams.png"))
