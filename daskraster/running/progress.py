"""How far a run is: one line that changes where somebody watches, now and then a line in the log elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from daskraster.showing import is_watched, progress_line

logger = logging.getLogger("daskraster")
LOG_SECONDS = 60.0


class Progress:
    """Counted in written blocks: a tqdm bar on a terminal or in Jupyter; else a log line with the first block after each minute."""

    def __init__(self, name: str, blocks: int, *, wanted: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._blocks = name, blocks
        self._clock, self._begin = clock, clock()
        self._nbytes = self._done = self._resumed = 0
        self._logs = wanted and not is_watched()
        self._next_line = self._begin + LOG_SECONDS
        self._bar = progress_line(
            blocks,
            name,
            "block",
            wanted=wanted,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} blocks [{elapsed}<{remaining}{postfix}]",
        )

    def skip(self, blocks: int) -> None:
        """Blocks that an earlier run has finished: shown as done, not counted in the speed."""
        if not blocks:
            return
        self._resumed += blocks
        self._bar.initial = self._bar.n = self._resumed
        self._bar.refresh()

    def again(self, blocks: int) -> None:
        """Blocks that are to be done once more."""
        self._blocks += blocks
        self._bar.total = self._blocks

    def add(self, nbytes: int) -> None:
        """One more block, of ``nbytes`` of pixels, is in the file."""
        self._nbytes += nbytes
        self._done += 1
        now = self._clock()
        if now > self._begin:
            self._bar.set_postfix_str(f"{self._nbytes / 1e6 / (now - self._begin):.0f} MB/s", refresh=False)
        self._bar.update()
        if self._logs and now >= self._next_line:
            # The next full minute, however many passed without a block.
            self._next_line += LOG_SECONDS * ((now - self._next_line) // LOG_SECONDS + 1)
            self._log(now - self._begin)

    def _log(self, seconds: float) -> None:
        finished = self._resumed + self._done
        left = (self._blocks - finished) * seconds / self._done
        logger.info(
            "%s: %d%%, %d of %d blocks, %.0f MB/s, %s left",
            self._name,
            100 * finished // self._blocks,
            finished,
            self._blocks,
            self._nbytes / 1e6 / seconds,
            in_words(left),
        )

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def in_words(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
