"""The user's function, named on the command line as ``module:function`` or ``path.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click


def load_function(name: str) -> Callable[..., Any]:
    """A function by name; the current folder is looked in first, as ``python -c`` does.

    Functions of a file, or of a module in the current folder, are sent to workers with their code: jobs on other machines need not find the file. What
    such a module imports from files beside it, they must find.

    Raises
    ------
    click.BadParameter
        There is no such module, or no such function in it.
    Exception
        Whatever the module raises when it is imported.
    """
    where, sign, attribute = name.rpartition(":")
    if not sign or not where or not attribute:
        raise click.BadParameter(f"{name!r} must be module:function or path.py:function, as in filters:smooth")
    module = _from_file(Path(where)) if where.endswith(".py") else _from_module(where)
    function: Any = module
    for part in attribute.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        there = ", ".join(sorted(key for key, value in vars(module).items() if callable(value) and key[0] != "_"))
        raise click.BadParameter(f"{where} has no function {attribute!r}; it has {there or 'none'}")
    return function


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise click.BadParameter(f"there is no file {path}")
    sys.path.insert(0, str(path.parent.absolute()))  # what lies beside it
    spec = importlib.util.spec_from_file_location(path.stem, path.absolute())
    if spec is None or spec.loader is None:
        raise click.BadParameter(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    _send_with_code(module)
    return module


def _from_module(name: str) -> ModuleType:
    folder = Path.cwd()
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise  # something that the module itself imports
        raise click.BadParameter(
            f"there is no module {name!r}, neither in {folder} nor installed; a file is named path.py:function"
        ) from None
    if Path(getattr(module, "__file__", None) or "/").parent == folder:
        _send_with_code(module)
    return module


def _send_with_code(module: ModuleType) -> None:
    import cloudpickle  # noqa: PLC0415 - comes with dask, which --help does not need

    cloudpickle.register_pickle_by_value(module)
