"""What tasks tell beside their results: what they printed, how often they were tried again, how much memory their process has had.

Every task of a run is wrapped; a block's task hands its news over with its result, other tasks leave theirs in their process for the next block
that finishes there, and what is left at the end is fetched. 6 to 8 microseconds a task.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dask._task_spec import Task

from daskraster.printing import captured
from daskraster.running.memorypeak import peak_nbytes
from daskraster.writers import process_name

RUNS_KEPT = 8  # of which a process keeps what nobody has fetched
PARTS_KEPT = 100  # texts of tasks between two blocks of a process
KEPT_CHARACTERS = 1_000_000  # of all blocks of a run
NEWS_NBYTES = 1 << 20  # growth of a process that is worth telling
LOOK_SECONDS = 1.0  # between two looks at it, 0.04 ms each


@dataclass(slots=True)
class News:
    """Of one process since it was told last."""

    printed: list[str] = field(default_factory=list)
    retries: int = 0
    process: str = ""
    peak_nbytes: int = 0
    """Largest memory of the process since it started; 0: as told before, or unknown."""


@dataclass(frozen=True, slots=True)
class Told:
    """A block's result with news."""

    value: Any
    news: News


@dataclass(slots=True)
class _Kept:
    news: News = field(default_factory=News)
    told_nbytes: int = 0
    looked: float = float("-inf")


_lock = threading.Lock()
_kept: OrderedDict[str, _Kept] = OrderedDict()


def _of(run: str) -> _Kept:
    """What this process keeps of a run; under the lock."""
    if run not in _kept:
        _kept[run] = _Kept()
        while len(_kept) > RUNS_KEPT:
            _kept.popitem(last=False)
    return _kept[run]


def keep(run: str, *, printed: str = "", retries: int = 0) -> None:
    """Leave news of a run in this process."""
    with _lock:
        news = _of(run).news
        news.retries += retries
        if printed:
            news.printed = [*news.printed[1 - PARTS_KEPT :], printed]


def take(run: str, *, last: bool = False) -> News:
    """All news of a run in this process, which keeps none of it; ``last``: nor what was told before."""
    now = time.monotonic()
    with _lock:
        kept = _of(run)
        news, kept.news = kept.news, News()
        if last or now >= kept.looked + LOOK_SECONDS:
            kept.looked = now
            peak = peak_nbytes() or 0
            if peak >= kept.told_nbytes + NEWS_NBYTES:
                kept.told_nbytes = news.peak_nbytes = peak
                news.process = process_name()
        if last:
            del _kept[run]
    return news


@dataclass(frozen=True, slots=True)
class Telling:
    """A task's function that tells."""

    func: Callable[..., Any]
    run: str
    block: str | None
    """What the block is called whose last task this is; None: a step on the way to one."""
    capture: bool

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if not self.capture:
            value = self._called(arguments, keywords)
        else:
            with captured() as printed:
                try:
                    value = self._called(arguments, keywords)
                except Exception as error:
                    if text := str(printed).rstrip():
                        error.add_note(f"it had printed:\n{text}")
                    raise
                finally:
                    if text := str(printed).rstrip("\n"):
                        head = "" if self.block is None else f"-- {self.block}\n"
                        keep(self.run, printed=f"{head}{text}\n")
        return value if self.block is None else Told(value, take(self.run))

    def _called(self, arguments: Any, keywords: Any) -> Any:
        try:
            return self.func(*arguments, **keywords)
        except Exception:
            # On a cluster the scheduler may send the task out again; a failure that ends the run is counted nowhere.
            keep(self.run, retries=1)
            raise


class Listening:
    """The news of a run, in the leading process; wraps its tasks and unwraps their results."""

    def __init__(self, *, capture: bool) -> None:
        self.run = uuid.uuid4().hex
        self.process = process_name()
        self._capture = capture
        self.retries = 0
        """Tasks that raised and were tried again."""
        self.peaks: dict[str, int] = {}
        """Largest memory of each process that ran blocks."""
        self._printed: deque[str] = deque()
        self._characters = 0
        self._dropped = 0

    def wrapped(
        self, graph: Mapping[str, Any], targets: Mapping[str, tuple[int, tuple[int, int, int]]]
    ) -> dict[str, Any]:
        """The graph with tasks that tell; ``targets``: number of the output and block of those whose results are wanted."""
        told = dict(graph)
        for key, task in graph.items():
            if type(task) is Task:  # neither an alias nor a constant
                block = f"block {targets[key][1][1:]}" if key in targets else None
                func = Telling(task.func, self.run, block, self._capture)
                told[key] = Task(key, func, *task.args, _data_producer=task.data_producer, **task.kwargs)
        return told

    def unwrapping(self, on_value: Callable[[int, Any], None]) -> Callable[[int, Any], None]:
        """What takes results without their news, for those that come with them."""

        def on_told(number: int, told: Any) -> None:
            if isinstance(told, Told):
                self.add_news(told.news)
                told = told.value
            on_value(number, told)

        return on_told

    def add_news(self, news: News) -> None:
        """Take up what a process tells."""
        self.retries += news.retries
        if news.peak_nbytes:
            self.peaks[news.process] = max(self.peaks.get(news.process, 0), news.peak_nbytes)
        for text in news.printed:
            self._printed.append(text)
            self._characters += len(text)
        while self._characters > KEPT_CHARACTERS:
            self._characters -= len(self._printed.popleft())
            self._dropped += 1

    @property
    def printed(self) -> str:
        """What all blocks printed, in the order they finished; of more than a million characters the end."""
        head = f"[{self._dropped} earlier ones left out]\n" if self._dropped else ""
        return head + "".join(self._printed)
