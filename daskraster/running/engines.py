"""Runs block tasks on whatever scheduler dask has: threads, processes, or the active Client. No scheduler of our own.

Strategy. The graph of all outputs is optimised together, so that what they share is read and computed once, and handed to the
scheduler in one piece, or in waves where it is large (see `daskraster.running.waves`). Receipts are taken as each block finishes, through
the local scheduler's callback or the cluster's ``as_completed``: the same line of progress on both, and nothing but receipts in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.local
import dask.threaded
from dask._task_spec import DataNode
from dask.base import get_scheduler
from dask.callbacks import Callback

from daskraster.files import stop_writing
from daskraster.formats import choosing
from daskraster.formats.protocols import Receipt
from daskraster.running.waves import Block, Wave, waves
from daskraster.running.workers import active_client

type OnReceipt = Callable[[int, Receipt], None]
"""Called in the leading process with the number of the output and the receipt."""


def uses_other_processes() -> bool:
    """Whether blocks will be written by other processes than this one (or by copies of the sink, which amounts to the same)."""
    return get_scheduler(collections=[]) not in (None, dask.threaded.get, dask.local.get_sync)


def run(outputs: Sequence[da.Array], on_receipt: OnReceipt, *, skip: Sequence[Collection[Block]] = ()) -> None:
    """Compute every block of arrays of receipts, in waves where there are many.

    Parameters
    ----------
    outputs
        Arrays of receipts, one a block.
    on_receipt
        Takes each receipt as its block finishes.
    skip
        For each output the blocks that are not to be computed.

    Raises
    ------
    Exception
        The first one of any block, with its own type, traceback and notes; what still runs is let go.
    """
    client = active_client()
    if client is not None:
        _run_on_cluster(client, waves(outputs, skip=skip), on_receipt)
    else:
        _run_locally(waves(outputs, skip=skip), on_receipt)


def stop_writers(partials: Sequence[Path], *, client: Any = None) -> frozenset[str] | None:
    """Tell every worker process that these files are complete; the names of those that agreed, or None where all are known to have ended.

    A local scheduler has ended all its tasks when it returns. A cluster may have given up a worker that still runs.
    """
    client = client or active_client()
    if client is None:
        choosing.release()
        return None
    return frozenset(name for names in client.run(_stop_writers, list(partials)).values() for name in names)


def _stop_writers(partials: Sequence[Path]) -> list[str]:
    choosing.release()
    return [stop_writing(path) for path in partials]


def on_every_process(func: Callable[..., Any], *arguments: Any) -> None:
    """Call a function here and on every worker of the active cluster, at the end of a run that may have failed; dead workers are passed over."""
    func(*arguments)
    client = active_client()
    if client is not None and client.status == "running":
        client.run(func, *arguments, on_error="ignore")


def _run_locally(run_waves: Iterator[Wave], on_receipt: OnReceipt) -> None:
    get = get_scheduler(collections=[]) or dask.threaded.get
    known: dict[str, Any] = {}
    for wave in run_waves:
        known = _run_wave(get, wave, known, on_receipt)


def _run_wave(get: Any, wave: Wave, known: Mapping[str, Any], on_receipt: OnReceipt) -> dict[str, Any]:
    """Run a wave with what is known from the one before; what it keeps for the next one."""

    def finished(key: Any, value: Any, _graph: Any, state: Any, *_: Any) -> None:
        if key in wave.targets:
            # The scheduler would keep all results, with their pieces of overviews, until the end.
            state["cache"][key] = None
            on_receipt(wave.targets[key][0], value)

    graph = {**wave.graph, **{key: DataNode(key, value) for key, value in known.items()}}
    kept = sorted(wave.kept)
    with Callback(posttask=finished):
        results = get(graph, [*wave.targets, *kept])
    return dict(zip(kept, results[len(wave.targets) :], strict=True))


def _run_on_cluster(client: Any, run_waves: Iterator[Wave], on_receipt: OnReceipt) -> None:
    """Run waves on a cluster, the next one sent when half of the last one is through, so that no worker waits."""
    from distributed import as_completed  # noqa: PLC0415 - a second of import that threads do not need

    finished = as_completed(with_results=True)
    under_way: dict[str, tuple[int, Any]] = {}
    kept: dict[str, Any] = {}
    try:
        for wave in itertools.chain(run_waves, [None]):
            enough = 0
            if wave is not None:
                futures = client.get(wave.graph, [*wave.targets, *sorted(wave.kept)], sync=False)
                # What the wave before has kept is held until this one's tasks, which need it, are known to the scheduler.
                held = kept | {future.key: future for future in futures}
                kept = {key: held[key] for key in wave.kept}
                under_way |= {key: (number, held[key]) for key, (number, _) in wave.targets.items()}
                finished.update([held[key] for key in wave.targets])
                enough = len(wave.targets) // 2
            while len(under_way) > enough:
                future, receipt = next(finished)
                on_receipt(under_way.pop(future.key)[0], receipt)
                future.release()
    except BaseException:
        client.cancel([*kept.values(), *(future for _, future in under_way.values())])
        raise
