"""Runs block tasks on whatever scheduler dask has: threads, processes, or the active Client. No scheduler of our own.

Strategy. The graph of all outputs is optimised together, so that what they share is read and computed once, and handed to the
scheduler in one piece, or in waves where it is large (see `daskraster.running.waves`). Receipts are taken as each block finishes, through
the local scheduler's callback or the cluster's ``as_completed``: the same line of progress on both, and nothing but receipts in memory.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.local
import dask.threaded
from dask._task_spec import DataNode, Task
from dask.base import named_schedulers
from dask.callbacks import Callback
from dask.tokenize import normalize_token

from daskraster.errors import DaskRasterError, WorkerError
from daskraster.files import stop_writing
from daskraster.formats import choosing
from daskraster.formats.protocols import Receipt
from daskraster.lazy.schedulers import scheduler_in_use
from daskraster.running.failures import Retrying, Trying, check_sendable, of_worker
from daskraster.running.flattening import Flattening, Travel
from daskraster.running.news import Listening, take
from daskraster.running.patience import Patience
from daskraster.running.recipes import forget_recipes
from daskraster.running.waves import Block, Wave, waves
from daskraster.running.workers import active_client

logger = logging.getLogger(__name__)

# Results that are fetched with one message: one for each costs scheduler and worker 0.3 ms. With their statistics and pieces of overviews they
# take some MB.
FETCHED_AT_ONCE = 32
LEAVING_SECONDS = 10.0  # for the last words of workers; connecting to one that is gone takes 30
LOOKING_SECONDS = 0.5  # between two looks whether there are workers at all, while results are fetched
# What is large in a graph is in it once, and goes to the scheduler once a run: what dask advises.
UNWARNED = {"distributed.admin.large-graph-warning-threshold": 1 << 60}
UNDER_WAY = ("lost", "pending")  # how a cluster calls a task whose result went with its worker
type OnReceipt = Callable[[int, Receipt], None]
"""Called in the leading process with the number of the output and the receipt."""


def uses_other_processes() -> bool:
    """Whether blocks will be written by other processes than this one (or by copies of the sink, which amounts to the same)."""
    return scheduler_in_use() not in (dask.threaded.get, dask.local.get_sync)


def run(
    outputs: Sequence[da.Array],
    on_receipt: OnReceipt,
    *,
    skip: Sequence[Collection[Block]] = (),
    trying: Trying = Trying(),  # noqa: B008 - frozen
    listening: Listening | None = None,
) -> None:
    """Compute every block of arrays of receipts, in waves where there are many.

    Parameters
    ----------
    outputs
        Arrays of receipts, one a block.
    on_receipt
        Takes each receipt as its block finishes.
    skip
        For each output the blocks that are not to be computed.
    trying
        How often blocks are tried, and what they are called when they fail.
    listening
        Takes what tasks tell beside their results; None: nothing is asked of them.

    Raises
    ------
    FunctionPicklingError
        The blocks cannot be sent to other processes; nothing has run.
    WorkerError
        Workers died with a block, cannot run it, or are out of reach.
    Exception
        The first one of any block, with its own type, traceback and notes; what still runs is let go.
    """
    client = active_client()
    parts = waves(outputs, skip=skip)
    if uses_other_processes():
        parts = _sendable(parts)
    name = uuid.uuid4().hex
    flattening = Flattening(name, Travel.WITH_EACH if client is None else Travel.LARGE_ONCE)
    parts = (_flat(wave, flattening) for wave in parts)
    if listening is not None:
        wrap = listening.wrapped
        parts = (replace(wave, graph=wrap(wave.graph, wave.targets)) for wave in parts)
        on_receipt = listening.unwrapping(on_receipt)
    try:
        _run_waves(client, parts, on_receipt, trying)
    finally:
        _leave_workers(client, name, listening)


def _flat(wave: Wave, flattening: Flattening) -> Wave:
    graph, shared = flattening.flattened(wave.graph)
    return replace(wave, graph=graph, shared=shared)


def _leave_workers(client: Any, name: str, listening: Listening | None) -> None:
    """Take up what processes still have to tell, and let them forget the run; dead workers are passed over."""
    told = None if listening is None else listening.run
    news = [_left(name, told)]

    async def last_words() -> Any:
        return await client.run(_left, name, told, on_error="ignore")

    if client is not None and client.status == "running":
        try:
            news += client.sync(last_words, callback_timeout=LEAVING_SECONDS).values()
        except TimeoutError:
            # A worker that is gone, of which the scheduler does not know yet: what the others had to tell is lost with it.
            logger.debug("workers were not reached within %s s; the run is over for them all the same", LEAVING_SECONDS)
    if listening is not None:
        for of_process in news:
            listening.add_news(of_process)


def _left(name: str, told: str | None) -> Any:
    forget_recipes(name)
    return None if told is None else take(told, last=True)


def _run_waves(client: Any, parts: Iterator[Wave], on_receipt: OnReceipt, trying: Trying) -> None:
    if client is not None:
        _run_on_cluster(client, parts, on_receipt, trying)
    else:
        _run_locally(parts, on_receipt, trying)


def _sendable(parts: Iterator[Wave]) -> Iterator[Wave]:
    """The same waves, the first one checked before it is sent."""
    for number, wave in enumerate(parts):
        if number == 0:
            check_sendable(wave.graph, list(wave.targets))
        yield wave


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


def on_every_process(func: Callable[..., Any], *arguments: Any) -> None:
    """Call a function here and on every worker of the active cluster, at the end of a run that may have failed; dead workers are passed over."""
    func(*arguments)
    client = active_client()
    if client is not None and client.status == "running":
        client.run(func, *arguments, on_error="ignore")


def _run_locally(run_waves: Iterator[Wave], on_receipt: OnReceipt, trying: Trying) -> None:
    get = scheduler_in_use()
    known: dict[str, Any] = {}
    for plain in run_waves:
        wave = replace(plain, graph=_retrying(plain, trying))
        known = _run_wave(get, wave, known, on_receipt)


def is_this_machine(host: str) -> bool:
    """Whether an address is one of this machine's: only then may a socket be bound to it."""
    try:
        kind, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _retrying(wave: Wave, trying: Trying) -> dict[str, Any]:
    """The graph of a wave whose tasks try again, and say which block failed."""
    graph = dict(wave.graph)
    for key in graph if trying.retries else wave.targets:
        task = graph[key]
        if type(task) is Task:  # neither an alias nor a constant
            what = trying.describe(*wave.targets[key]) if key in wave.targets else ""
            graph[key] = Task(key, Retrying(task.func, trying.retries, what), *task.args, **task.kwargs)
    return graph


