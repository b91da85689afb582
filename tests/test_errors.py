"""Errors travel between processes and stay what they were."""

from __future__ import annotations

import pickle

import pytest

from daskraster import errors

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_survives_pickling_with_its_notes(kind: type[Exception]) -> None:
    error = kind("what was asked, what is possible")
    error.add_note("in Window(0, 0, 5, 5)")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "what was asked, what is possible"
    assert again.__notes__ == ["in Window(0, 0, 5, 5)"]


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.OptionError, ValueError),
        (errors.GridMismatchError, ValueError),
        (errors.RasterFormatError, ValueError),
        (errors.RasterReadError, OSError),
        (errors.RasterNotFoundError, FileNotFoundError),
        (errors.BlockResultError, ValueError),
        (errors.RasterWriteError, OSError),
    ],
)
def test_is_also_the_builtin_it_resembles(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)
    assert issubclass(kind, errors.DaskRasterError)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__ is not None
    for kind in CLASSES:
        assert kind.__name__ in errors.__doc__
