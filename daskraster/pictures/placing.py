"""A picture in the coordinates of its CRS: where its corners lie, what the axes are called, rotated grids included."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from daskraster.grid import Grid
from daskraster.pictures.canvas import pyplot


def placed(axes: Any, image: NDArray[Any], grid: Grid, **options: Any) -> Any:
    """Draw an image ``(y, x)`` or ``(y, x, 4)`` where its grid lies; what ``Axes.imshow`` returns.

    Rotated and sheared grids are drawn as they lie, by the image's own transform.
    """
    plt = pyplot()
    rows, cols = grid.shape_yx
    t = grid.transform
    artist = axes.imshow(image, extent=(0, cols, rows, 0), aspect="auto", **options)
    matrix = [[t.a, t.b, t.c], [t.d, t.e, t.f], [0, 0, 1]]
    if t.b or t.d:
        artist.set_transform(plt.matplotlib.transforms.Affine2D(matrix) + axes.transData)
    else:
        artist.set_extent((t.c, t.c + cols * t.a, t.f + rows * t.e, t.f))
    return artist


def set_frame(axes: Any, grid: Grid, *, has_transform: bool) -> None:
    """Limits, shape and names of the axes of a raster."""
    xs, ys = corners(grid)
    axes.set_xlim(min(xs), max(xs))
    # Without a place on Earth rows are counted from the top.
    axes.set_ylim(*((min(ys), max(ys)) if has_transform else (max(ys), min(ys))))
    axes.set_aspect(_aspect(grid))
    x_name, y_name = axis_names(grid, has_transform=has_transform)
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.locator_params(axis="x", nbins=5)  # seven digits each: more than five run into one another
    axes.set_facecolor("none")


def hatch(axes: Any) -> None:
    """Thin grey lines behind the picture, where it is transparent: on a white page that is else no different from bright pixels."""
    axes.patch.set(hatch="////", edgecolor="0.6", linewidth=0)


def corners(grid: Grid) -> tuple[list[float], list[float]]:
    """x and y of the four corners, round the raster."""
    rows, cols = grid.shape_yx
    points = [grid.transform @ corner for corner in ((0, 0), (cols, 0), (cols, rows), (0, rows))]
    return [x for x, _ in points], [y for _, y in points]


def axis_names(grid: Grid, *, has_transform: bool) -> tuple[str, str]:
    """What the axes are called, with units.

    >>> import pyproj
    >>> from affine import Affine
    >>> axis_names(Grid(pyproj.CRS(32630), Affine.identity(), (1, 1)), has_transform=True)
    ('Easting (metre)', 'Northing (metre)')
    """
    if not has_transform:
        return "Column (pixels)", "Row (pixels)"
    names = {"x": "x", "y": "y"}
    for axis in () if grid.crs is None else grid.crs.axis_info:
        # The order of a CRS is often north first; a raster's is not.
        side = "x" if axis.direction in ("east", "west") else "y" if axis.direction in ("north", "south") else None
        if side is not None and names[side] == side:
            name = axis.name.removeprefix("Geodetic ")
            names[side] = f"{name[:1].upper()}{name[1:]} ({axis.unit_name})"
    return names["x"], names["y"]


def _aspect(grid: Grid) -> float:
    """Height of a unit of y by the width of a unit of x on the ground: degrees of longitude shrink towards the poles."""
    if grid.crs is None or not grid.crs.is_geographic:
        return 1.0
    ys = corners(grid)[1]
    middle = min(abs(min(ys) + max(ys)) / 2, 85.0)
    return 1 / math.cos(math.radians(middle))
