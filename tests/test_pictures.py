"""Pictures show the pixels of the file, read no more than they need, and say what they show."""

from __future__ import annotations

import json
import pickle
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import matplotlib as mpl
import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

import daskraster as dr
from daskraster.grid import Window
from daskraster.lazy.arrays import as_raster
from daskraster.lazy.sources import SourceView, source_array
from daskraster.pictures.quicklook import quicklook
from daskraster.spans import KEPT_BLOCKS, Spans, Timeline, record, take_spans
from tests.conftest import DATA, Counter, MakeRaster, pixels

QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture(autouse=True)
def plt() -> Iterator[Any]:
    """pyplot without a screen; its figures are closed."""
    mpl.use("Agg")
    import matplotlib.pyplot

    yield matplotlib.pyplot
    matplotlib.pyplot.close("all")


def image_of(axes: Any) -> NDArray[Any]:
    return axes.images[0].get_array()


@dataclass(frozen=True)
class Counted:
    """A source of zeros without overviews that counts."""

    shape: tuple[int, int, int]
    counter: Counter = field(compare=False, repr=False)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("uint8"))
    tile_yx: tuple[int, int] = (256, 256)
    name: str = "counted"
    token: str = "counted"

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        self.counter.add((window, bands))
        rows = np.arange(window.row_off, window.row_stop)[:, np.newaxis]
        cols = np.arange(window.col_off, window.col_stop)
        return np.broadcast_to((rows * 7 + cols) % 251, (len(bands), *window.shape_yx)).astype(self.dtype)