def _run_wave(get: Any, wave: Wave, known: Mapping[str, Any], on_receipt: OnReceipt) -> dict[str, Any]:
    """Run a wave with what is known from the one before; what it keeps for the next one."""

    def finished(key: Any, value: Any, _graph: Any, state: Any, *_: Any) -> None:
        if key in wave.targets:
            # The scheduler would keep all results, with their pieces of overviews, until the end.
            state["cache"][key] = None
            on_receipt(wave.targets[key][0], value)

    graph = {**wave.graph, **{key: DataNode(key, value) for key, value in known.items()}}
    kept = sorted(wave.kept)
    results = _computed(get, graph, [*wave.targets, *kept], finished)
    for key, receipt in zip(wave.targets, results, strict=False):
        if receipt is not None:  # of a scheduler that calls no one back
            on_receipt(wave.targets[key][0], receipt)
    return dict(zip(kept, results[len(wave.targets) :], strict=True))


def _computed(get: Any, graph: Mapping[str, Any], keys: Sequence[str], finished: Callable[..., None]) -> Any:
    """The results of a graph; ``finished`` is called after each task, where the scheduler can do that.

    dask's schedulers are given it as an argument. Those that are active take it from a variable of the process, which each run of dask empties meanwhile: of
    several threads that write at one time one would take the news of another.
    """
    own = Callback(posttask=finished)
    if get in named_schedulers.values() or (isinstance(get, partial) and get.func is dask.local.get_async):
        return get(graph, keys, callbacks=[*Callback.active, own._callback])
    with own:
        return get(graph, keys)


class _Graph(dict[str, Any]):
    """A graph that the client of a cluster need not look through to name it: that takes 0.3 ms a block, and no one uses the name."""


normalize_token.register(_Graph, lambda _: ("daskraster-wave", uuid.uuid4().hex))


