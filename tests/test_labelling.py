"""Labels are SciPy's on the whole array, whatever the blocks and the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import daskraster as dr
from daskraster.errors import BlockResultError, OptionError
from daskraster.lazy import labelling
from tests.conftest import MakeRaster

FULL = np.ones((3, 3), int)


def by_scipy(classes: NDArray[Any], connectivity: int, background: Any = 0, nodata: Any = None) -> NDArray[Any]:
    """SciPy's labels of each class, numbered anew by first pixels."""
    structure = FULL if connectivity == 8 else None
    labels = np.zeros(classes.shape, np.int64)
    for value in np.unique(classes[~np.isnan(classes)]):
        if value in (background, nodata):
            continue
        of_class, _ = ndimage.label(classes == value, structure)
        labels[of_class > 0] = of_class[of_class > 0] + labels.max()
    found, firsts = np.unique(labels, return_index=True)
    numbers = np.zeros(labels.max() + 1, np.int64)
    found, firsts = found[found > 0], firsts[found > 0]
    numbers[found[np.argsort(firsts)]] = np.arange(1, len(found) + 1)
    return numbers[labels]


def raster(classes: NDArray[Any], chunks: Any) -> xr.DataArray:
    return xr.DataArray(classes[np.newaxis], dims=("band", "y", "x")).chunk({"y": chunks[0], "x": chunks[1]})


def spiral(size: int) -> NDArray[np.uint8]:
    """One line one pixel wide from the corner to the middle."""
    grid = np.zeros((size, size), np.uint8)
    row, col, step = 0, -1, (0, 1)
    for length in [size, *(n for side in range(size - 1, 0, -2) for n in (side, side))][:size]:
        for _ in range(length):
            row, col = row + step[0], col + step[1]
            grid[row, col] = 1
        step = (step[1], -step[0])
    return grid


