"""`daskraster.calc`: its arithmetic against the same by hand, and NDVI of two files against rioxarray.

``python -m benchmarks.calc kernels`` and ``python -m benchmarks.calc files [--size 16384] [--repeat 3]``

By hand means NumPy doing the same: widened so that nothing wraps, masked, rounded, clamped; on the whole block, as one writes it, and in
strips that fit the cache, which is the limit. Best of eleven, interleaved.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray
from rasterio.windows import Window

from benchmarks.measure import Measurement, measure
from benchmarks.scene import make_scene
from daskraster.lazy.calculating import checked_expression, named_bands, planned
from daskraster.options import INHERIT

HERE = Path(__file__).parent
DATA, RESULTS = HERE / "data", HERE / "results"
SIDE, STRIP = 2048, 16

type Hand = Callable[..., NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One expression on one block, and what one writes by hand."""

    expression: str
    dtype: str
    hand: Hand
    nodata: int | None = None
    out: str | None = None


def _ndvi(nir: NDArray[Any], red: NDArray[Any]) -> NDArray[Any]:
    nir, red = nir.astype(np.float32), red.astype(np.float32)
    result = nir - red
    nir += red
    with np.errstate(all="ignore"):
        result /= nir
    result[nir == 0] = np.nan
    return result


def _ndvi_masked(nir: NDArray[Any], red: NDArray[Any]) -> NDArray[Any]:
    invalid = nir == 0
    invalid |= red == 0
    result = _ndvi(nir, red)
    result[invalid] = np.nan
    return result


def _plus_one(wide: str) -> Hand:
    def add(block: NDArray[Any]) -> NDArray[Any]:
        result = block.astype(wide)
        result += 1
        np.minimum(result, np.iinfo(block.dtype).max, out=result)
        return result.astype(block.dtype)

    return add


def _plus_one_masked(block: NDArray[Any]) -> NDArray[Any]:
    result = _plus_one("int32")(block)
    result[block == 0] = 0
    return result


def _scaled(block: NDArray[Any]) -> NDArray[Any]:
    result = block.astype(np.float64)
    result *= 0.01
    np.clip(result, 0, 255, out=result)
    whole = np.trunc(result)
    result -= whole
    result *= 2
    np.trunc(result, out=result)
    whole += result
    return whole.astype(np.uint8)


KERNELS = (
    Kernel(expression="(a-b)/(a+b)", dtype="uint16", hand=_ndvi),
    Kernel(expression="(a-b)/(a+b)", dtype="uint16", hand=_ndvi_masked, nodata=0),
    Kernel(expression="a+1", dtype="uint8", hand=_plus_one("int16")),
    Kernel(expression="a+1", dtype="uint16", hand=_plus_one("int32")),
    Kernel(expression="a+1", dtype="uint16", hand=_plus_one_masked, nodata=0),
    Kernel(expression="a+1", dtype="int32", hand=_plus_one("int64")),
    Kernel(expression="a*0.01", dtype="uint16", hand=_scaled, out="uint8"),
)


def in_strips(hand: Hand) -> Hand:
    """
    The same by hand, a few rows at a time.

    Parameters
    ----------
    hand
        Works on blocks ``(y, x)``.

    Returns
    -------
    callable
        With the same result. Raises what ``hand`` raises.
    """

    def run(*blocks: NDArray[Any]) -> NDArray[Any]:
        first = hand(*[block[:STRIP] for block in blocks])
        result = np.empty(blocks[0].shape, first.dtype)
        result[:STRIP] = first
        for row in range(STRIP, len(result), STRIP):
            result[row : row + STRIP] = hand(*[block[row : row + STRIP] for block in blocks])
        return result

    return run


