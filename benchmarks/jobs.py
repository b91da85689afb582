"""What is measured: jobs, the tools that do them, and what the numbers are to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rasterio
from rasterio.windows import Window

import daskraster as dr
from benchmarks.scene import make_scene

DATA = Path(__file__).parent / "data"
OWN = "daskraster"
"""The row that the others of its job are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a job reads, made where it is missing."""

    size_yx: tuple[int, int]
    dtype: str = "uint16"
    bands: int = 1
    compress: str = "DEFLATE"
    kind: str = "tif"
    """``tif``, ``kea``, or ``tiles``: a folder of 400 GeoTIFFs."""

    def path(self) -> Path:
        """The file or folder, made if it is not there.

        Raises
        ------
        OSError
            The disk is full.
        """
        rows, cols = self.size_yx
        words = ["scene"] + [self.dtype] * (self.dtype != "uint16") + [f"{self.bands}bands"] * (self.bands > 1)
        words += [self.compress.lower()] * (self.compress != "DEFLATE") + [
            str(rows) if rows == cols else f"{rows}x{cols}"
        ]
        predictor = 3 if self.dtype == "float32" else 2
        tif = make_scene(
            DATA / f"{'_'.join(words)}.tif", rows, cols, dtype=self.dtype, bands=self.bands, compress=self.compress, predictor=predictor
        )  # fmt: skip
        if self.kind == "kea" and not tif.with_suffix(".kea").exists():
            dr.write_raster(dr.open_raster(tif), tif.with_suffix(".kea"), progress=False)
        if self.kind == "tiles":
            return _cut(tif)
        return tif.with_suffix(f".{self.kind}")


def _cut(tif: Path, count: int = 20) -> Path:
    """A folder of 20 x 20 tiles beside a scene; it has its name when all are there."""
    folder, partial = tif.with_suffix(""), tif.with_suffix(".part")
    if folder.exists():
        return folder
    partial.mkdir(exist_ok=True)
    with rasterio.open(tif) as file:
        side = file.width // count
        for row in range(count):
            for col in range(count):
                window = Window(col * side, row * side, side, side)
                profile = file.profile | {"width": side, "height": side, "transform": file.window_transform(window)}
                tile = partial / f"tile_{row:02}_{col:02}.tif"
                with rasterio.open(tile, "w", **(profile | {"blockxsize": 256, "blockysize": 256})) as new:
                    new.write(file.read(window=window))
    partial.rename(folder)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: a tool at a job."""

    name: str
    tool: str = "daskraster_job"
    """Module in `benchmarks.peers`, or ``"module:function"``."""
    options: dict[str, Any] = field(default_factory=dict)
    suffix: str = ".tif"
    scene: Scene | None = None
    """Where it is not the job's."""
    check: str | None = None
    """Where it is not the job's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Rows that do the same."""

    name: str
    scene: Scene
    rows: tuple[Row, ...]
    check: str = "add"
    """What every output must be; see `benchmarks.checking`."""
    full: bool = False
    """Only in ``make bench-full``."""
    needs: str = ""
    """Name in daskraster without which the job is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """``row / reference`` of one number, compared with a limit."""

    job: str
    row: str
    reference: str
    limit: float
    at_least: bool
    key: str = "seconds"
    """A number of `benchmarks.measure.Measurement`. Peers are compared by the whole process, limits by the run without imports."""
    minus: bool = False
    """The difference, not the ratio."""
    per: float = 1.0
    """The result is divided by this."""


def _square(size: int, **words: Any) -> Scene:
    return Scene(size_yx=(size, size), **words)


def _add_job(size: int, *, full: bool) -> Job:
    return Job(
        name=f"b1+1, halo 5, {size}", scene=_square(size), full=full,
        rows=(
            Row(name=OWN),
            Row(name="daskraster, halo 0", options={"halo": 0}),
            Row(name="rioxarray + lock", tool="rioxarray_lock", options={"codec_threads": 1}),
            Row(name="rioxarray + lock, tuned", tool="rioxarray_lock"),
            Row(name="raster-tools (no halo)", tool="raster_tools"),
            Row(name="xarray-spatial", tool="xarray_spatial"),
            Row(name="rasterio windows (no halo)", tool="rasterio_windows"),
            Row(name="the recipe", tool="recipe"),
            Row(name="limit by hand (no halo)", tool="handwritten"),
        ),
    )  # fmt: skip


def _cog_job(size: int, *, full: bool) -> Job:
    both = {"halo": 0, "statistics": True, "overviews": True}
    return Job(
        name=f"COG, overviews + statistics, {size}", scene=_square(size), full=full,
        rows=(
            Row(name=OWN, options={**both, "driver": "COG"}),
            Row(name="daskraster, plain GeoTIFF", options={"halo": 0}),
            Row(name="daskraster, GeoTIFF with both", options=both),
            Row(name="odc-geo", tool="odc_cog"),
            Row(name="rasterio, GDAL COG driver", tool="rasterio_cog"),
        ),
    )  # fmt: skip


def _bands_job(size: int, *, full: bool) -> Job:
    return Job(
        name=f"b+1, halo 5, 6 bands float32, {size}", scene=_square(size, dtype="float32", bands=6), full=full,
        rows=(
            Row(name=OWN),
            Row(name="rioxarray + lock, tuned", tool="rioxarray_lock", options={"block": 1024}),
            Row(name="rasterio windows (no halo)", tool="rasterio_windows", options={"block": 1024}),
        ),
    )  # fmt: skip


def _codec_job(codec: str, size: int) -> Job:
    none = codec == "none"
    limit = (
        Row(name="limit by hand", tool="handwritten_raw"),
        Row(name="raw disk", tool="handwritten_raw:copy", check="same"),
    )
    return Job(
        name=f"b1+1, halo 0, {codec}, {size}", scene=_square(size, compress=codec.upper()),
        rows=(
            Row(name=OWN, options={"halo": 0, "compress": codec, "predictor": 1 if none else 2}),
            Row(name="rioxarray + lock, tuned", tool="rioxarray_lock", options={"halo": 0, "compress": codec}),
            Row(name="rasterio windows", tool="rasterio_windows", options={"compress": codec}),
            *(limit if none else ()),
        ),
    )  # fmt: skip


_KEA = _square(10_000, dtype="int32", kind="kea")
_TIF = _square(10_000, dtype="int32")
_DEM = _square(8192, dtype="float32")
_STRIP = Scene(size_yx=(8192, 262_144))

JOBS = (
    Job(
        name="start-up, 512", scene=_square(512), check="nothing",
        rows=(
            Row(name=OWN, check="add"),
            Row(name="import daskraster", tool="imports", options={"modules": ["daskraster"]}),
            Row(name="import rioxarray, dask.array", tool="imports", options={"modules": ["rioxarray", "dask.array"]}),
            Row(name="rioxarray + lock", tool="rioxarray_lock", check="add"),
        ),
    ),
    Job(
        name="task overhead", scene=_square(512), check="nothing",
        rows=(
            Row(name=OWN, tool="overhead", options={"blocks": 4096}, suffix=".txt"),
            Row(name="1024 blocks", tool="overhead", options={"blocks": 1024}, suffix=".txt"),
            Row(name="LocalCluster, 4096 blocks", tool="overhead", options={"blocks": 4096, "cluster": True}, suffix=".txt"),
            Row(name="LocalCluster, 1024 blocks", tool="overhead", options={"blocks": 1024, "cluster": True}, suffix=".txt"),
        ),
    ),
    _add_job(8192, full=False),
    Job(
        name="mean 5 x 5, 8192", scene=_square(8192), check="mean",
        rows=(
            Row(name=OWN, options={"operation": "mean", "halo": 2}),
            Row(name="rioxarray + lock, tuned", tool="rioxarray_lock", options={"operation": "mean", "halo": 2}),
            Row(name="xarray-spatial", tool="xarray_spatial", options={"operation": "mean", "halo": 2}),
            Row(name="limit by hand", tool="handwritten", options={"operation": "mean"}),
        ),
    ),
    Job(
        name="NDVI, 8192", scene=_square(8192, bands=2), check="ndvi",
        rows=(
            Row(name=OWN, options={"operation": "ndvi", "halo": 0}),
            Row(name="rioxarray + lock, tuned", tool="rioxarray_lock", options={"operation": "ndvi", "halo": 0, "predictor": 3}),
            Row(name="rasterio windows", tool="rasterio_windows", options={"operation": "ndvi", "predictor": 3}),
        ),
    ),
    Job(
        name="NDVI by expression, 8192", scene=_square(8192, bands=2), check="ndvi", needs="calc",
        rows=(
            Row(name=OWN, tool="daskraster_job:calc", options={"expression": "(b2-b1)/(b2+b1)", "dtype": "float32"}),
            Row(name="rasterio windows", tool="rasterio_windows", options={"operation": "ndvi", "predictor": 3}),
        ),
    ),
    Job(
        name="slope of a DEM, 8192", scene=_DEM, check="slope",
        rows=(
            Row(name=OWN, options={"operation": "slope", "halo": 1}),
            Row(name="rioxarray + lock, tuned", tool="rioxarray_lock", options={"operation": "slope", "halo": 1, "predictor": 3}),
            Row(name="xarray-spatial", tool="xarray_spatial", options={"operation": "slope"}),
            Row(name="raster-tools", tool="raster_tools", options={"operation": "slope"}),
        ),
    ),
    Job(
        name="KEA to KEA, int32, 10000", scene=_KEA,
        rows=(
            Row(name=OWN, options={"halo": 0}, suffix=".kea"),
            Row(name="daskraster, halo 5", suffix=".kea"),
            Row(name="daskraster, GeoTIFF to GeoTIFF", options={"halo": 0}, scene=_TIF),
            Row(name="HDF5's own filters", tool="hdf5_filters", suffix=".kea"),
            Row(name="limit by hand", tool="handwritten_kea", suffix=".bin", check="nothing"),
        ),
    ),
    Job(
        name="reading KEA, int32, 10000", scene=_KEA, check="count",
        rows=(
            Row(name=OWN, tool="daskraster_job:read", suffix=".txt"),
            Row(name="HDF5's own filters", tool="hdf5_filters:read", suffix=".txt"),
        ),
    ),
    _cog_job(8192, full=False),
    Job(
        name="mosaic of 400 tiles, 10000", scene=_square(10_000, kind="tiles"), check="same", needs="mosaic",
        rows=(
            Row(name=OWN, tool="daskraster_job:mosaic"),
            Row(name="rasterio.merge", tool="rasterio_merge"),
            Row(name="the recipe's mosaic", tool="recipe:mosaic"),
        ),
    ),
    Job(
        name="reading, 8192", scene=_square(8192), check="count",
        rows=(
            Row(name=OWN, tool="daskraster_job:read", suffix=".txt"),
            Row(name="rioxarray, handle per thread", tool="rioxarray_lock:read", suffix=".txt"),
            Row(name="rasterio windows", tool="rasterio_windows:read", suffix=".txt"),
            Row(name="limit by hand", tool="handwritten:read", suffix=".txt"),
        ),
    ),
    Job(
        name="writing, 8192", scene=_square(8192), check="repeat",
        rows=(
            Row(name=OWN, tool="daskraster_job:write"),
            Row(name="rasterio windows", tool="rasterio_windows:write"),
            Row(name="limit by hand", tool="handwritten:write"),
        ),
    ),
    *(_codec_job(codec, 8192) for codec in ("zstd", "lzw", "none")),
    _bands_job(2048, full=False),
    _add_job(24_576, full=True),
    _cog_job(24_576, full=True),
    _bands_job(8192, full=True),
    Job(name="b1+1, halo 5, strip of 262144 x 8192", scene=_STRIP, rows=(Row(name=OWN),), full=True),
)  # fmt: skip


def _goals(size: int) -> tuple[Goal, ...]:
    """Of the jobs that come in two sizes."""
    add, cog = f"b1+1, halo 5, {size}", f"COG, overviews + statistics, {size}"
    # The small scene is done in the time that imports take: there runs are compared, not processes.
    key = "seconds" if size > 8192 else "run_seconds"
    return (
        Goal(job=add, row="rioxarray + lock", reference=OWN, limit=3.5, at_least=True, key=key),
        Goal(job=add, row="raster-tools (no halo)", reference=OWN, limit=3.0, at_least=True, key=key),
        Goal(job=add, row="the recipe", reference=OWN, limit=8.0, at_least=True, key=key),
        Goal(job=add, row="rasterio windows (no halo)", reference=OWN, limit=1.8, at_least=True, key=key),
        Goal(job=add, row=OWN, reference="limit by hand (no halo)", limit=1.25, at_least=False, key="run_seconds"),
        Goal(job=add, row=OWN, reference="daskraster, halo 0", limit=1.12, at_least=False, key="run_seconds"),
        Goal(job=add, row=OWN, reference="", limit=300, at_least=False, key="peak_mb"),
        Goal(job=cog, row="odc-geo", reference=OWN, limit=5.0, at_least=True, key=key),
        Goal(job=cog, row="rasterio, GDAL COG driver", reference=OWN, limit=4.0, at_least=True, key=key),
    )


_KEA_JOB, _KEA_READ, _TASKS, _START = (
    "KEA to KEA, int32, 10000",
    "reading KEA, int32, 10000",
    "task overhead",
    "start-up, 512",
)
_IMPORTS = "import rioxarray, dask.array"
GOALS = (
    *_goals(8192),
    *_goals(24_576),
    Goal(job=_KEA_JOB, row=OWN, reference="limit by hand", limit=1.25, at_least=False, key="run_seconds"),
    # As of the small scenes: imports are two thirds of the process, and a fifth of HDF5's is less than xarray and dask take for theirs.
    Goal(job=_KEA_JOB, row="HDF5's own filters", reference=OWN, limit=5.0, at_least=True, key="run_seconds"),
    Goal(job=_KEA_JOB, row=OWN, reference="daskraster, GeoTIFF to GeoTIFF", limit=1.15, at_least=False, key="run_seconds"),
    Goal(job=_KEA_READ, row="HDF5's own filters", reference=OWN, limit=4.0, at_least=True, key="run_seconds"),
    Goal(job="mean 5 x 5, 8192", row=OWN, reference="limit by hand", limit=1.2, at_least=False, key="run_seconds"),
    Goal(job="b1+1, halo 0, none, 8192", row="limit by hand", reference=OWN, limit=0.8, at_least=True, key="run_seconds"),
    Goal(job=_START, row="import daskraster", reference=_IMPORTS, limit=1.1, at_least=False),
    Goal(job=_START, row=OWN, reference=_IMPORTS, limit=0.5, at_least=False, minus=True),
    Goal(job=_TASKS, row=OWN, reference="1024 blocks", limit=0.5, at_least=False, key="run_seconds", minus=True, per=3.072),
    Goal(
        job=_TASKS, row="LocalCluster, 4096 blocks", reference="LocalCluster, 1024 blocks", limit=2.0, at_least=False,
        key="run_seconds", minus=True, per=3.072,
    ),
    Goal(job="b1+1, halo 5, strip of 262144 x 8192", row=OWN, reference="", limit=300, at_least=False, key="peak_mb"),
)  # fmt: skip
