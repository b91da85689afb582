"""What a plan says is what the run does: blocks, tasks, bytes, memory."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import daskraster as dr
from daskraster.running import planning, workers
from tests.conftest import Counter, MakeRaster, pixels

JOBS = {
    "a halo, plain GeoTIFF": """
        result = dr.apply(lambda block: block + 1, dr.open_raster("in.tif"), overlap=5, dtype="uint16", bands=1)
        target, options = "out.tif", {"statistics": False, "overviews": False}
    """,
    "six bands of floats, COG": """
        result = dr.apply(lambda block: block.repeat(6, axis=0) / np.float32(2), dr.open_raster("in.tif", chunks=1024), dtype="float32", bands=6)
        target, options = "out.tif", {"driver": "COG"}
    """,
    "exchanged neighbours, KEA": """
        once = dr.apply(smooth, dr.open_raster("in.tif"), overlap=2, dtype="uint16", bands=1)
        result = dr.apply(smooth, once, overlap=2, dtype="uint16", bands=1)
        target, options = "out.kea", {}
    """,
    "a hungry function": """
        def hungry(block):
            wide = block.astype("float64")
            return (np.sqrt(wide) * np.log1p(wide) + np.sin(wide)).astype("float32")
        result = dr.apply(hungry, dr.open_raster("in.tif"))
        target, options = "out.tif", {}
    """,
    "an array in memory, classes": """
        values = np.random.default_rng(0).integers(0, 9, (1, 5000, 5000), dtype="uint8")
        result = xr.DataArray(values, dims=("band", "y", "x"))
        target, options = "out.tif", {"thematic": True}
    """,
    "band arithmetic": """
        image = dr.open_raster("in.tif")
        result = dr.calc("(a-b)/(a+b)", a=image, b=image.isel(x=slice(None, None)))
        target, options = "out.tif", {}
    """,
    "another grid": """
        import pyproj
        from rasterio.warp import calculate_default_transform
        image = dr.open_raster("in.tif").rio.write_nodata(0)
        place, width, height = calculate_default_transform(image.rio.crs, "EPSG:32754", 6144, 6144, *image.rio.bounds())
        half = dr.Grid(pyproj.CRS(32754), place @ place.scale(1.4), (height // 2, width // 2))
        result = dr.align(image, like=half, extent="like", resampling="bilinear")
        target, options = "out.tif", {}
    """,
    "a mosaic": """
        image = dr.open_raster("in.tif")
        parts = [image.isel(x=slice(0, 3500)), image.isel(x=slice(3000, 6144)), image.isel(x=slice(2000, 4000))]
        result = dr.mosaic(parts)
        target, options = "out.tif", {}
    """,
    "labels": """
        result = dr.label(dr.calc("a > 1000", a=dr.open_raster("in.tif")))
        target, options = "out.tif", {}
    """,
    "a model": """
        class Model:
            classes_ = np.arange(4, dtype="uint8")
            def predict(self, rows):
                return (rows[:, 0].astype("float64") // 1000).clip(0, 3).astype("uint8")
        result = dr.predict(Model(), dr.open_raster("in.tif"))
        target, options = "out.tif", {}
    """,
}
FRAME = """
import dask, json, numpy as np, xarray as xr
import daskraster as dr
from scipy.ndimage import uniform_filter

def smooth(block):
    return uniform_filter(block, size=(1, 5, 5))

with dask.config.set(scheduler="threads", num_workers=2):
{job}
    plan = dr.explain(result, target, **options)
    report = dr.write_raster(result, target, progress=False, **options)
print(json.dumps([plan.peak_nbytes, report.peak_nbytes, plan.blocks, report.blocks]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a raster that is larger than what a process takes anyway."""
    import rasterio

    path = tmp_path_factory.mktemp("plans")
    profile = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "zlevel": 1,
    }
    with rasterio.open(path / "in.tif", "w", count=1, height=6144, width=6144, dtype="uint16", crs="EPSG:32755", **profile,
                       transform=rasterio.transform.from_origin(300_000, 6_000_000, 10, 10)) as dataset:  # fmt: skip
        dataset.write(np.random.default_rng(0).integers(0, 4000, (1, 6144, 6144), dtype="uint16"))
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("job", JOBS)
def test_measured_memory_is_planned_memory(folder: Path, job: str) -> None:
    code = FRAME.format(job=textwrap.indent(textwrap.dedent(JOBS[job]), "    "))
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    planned, measured, blocks_planned, blocks = json.loads(run.stdout)
    assert measured <= planned <= 2 * measured, (planned, measured)
    assert blocks_planned == blocks


def plus_one(block: NDArray[Any]) -> NDArray[Any]:
    return block + np.uint16(1)


def test_a_plan_counts(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((2, 300, 200))
    image = dr.open_raster(make_raster(values, tiled=True, blockxsize=64, blockysize=64), chunks=64)
    result = dr.apply(plus_one, image, overlap=3)
    plan = dr.explain(result, tmp_path / "out.tif", blocksize=64, overviews=False)
    haloed = sum(
        2 * (min(row + 67, 300) - max(row - 3, 0)) * (min(col + 67, 200) - max(col - 3, 0)) * 2
        for row in range(0, 300, 64)
        for col in range(0, 200, 64)
    )
    assert (plan.blocks, plan.tasks, plan.halo_yx) == (20, 20, (3, 3))
    assert plan.read_nbytes == haloed
    assert plan.source_nbytes == plan.write_nbytes == values.nbytes
    assert plan.read_twice == pytest.approx(haloed / values.nbytes - 1)
    assert plan.functions == ("plus_one",)
    assert plan.proposed_chunks_yx == plan.chunks_yx == ((64,) * 4 + (44,), (64,) * 3 + (8,))
    text = str(plan)
    assert "20 of 64 x 64, halo 3; 20 tasks" in text
    assert "it fits" in text
    assert json.loads(json.dumps(plan.to_dict()))["blocks"] == 20
    assert not (tmp_path / "out.tif").exists()


def test_overviews_are_written_too(make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 256, 256))))
    plan = dr.explain(image, tmp_path / "out.tif", blocksize=64, overviews=[2, 4])
    assert plan.write_nbytes == 2 * (256**2 + 128**2 + 64**2)


def test_tasks_of_exchanged_blocks_are_counted(make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((1, 256, 256))), chunks=64)
    twice = dr.apply(plus_one, dr.apply(plus_one, image, overlap=1), overlap=1)
    plan = twice.dr.explain(driver="GTiff", blocksize=64)
    assert plan.functions == ("plus_one", "plus_one")
    assert plan.tasks > 5 * plan.blocks


def test_given_memory_runs_nothing(make_raster: MakeRaster) -> None:
    counter = Counter()

    def counted(block: NDArray[Any]) -> NDArray[Any]:
        counter.add()
        return block

    image = dr.open_raster(make_raster(pixels((1, 256, 256))), chunks=64)
    result = dr.apply(counted, image, dtype="uint16", bands=1)
    small, large = (dr.explain(result, "x.tif", function_memory=size) for size in (0, 10**9))
    assert counter.calls == []
    assert large.memory.block_nbytes - 10**9 == 64 * 64 * 2
    assert small.peak_nbytes < large.peak_nbytes - 9 * 10**8
    dr.explain(result, "x.tif")
    assert len(counter.calls) == 1


@pytest.mark.parametrize("wrong", [-1, True])
def test_wrong_memory_is_refused(make_raster: MakeRaster, wrong: Any) -> None:
    with pytest.raises(dr.OptionError, match="must be a number of bytes"):
        dr.explain(dr.open_raster(make_raster(pixels((1, 20, 20)))), "x.tif", function_memory=wrong)


def test_what_cannot_fit_is_refused_with_blocks_that_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask.array as da

    base = workers.workers().base_nbytes
    allowed = base + (300 << 20)
    monkeypatch.setattr(workers, "_allowed_nbytes", lambda _: allowed)
    # 2 GB in one block, which nothing makes before the refusal.
    data = da.zeros((1, 30_000, 35_000), chunks=-1, dtype="uint16")
    target = tmp_path / "out.tif"
    target.write_bytes(b"old")
    raster = xr.DataArray(data, dims=("band", "y", "x"))
    with dask.config.set(scheduler="threads", num_workers=2):
        plan = dr.explain(raster, target)
        with pytest.raises(
            dr.RasterMemoryError, match=r"a worker may have .* open the rasters with chunks=\(\d+, \d+\)"
        ):
            dr.write_raster(raster, target)
        assert target.read_bytes() == b"old"
        assert not plan.fits
        assert "it does not fit" in str(plan)
        smaller = raster.chunk(y=plan.proposed_chunks_yx[0], x=plan.proposed_chunks_yx[1])
        assert planning.workers().limit_nbytes == allowed
        again = dr.explain(smaller, target)
    assert max(map(max, plan.proposed_chunks_yx)) < 30_000
    assert again.memory.block_nbytes * 2 <= 300 << 20


def test_a_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(workers, "CONTROL_GROUP_LIMIT", limit)
    limit.write_text("1073741824\n")
    assert workers.workers().limit_nbytes == 1 << 30
    limit.write_text("max\n")
    assert workers.workers().limit_nbytes > 1 << 30


def test_workers_of_each_engine(client: Any) -> None:
    found = workers.workers()
    assert (found.processes, found.threads) == (2, 2)
    with dask.config.set(scheduler="threads", num_workers=3):
        assert (workers.workers().processes, workers.workers().threads) == (1, 3)
    with dask.config.set(scheduler="synchronous"):
        assert (workers.workers().processes, workers.workers().threads) == (1, 1)
    with dask.config.set(scheduler="processes", num_workers=4):
        assert (workers.workers().processes, workers.workers().threads) == (4, 1)


def test_who_traces_memory_already_goes_on(make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((1, 64, 64))), chunks=64)
    result = dr.apply(lambda block: np.tile(block, (4, 1, 1)), image, dtype=image.dtype, bands=4)
    alone = dr.explain(result).memory
    tracemalloc.start()
    try:
        held = bytearray(1 << 24)
        assert dr.explain(result).memory.block_nbytes < alone.block_nbytes + len(held) // 2
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
