"""The user's function, named on the command line as ``module:function`` or ``path.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from daskraster.hints import missing_file


@dataclass(frozen=True, slots=True)
class ByName:
    """A function that takes its last arrays, and the Block behind them, by name, as `daskraster.process` calls it."""

    func: Callable[..., Any]
    names: tuple[str, ...]
    with_block: bool

    @property
    def __name__(self) -> str:
        return str(getattr(self.func, "__name__", type(self.func).__name__))

    def __call__(self, *arrays: Any, **keywords: Any) -> Any:
        """Positional arrays first, as many as there are more than names."""
        names = (*self.names, "block") if self.with_block else self.names
        first = len(arrays) - len(names)
        return self.func(*arrays[:first], **dict(zip(names, arrays[first:], strict=True)), **keywords)


def check_names(names: Sequence[str], taken: Collection[str]) -> None:
    """Refuse names of inputs that a function cannot take.

    Raises
    ------
    click.BadParameter
        No name of Python, one given twice, or one of ``--kwargs``.
    """
    for number, name in enumerate(names):
        if not name.isidentifier() or keyword.iskeyword(name):
            raise click.BadParameter(f"--input {name}=...: {name!r} cannot be the name of an argument")
        if name in taken or name in names[:number]:
            raise click.BadParameter(f"--input {name}=...: the function gets {name!r} already")


def load_function(name: str) -> tuple[Callable[..., Any], str | None]:
    """A function by name, and the file of its module where workers elsewhere would not find it; the current folder is looked in first, as ``python -c`` does.

    That file is for `distributed.Client.upload_file`: functions travel by name, and jobs may start in another folder. What such a module imports
    from files beside it, workers must find.

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
    return function, _own_file(module)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise click.BadParameter(missing_file(str(path)))
    sys.path.insert(0, str(path.parent.absolute()))  # what lies beside it
    spec = importlib.util.spec_from_file_location(path.stem, path.absolute())
    if spec is None or spec.loader is None:
        raise click.BadParameter(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
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
    return module


def _own_file(module: ModuleType) -> str | None:
    """The file of a module that is not installed, and is no package."""
    path = Path(getattr(module, "__file__", None) or "/")
    return str(path) if str(path.parent) in sys.path[:1] and path.name != "__init__.py" else None
