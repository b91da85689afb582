"""What is finished, kept beside the partial file, so that a run that was killed can be gone on with.

Strategy. Each finished block adds one record: where its tiles lie, the CRC32 of each tile's bytes, its statistics, its piece of the shared
overviews, the tiles that are held back. A record is written when the disk has the block's bytes, not before: every second a thread of its
own flushes the partial file, then writes the records of the blocks that were finished before. So a power cut loses a second of work, and
a kill as much; what a journal tells is checked against the bytes anyway. ::

    signature | start: target, plan, geometry | block | block | ... | run: geometry | block | ...
                                                                      ^ a run that went on
    record = length (4 bytes) | CRC32 (4 bytes) | bytes of `daskraster.running.records`

Reading ends at the first record that is torn or damaged. The file is private to the user and locked (flock) by the process that leads the
run, for as long as it lives; where a file system knows no locks, the process named in the journal tells.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.blocks.codecs import checksum
from daskraster.errors import RasterWriteError
from daskraster.files import Leftover
from daskraster.formats.protocols import Receipt
from daskraster.positioned import read_at, sync_folder, write_all
from daskraster.running.locking import lock
from daskraster.running.records import Facts, pack, pack_receipt, unpack, unpack_receipt
from daskraster.writers import process_name

SIGNATURE = b"daskraster journal 1\n"
FLUSH_SECONDS = 1.0
# Records in memory (a block of 8 MB gives up to 256 KB): from here on blocks wait for the disk.
MAX_WAITING_NBYTES = 64 << 20
_HEAD = struct.Struct("<II")

type Index = tuple[int, int, int]


def journal_path(partial: Path) -> Path:
    """The journal of a partial file."""
    return partial.with_name(partial.name + ".journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a journal tells, without the blocks themselves."""

    start: Facts
    """Target, plan and header."""
    runs: Sequence[Mapping[str, int]]
    """Geometry of the partial file in each run."""
    blocks: Mapping[Index, tuple[int, int]]
    """Where in the journal the last record of each block lies: offset and length."""
    offsets: NDArray[np.int64]
    """Of all tiles of those blocks."""
    sizes: NDArray[np.int64]
    """Of all tiles of those blocks."""
    owner: str
    """The process that led the last run (`daskraster.writers.process_name`)."""
    end: int
    """Where the last good record ends."""

    def leftover(self, partial: Path) -> Leftover:
        """What is left, for the sink."""
        return Leftover(
            path=partial,
            runs=self.runs,
            offsets=self.offsets,
            sizes=self.sizes,
            layout=str(self.start.get("layout", "")),
        )


