"""Scripts that only import: what there is to wait for before the first line of a script runs."""

import importlib
from pathlib import Path


def run(source: Path, target: Path, *, modules: list[str], threads: int = 1) -> None:
    """
    Import modules; look at nothing.

    Parameters
    ----------
    source, target
        Not used, but for an empty ``target``.
    modules
        Names of modules.
    threads
        Of no use here.

    Raises
    ------
    ImportError
        One is missing.
    """
    for name in modules:
        importlib.import_module(name)
    target.touch()
