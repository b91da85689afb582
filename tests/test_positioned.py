"""Writing early changes nothing about what the file is to hold."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from daskraster import RasterWriteError, positioned
from daskraster.files import PartialFile
from daskraster.positioned import EARLY_NBYTES, SYNC_FILE_RANGE_WRITE, start_flush

HEADER = b"header"


def _not_known(*_: int) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1


@pytest.mark.skipif(sys.platform != "linux", reason="the call is Linux's")
def test_linux_has_the_call() -> None:
    assert positioned._sync_file_range is not None


@pytest.mark.parametrize("extent_nbytes", [None, 1 << 20])
@pytest.mark.parametrize("answer", ["the system's", "refused", "unknown"])
def test_every_way_of_flushing_early_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extent_nbytes: int | None, answer: str
) -> None:
    if answer != "the system's":
        monkeypatch.setattr(positioned, "_sync_file_range", _not_known if answer == "refused" else None)
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
    asked: list[tuple[int, ...]] = []

    def ask(_: int, *rest: int) -> int:
        asked.append(rest)
        return 0

    monkeypatch.setattr(positioned, "_sync_file_range", ask)
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    small = partial.append([b"a" * 1000])
    several = partial.append([b"b" * EARLY_NBYTES, b"c" * 500])
    partial.discard()
    assert small == [len(HEADER)]
    assert asked == [(several[0], EARLY_NBYTES + 500, SYNC_FILE_RANGE_WRITE)]


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.EIO, "Input/output error"),
        (errno.ENOSPC, "No space left"),
        (errno.EDQUOT, "quota"),
        (errno.ENOSYS, None),
        (errno.EINVAL, None),
    ],
)
def test_what_the_disk_refuses_early_is_not_left_to_a_last_flush_that_may_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, failure: str | None
) -> None:
    def refuse(*_: int) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(positioned, "_sync_file_range", refuse)
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    if failure is None:
        partial.append([b"a" * EARLY_NBYTES])
        partial.publish()
        assert (tmp_path / "out.bin").stat().st_size == len(HEADER) + EARLY_NBYTES
        return
    with pytest.raises(RasterWriteError, match=f"cannot write .*out.bin: .*{failure}"):
        partial.append([b"a" * EARLY_NBYTES])
    partial.discard()


@pytest.mark.skipif(positioned._sync_file_range is None, reason="Linux has the call")
def test_the_systems_own_answer_is_heard(tmp_path: Path) -> None:
    """A descriptor that is closed, an offset that is none, a pipe, and bytes far behind 4 GB."""
    with (tmp_path / "sparse.bin").open("wb") as file:
        os.pwrite(file.fileno(), b"a" * EARLY_NBYTES, 5 << 30)
        start_flush(file.fileno(), 5 << 30, EARLY_NBYTES, target=tmp_path)
        start_flush(file.fileno(), -1, EARLY_NBYTES, target=tmp_path)
    reading, writing = os.pipe()
    start_flush(writing, 0, EARLY_NBYTES, target=tmp_path)
    os.close(reading)
    os.close(writing)
    with pytest.raises(RasterWriteError, match="Bad file descriptor"):
        start_flush(writing, 0, EARLY_NBYTES, target=tmp_path)
