"""The scheduler that dask would use for arrays, asked without importing distributed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import dask
import dask.threaded
from dask.base import get_scheduler, named_schedulers


def scheduler_in_use() -> Callable[..., Any]:
    """What `dask.base.get_scheduler` says; threads where nothing is set.

    dask imports distributed to see whether there is a Client: 0.23 s, more than all else that a script needs to write a small raster. Where
    nobody has imported it there is none.

    Raises
    ------
    ValueError
        ``dask.config`` names a scheduler that there is not.
    """
    asked = dask.config.get("scheduler", None)
    if "distributed" not in sys.modules:
        if not asked:
            return dask.threaded.get
        if isinstance(asked, str) and asked.lower() in named_schedulers:
            return named_schedulers[asked.lower()]
    return get_scheduler(collections=[]) or dask.threaded.get
