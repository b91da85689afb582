"""A journal tells what was written, or less; never anything else."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskraster.blocks.statistics import merge_statistics, partial_statistics
from daskraster.errors import RasterWriteError
from daskraster.files import PartialFile
from daskraster.formats.protocols import Piece, Receipt
from daskraster.grid import Window
from daskraster.running import journal as journals
from daskraster.running.journal import Journal, journal_path, read_story
from daskraster.running.leftovers import open_journal, remains_of, remove_orphans
from daskraster.running.records import pack, pack_receipt, unpack, unpack_receipt

START = {"target": "out.bin", "plan": {"dtype": "uint8"}}


def receipt(block: tuple[int, int, int] = (0, 1, 2), dtype: str = "float32", seed: int = 0) -> Receipt:
    rng = np.random.default_rng(seed)
    values = (rng.normal(0, 1000, (2, 9, 8)) + (200 if dtype == "uint8" else 0)).astype(dtype)
    return Receipt(
        block=block,
        tiles=np.array([3, 5]),
        offsets=np.array([100, 2**40]),
        sizes=np.array([7, 9]),
        checksums=np.array([0, 2**32 - 1], np.uint32),
        nbytes=values.nbytes,
        seconds={"read": 0.1},
        held={9: b"held", 2: b""},
        statistics=tuple(partial_statistics(band, 0, thematic=False) for band in values),
        band_off=1,
        piece=Piece(level=2, window=Window(4, 5, 9, 8), band_off=1, values=values),
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["uint8", "int8", "uint16", "int32", "uint64", "int64", "float32", "float64"]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_receipts_come_back(dtype: str, seed: int, empty: bool) -> None:
    with np.errstate(invalid="ignore"):
        one = receipt(dtype=dtype, seed=seed)
    if empty:
        nothing = partial_statistics(np.full((2, 2), np.nan, "float64"), None, thematic=True)
        one = Receipt(
            **{**{name: getattr(one, name) for name in one.__slots__}, "piece": None, "statistics": (nothing,)}
        )
    again = unpack_receipt(*unpack(pack_receipt(one)))
    for name in ("block", "nbytes", "seconds", "held", "band_off"):
        assert getattr(again, name) == getattr(one, name)
    for name in ("tiles", "offsets", "sizes", "checksums"):
        assert getattr(again, name).tolist() == getattr(one, name).tolist()
    for then, now in zip(one.statistics, again.statistics, strict=True):
        assert repr(merge_statistics([then]).finish()) == repr(merge_statistics([now]).finish())
        assert (then.total, then.squares, then.minimum) == (now.total, now.squares, now.minimum)
    if one.piece is None:
        assert again.piece is None
    else:
        assert again.piece is not None
        assert again.piece.window == one.piece.window
        assert again.piece.values.dtype == one.piece.values.dtype
        np.testing.assert_array_equal(again.piece.values, one.piece.values)


@pytest.mark.parametrize("dtype", ["|O", "V8", "<U4", "<M8[s]"])
def test_no_array_of_objects_is_made(dtype: str) -> None:
    record = pack({"kind": "block"}, [np.zeros(3)]).replace(b'"<f8"', f'"{dtype}"'.encode())
    text = record[4:]
    with pytest.raises(ValueError, match=r"an array of|no record|Expecting|Extra|Unterminated|delimiter"):
        unpack(len(text.split(b"}")[0] + b"}").to_bytes(4, "little") + text)


def test_rubbish_is_no_record() -> None:
    rng = np.random.default_rng(0)
    good = pack_receipt(receipt())
    for number in range(300):
        content = bytearray(good[: rng.integers(0, len(good))] if number % 2 else good)
        for place in rng.integers(0, max(len(content), 1), 5):
            if place < len(content):
                content[place] ^= int(rng.integers(1, 255))
        try:
            unpack_receipt(*unpack(bytes(content)))
        except ValueError:
            continue


def under_way(folder: Path) -> tuple[PartialFile, Journal]:
    partial = PartialFile.create(folder / "out.bin", b"header")
    return partial, Journal.create(partial.path, partial.target, START, partial.geometry)


def test_private_and_hidden(tmp_path: Path) -> None:
    partial, journal = under_way(tmp_path)
    path = journal_path(partial.path)
    assert path.name.startswith(".out.bin.")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    journal.remove()
    partial.discard()
    assert os.listdir(tmp_path) == []


def test_records_wait_for_the_disk(tmp_path: Path) -> None:
    partial, journal = under_way(tmp_path)
    path = journal_path(partial.path)
    seen: list[int] = []
    journal.follow(lambda: seen.append(path.stat().st_size))
    before = path.stat().st_size
    journal.add(receipt())
    journal.flush()
    assert seen == [before]
    assert path.stat().st_size > before
    journal.flush()  # nothing to do, nothing done
    assert len(seen) == 1
    journal.close(flush=True)


def test_blocks_that_wait_for_room_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's thread is woken when there are many records, though it was not for each of them: no clock helps here."""
    monkeypatch.setattr(journals, "MAX_WAITING_NBYTES", 4 * len(pack_receipt(receipt())))
    monkeypatch.setattr(journals, "FLUSH_SECONDS", 600)
    _, journal = under_way(tmp_path)
    journal.follow(lambda: None)

    def add(column: int) -> None:
        for row in range(50):
            journal.add(receipt((0, row, column)))

    threads = [threading.Thread(target=add, args=(column,), daemon=True) for column in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    journal.flush()
    assert len(list(journal.finished())) == 150
    journal.close(flush=True)


def test_a_flush_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "FLUSH_SECONDS", 0.01)
    _, journal = under_way(tmp_path)
    failed = threading.Event()

    def sync() -> None:
        failed.set()
        raise RasterWriteError("cannot write out.bin: No space left on device")

    journal.follow(sync)
    journal.add(receipt())
    assert failed.wait(10)
    with pytest.raises(RasterWriteError, match="No space left"):
        for _ in range(1000):
            journal.add(receipt())
            threading.Event().wait(0.01)
    journal.remove()


