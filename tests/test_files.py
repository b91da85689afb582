"""A file that appears whole or not at all."""

from __future__ import annotations

import os
import pickle
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from daskraster.errors import RasterWriteError
from daskraster.files import PAGE_NBYTES, Leftover, PartialFile

HEADER = b"header"


def leftovers(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if ".part" in name)


@pytest.mark.parametrize("extent_nbytes", [None, 4096])
def test_parts_from_many_threads_are_all_there(tmp_path: Path, extent_nbytes: int | None) -> None:
    partial = PartialFile.create(tmp_path / "out.bin", HEADER, extent_nbytes=extent_nbytes)
    rng = np.random.default_rng(1)
    blocks = [[rng.bytes(int(n)) for n in rng.integers(1, 900, 5)] for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        offsets = list(pool.map(partial.append, blocks))
    assert not (tmp_path / "out.bin").exists()
    partial.publish()
    content = (tmp_path / "out.bin").read_bytes()
    assert content.startswith(HEADER)
    taken = np.zeros(len(content), int)
    for parts, begins in zip(blocks, offsets, strict=True):
        for part, begin in zip(parts, begins, strict=True):
            assert content[begin : begin + len(part)] == part
            taken[begin : begin + len(part)] += 1
    assert taken.max() == 1
    assert leftovers(tmp_path) == []


def test_copies_in_other_processes_never_share_bytes(tmp_path: Path) -> None:
    partial = PartialFile.create(tmp_path / "out.bin", HEADER, extent_nbytes=8192)
    script = (
        "import pickle, sys; partial = pickle.load(open(sys.argv[1], 'rb'));"
        "print([partial.append([bytes([int(sys.argv[2])]) * 700])[0] for _ in range(40)])"
    )
    description = tmp_path / "partial.pickle"
    description.write_bytes(pickle.dumps(partial))
    import ast
    import subprocess
    import sys

    runs = [
        subprocess.Popen([sys.executable, "-c", script, str(description), str(number)], stdout=subprocess.PIPE)
        for number in (1, 2, 3)
    ]
    offsets = [ast.literal_eval(run.communicate()[0].decode()) for run in runs]
    for number, begins in enumerate(offsets, 1):
        for begin in begins:
            assert partial.read(begin, 700) == bytes([number]) * 700
    assert len({begin for begins in offsets for begin in begins}) == 120
    assert partial.start == PAGE_NBYTES
    partial.discard()
    assert leftovers(tmp_path) == []


def test_gaps_are_closed_and_every_region_survives(tmp_path: Path) -> None:
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    rng = np.random.default_rng(2)
    parts = [bytes([number % 251]) * int(size) for number, size in enumerate(rng.integers(1, 2000, 300))]
    offsets = np.array([partial.append([part])[0] for part in parts])
    kept = np.repeat(rng.random(15) < 0.8, 20)  # whole blocks were written by attempts that do not count
    sizes = np.array([len(part) for part in parts])
    moved = partial.close_gaps(offsets[kept], sizes[kept])
    partial.publish()
    content = (tmp_path / "out.bin").read_bytes()
    for part, begin in zip([part for part, keep in zip(parts, kept, strict=True) if keep], moved, strict=True):
        assert content[begin : begin + len(part)] == part
    assert len(content) < len(HEADER) + sizes[kept].sum() * 1.02


def test_a_region_listed_twice_moves_once(tmp_path: Path) -> None:
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    _, second = partial.append([b"x" * 100, b"y" * 50])
    moved = partial.close_gaps(np.array([second, second]), np.array([50, 50]))
    assert moved.tolist() == [len(HEADER)] * 2
    partial.publish()
    assert (tmp_path / "out.bin").read_bytes() == HEADER + b"y" * 50


def test_what_stood_there_stays_until_published(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    target.chmod(0o640)
    for suffix in (".aux.xml", ".ovr", ".msk"):
        Path(str(target) + suffix).write_text("about the old file")
    partial = PartialFile.create(target, HEADER)
    partial.append([b"new"])
    assert target.read_bytes() == b"old"
    assert stat.S_IMODE(partial.path.stat().st_mode) == 0o600
    partial.publish()
    assert target.read_bytes() == HEADER + b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["out.bin"]


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        PartialFile.create(tmp_path / "out.bin", HEADER).publish()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "out.bin").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.bin").symlink_to(tmp_path / "elsewhere" / "real.bin")
    PartialFile.create(tmp_path / "link.bin", HEADER).publish()
    assert (tmp_path / "link.bin").is_symlink()
    assert (tmp_path / "elsewhere" / "real.bin").read_bytes() == HEADER


def test_discard_waits_for_writers_and_refuses_late_ones(tmp_path: Path) -> None:
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    stop = threading.Event()
    errors: list[BaseException] = []

    def write() -> None:
        while not stop.is_set():
            try:
                partial.append([b"z" * 10_000])
            except RasterWriteError as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    partial.discard()
    for thread in threads:
        thread.join(10)
    stop.set()
    assert len(errors) == 4
    assert all("stopped" in str(error) for error in errors)
    assert os.listdir(tmp_path) == []
    partial.discard()


def test_a_counter_does_not_travel(tmp_path: Path) -> None:
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(partial)
    partial.discard()


@pytest.mark.parametrize(
    ("target", "reason"),
    [("no/such/folder/out.bin", "does not exist"), (".", "is a folder"), ("file.txt/out.bin", "does not exist")],
)
def test_targets_that_cannot_be(tmp_path: Path, target: str, reason: str) -> None:
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(RasterWriteError, match=reason):
        PartialFile.create(tmp_path / target, HEADER)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RasterWriteError, match="permission"):
        PartialFile.create(tmp_path / "out.bin", HEADER)


