"""Seconds a block spends in each stage, gathered by the thread that works on it.

Ground floor. The stages of one block run in one fused task, so in one thread: each adds its seconds to that thread's tally, and
the last stage, the writer, takes the tally along in its receipt.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from daskraster.spans import record

type Stage = Literal["read", "function", "statistics", "overviews", "encode", "write"]


class _Tally(threading.local):
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inner = 0.0
        self.run = 0


_tally = _Tally()
_runs = itertools.count(1)
_run = 0


def begin_anew() -> None:
    """Forget what the threads of this process spent before: on quick looks, plans, computations that no writer took along."""
    global _run  # noqa: PLW0603 - threads look at it when their next stage ends
    _run = next(_runs)


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Add the time the block takes to this thread's tally, less that of stages inside it; cost about 1 microsecond."""
    outer, _tally.inner = _tally.inner, 0.0
    begin = time.perf_counter()
    try:
        yield
    finally:
        spent = time.perf_counter() - begin
        if _tally.run != _run:
            _tally.seconds, _tally.run = {}, _run
        _tally.seconds[name] = _tally.seconds.get(name, 0.0) + spent - _tally.inner
        _tally.inner = outer + spent
        record(name, begin, spent)


def take() -> dict[str, float]:
    """Seconds per stage in this thread since the last call; the tally begins anew."""
    seconds, _tally.seconds = _tally.seconds, {}
    return seconds