@pytest.mark.parametrize("harm", ["torn", "damaged", "rubbish behind"])
def test_reading_ends_at_the_first_bad_record(tmp_path: Path, harm: str) -> None:
    partial, journal = under_way(tmp_path)
    path = journal_path(partial.path)
    ends = []
    for number in range(4):
        journal.add(receipt((0, 0, number)))
        journal.flush()
        ends.append(path.stat().st_size)
    journal.close(flush=True)
    content = bytearray(path.read_bytes())
    if harm == "torn":
        content = content[: ends[3] - 5]
    elif harm == "damaged":
        content[ends[2] + 60] ^= 1
    else:
        content += b"\xff\x00\x00\x00rubbish"
    path.write_bytes(content)
    (remains,), busy = remains_of(tmp_path / "out.bin")
    assert not busy
    opened = open_journal(remains)
    assert opened is not None
    count = 4 if harm == "rubbish behind" else 3
    assert list(opened.story.blocks) == [(0, 0, number) for number in range(count)]
    assert opened.story.end == ends[count - 1]
    again = Journal.go_on(opened.journal, opened.descriptor, partial.target, opened.story, partial.geometry)
    assert [one.block for one in again.receipts(opened.story.blocks)] == list(opened.story.blocks)
    again.add(receipt((0, 7, 7)))
    again.close(flush=True)
    descriptor = os.open(path, os.O_RDONLY)
    story = read_story(descriptor)
    os.close(descriptor)
    assert story is not None
    assert (0, 7, 7) in story.blocks
    assert len(story.runs) == 2


def test_a_journal_in_use_is_not_taken(tmp_path: Path) -> None:
    partial, journal = under_way(tmp_path)
    remains, (owner,) = remains_of(partial.target)
    assert remains == []
    assert str(os.getpid()) in owner
    journal.close(flush=True)
    (one,), busy = remains_of(partial.target)
    assert not busy
    first = open_journal(one)
    assert first is not None
    assert open_journal(one) is None
    os.close(first.descriptor)


@pytest.mark.parametrize("kind", ["link", "second name", "others may write", "another target"])
def test_what_may_be_somebody_elses_is_not_read(tmp_path: Path, kind: str) -> None:
    partial, journal = under_way(tmp_path)
    journal.close(flush=True)
    path = journal_path(partial.path)
    if kind == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "second name":
        os.link(path, tmp_path / "elsewhere")
    elif kind == "others may write":
        path.chmod(0o666)
    target = tmp_path / ("out.tif" if kind == "another target" else "out.bin")
    assert remains_of(target) == ([], [])


def test_long_names_are_told_apart(tmp_path: Path) -> None:
    targets = [tmp_path / ("n" * 120 + end) for end in ("a.tif", "b.tif")]
    partial = PartialFile.create(targets[0], b"header")
    Journal.create(partial.path, targets[0], {**START, "target": targets[0].name}, partial.geometry).close(flush=True)
    assert [len(remains_of(target)[0]) for target in targets] == [1, 0]


def test_a_journal_without_its_file_is_removed(tmp_path: Path) -> None:
    partial, journal = under_way(tmp_path)
    journal.close(flush=True)
    partial.publish()
    remove_orphans(tmp_path / "out.bin")
    assert os.listdir(tmp_path) == ["out.bin"]


def test_a_sink_without_checksums_is_not_resumed(tmp_path: Path) -> None:
    _, journal = under_way(tmp_path)
    one: Any = receipt()
    journal.add(Receipt(block=one.block, tiles=one.tiles, offsets=one.offsets, sizes=one.sizes, nbytes=0))
    assert not journal.blocks
    journal.remove()


def test_closing_that_was_interrupted_is_ended_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial, journal = under_way(tmp_path)
    journal.follow(lambda: None)
    journal.add(receipt())

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    # Ctrl-C while it waits for its thread, which waits for the disk.
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(journal._thread, "join", interrupted)
        journal.close(flush=True)
    journal.close(flush=True)
    journal.close(flush=True)  # harmless
    (remains,), busy = remains_of(partial.target)
    assert busy == []
    opened = open_journal(remains)
    assert opened is not None
    assert list(opened.story.blocks) == [(0, 1, 2)]
    os.close(opened.descriptor)
    partial.discard()
