"""Fitted models: what they say of themselves, and models that wait in a file until a worker needs them."""

from __future__ import annotations

import importlib
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.hints import missing_file

MODELS_KEPT = 4


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model in a joblib or pickle file. Small and picklable; loaded once in each process."""

    path: str
    token: tuple[int, int]
    """Size and time of the file: a model written anew is another one."""

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> ModelFile:
        """The file as it is now.

        Raises
        ------
        OptionError
            There is no such file.
        """
        whole = Path(path).absolute()
        if not whole.is_file():
            raise OptionError(f"model={os.fspath(path)!r}: {missing_file(os.fspath(path))}")
        status = whole.stat()
        return cls(str(whole), (status.st_size, status.st_mtime_ns))

    def load(self) -> Any:
        """The model, from this process's few where it is there.

        Raises
        ------
        OptionError
            The file holds no model.
        """
        # One thread loads, the others wait and find it.
        with _lock:
            if self in _loaded:
                _loaded.move_to_end(self)
                return _loaded[self]
            model = _load(self.path)
            _loaded[self] = model
            if len(_loaded) > MODELS_KEPT:
                _loaded.popitem(last=False)
            return model


_lock = threading.Lock()
_loaded: OrderedDict[ModelFile, Any] = OrderedDict()


def _load(path: str) -> Any:
    try:
        # joblib reads plain pickles too; who has scikit-learn has joblib.
        joblib = importlib.import_module("joblib")
    except ImportError:
        joblib = None
    try:
        if joblib is not None:
            return joblib.load(path)
        with open(path, "rb") as file:
            return pickle.load(file)
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError, ImportError) as error:
        raise OptionError(f"model={path!r} cannot be loaded as a joblib or pickle file: {error!r}") from error


def classes_of(model: Any) -> list[NDArray[Any]]:
    """The classes of each output of a classifier; none where it is no classifier.

    Raises
    ------
    OptionError
        They are no numbers.
    """
    classes = getattr(model, "classes_", None)
    if classes is None:
        return []
    of_outputs = [np.asarray(one) for one in classes] if isinstance(classes, list) else [np.asarray(classes)]
    if any(one.ndim == 0 for one in of_outputs):  # a plain list of classes
        of_outputs = [np.asarray(classes)]
    for one in of_outputs:
        if one.dtype.kind not in "biuf":
            raise OptionError(
                f"the model's classes are {one.tolist()[:5]}, of dtype {one.dtype}; pixels are numbers: fit it on numbers, as of sklearn.preprocessing.LabelEncoder"
            )
    return of_outputs


def check_features(model: Any, names: Sequence[str | None]) -> None:
    """Refuse a model fitted on other bands.

    Raises
    ------
    OptionError
        Another number of them; the same names in another order.
    """
    expected = getattr(model, "n_features_in_", None)
    if expected is not None and int(expected) != len(names):
        raise OptionError(
            f"the model was fitted on {expected} features, the raster has {len(names)} bands: choose them with .sel(band=[...])"
        )
    features = features_of(model)
    if features is not None and set(names) == set(features) and list(names) != features:
        raise OptionError(
            f"the model was fitted on {features} in this order, the raster has the bands {list(names)}; choose them in that order"
        )


def features_of(model: Any) -> list[str] | None:
    """The column names a model was fitted with; it then warns of rows without them."""
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]