def test_no_descriptors_are_left_open(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    before = count()
    for number in range(20):
        partial = PartialFile.create(tmp_path / f"{number}.bin", HEADER)
        partial.append([b"x"])
        partial.publish() if number % 2 else partial.discard()
    assert count() == before


def test_a_worker_that_wakes_up_late_harms_nothing(tmp_path: Path) -> None:
    """Extents of a process that did not say it has ended are left alone; its late writes land where nothing else is."""
    from daskraster.files import process_name, stop_writing

    partial = PartialFile.create(tmp_path / "out.bin", HEADER, extent_nbytes=8192)
    late = partial.append([b"A" * 1000])
    claim = next(partial.claims.iterdir())
    claim.write_text("another machine 1")
    other = PartialFile(
        **{field: getattr(partial, field) for field in ("target", "path", "start", "extent_nbytes", "mode")}
    )
    for number in range(1, 4):
        (partial.claims / str(number)).write_text(process_name())
    content = b"B" * 5000
    (partial.path).open("r+b").close()
    partial.patch(partial.start + 8192, content)
    partial.patch(partial.start + 2 * 8192, content)
    offsets = np.array([late[0], partial.start + 8192, partial.start + 2 * 8192])
    sizes = np.array([1000, 5000, 5000])
    moved = partial.close_gaps(offsets, sizes, finished=frozenset({process_name()}))
    other.append([b"C" * 3000])  # the late writer, in the rest of its extent
    for begin, size, byte in zip(moved, sizes, b"ABB", strict=True):
        assert partial.read(int(begin), int(size)) == bytes([byte]) * size
    assert partial.append_tail(b"index") >= partial.start + 8192
    assert stop_writing(partial.path) == process_name()
    with pytest.raises(RasterWriteError, match="takes no more blocks"):
        partial.append([b"D"])
    partial.publish()


@pytest.mark.parametrize("name", ["n" * 240, "n" * 251, "日" * 80, "é" * 120, "🛰" * 61])
def test_a_long_name(tmp_path: Path, name: str) -> None:
    target = tmp_path / f"{name}.tif"
    first = PartialFile.create(target, HEADER, extent_nbytes=4096)
    (kept,) = first.append([b"kept"])
    first.release()
    leftover = Leftover(path=first.path, runs=[first.geometry], offsets=np.array([kept]), sizes=np.array([4]))
    PartialFile.reopen(target, leftover, extent_nbytes=4096).publish()
    assert target.read_bytes().startswith(HEADER)
    assert os.listdir(tmp_path) == [target.name]


def test_many_gaps_are_closed_quickly(tmp_path: Path) -> None:
    partial = PartialFile.create(tmp_path / "out.bin", HEADER)
    count = 60_000
    partial.patch(len(HEADER) + 20 * count, b"end")
    offsets = len(HEADER) + 20 * np.arange(count)
    moved = partial.close_gaps(offsets, np.full(count, 15))  # a gap of 5 bytes behind each
    assert (moved == offsets).all()
    partial.discard()


@pytest.mark.parametrize("withdrawn", [False, True])
def test_gone_on_with_after_a_run_that_ended_before_it_was_noted_down(tmp_path: Path, withdrawn: bool) -> None:
    # It was killed, or the disk was full for the journal's record of it: the next run has its number.
    first = PartialFile.create(tmp_path / "out.bin", HEADER, extent_nbytes=PAGE_NBYTES)
    (kept,) = first.append([b"kept"])
    first.release()
    leftover = Leftover(path=first.path, runs=[first.geometry], offsets=np.array([kept]), sizes=np.array([4]))
    ended = PartialFile.reopen(first.target, leftover, extent_nbytes=PAGE_NBYTES)
    ended.patch(0, HEADER)
    if withdrawn:
        ended.withdraw()
    again = PartialFile.reopen(first.target, leftover, extent_nbytes=PAGE_NBYTES)
    again.patch(0, HEADER)
    offsets = np.array([kept, *again.append([b"more"])])
    with pytest.raises(RasterWriteError, match="the run was stopped"):
        first.append([b"late"])
    offsets = again.close_gaps(offsets, np.array([4, 4]))
    assert [again.read(int(offset), 4) for offset in offsets] == [b"kept", b"more"]
    again.publish()
    assert leftovers(tmp_path) == []
