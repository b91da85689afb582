"""What Python code prints in one thread, kept apart from what all others print.

Ground floor. While any thread captures, ``sys.stdout`` and ``sys.stderr`` are replaced by streams that look which thread writes: what a
capturing one writes is kept, all else goes on to the stream that was there. Whatever else has put its own stream there meanwhile (a test
runner, a notebook, ``contextlib.redirect_stdout`` in the function itself) keeps it. Not seen: what C libraries and other programs print, threads
that the function starts itself, and handlers of `logging`, which hold the stream they were made with.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

KEPT_CHARACTERS = 10_000  # of one block: the end, where a traceback or the last step stands
_NAMES = ("stdout", "stderr")


class Printed:
    """The end of a text that grows."""

    def __init__(self, characters: int = KEPT_CHARACTERS) -> None:
        self._characters = characters
        self._parts: list[str] = []
        self._size = 0
        self._cut = False

    def add(self, text: str) -> None:
        """Append; joined, and cut at the front, each time twice what may stay has come."""
        self._parts.append(text)
        self._size += len(text)
        if self._size > 2 * self._characters:
            self._shorten()

    def _shorten(self) -> None:
        kept = "".join(self._parts)
        self._cut = self._cut or len(kept) > self._characters
        kept = kept[-self._characters :]
        self._parts, self._size = [kept], len(kept)

    def __str__(self) -> str:
        self._shorten()
        return ("[...]" if self._cut else "") + self._parts[0]


class _Captures(threading.local):
    def __init__(self) -> None:
        self.open: list[Printed] = []


_captures = _Captures()
_lock = threading.Lock()
_capturing = 0


class ThreadStream:
    """Stands in for a stream; any thread may write at any time."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def write(self, text: str, /) -> int:
        """Keep the text, or pass it on.

        Raises
        ------
        TypeError
            It is no text.
        """
        if not _captures.open:
            written: int = self.original.write(text)
            return written
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        _captures.open[-1].add(text)
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        """As of any stream."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream behind, where the text went there."""
        if not _captures.open:
            self.original.flush()

    def isatty(self) -> bool:
        """Whether what this thread writes goes to a terminal: what is kept does not."""
        return not _captures.open and bool(self.original.isatty())

    def close(self) -> None:
        """Nothing: the stream behind is not ours."""

    def __getattr__(self, name: str) -> Any:
        # encoding, fileno, buffer, and what a notebook's stream has besides.
        return getattr(self.original, name)


@contextmanager
def captured() -> Iterator[Printed]:
    """What this thread prints inside, and only this one; inside another `captured` the inner one has it."""
    printed = Printed()
    _install()
    _captures.open.append(printed)
    try:
        yield printed
    finally:
        _captures.open.pop()
        _uninstall()


def _install() -> None:
    global _capturing  # noqa: PLW0603 - how many capture is a fact of the process, as the streams are
    with _lock:
        _capturing += 1
        for name in _NAMES:
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, ThreadStream):
                setattr(sys, name, ThreadStream(stream))


def _uninstall() -> None:
    global _capturing  # noqa: PLW0603 - as above
    with _lock:
        _capturing -= 1
        if _capturing:
            return
        for name in _NAMES:
            stream = getattr(sys, name)
            # Somebody else's stream stays. One of ours that it puts back later passes everything on.
            if isinstance(stream, ThreadStream):
                setattr(sys, name, stream.original)
