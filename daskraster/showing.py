"""A line that says how far something is: on a terminal, as a widget in Jupyter, nowhere else."""

from __future__ import annotations

import sys
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
    from tqdm.auto import tqdm  # noqa: PLC0415 - 4 ms, and in a notebook ipywidgets, that reading alone does not need

    return tqdm(
        total=total,
        desc=name,
        unit=unit,
        # None: only on a terminal. In a notebook the widget shows whatever the streams are.
        disable=None if wanted and not _in_notebook() else not wanted,
        **options,
    )


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, where tqdm.auto shows a widget."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
