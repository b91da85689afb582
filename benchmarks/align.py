"""A raster from one UTM zone onto the grid of the next, against rioxarray and rasterio.

``python -m benchmarks.align [--size 8192] [--repeat 2] [--resampling nearest bilinear]``

Three windows of each output are compared with GDAL's warp of these windows in which each pixel is transformed by itself (``gdalwarp -et 0``).
The share of pixels that differ is told, not judged: GDAL's default is approximate.
"""

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.warp import calculate_default_transform, reproject
from rasterio.windows import Window

from benchmarks.measure import Measurement, measure
from benchmarks.scene import make_scene

HERE = Path(__file__).parent
DATA, RESULTS = HERE / "data", HERE / "results"
TARGET_CRS = "EPSG:32631"
ROWS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("daskraster", "align_daskraster", {}),
    ("rasterio reproject, approximate", "align_rasterio", {}),
    ("rasterio reproject, exact", "align_rasterio", {"exact": True}),
    ("rioxarray reproject + to_raster", "align_rioxarray", {}),
)
SIDE = 600


def make_grid(source: Path) -> Path:
    """
    An empty raster on the grid that the source is to come to.

    Parameters
    ----------
    source
        A raster in another UTM zone.

    Returns
    -------
    Path
        Of a sparse file of a few kilobytes.

    Raises
    ------
    rasterio.errors.RasterioError
        The file cannot be written.
    """
    target = source.with_name(f"{source.stem}_grid.tif")
    with rasterio.open(source) as image:
        transform, width, height = calculate_default_transform(
            image.crs, TARGET_CRS, image.width, image.height, *image.bounds, resolution=image.res
        )
        profile = {
            "driver": "GTiff",
            "count": 1,
            "dtype": "uint8",
            "tiled": True,
            "sparse_ok": True,
            "compress": "deflate",
        }
        with rasterio.open(target, "w", width=width, height=height, crs=TARGET_CRS, transform=transform, **profile):
            return target


def differing(target: Path, source: Path, resampling: str) -> tuple[int, int]:
    """
    How many pixels of an output are not those of an exact warp, in three windows.

    Parameters
    ----------
    target, source
        The output and what it was made of.
    resampling
        By GDAL's name.

    Returns
    -------
    tuple of int
        Pixels that differ, and all.

    Raises
    ------
    rasterio.errors.RasterioError
        A file cannot be read.
    """
    wrong = total = 0
    with rasterio.open(target) as new, rasterio.open(source) as old:
        for part in (0.2, 0.5, 0.75):
            window = Window(int(new.width * part), int(new.height * part), SIDE, SIDE)
            due = np.zeros((SIDE, SIDE), new.dtypes[0])
            reproject(
                rasterio.band(old, 1), due, dst_transform=new.window_transform(window), dst_crs=new.crs,
                resampling=Resampling[resampling], tolerance=0, XSCALE=1, YSCALE=1,
            )  # fmt: skip
            wrong += int((due != new.read(1, window=window)).sum())
            total += due.size
    return wrong, total


def _share(shares: dict[str, float], name: str, source: Path, resampling: str, target: Path) -> str:
    wrong, total = differing(target, source, resampling)
    shares[name] = wrong / total
    return ""


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.align", description="One UTM zone to another.")
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--resampling", nargs="+", default=["nearest", "bilinear"])
    parser.add_argument("--json", type=Path, default=RESULTS / "align.json")
    asked = parser.parse_args()
    source = make_scene(DATA / f"scene_{asked.size}.tif", asked.size, asked.size, threads=2)
    grid = make_grid(source)
    told: dict[str, dict[str, object]] = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    for resampling in asked.resampling:
        runs: dict[str, list[Measurement]] = {name: [] for name, _, _ in ROWS}
        shares: dict[str, float] = {}
        for turn in range(asked.repeat):
            for name, tool, job in ROWS:
                done = measure(
                    tool,
                    source,
                    {"like": str(grid), "resampling": resampling} | job,
                    scratch=DATA,
                    check=partial(_share, shares, name, source, resampling),
                )
                runs[name].append(done)
                print(
                    f"{resampling} run {turn + 1} {name}: "
                    f"{done.failed or f'{done.run_seconds:.2f} s, {done.peak_mb:.0f} MB, {shares[name]:.5%} differ'}",
                    flush=True,
                )
        first = median(run.run_seconds for run in runs["daskraster"])
        for name, done_runs in runs.items():
            seconds = median(run.run_seconds for run in done_runs)
            peak = max(run.peak_mb for run in done_runs)
            cpu = median(run.cpu_seconds for run in done_runs)
            print(f"| {resampling} | {name} | {seconds:.2f} | {seconds / first:.2f} | {cpu:.1f} | {peak:.0f} | {shares.get(name, 0):.4%} |")  # fmt: skip
        told[resampling] = {
            name: {"runs": [asdict(run) for run in done_runs], "differing": shares.get(name)}
            for name, done_runs in runs.items()
        }
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
