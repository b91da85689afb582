"""h5py, imported when something of it is first used: 23 ms that a run without KEA files does not need."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["DEFLATE", "SHUFFLE", "VLEN_TEXT", "h5py"]

# What h5py.h5z and h5py.string_dtype("ascii") say (a test compares), known without importing it.
DEFLATE, SHUFFLE = 1, 2
VLEN_TEXT = np.dtype("O", metadata={"vlen": bytes})


class _Later:
    """A module that is imported with its first attribute; afterwards attributes are its own. Safe in threads, as imports are."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


if TYPE_CHECKING:
    import h5py
else:
    h5py = _Later("h5py")
