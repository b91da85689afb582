"""Runs block tasks on whatever scheduler dask has: threads, processes, or the active Client. No scheduler of our own.

Strategy. The graph of all outputs is optimised together, so that what they share is read and computed once, and handed to the
scheduler in one piece. Receipts are taken as each block finishes, through the local scheduler's callback or the cluster's
``as_completed``: the same line of progress on both, and nothing but receipts in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.local
import dask.threaded
from dask.base import get_scheduler
from dask.callbacks import Callback
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph

from daskraster.files import stop_writing
from daskraster.formats import choosing
from daskraster.formats.protocols import Receipt

type OnReceipt = Callable[[int, Receipt], None]
"""Called in the leading process with the number of the output and the receipt."""


def uses_other_processes() -> bool:
    """Whether blocks will be written by other processes than this one (or by copies of the sink, which amounts to the same)."""
    return get_scheduler(collections=[]) not in (None, dask.threaded.get, dask.local.get_sync)


def run(outputs: Sequence[da.Array], on_receipt: OnReceipt) -> None:
    """Compute every block of arrays of receipts.

    Raises
    ------
    Exception
        The first one of any block, with its own type, traceback and notes; what still runs is let go.
    """
    client = active_client()
    keys = {key: number for number, output in enumerate(outputs) for key in flatten(output.__dask_keys__())}
    merged = HighLevelGraph.merge(*[output.dask for output in outputs])
    graph, names = row_by_row(dict(da.Array.__dask_optimize__(merged, list(keys))))
    targets = {names[key]: number for key, number in keys.items()}
    if client is not None:
        _run_on_cluster(client, graph, targets, on_receipt)
    else:
        _run_locally(graph, targets, on_receipt)


def stop_writers(partials: Sequence[Path], *, client: Any = None) -> frozenset[str] | None:
    """Tell every worker process that these files are complete; the names of those that agreed, or None where all are known to have ended.

    A local scheduler has ended all its tasks when it returns. A cluster may have given up a worker that still runs, or one dies just now: those
    do not answer.
    """
    client = client or active_client()
    if client is None:
        choosing.release()
        return None
    return frozenset(
        name for names in client.run(_stop_writers, list(partials), on_error="ignore").values() for name in names
    )


def _stop_writers(partials: Sequence[Path]) -> list[str]:
    choosing.release()
    return [stop_writing(path) for path in partials]


def row_by_row(graph: dict[Any, Any]) -> tuple[dict[str, Any], dict[Any, str]]:
    """The same graph with keys whose order as text is the blocks' row-major order, and the new name of each key.

    dask runs tasks that are alike in the order of their keys as text, where block 10 comes before block 9. Blocks far apart would
    take turns, and what they share at their seams would be kept for long or computed twice.
    """
    names = {key: _name(key) for key in graph}
    return {names[key]: task.substitute(names, key=names[key]) for key, task in graph.items()}, names


def _name(key: Any) -> str:
    if isinstance(key, tuple):
        return "-".join(f"{part:07d}" if isinstance(part, int) else str(part) for part in key)
    return str(key)


def active_client() -> Any:
    """The active Client, where it is what dask would use."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    client = getattr(get_scheduler(collections=[]), "__self__", None)
    return client if isinstance(client, distributed.Client) else None


def _run_locally(graph: Any, keys: dict[Any, int], on_receipt: OnReceipt) -> None:
    def finished(key: Any, value: Any, _graph: Any, state: Any, *_: Any) -> None:
        if key in keys:
            # The scheduler would keep all results, with their pieces of overviews, until the end.
            state["cache"][key] = None
            on_receipt(keys[key], value)

    get = get_scheduler(collections=[]) or dask.threaded.get
    with Callback(posttask=finished):
        get(graph, list(keys))


def _run_on_cluster(client: Any, graph: Any, keys: dict[Any, int], on_receipt: OnReceipt) -> None:
    from distributed import as_completed  # noqa: PLC0415 - a second of import that threads do not need

    futures = client.get(graph, list(keys), sync=False)
    numbers = {future.key: keys[key] for future, key in zip(futures, keys, strict=True)}
    try:
        for future, receipt in as_completed(futures, with_results=True):
            on_receipt(numbers[future.key], receipt)
            future.release()
    except BaseException:
        client.cancel(futures)
        raise