def snake(rows: int, cols: int) -> NDArray[np.uint8]:
    grid = np.ones((rows, cols), np.uint8)
    grid[1::4, :-1] = 0
    grid[3::4, 1:] = 0
    return grid


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equals_scipy(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 23)), data.draw(st.integers(1, 23))
    chunks = data.draw(st.sampled_from([1, 2, 5, 23])), data.draw(st.sampled_from([1, 3, 7, 23]))
    count = data.draw(st.sampled_from([2, 3, 6]))
    connectivity = data.draw(st.sampled_from([4, 8]))
    background = data.draw(st.sampled_from([0, 1, None]))
    dtype = data.draw(st.sampled_from(["uint8", "int16", "int64", "float32", "bool"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    classes = rng.integers(0, count, (rows, cols)).astype(dtype)
    if dtype == "float32":
        classes[rng.random(classes.shape) < 0.2] = np.nan
    with dask.config.set(scheduler="synchronous"):
        result = dr.label(raster(classes, chunks), connectivity, background=background)
        np.testing.assert_array_equal(result.values[0], by_scipy(classes, connectivity, background))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("chunk", [3, 5, 16, 40])
@pytest.mark.parametrize("kind", ["spiral", "snake", "combs", "checkers"])
def test_shapes_that_cross_blocks_again_and_again(kind: str, chunk: int, connectivity: int) -> None:
    grids = {
        "spiral": spiral(41),
        "snake": snake(43, 37),
        "combs": np.maximum(snake(40, 41).T, np.eye(41, 40, dtype=np.uint8)),
        "checkers": (np.indices((41, 40)).sum(0) % 2).astype(np.uint8),
    }
    mask = grids[kind]
    expected, count = ndimage.label(mask, FULL if connectivity == 8 else None)
    if kind in ("spiral", "snake"):
        assert count == 1
    result = dr.label(raster(mask, (chunk, chunk)), connectivity).compute(scheduler="synchronous")
    # Of two values: SciPy's very numbers.
    np.testing.assert_array_equal(result.values[0], expected)
    # The background has its own components, when asked for.
    both = dr.label(raster(mask, (chunk, chunk)), connectivity, background=None).compute(scheduler="synchronous")
    np.testing.assert_array_equal(both.values[0], by_scipy(mask, connectivity, None))


def classes_of(shape: tuple[int, int]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(3).normal(size=shape)
    return np.digitize(ndimage.gaussian_filter(noise, 1.5), [-0.15, 0, 0.15]).astype(np.uint8) + np.uint8(1)


def test_from_file_to_file_on_every_engine(make_raster: MakeRaster, tmp_path: Path, engine: str) -> None:
    classes = classes_of((113, 97))
    image = dr.open_raster(make_raster(classes[np.newaxis], nodata=2), chunks=(32, 48))
    dr.write_raster(dr.label(image, 4), tmp_path / "out.tif")
    labels = dr.open_raster(tmp_path / "out.tif")
    assert (labels.dtype, labels.rio.nodata, labels.attrs["thematic"]) == (np.uint32, 0, True)
    assert labels.rio.crs == image.rio.crs
    np.testing.assert_array_equal(labels.values[0], by_scipy(classes, 4, None, nodata=2))


def test_of_what_is_computed(make_raster: MakeRaster) -> None:
    classes = classes_of((70, 60))
    image = dr.open_raster(make_raster(classes[np.newaxis]), chunks=(32, 16))
    smooth = dr.apply(lambda block: ndimage.median_filter(block, (1, 3, 3)), image, overlap=1)
    expected = by_scipy(ndimage.median_filter(classes, (3, 3)), 8)
    np.testing.assert_array_equal(dr.label(smooth).values[0], expected)
    # Neighbours exchanged in the graph, slices, another dtype.
    again = dr.apply(lambda block: block, (smooth + 0).astype("int64"), overlap=1)
    np.testing.assert_array_equal(dr.label(again.sel(band=1)).values[0], expected)


def test_masked_pixels_have_no_label(make_raster: MakeRaster) -> None:
    classes = classes_of((40, 40))
    path = make_raster(classes[np.newaxis], nodata=3)
    masked, plain = (dr.open_raster(path, masked=one, chunks=16) for one in (True, False))
    np.testing.assert_array_equal(dr.label(masked).values, dr.label(plain).values)


def test_nothing_runs_and_one_task_reads_and_labels(make_raster: MakeRaster, nothing_runs: None) -> None:
    image = dr.open_raster(make_raster(classes_of((64, 64))[np.newaxis]), chunks=16)
    result = dr.label(image)
    assert result.chunks == ((1,), (16,) * 4, (16,) * 4)
    (graph,) = dask.optimize(result.data)
    # A block: read and borders; numbers; read and labels. One task joins, one or two wait for it.
    assert len(dict(graph.dask)) <= 3 * 16 + 3


def test_blocks_are_not_kept_between_the_passes(make_raster: MakeRaster) -> None:
    live, most = [0], [0]

    class Tracked(np.ndarray):
        pass

    def count(block: Any) -> Any:
        import weakref

        tracked = block.copy().view(Tracked)
        live[0] += 1
        most[0] = max(most[0], live[0])
        weakref.finalize(tracked, lambda: live.__setitem__(0, live[0] - 1))
        return tracked

    image = dr.open_raster(make_raster(classes_of((128, 128))[np.newaxis]), chunks=16)
    counted = image.copy(data=image.data.map_blocks(count, dtype=image.dtype))
    result = dr.label(counted)
    seen: list[int] = []
    for row in range(0, 128, 64):
        seen.append(int(result.isel(y=slice(row, row + 64)).max().compute(scheduler="synchronous")))
    assert most[0] <= 3, "blocks of the first pass wait for the second"


def test_numbers_that_are_too_large(make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    image = raster(np.indices((20, 20)).sum(0) % 2, (8, 8))
    monkeypatch.setattr(labelling, "DTYPES", (np.dtype("uint8"), np.dtype("uint64")))
    assert dr.label(image, 4, dtype="uint64").dtype == np.uint64
    with pytest.raises(BlockResultError, match="there are 400 components, more than uint8 holds"):
        dr.label(image, 4, background=None, dtype="uint8").compute()


@pytest.mark.parametrize("classes", [np.zeros((5, 7)), np.full((5, 7), np.nan), np.zeros((1, 1), "uint8")])
def test_nothing_to_label(classes: NDArray[Any]) -> None:
    assert not dr.label(raster(classes, (2, 3))).values.any()


@pytest.mark.parametrize("count", [300, 70_000, 1_000_000])
def test_pixel_counts_in_the_attribute_table(count: int, tmp_path: Path) -> None:
    # Single pixels, each its own component, and one large one.
    side = 2 * int(np.ceil(np.sqrt(count))) + 4
    mask = np.zeros((side, side), np.uint8)
    mask[::2, ::2] = 1
    mask[-2:] = 2
    dr.write_raster(dr.label(raster(mask, (side // 3, side // 3))), tmp_path / "out.kea", progress=False)
    table = dr.read_attribute_table(tmp_path / "out.kea")
    expected = np.bincount(dr.open_raster(tmp_path / "out.kea").values.ravel()).astype(float)
    expected[0] = 0  # nodata
    assert len(expected) > count
    np.testing.assert_array_equal(table["Histogram"], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"connectivity": 6}, "connectivity=6 must be 4 or 8"),
        ({"connectivity": True}, "connectivity=True must be 4 or 8"),
        ({"background": "0"}, "background='0' must be a number or None"),
        ({"dtype": "int32"}, "dtype='int32' cannot hold labels; possible are uint32 and uint64"),
        ({"dtype": "what"}, "is no NumPy dtype"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        dr.label(raster(np.zeros((4, 4)), (2, 2)), **arguments)


def test_several_bands_are_refused() -> None:
    image = xr.DataArray(np.zeros((2, 4, 4)), dims=("band", "y", "x"))
    with pytest.raises(OptionError, match=r"label works on one band, .* has 2"):
        dr.label(image)
    assert dr.label(image.isel(band=0)).shape == (1, 4, 4)


def test_in_waves(make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A large run is cut into graphs of some blocks each: the second ones need the join, not the first pass again.
    from daskraster.running import waves

    monkeypatch.setattr(waves, "WAVE_BLOCKS", 4)
    monkeypatch.setattr(waves, "SHARING_WAVE_BLOCKS", 8)
    reads: list[int] = []
    classes = classes_of((96, 64))
    image = dr.open_raster(make_raster(classes[np.newaxis]), chunks=16)

    def counted(block: Any) -> Any:
        reads.append(1)
        return block

    result = dr.label(image.copy(data=image.data.map_blocks(counted, dtype=image.dtype, meta=image.data._meta)))
    dr.write_raster(result, tmp_path / "out.tif", blocksize=16, overviews=False, progress=False)
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "out.tif").values[0], by_scipy(classes, 8))
    assert len(reads) == 2 * 24
