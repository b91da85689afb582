"""Wide rasters go in bands of rows, column by column: the same pixels, each tile decoded once within a band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

import daskraster as dr
from daskraster.formats import tilecache
from daskraster.running import waves
from daskraster.running.walking import rows_together
from tests.conftest import MakeRaster, pixels, read

TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}


def largest(block: NDArray[Any]) -> NDArray[Any]:
    return maximum_filter(block, size=(1, 5, 5))


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any raster is too wide to go row by row, and a band is two to six rows of blocks."""
    monkeypatch.setattr(tilecache, "ROW_NBYTES", 1)
    monkeypatch.setattr(tilecache, "BAND_NBYTES", 32_000)
    monkeypatch.setattr(tilecache, "BAND_TILES", 1)


def test_keys_in_bands() -> None:
    graph = {("write", 0, row, col): _Alone() for row in range(3) for col in range(11)}
    _, names = waves.row_by_row(graph, "end", together=2)
    blocks = [key[2:] for key, _ in sorted(names.items(), key=lambda item: item[1])]
    assert blocks == [*[(row, col) for col in range(11) for row in range(2)], *[(2, col) for col in range(11)]]


class _Alone:
    """A task without any other."""

    dependencies = frozenset[Any]()

    def substitute(self, names: Any, key: str) -> _Alone:
        return self


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize(
    ("shape", "chunks_and_overlap", "options"),
    [
        ((1, 250, 190), (64, 2), {}),
        ((2, 257, 131), ((33, 70), 5), {"interleave": "band"}),
        ((1, 128, 320), (64, 70), {"overviews": False}),
        ((1, 127, 321), (64, 2), {"driver": "COG"}),
        ((3, 65, 63), (32, 33), {}),
    ],
)
def test_the_same_pixels(  # noqa: PLR0917 - fixtures
    make_raster: MakeRaster, tmp_path: Path, engine: str, shape: Any, chunks_and_overlap: Any, options: dict[str, Any]
) -> None:
    chunks, overlap = chunks_and_overlap
    values = pixels(shape)
    image = dr.open_raster(make_raster(values, **TILED), chunks=chunks)
    result = dr.apply(largest, image, overlap=overlap)
    assert rows_together(result.data.dask) > 1
    dr.write_raster(result, tmp_path / "out.tif", blocksize=32, **options)
    assert (read(tmp_path / "out.tif") == largest(values)).all()


@pytest.mark.usefixtures("small_bands")
def test_a_delayed_run_goes_the_same_way(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 250, 190))
    image = dr.open_raster(make_raster(values, **TILED), chunks=64)
    dr.write_raster(dr.apply(largest, image, overlap=2), tmp_path / "out.tif", compute=False).compute()
    assert (read(tmp_path / "out.tif") == largest(values)).all()


@pytest.mark.usefixtures("small_bands")
def test_masked_pixels(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 130, 190))
    path = make_raster(values, **TILED)
    due = largest(values.astype("float32"))
    image = dr.open_raster(path, chunks=64, masked=True)
    dr.write_raster(dr.apply(largest, image, overlap=2), tmp_path / "out.tif")
    assert (read(tmp_path / "out.tif") == due).all()


@pytest.mark.parametrize(("overlap", "bands"), [(0, 1), (2, 6)])
def test_only_windows_that_overlap_are_walked_down(
    make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch, overlap: int, bands: int
) -> None:
    image = dr.open_raster(make_raster(pixels((1, 400, 190)), **TILED), chunks=32)
    data = dr.apply(largest, image, overlap=overlap, dtype=image.dtype, bands=1).data
    assert rows_together(data.dask) == 1
    monkeypatch.setattr(tilecache, "ROW_NBYTES", 1)
    monkeypatch.setattr(tilecache, "BAND_NBYTES", bands * 32 * 64 * 2)
    monkeypatch.setattr(tilecache, "BAND_TILES", 1)
    assert rows_together(data.dask) == bands
