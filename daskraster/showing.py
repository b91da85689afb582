"""A line that says how far something is: on a terminal, as a widget in Jupyter, now and then in a log."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def progress_line(total: int, name: str, unit: str, *, wanted: bool = True, **options: Any) -> Any:
    """A tqdm bar that counts ``total`` steps; the caller updates and closes it.

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
    from tqdm import TqdmWarning  # noqa: PLC0415 - 4 ms, and in a notebook ipywidgets, that reading alone does not need

    with warnings.catch_warnings():
        # In a notebook without ipywidgets it asks for them; a line of text does as well.
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm  # noqa: PLC0415

    return tqdm(
        total=total,
        desc=name,
        unit=unit,
        # In a notebook the widget shows whatever the streams are.
        disable=not (wanted and is_watched()),
        # As wide as the terminal is now: a line that is longer breaks into two, and only the second one is written over.
        dynamic_ncols=True,
        **options,
    )


def is_watched() -> bool:
    """Whether a line that changes can be seen: standard error is a terminal, or this is a Jupyter kernel."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, where tqdm.auto shows a widget, or a line of text without ipywidgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