def counted(shape: tuple[int, int, int]) -> tuple[xr.DataArray, Counter]:
    counter = Counter()
    chunks = (tuple([256] * (shape[1] // 256)), tuple([256] * (shape[2] // 256)))
    view = SourceView(Counted(shape, counter), tuple(range(1, shape[0] + 1)), Window(0, 0, *shape[1:]))
    return xr.DataArray(source_array(view, chunks), dims=("band", "y", "x")), counter


@pytest.mark.parametrize("suffix", ["tif", "kea"])
@pytest.mark.parametrize("size", [50, 100, 150, 400, 5000])
def test_pixels_are_those_of_the_overview(suffix: str, size: int, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 701, 997))
    path = tmp_path / f"out.{suffix}"
    dr.write_raster(dr.open_raster(make_raster(values)), path, blocksize=128, overviews=(2, 4, 8), **QUIET)
    look = quicklook(as_raster(dr.open_raster(path)), (0,), size)
    level = next((level for level, factor in ((2, 8), (1, 4), (0, 2)) if -(-997 // factor) >= size), None)
    due = dr.open_raster(path, overview_level=level).values
    if max(due.shape[1:]) >= 2 * size:
        with rasterio.MemoryFile() as memory:
            profile = {"driver": "GTiff", "count": 1, "height": due.shape[1], "width": due.shape[2], "dtype": due.dtype}
            with memory.open(**profile, transform=rasterio.Affine.scale(2)) as dataset:
                dataset.write(due)
            with memory.open() as dataset:
                due = dataset.read(out_shape=look.pixels.shape)
    assert (look.pixels == due).all()
    assert size <= max(look.pixels.shape[1:]) < 2 * size or due.shape == values.shape


def test_a_crop_lies_where_it_lay(make_raster: MakeRaster, tmp_path: Path) -> None:
    dr.write_raster(
        dr.open_raster(make_raster(pixels((1, 701, 997)))), tmp_path / "o.tif", blocksize=128, overviews=(2, 4), **QUIET
    )
    crop = dr.open_raster(tmp_path / "o.tif")[:, 101:503, 203:800]
    look = quicklook(as_raster(crop), (0,), 140)
    with rasterio.open(tmp_path / "o.tif", overview_level=1) as dataset:
        down, right = 701 / dataset.height, 997 / dataset.width
        row, col = int(101 / down), int(203 / right)
        due = dataset.read(1)[row : int(np.ceil(503 / down)), col : int(np.ceil(800 / right))]
        corner = dataset.transform @ (col, row)
    assert (look.pixels[0] == due).all()
    assert look.grid.transform @ (0, 0) == pytest.approx(corner, abs=1e-6)
    axes = crop.dr.plot(size=140)
    assert axes.get_xlim() == pytest.approx((302_030, 308_000))
    assert axes.get_xlabel() == "Easting (metre)"


def test_without_overviews_each_block_is_read_once_and_little_is_kept() -> None:
    image, counter = counted((3, 8192, 4096))
    look = quicklook(as_raster(image), (1,), 100)
    assert look.pixels.shape == (1, 100, 50)
    windows = [window for window, _ in counter.calls]
    assert len(windows) == len(set(windows)) > 1
    assert sum(window.height * window.width for window in windows) == 8192 * 4096
    assert max(window.height * window.width for window in windows) <= 16 << 20
    assert {bands for _, bands in counter.calls} == {(2,)}
    whole = Counted((1, 8192, 4096), Counter()).read(Window(0, 0, 8192, 4096), (1,))[0]
    rows, cols = (np.arange(100) + 0.5) * 81.92, (np.arange(50) + 0.5) * 81.92
    assert (look.pixels[0] == whole[rows.astype(int)][:, cols.astype(int)]).all()


def test_too_large_is_refused_before_anything_is_read() -> None:
    image, counter = counted((1, 256 * 65, 256 * 65))
    with pytest.raises(dr.OptionError, match=r"counted needs 16640 x 16640 pixels.*write it with overviews"):
        image.dr.plot()
    lazy = xr.DataArray(da.zeros((1, 20_000, 20_000), chunks=(1, 4096, 4096)), dims=("band", "y", "x"))
    with pytest.raises(dr.OptionError, match="20000 x 20000"):
        lazy.dr.plot()
    assert counter.calls == []


@pytest.mark.parametrize("nodata", [0, 77])
def test_colours_are_percentiles_and_nodata_is_clear(nodata: int, make_raster: MakeRaster) -> None:
    values = pixels((3, 60, 80))
    values[1, 10:20, 30:40] = nodata
    rgba = image_of(dr.open_raster(make_raster(values, nodata=nodata)).dr.plot(percent=(5, 90)))
    hole = values[1] == nodata
    assert (rgba[..., 3] == np.where(hole, 0, 255)).all()
    low, high = np.percentile(values[2][values[2] != nodata], (5, 90))
    due = np.interp(values[2], (low, high), (0, 255))
    assert np.abs(rgba[..., 2].astype(float) - due)[~hole].max() <= 0.5 + 1e-6


@pytest.mark.parametrize("masked", [True, False])
def test_one_band_has_a_scale_and_no_nan(masked: bool, make_raster: MakeRaster, plt: Any) -> None:
    values = pixels((1, 30, 40), "float32")
    values[0, :5] = np.nan
    axes = dr.open_raster(make_raster(values, nodata=np.nan), masked=masked).dr.plot(cmap="viridis", percent=None)
    shown = image_of(axes)
    assert (np.ma.getmaskarray(shown) == np.isnan(values[0])).all()
    assert axes.images[0].get_clim() == pytest.approx((np.nanmin(values), np.nanmax(values)))
    assert len(axes.figure.axes) == 2


def test_clear_pixels_show_a_hatching(make_raster: MakeRaster, plt: Any) -> None:
    values = pixels((1, 60, 60))
    assert dr.open_raster(make_raster(values, "full.tif")).dr.plot().patch.get_hatch() is None
    values[:, :30] = 0
    axes = dr.open_raster(make_raster(values, "half.tif", nodata=0)).dr.plot(legend=False)
    axes.figure.set_dpi(100)
    axes.figure.patch.set_alpha(0)
    axes.figure.canvas.draw()
    rgba = np.asarray(axes.figure.canvas.buffer_rgba())
    box = axes.get_window_extent()
    top, bottom = (int(rgba.shape[0] - y) for y in (box.y1 - 5, box.y0 + 5))
    inside = rgba[top:bottom, int(box.x0) + 5 : int(box.x1) - 5]
    upper, lower = np.array_split(inside[..., 3], 2)
    # Where there is no data lines, and between them what lies behind the figure; elsewhere the picture.
    assert 0.02 < (upper[:-5] > 0).mean() < 0.5
    assert (lower[5:] == 255).all()


@pytest.mark.parametrize("dtype", ["int64", "uint64", "bool"])
def test_other_pixels(dtype: str) -> None:
    values = (pixels((1, 9, 11), "uint8") % 2).astype(dtype)
    assert image_of(xr.DataArray(values, dims=("band", "y", "x")).dr.plot(percent=None)).shape == (9, 11)
    empty = xr.DataArray(np.full((3, 1, 1), np.nan), dims=("band", "y", "x"))
    assert image_of(empty.dr.plot()).tolist() == [[[0, 0, 0, 0]]]


def test_classes_have_their_colours_and_names(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = (pixels((1, 50, 60), "uint8") % 4).astype("uint8")
    image = dr.open_raster(make_raster(values, nodata=0))
    colors = {0: (9, 9, 9, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255), 3: (0, 0, 255, 255)}
    dr.write_raster(
        image, tmp_path / "c.kea", colormap=colors, categories={1: "wood", 2: "sea"}, thematic=True, **QUIET
    )
    axes = dr.open_raster(tmp_path / "c.kea").dr.plot()
    table = np.array([(0, 0, 0, 0), *list(colors.values())[1:]])
    assert (image_of(axes) == table[values[0]]).all()
    assert [entry.get_text() for entry in axes.get_legend().get_texts()] == ["wood", "sea", "3"]


def test_a_file_s_own_mask_is_seen(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(pixels((3, 40, 50)))
    mask = np.full((40, 50), 255, np.uint8)
    mask[:, 20:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert (image_of(dr.open_raster(path).dr.plot())[..., 3] == mask).all()


def test_rotated_grids_lie_as_they_lie(make_raster: MakeRaster) -> None:
    transform = rasterio.Affine.translation(1000, 2000) @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(10, -10)
    axes = dr.open_raster(make_raster(pixels((1, 30, 50)), transform=transform)).dr.plot()
    xs, ys = zip(*[transform @ corner for corner in ((0, 0), (50, 0), (50, 30), (0, 30))], strict=True)
    assert axes.get_xlim() == pytest.approx((min(xs), max(xs)))
    assert axes.get_ylim() == pytest.approx((min(ys), max(ys)))
    placed = axes.images[0].get_transform() - axes.transData
    assert placed.transform((50, 30)) == pytest.approx((xs[2], ys[2]))


def test_degrees_are_narrower_in_the_north(make_raster: MakeRaster) -> None:
    transform = rasterio.transform.from_origin(10, 61, 0.1, 0.1)
    axes = dr.open_raster(make_raster(pixels((1, 20, 20)), crs="EPSG:4326", transform=transform)).dr.plot()
    assert axes.get_aspect() == pytest.approx(2.0)
    assert axes.get_ylabel() == "Latitude (degree)"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bands": 4}, r"bands=4 must be one or three of the bands of .*, which are \[1, 2, 3\]"),
        ({"bands": (1, 2)}, "one or three"),
        ({"bands": "1"}, "one or three"),
        ({"percent": (98, 2)}, r"percent=\(98, 2\)"),
        ({"percent": 2}, "percent=2"),
        ({"size": 0}, "size=0"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], match: str, make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((3, 9, 9))))
    with pytest.raises(dr.OptionError, match=match):
        image.dr.plot(**options)


def test_bands_are_told_by_their_numbers(make_raster: MakeRaster) -> None:
    values = pixels((5, 9, 9))
    axes = dr.open_raster(make_raster(values), bands=[5, 2]).dr.plot(bands=2)
    assert (image_of(axes) == values[1]).all()
    assert axes.get_title().endswith("(band 2)")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, make_raster: MakeRaster) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(dr.OptionError, match=r"pip install 'daskraster\[plot\]'"):
        dr.open_raster(make_raster(pixels((1, 9, 9)))).dr.plot()


def shifted(block: NDArray[Any]) -> NDArray[Any]:
    return np.pad(block, ((0, 0), (0, 0), (3, 0)), mode="edge")[..., :-3]


def test_seams_are_where_pixels_differ() -> None:
    noise = xr.DataArray(np.random.default_rng(0).random((1, 300, 400)), dims=("band", "y", "x"))
    check = dr.check_overlap(shifted, noise, overlap=1, samples=4, size=64)
    pattern, places = check.plot()
    due = np.zeros((64, 64))
    due[:, :2] = 100.0
    assert (image_of(pattern) == due).all()
    assert pattern.get_title() == "Seams; use overlap=3"
    assert len(places.patches) == 2 * len(check.samples)
    assert "wide enough" in dr.check_overlap(shifted, noise, overlap=3, samples=4, size=64).plot()[0].get_title()
    with pytest.raises(dr.OptionError, match="axes= has 1 Axes"):
        check.plot([pattern])


def test_the_run_is_drawn(make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 300, 400))), chunks=128)
    image.compute()  # what a thread noted before the run is not of the run
    report = dr.write_raster(dr.apply(shifted, image, overlap=3), tmp_path / "o.tif", blocksize=128, **QUIET)
    noted = list(report.timeline)
    assert report.timeline.blocks == report.blocks
    assert {stage for _, stage, _, _ in noted} == set(report.stage_seconds)
    assert all(end - begin >= 0 and report.timeline.began - 0.01 <= begin for _, _, begin, end in noted)
    assert max(end for *_, end in noted) - min(begin for _, _, begin, _ in noted) <= report.seconds
    axes = report.plot()
    assert {entry.get_text() for entry in axes.get_legend().get_texts()} == set(report.stage_seconds)
    assert pickle.loads(pickle.dumps(report)) == report
    with pytest.raises(dr.OptionError, match="no block was computed"):
        dr.WriteReport.plot(
            type("Empty", (), {"timeline": Timeline(), "path": Path("a"), "blocks": 0, "seconds": 0.0})()
        )


def test_spans_are_exact_and_bounded() -> None:
    take_spans()
    record("read", 100.0, 0.25)
    record("write", 100.5, 0.5)
    (spans,) = take_spans()
    assert take_spans() == ()
    (_, first, end), (_, second, last) = spans
    assert (end - first, second - first, last - first) == pytest.approx((0.25, 0.5, 1.0))
    assert len(pickle.dumps(spans)) < 200
    for _ in range(1000):
        record("read", 1.0, 1.0)
    assert len(list(take_spans()[0])) == 64
    line = Timeline()
    for number in range(10 * KEPT_BLOCKS):
        line.add((Spans("elsewhere:1:a", line.began + number, spans.marks),))
    assert line.every == 16
    assert line.blocks <= KEPT_BLOCKS
    begins = sorted({begin - line.began for _, stage, begin, _ in line if stage == "read"})
    assert begins == pytest.approx(list(range(0, 10 * KEPT_BLOCKS, 16)))


def drawings(html: str) -> list[ET.Element]:
    return list(ET.fromstring(html).iter("{http://www.w3.org/2000/svg}svg"))


def test_a_plan_is_drawn(make_raster: MakeRaster) -> None:
    image = dr.open_raster(make_raster(pixels((3, 300, 400)), nodata=0), chunks=128)
    plan = dr.apply(shifted, image, overlap=3).dr.explain("<out>.tif", blocksize=128)
    html = plan._repr_html_()
    raster, block, memory = drawings(html)
    assert "<script" not in html
    assert "&lt;out&gt;.tif" in html
    assert len(html) < 300_000
    assert raster.find("{*}image").get("href").startswith("data:image/webp")  # type: ignore[union-attr]
    assert f"{len(plan.chunks_yx[1])} x {len(plan.chunks_yx[0])} blocks" in raster.get("aria-label", "")
    assert "halo of 3" in "".join(block.itertext())
    bars = [float(rect.get("width", 0)) for rect in memory.findall("{*}rect")[:3]]
    parts = plan.memory.base_nbytes, plan.memory.threads * plan.memory.block_nbytes, plan.memory.shared_nbytes
    assert bars == pytest.approx([part / sum(parts) * sum(bars) for part in parts], abs=0.02)
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    json.dumps(plan.to_dict())
    Path(plan.sources[0]).unlink()
    assert "cannot be read" in again._repr_html_()


def test_a_million_blocks_are_few_lines() -> None:
    huge = xr.DataArray(da.zeros((1, 100_000, 100_000), chunks=(1, 2048, 2048), dtype="u1"), dims=("band", "y", "x"))
    plan = dr.explain(huge, "huge.tif")
    wide = type(plan)(**{name: getattr(plan, name) for name in plan.__slots__} | {"chunks_yx": ((100,) * 1000,) * 2})
    html = wide._repr_html_()
    assert "1000 x 1000 blocks" in html
    assert "one line drawn of 16 across" in html
    assert len(html) < 20_000


def test_real_data(landsat: Path) -> None:
    axes = dr.open_raster(landsat).dr.plot()
    with rasterio.open(landsat) as dataset:
        due = (dataset.read() != 0).all(axis=0)
    assert (image_of(axes)[..., 3] == np.where(due, 255, 0)).all()
    classes = dr.open_raster(DATA / "sen2" / "sen2_20210527_aber_cls.kea")
    found = image_of(classes.dr.plot())
    colors = classes.attrs["colormap"]
    rows = classes.values[0]
    assert all((found[rows == value] == colors[value]).all() for value in np.unique(rows) if value)