def kernels(rows: Sequence[Kernel] = KERNELS, *, turns: int = 11) -> list[dict[str, Any]]:
    """
    Milliseconds for one block of each kernel, and whether the three ways agree.

    Parameters
    ----------
    rows
        What to measure.
    turns
        Of each way, interleaved; the best counts.

    Returns
    -------
    list of dict
        One for each kernel.

    Raises
    ------
    ValueError
        The results differ.
    """
    found = []
    for row in rows:
        rng = np.random.default_rng(0)
        names = [name for name in "ab" if name in row.expression]
        blocks = [rng.integers(1, 200, (SIDE, SIDE)).astype(row.dtype) for _ in names]
        if row.nodata is not None:
            for block in blocks:
                block[rng.random(block.shape) < 0.1] = row.nodata
        named = {name: xr.DataArray(block, dims=("y", "x")) for name, block in zip(names, blocks, strict=True)}
        if row.nodata is not None:
            named = {name: array.assign_attrs(_FillValue=row.nodata) for name, array in named.items()}
        given = named_bands((), named)
        checked = checked_expression(row.expression, {name: one.count for name, one in given.bands.items()})
        calculation = planned(checked, given, row.out, INHERIT)[0]
        planes = {(number, 0): block for number, block in enumerate(blocks)}
        ways: dict[str, Callable[[], NDArray[Any]]] = {
            "daskraster": partial(calculation.compute, planes, (0,), (SIDE, SIDE)),
            "by hand": partial(row.hand, *blocks),
            "by hand in strips": partial(in_strips(row.hand), *blocks),
        }
        results = [way().reshape(SIDE, SIDE) for way in ways.values()]
        if any(not np.array_equal(results[0], other, equal_nan=other.dtype.kind == "f") for other in results[1:]):
            raise ValueError(f"{row.expression} of {row.dtype}: the results differ")
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(turns):
            for name, way in ways.items():
                begin = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - begin)
        numbers = {name: round(min(values) * 1e3, 2) for name, values in seconds.items()}
        found.append({"expression": row.expression, "dtype": row.dtype, "nodata": row.nodata, "out": row.out} | numbers)
        print(found[-1], flush=True)
    return found


def files(size: int, *, repeat: int, threads: int = 2) -> dict[str, list[Measurement]]:
    """
    NDVI of two files, each tool in a process of its own, interleaved.

    Parameters
    ----------
    size
        Height and width of the files, made first where they are missing.
    repeat, threads
        Runs of each tool; threads each may use.

    Returns
    -------
    dict
        Name of the tool -> runs.

    Raises
    ------
    OSError
        The files cannot be made.
    """
    nir, red = (make_scene(DATA / f"band_{size}_{seed}.tif", size, size, seed=seed, threads=threads) for seed in (0, 1))
    rows: dict[str, tuple[str, dict[str, object]]] = {
        "daskraster": ("ndvi_daskraster", {}),
        "rioxarray + lock": ("ndvi_rioxarray", {"codec_threads": 1}),
        "rioxarray + lock, tuned": ("ndvi_rioxarray", {"codec_threads": 2}),
    }

    def check(target: Path) -> str:
        window = Window(size // 3 // 512 * 512, size // 2 // 512 * 512, 700, 700)
        pixels = []
        for path in (nir, red, target):
            with rasterio.open(path) as file:
                pixels.append(file.read(1, window=window))
        due = _ndvi(pixels[0], pixels[1])
        return "" if np.array_equal(pixels[2], due, equal_nan=True) else f"wrong pixels in {window}"

    results: dict[str, list[Measurement]] = {name: [] for name in rows}
    for turn in range(repeat):
        for name, (tool, job) in rows.items():
            done = measure(tool, nir, {"other": str(red), "threads": threads} | job, scratch=DATA, check=check)
            results[name].append(done)
            print(f"run {turn + 1} {name}: {done.failed or f'{done.run_seconds:.2f} s, {done.peak_mb:.0f} MB'}", flush=True)  # fmt: skip
    return results


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calc", description="Band arithmetic.")
    parser.add_argument("what", choices=["kernels", "files"])
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if asked.what == "kernels":
        (RESULTS / "calc_kernels.json").write_text(json.dumps(kernels(), indent=1) + "\n")
        return
    results = files(asked.size, repeat=asked.repeat, threads=asked.threads)
    runs = {name: [asdict(run) for run in runs] for name, runs in results.items()}
    (RESULTS / "calc_files.json").write_text(json.dumps(runs, indent=1) + "\n")
    first = median(run.run_seconds for run in results["daskraster"])
    for name, measured in results.items():
        seconds = median(run.run_seconds for run in measured)
        print(f"{name}: {seconds:.2f} s, {seconds / first:.2f} times, {max(run.peak_mb for run in measured):.0f} MB")


if __name__ == "__main__":
    main()
