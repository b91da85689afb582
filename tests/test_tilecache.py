"""Reading through the cache equals reading directly, and decodes each tile once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskraster.formats import tilecache
from daskraster.grid import Window

TILE = (64, 64)


class Field:
    """A raster in memory that counts how often each tile is decoded."""

    def __init__(self, shape_yx: tuple[int, int], key: str, *, seconds: float = 0.0, in_place: bool = True) -> None:
        self.shape_yx = shape_yx
        self.key = key
        self.seconds = seconds
        self.in_place = in_place
        self.values = np.random.default_rng(0).integers(0, 60000, (2, *shape_yx), "uint16")
        self.decoded: Counter[tuple[int, int]] = Counter()
        self._lock = threading.Lock()
        tilecache.clear()

    def decode(self, window: Window) -> np.ndarray[Any, Any]:
        assert window.snap(TILE).clip(Window(0, 0, *self.shape_yx)) == window
        time.sleep(self.seconds)
        with self._lock:
            for row in range(window.row_off // 64, -(-window.row_stop // 64)):
                for col in range(window.col_off // 64, -(-window.col_stop // 64)):
                    self.decoded[row, col] += 1
        return self.values[(slice(None), *window.slices)].copy()

    def decode_into(self, window: Window, out: np.ndarray[Any, Any]) -> None:
        out[...] = self.decode(window)

    def read(self, window: Window) -> np.ndarray[Any, Any]:
        into = tilecache.ReadInto(bands=2, dtype=self.values.dtype, read=self.decode_into) if self.in_place else None
        return tilecache.read_window(self.key, window, self.shape_yx, TILE, self.decode, into=into)


def blocks(shape_yx: tuple[int, int], size: int, halo: int) -> list[Window]:
    whole = Window(0, 0, *shape_yx)
    return [
        Window(row, col, size, size).clip(whole).grow((halo, halo)).clip(whole)
        for row in range(0, shape_yx[0], size)
        for col in range(0, shape_yx[1], size)
    ]


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("halo", [1, 5, 63])
def test_every_tile_is_decoded_once_for_blocks_in_row_order(threads: int, halo: int) -> None:
    field = Field((900, 1100), f"once-{threads}-{halo}", seconds=0.0005)
    windows = blocks(field.shape_yx, 256, halo)
    with ThreadPoolExecutor(threads) as pool:
        for window, got in zip(windows, pool.map(field.read, windows), strict=True):
            assert (got == field.values[(slice(None), *window.slices)]).all()
    assert sum(field.decoded.values()) == len(field.decoded) == 15 * 18


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_windows_in_any_order_equal_direct_reading(data: st.DataObject) -> None:
    shape_yx = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    field = Field(shape_yx, f"any-{shape_yx}", in_place=data.draw(st.booleans()))
    for _ in range(8):
        row, col = data.draw(st.integers(0, shape_yx[0] - 1)), data.draw(st.integers(0, shape_yx[1] - 1))
        window = Window(
            row, col, data.draw(st.integers(1, shape_yx[0] - row)), data.draw(st.integers(1, shape_yx[1] - col))
        )
        assert (field.read(window) == field.values[(slice(None), *window.slices)]).all()


@pytest.mark.parametrize(("kept", "most"), [(0, 30_000), (3, 3 * 64 * 64 * 4), (13, 60_000)])
def test_a_tiny_budget_costs_time_and_no_pixels(monkeypatch: pytest.MonkeyPatch, kept: int, most: int) -> None:
    tilecache.clear()
    monkeypatch.setattr(tilecache, "CACHE_NBYTES", 30_000)
    monkeypatch.setattr(tilecache, "TILES_KEPT", kept)
    field = Field((700, 700), f"tiny-{kept}")
    windows = blocks(field.shape_yx, 192, 9) * 2
    with ThreadPoolExecutor(5) as pool:
        for window, got in zip(windows, pool.map(field.read, windows), strict=True):
            assert (got == field.values[(slice(None), *window.slices)]).all()
    assert tilecache._cache._nbytes <= most
    assert tilecache._cache._nbytes == sum(entry.nbytes for entry in tilecache._cache._entries.values())


def test_a_failed_decoding_leaves_nobody_waiting() -> None:
    field = Field((512, 512), "failing")
    windows = blocks(field.shape_yx, 128, 3)
    failed = threading.Event()

    def read(window: Window) -> Any:
        def decode(part: Window) -> np.ndarray[Any, Any]:
            if not failed.is_set():
                failed.set()
                raise OSError("a broken tile")
            return field.decode(part)

        return tilecache.read_window("failing", window, field.shape_yx, TILE, decode)

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(read, window) for window in windows]
        errors = [future.exception(timeout=20) for future in futures]
    assert sum(error is not None for error in errors) == 1
    for window, future, error in zip(windows, futures, errors, strict=True):
        if error is None:
            assert (future.result() == field.values[(slice(None), *window.slices)]).all()


def test_what_is_kept_is_about_a_row_of_tiles() -> None:
    field = Field((8192, 2048), "row")
    largest = 0
    for window in blocks(field.shape_yx, 512, 5):
        field.read(window)
        largest = max(largest, tilecache._cache._nbytes)
    row_of_tiles = 2 * 64 * 2048 * 2
    assert largest < 2.5 * row_of_tiles  # strips of 5 of 64 pixels, for some rows of blocks, are the rest
    tilecache.clear()
    assert tilecache._cache._nbytes == 0


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("halo", [1, 5, 63])
def test_blocks_that_come_down_columns_keep_one_column_of_tiles(threads: int, halo: int) -> None:
    field = Field((512, 8192), f"down-{threads}-{halo}", seconds=0.0005)
    windows = sorted(blocks(field.shape_yx, 256, halo), key=lambda window: (window.col_off, window.row_off))
    largest = 0
    with ThreadPoolExecutor(threads) as pool:
        for window, got in zip(windows, pool.map(field.read, windows), strict=True):
            assert (got == field.values[(slice(None), *window.slices)]).all()
            largest = max(largest, tilecache._cache._nbytes)
    assert sum(field.decoded.values()) == len(field.decoded) == 8 * 128
    whole = field.values.nbytes
    assert largest < whole / 8 * (1 + halo / 16)  # of 32 columns of blocks a few, as many as threads can be ahead
    tilecache.clear()
    assert tilecache._cache._nbytes == 0
    assert not tilecache._cache._trails
