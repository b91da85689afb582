"""Something large that every block needs, in the graph once."""

from __future__ import annotations

import uuid
from typing import Any

from dask._task_spec import Task
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph


def shared(value: Any, name: str) -> Delayed:
    """``value`` as a task of its own, on which the tasks of blocks depend.

    In the arguments of every block's task it would be pickled with each of them; as a task it travels once with the graph, and from worker to worker
    where it is needed. (Not by `dask.delayed`, which looks into ``value`` for lazy things and hashes it.) dask's scheduler of processes, which has no
    place to keep anything, sends it with each task all the same. The key is never the same twice.
    """
    key = f"{name}-{uuid.uuid4().hex}"
    return Delayed(key, HighLevelGraph.from_collections(key, {key: Task(key, _same, value)}))


def _same(value: Any) -> Any:
    return value
