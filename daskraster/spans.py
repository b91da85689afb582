"""When each stage of a block began and ended, kept small: what a timeline is drawn from.

Ground floor. A thread notes its stages as they end; the last stage, the writer, takes them along in its receipt. Nine bytes a stage,
about 150 a block with all its objects, and of a long run every second, fourth, ... block is kept.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

STAGES = ("read", "function", "statistics", "overviews", "encode", "write")
# Stages of one block; a thread whose stages nobody takes, as in a plain compute(), keeps no more.
NOTED = 64
KEPT_BLOCKS = 4096  # more lie closer than the pixels of a screen
CLOCKS_APART = 30.0  # seconds that another machine's clock may be behind; what is older is left from an earlier run
_MARK = struct.Struct("<Bff")


@dataclass(frozen=True, slots=True)
class Spans:
    """The stages of one block, in one thread."""

    worker: str
    """Host, process and thread: ``node7:4711:ThreadPoolExecutor-0_1``."""
    begin: float
    """Of the first of them, seconds since 1970 by the worker's own clock."""
    marks: bytes
    """For each stage its number and the seconds, float32, from ``begin`` to its begin and to its end."""

    def __iter__(self) -> Iterator[tuple[str, float, float]]:
        """Stage, begin and end of each, in seconds since 1970."""
        for number, begin, end in _MARK.iter_unpack(self.marks):
            yield STAGES[number], self.begin + begin, self.begin + end


class _Notes(threading.local):
    def __init__(self) -> None:
        self.spans: deque[tuple[str, float, float]] = deque(maxlen=NOTED)


_notes = _Notes()


def record(stage: str, begin: float, spent: float) -> None:
    """Note a stage of this thread that is over: when it began, by ``time.perf_counter``, and its seconds; 0.2 microseconds."""
    _notes.spans.append((stage, begin, spent))


def take_spans() -> tuple[Spans, ...]:
    """What this thread noted since the last call: one `Spans`, or none."""
    noted = list(_notes.spans)
    _notes.spans.clear()
    if not noted:
        return ()
    first = min(begin for _, begin, _ in noted)
    marks = b"".join(
        _MARK.pack(STAGES.index(stage), begin - first, begin - first + spent) for stage, begin, spent in noted
    )
    return (Spans(_worker(), time.time() - time.perf_counter() + first, marks),)


def _worker() -> str:
    # One object for all receipts of a thread in this process.
    return sys.intern(f"{socket.gethostname()}:{os.getpid()}:{threading.current_thread().name}")


class Timeline:
    """The spans of a run, at most `KEPT_BLOCKS` of them; picklable."""

    def __init__(self) -> None:
        self.began = time.time()
        """By this process's clock; what threads of this machine noted before is left from something else."""
        self.every = 1
        """Every so many-th block is kept."""
        self._seen = 0
        self._spans: list[tuple[Spans, ...]] = []

    def add(self, spans: Sequence[Spans]) -> None:
        """Take up a block's, or not, where enough are kept."""
        if not spans:
            return
        if self._seen % self.every == 0:
            self._spans.append(tuple(spans))
            if len(self._spans) > KEPT_BLOCKS:
                self._spans = self._spans[::2]
                self.every *= 2
        self._seen += 1

    @property
    def blocks(self) -> int:
        """How many are kept."""
        return len(self._spans)

    def __iter__(self) -> Iterator[tuple[str, str, float, float]]:
        """Worker, stage, begin and end of each stage kept."""
        here = f"{socket.gethostname()}:"
        for spans in self._spans:
            for one in spans:
                earliest = self.began if one.worker.startswith(here) else self.began - CLOCKS_APART
                for stage, begin, end in one:
                    # float32 keeps a stage to some microseconds.
                    if begin >= earliest - 0.001:
                        yield one.worker, stage, begin, end