def _run_on_cluster(client: Any, run_waves: Iterator[Wave], on_receipt: OnReceipt, trying: Trying) -> None:
    """Run waves on a cluster, the next one sent when half of the last one is through, so that no worker waits."""
    from distributed import as_completed  # noqa: PLC0415 - a second of import that threads do not need

    patience = Patience(client)
    finished = as_completed(raise_errors=False)
    under_way: dict[str, tuple[tuple[int, Block], Any]] = {}
    kept: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    try:
        for wave in itertools.chain(run_waves, [None]):
            enough = 0
            if wave is not None:
                wanted = [*wave.shared, *wave.targets, *sorted(wave.kept)]
                with dask.config.set(UNWARNED):
                    futures = client.get(_Graph(wave.graph), wanted, sync=False, retries=trying.retries)
                # What the wave before has kept is held until this one's tasks, which need it, are known to the scheduler.
                held = kept | {future.key: future for future in futures}
                kept = {key: held[key] for key in wave.kept}
                shared |= {key: held[key] for key in wave.shared}
                under_way |= {key: (target, held[key]) for key, target in wave.targets.items()}
                finished.update([held[key] for key in wave.targets])
                enough = len(wave.targets) // 2
            while len(under_way) > enough:
                for future, receipt in _fetched(client, finished, patience):
                    if receipt is None and future.status in UNDER_WAY and client.status == "running":
                        # Its worker left before the receipt was fetched: the block is computed again.
                        finished.add(future)
                        continue
                    (number, block), _ = under_way.pop(future.key)
                    _check(future, receipt, trying, (number, block))
                    on_receipt(number, receipt)
                    future.release()
    except BaseException:
        if client.status == "running":  # else there is nothing left to cancel, and what happened is to be heard
            client.cancel([*shared.values(), *kept.values(), *(future for _, future in under_way.values())])
        raise


def _next(finished: Any, patience: Patience) -> Any:
    """The next future that has finished; waits for it only while there are workers or hope for some."""
    while not finished.has_ready():
        patience.check()
        with finished.thread_condition:
            finished.thread_condition.wait(timeout=0.1)
    return next(finished)


def _fetched(client: Any, finished: Any, patience: Patience) -> list[tuple[Any, Any]]:
    """The next futures that are through, one or some, with their results; None for what has none.

    Raises
    ------
    WorkerError
        The scheduler is out of reach.
    """
    futures = [_next(finished, patience)]
    while len(futures) < FETCHED_AT_ONCE and finished.has_ready():
        futures.append(next(finished))
    wanted = {future.key: future for future in futures}

    async def gathered() -> Any:
        return await client.gather(wanted, errors="skip", asynchronous=True)

    coroutine = gathered()
    try:
        fetching = asyncio.run_coroutine_threadsafe(coroutine, client.loop.asyncio_loop)
    except RuntimeError as error:  # the loop is closed
        coroutine.close()
        raise _unfetched(len(futures), client, error) from error
    try:
        # A result that went with its worker is computed again, or waited for in vain.
        while not wait([fetching], timeout=LOOKING_SECONDS).done:
            if client.status != "running":
                raise _unfetched(len(futures), client, None)
            patience.check()
        results = fetching.result()
    except (DaskRasterError, KeyboardInterrupt):
        fetching.cancel()
        raise
    except Exception as error:
        # CommClosedError is an OSError; a Client that is closed meanwhile has no error of its own for it: an AttributeError of None, among others.
        if client.status == "running" and not isinstance(error, OSError):
            raise
        raise _unfetched(len(futures), client, error) from error
    return [(future, results[future.key]) for future in futures]


def _unfetched(count: int, client: Any, error: Exception | None) -> WorkerError:
    why = error if client.status == "running" else "its scheduler is gone, or the client was closed"
    return WorkerError(f"the results of {count} blocks cannot be fetched from the cluster: {why}")


def _check(future: Any, result: Any, trying: Trying, target: tuple[int, Block]) -> None:
    """Raise what a cluster gave instead of a receipt."""
    if future.status == "finished" or result is not None:  # whatever has become of the worker since
        return
    what = trying.describe(*target)
    if future.status == "error":
        raise of_worker(future.exception().with_traceback(future.traceback()), what, trying.retries)
    raise WorkerError(
        f"{what} was given up: the cluster calls it {future.status!r}; its scheduler is gone, or the client was closed"
    )
