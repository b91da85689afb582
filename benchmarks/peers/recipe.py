"""The recipe: cut the image into overlapping tile files, run a pool of processes over them, mosaic, delete the tiles."""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

from benchmarks.peers.functions import add_one

TILE = 1000


def run(source: Path, target: Path, *, halo: int = 5, threads: int = 2) -> None:
    """
    Do it as the scripts do that people pass around, with rasterio in place of the library they use.

    Parameters
    ----------
    source, target
        Two GeoTIFFs; tile files have the source's compression.
    halo
        Overlap of the tiles. It is not cut off when they are joined: a later tile covers its neighbour's edge.
    threads
        Processes of the pool.

    Raises
    ------
    rasterio.errors.RasterioError
        If a file cannot be read or written.
    """
    folder = target.with_name("tiles")
    folder.mkdir()
    tiles = _cut(source, folder, halo)
    with multiprocessing.get_context("fork").Pool(threads) as pool:
        done = pool.map(_process, tiles)
    _join(source, done, target)
    shutil.rmtree(folder)


def mosaic(source: Path, target: Path, *, threads: int = 2) -> None:
    """Join the tile files in the folder ``source`` one after the other, as the recipe does; errors as of `run`."""
    tiles = sorted(source.iterdir())
    bounds = [rasterio.open(tile).bounds for tile in tiles]
    with rasterio.open(tiles[0]) as first:
        profile, transform = first.profile, first.transform
    left, top = min(b.left for b in bounds), max(b.top for b in bounds)
    size = (
        round((max(b.right for b in bounds) - left) / transform.a),
        round((min(b.bottom for b in bounds) - top) / transform.e),
    )
    origin = rasterio.Affine(transform.a, 0, left, 0, transform.e, top)
    profile |= {"width": size[0], "height": size[1], "transform": origin, "num_threads": threads, "bigtiff": "IF_SAFER"}
    _write_tiles(tiles, target, profile | {"tiled": True, "blockxsize": 512, "blockysize": 512, "predictor": 2})


def _cut(source: Path, folder: Path, halo: int) -> list[Path]:
    """One file a tile, with the overlap on each side that lies inside the image."""
    tiles = []
    with rasterio.open(source) as file:
        for top in range(0, file.height, TILE):
            for left in range(0, file.width, TILE):
                row, column = max(top - halo, 0), max(left - halo, 0)
                height = min(top + TILE + halo, file.height) - row
                width = min(left + TILE + halo, file.width) - column
                window = Window(column, row, width, height)
                tiles.append(folder / f"tile_{top}_{left}.tif")
                place = {"width": width, "height": height, "transform": file.window_transform(window)}
                with rasterio.open(tiles[-1], "w", **(file.profile | place | {"predictor": 2})) as tile:
                    tile.write(file.read(window=window))
    return tiles


def _process(path: Path) -> Path:
    """The function over one tile file, in a process of the pool."""
    out = path.with_suffix(".out.tif")
    with rasterio.open(path) as old, rasterio.open(out, "w", **(old.profile | {"predictor": 2})) as new:
        new.write(add_one(old.read()))
    return out


def _join(source: Path, tiles: list[Path], target: Path) -> None:
    with rasterio.open(source) as file:
        profile = file.profile | {"predictor": 2, "bigtiff": "IF_SAFER"}
    _write_tiles(tiles, target, profile)


def _write_tiles(tiles: list[Path], target: Path, profile: dict[str, Any]) -> None:
    """Every tile into its place, in the order of the list."""
    with rasterio.open(target, "w", **profile) as new:
        for tile in tiles:
            with rasterio.open(tile) as file:
                row, column = (round(number) for number in new.index(file.bounds.left, file.bounds.top, op=lambda x: x))
                new.write(file.read(), window=Window(column, row, file.width, file.height))
