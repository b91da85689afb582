"""Writing early changes nothing about what the file is to hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from daskraster import positioned
from daskraster.files import PartialFile
from daskraster.positioned import EARLY_NBYTES, SYNC_FILE_RANGE_WRITE

HEADER = b"header"


@pytest.mark.skipif(sys.platform != "linux", reason="the call is Linux's")
def test_linux_has_the_call() -> None:
    assert positioned._sync_file_range is not None


@pytest.mark.parametrize("extent_nbytes", [None, 1 << 20])
@pytest.mark.parametrize("answer", ["the system's", "refused", "unknown"])
def test_every_way_of_flushing_early_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extent_nbytes: int | None, answer: str
) -> None:
    if answer != "the system's":
        monkeypatch.setattr(positioned, "_sync_file_range", (lambda *_: -1) if answer == "refused" else None)
    rng = np.random.default_rng(7)
    sizes = [1, EARLY_NBYTES - 1, EARLY_NBYTES, EARLY_NBYTES + 1, 3 * EARLY_NBYTES, 17]
    parts = [rng.bytes(size) for size in sizes]
    partial = PartialFile.create(tmp_path / "out.bin", HEADER, extent_nbytes=extent_nbytes)
    offsets = [offset for part in parts for offset in partial.append([part])]
    partial.publish()
    content = (tmp_path / "out.bin").read_bytes()
    assert content.startswith(HEADER)
    for part, offset in zip(parts, offsets, strict=True):
        assert content[offset : offset + len(part)] == part


def test_only_large_runs_are_flushed_early_and_each_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(positioned, "_sync_file_range", lambda _, *rest: asked.append(rest))
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    small = partial.append([b"a" * 1000])
    several = partial.append([b"b" * EARLY_NBYTES, b"c" * 500])
    partial.discard()
    assert small == [len(HEADER)]
    assert asked == [(several[0], EARLY_NBYTES + 500, SYNC_FILE_RANGE_WRITE)]