class Journal:
    """An open, locked journal. `add` may be called from any thread."""

    def __init__(self, path: Path, descriptor: int, target: Path, end: int) -> None:
        self._path, self._descriptor, self._target = path, descriptor, target
        self._end = end
        self._changed = threading.Condition()
        self._flushing = threading.Lock()
        self._waiting: list[bytes] = []
        self._waiting_nbytes = 0
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._open = True
        self._sync: Callable[[], None] = lambda: None
        self.blocks = 0
        """Number of blocks of this run, and of earlier ones that were found whole."""

    @classmethod
    def create(cls, partial: Path, target: Path, start: Mapping[str, Any], geometry: Mapping[str, int]) -> Journal:
        """A new journal beside a partial file.

        Raises
        ------
        RasterWriteError
            The disk refused.
        """
        path = journal_path(partial)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise RasterWriteError(f"cannot write {target}: {path}: {error.strerror or error}") from error
        journal = cls(path, descriptor, target, 0)
        try:
            lock(descriptor)
            journal._write(SIGNATURE)
            journal._write(_framed(pack({"kind": "start", "owner": process_name(), **start})))
            journal.begin_run(geometry)
        except BaseException:
            journal.remove()
            raise
        return journal

    @classmethod
    def go_on(cls, path: Path, descriptor: int, target: Path, story: Story, geometry: Mapping[str, int]) -> Journal:
        """A journal that `daskraster.running.leftovers` has opened and locked, to be written on; a torn end is cut off.

        Raises
        ------
        RasterWriteError
            The disk refused.
        """
        journal = cls(path, descriptor, target, story.end)
        try:
            os.ftruncate(descriptor, story.end)
            journal.begin_run(geometry)
        except BaseException:
            journal.close(flush=False)
            raise
        return journal

    def begin_run(self, geometry: Mapping[str, int]) -> None:
        """Tell how this run goes on with the partial file; on the disk when it returns."""
        self._write(_framed(pack({"kind": "run", "owner": process_name(), "geometry": dict(geometry)})))
        os.fsync(self._descriptor)
        sync_folder(self._path.parent)

    def follow(self, sync: Callable[[], None]) -> None:
        """From now on write records of blocks, each when ``sync``, which flushes the partial file, has returned."""
        self._sync = sync
        self._thread = threading.Thread(target=self._work, name=f"journal of {self._target.name}", daemon=True)
        self._thread.start()

    def add(self, receipt: Receipt) -> None:
        """Take up a finished block; its record is written with the next flush.

        Raises
        ------
        RasterWriteError
            An earlier flush failed.
        """
        if len(receipt.checksums) != len(receipt.tiles):
            return
        record = _framed(pack_receipt(receipt))
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting_nbytes < MAX_WAITING_NBYTES or self._failure is not None or self._closed
            )
            self._raise_failure()
            self._waiting.append(record)
            self.blocks += 1
            self._waiting_nbytes += len(record)
            # The journal's thread sleeps until there is a first record, then until it is time or there are many. Woken for each, it would take
            # the interpreter from the threads at work.
            if len(self._waiting) == 1 or self._waiting_nbytes >= MAX_WAITING_NBYTES // 2:
                self._changed.notify_all()

    def flush(self) -> None:
        """Flush the partial file, then write what was added before.

        Raises
        ------
        RasterWriteError
            The disk refused.
        """
        with self._flushing:
            with self._changed:
                records, self._waiting = self._waiting, []
            if not records:
                return
            self._sync()
            self._write(b"".join(records))
            os.fsync(self._descriptor)
            with self._changed:
                self._waiting_nbytes -= sum(map(len, records))
                self._changed.notify_all()

    def finish(self) -> None:
        """Stop, after a last `flush`, but keep the lock: the file is completed now, and no other run may take it up meanwhile.

        Raises
        ------
        RasterWriteError
            The last flush, or one before it, failed.
        """
        self._stop()
        self._raise_failure()
        self.flush()

    def _stop(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def close(self, *, flush: bool) -> None:
        """Stop, after a last `flush` where it is wanted; the lock is given up. Calling it twice is harmless.

        The second call ends what Ctrl-C interrupted in the first one, which may wait long for the disk: the lock would stay until this process ends,
        and ``resume=True`` would be told that another run is at work.

        Raises
        ------
        RasterWriteError
            The last flush, or one before it, failed.
        """
        self._stop()
        if not self._open:
            return
        try:
            if flush:
                self._raise_failure()
                self.flush()
        finally:
            # Before: a number that is closed twice may be another file's by then.
            self._open = False
            os.close(self._descriptor)

    def remove(self) -> None:
        """Stop and remove the file."""
        try:
            self.close(flush=False)
        finally:
            self._path.unlink(missing_ok=True)

    def receipts(self, blocks: Mapping[Index, tuple[int, int]]) -> Iterator[Receipt]:
        """The receipts of blocks, in their order, read one by one: with pieces of overviews they are many."""
        for offset, length in blocks.values():
            yield unpack_receipt(*unpack(read_at(self._descriptor, length, offset)))

    def finished(self) -> Iterator[Receipt]:
        """The last receipt of every block that is written down, after a `flush`.

        Raises
        ------
        RasterWriteError
            As `flush`.
        """
        self.flush()
        story = read_story(self._descriptor)
        return self.receipts({} if story is None else story.blocks)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._closed:
                    self._changed.wait_for(
                        lambda: self._closed or self._waiting_nbytes >= MAX_WAITING_NBYTES // 2, FLUSH_SECONDS
                    )
                if self._closed:
                    return
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - raised in `add` and `close`, where somebody hears it
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return

    def _raise_failure(self) -> None:
        if isinstance(self._failure, RasterWriteError):
            raise self._failure
        if self._failure is not None:
            raise RasterWriteError(
                f"cannot write {self._target}: its journal cannot be written on: {self._failure or type(self._failure).__name__}"
            ) from self._failure

    def _write(self, content: bytes) -> None:
        try:
            write_all(self._descriptor, [content], self._end, target=self._target)
        except RasterWriteError as error:
            error.add_note(f"while noting finished blocks in its journal {self._path}")
            raise
        self._end += len(content)


def read_start(descriptor: int) -> Facts | None:
    """How the journal in an open file began; None where it does not tell."""
    if read_at(descriptor, len(SIGNATURE), 0) != SIGNATURE:
        return None
    for _, record in _records(descriptor, len(SIGNATURE), os.fstat(descriptor).st_size):
        try:
            facts, _ = unpack(record)
        except ValueError:
            return None
        return facts if facts.get("kind") == "start" else None
    return None


def read_story(descriptor: int) -> Story | None:
    """What the journal in an open file tells; None where it does not even tell how it started."""
    size = os.fstat(descriptor).st_size
    if read_at(descriptor, len(SIGNATURE), 0) != SIGNATURE:
        return None
    start: Facts | None = None
    owner = ""
    runs: list[Mapping[str, int]] = []
    blocks: dict[Index, tuple[int, int]] = {}
    regions: dict[Index, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    end = len(SIGNATURE)
    for position, record in _records(descriptor, len(SIGNATURE), size):
        try:
            facts, arrays = unpack(record)
            if facts["kind"] == "start":
                start = facts
            elif facts["kind"] == "run":
                owner = str(facts["owner"])
                runs.append({str(name): int(value) for name, value in facts["geometry"].items()})
            else:
                receipt = unpack_receipt(facts, arrays)
                # Copies: the arrays of a record hold all of it, with its piece of the overviews.
                regions[receipt.block] = receipt.offsets.copy(), receipt.sizes.copy()
                blocks[receipt.block] = position, len(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            break
        end = position + len(record)
    if start is None or not runs:
        return None
    empty = np.zeros(0, np.int64)
    return Story(
        start=start,
        runs=runs,
        owner=owner,
        blocks=dict(sorted(blocks.items())),
        offsets=np.concatenate([empty, *(offsets for offsets, _ in regions.values())]),
        sizes=np.concatenate([empty, *(sizes for _, sizes in regions.values())]),
        end=end,
    )


def _records(descriptor: int, position: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each good record, up to the first one that is torn or damaged."""
    while position + _HEAD.size <= size:
        length, crc = _HEAD.unpack(read_at(descriptor, _HEAD.size, position))
        position += _HEAD.size
        if position + length > size:
            return
        record = read_at(descriptor, length, position)
        if len(record) < length or checksum(record) != crc:
            return
        yield position, record
        position += length


def _framed(record: bytes) -> bytes:
    return _HEAD.pack(len(record), checksum(record)) + record


def age(path: Path) -> str:
    """How long ago a file was last written, in words."""
    seconds = max(time.time() - path.stat().st_mtime, 0)
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "less than a minute ago"
