"""A line that says how far something is: on a terminal, as a widget in Jupyter, now and then in a log."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def progress_line(total: int, name: str, unit: str, *, wanted: bool = True, **options: Any) -> Any:
    """A tqdm bar that counts ``total`` steps; the caller updates and closes it. Where nobody watches, one that shows nothing.

    Parameters
    ----------
    total
        Steps to come.
    name, unit
        What the line says: ``name: 40%|####      | 4/10 unit``.
    wanted
        False: nothing is shown.
    **options
        Further ones of tqdm.
    """
    if not (wanted and is_watched()):
        return _Unseen(total)
    from tqdm import TqdmWarning  # noqa: PLC0415 - 4 ms, and in a notebook ipywidgets, that only a line somebody sees needs

    with warnings.catch_warnings():
        # In a notebook without ipywidgets it asks for them; a line of text does as well.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm  # noqa: PLC0415

    return tqdm(
        total=total,
        desc=name,
        unit=unit,
        disable=False,  # in a notebook the widget shows whatever the streams are
        # As wide as the terminal is now: a line that is longer breaks into two, and only the second one is written over.
        dynamic_ncols=True,
        **options,
    )


class _Unseen:
    """Takes what a bar takes, and shows nothing: what tqdm's own does with ``disable=True``, without importing it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.initial = self.n = 0

    def update(self, steps: int = 1) -> None:
        """Count nothing: nobody asks."""

    def set_postfix_str(self, text: str, *, refresh: bool = True) -> None:
        """Say nothing."""

    def refresh(self) -> None:
        """Draw nothing."""

    def close(self) -> None:
        """Leave nothing behind."""


def is_watched() -> bool:
    """Whether a line that changes can be seen: standard error is a terminal, or this is a Jupyter kernel."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, where tqdm.auto shows a widget, or a line of text without ipywidgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
