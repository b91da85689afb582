"""Whether the disk has what finished blocks say they wrote, whichever machine wrote it.

Strategy. On a network disk a write is done when the machine that wrote has it in its memory; the disk has it when that machine has flushed. A machine that is cut
off or loses power in between takes with it bytes of blocks whose receipts came long ago, and nobody is told. So each process is asked to flush,
every second for the journal and once at the end. Blocks in the extents of a process that does not answer at the end are read and compared with their CRC32,
which the journal has: those that are not there are computed again. Blocks that travelled are on the disk of this machine.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from daskraster.errors import RasterWriteError
from daskraster.files import PartialFile, process_name, sync_writing
from daskraster.formats.protocols import Receipt, Sink
from daskraster.running.engines import is_this_machine
from daskraster.running.gathering import Gathering
from daskraster.running.journal import Index
from daskraster.running.resuming import Begun, is_whole
from daskraster.writers import may_be_alive, told

logger = logging.getLogger("daskraster")

# Machines that are lost one after the other, each while what the last one took is done again.
ROUNDS = 5


def syncing(sink: Sink, client: Any) -> Callable[[], None]:
    """What makes the disk have all that was written to a sink's partial file, as far as other machines answer.

    One process of a machine flushes what all of them have written. Bytes on other machines are flushed there, by each worker.
    """
    partial = sink.partial
    if partial is None:
        return lambda: None

    def sync() -> None:
        partial.sync()
        if client is None:
            return
        # There are none where the scheduler is gone: nobody can be asked then, and resume checks every block that the journal tells of.
        workers = client.scheduler_info(n_workers=-1).get("workers", {})
        others = [address for address, worker in workers.items() if not is_this_machine(worker["host"])]
        if others:
            _flushed(partial, client, others)

    return sync


def until_there(
    compute: Callable[[Sequence[Collection[Index]]], None],
    under_way: Sequence[Begun],
    gatherings: Sequence[Gathering],
    client: Any,
    *,
    again: Callable[[int], None],
) -> None:
    """Compute all blocks, and once more those that a machine took with it, until every one is on the disk.

    Parameters
    ----------
    compute
        Computes all blocks of each output but those it is given.
    under_way, gatherings
        The outputs, and what is known of each.
    client
        Whose workers write; None where no other machine does.
    again
        Told how many blocks are to be done once more.

    Raises
    ------
    RasterWriteError
        A disk refused what was written to it before, or blocks go on being lost.
    """
    for _ in range(ROUNDS):
        compute([gathering.done() for gathering in gatherings])
        lost = [_lost(one, client) for one in under_way]
        if not any(lost):
            return
        for one, gathering, blocks in zip(under_way, gatherings, lost, strict=True):
            gathering.lose(blocks)
            logger.warning(
                "%s: %d blocks were written by a machine that is gone and did not reach the disk: they are computed again",
                one.sink.target,
                len(blocks),
            )
        again(sum(map(len, lost)))
    raise RasterWriteError(
        f"cannot write {under_way[0].sink.target}: machines were lost {ROUNDS} times, each with blocks that did not reach the disk"
    )


def _lost(one: Begun, client: Any) -> list[Index]:
    """Finished blocks that are not in the file, because whoever wrote them cannot be asked to flush."""
    partial = one.sink.partial
    if client is None or partial is None:
        return []
    partial.sync()
    confirmed = {process_name(), *_flushed(partial, client, None)}
    # A process of this machine that is dead has left its bytes to the machine.
    doubted = [
        (begin, begin + size, process)
        for begin, size, process in sorted(partial.claimed())
        if process not in confirmed and may_be_alive(process)
    ]
    if not doubted:
        return []
    logger.warning(
        "%s: %s cannot be asked whether its blocks are on the disk: they are read and checked",
        one.sink.target,
        ", ".join(sorted({told(process) for _, _, process in doubted})),
    )
    extents = [(begin, end) for begin, end, _ in doubted]
    return [
        receipt.block
        for receipt in one.journal.finished()
        if _lies_in(receipt, extents) and not is_whole(one.sink, receipt)
    ]


def _lies_in(receipt: Receipt, extents: Sequence[tuple[int, int]]) -> bool:
    """Whether any tile begins in one of the extents, which are sorted."""
    begins = [begin for begin, _ in extents]
    for offset in receipt.offsets.tolist():
        number = bisect.bisect_right(begins, offset) - 1
        if number >= 0 and offset < extents[number][1]:
            return True
    return False


def _flushed(partial: PartialFile, client: Any, workers: Sequence[str] | None) -> set[str]:
    """Have workers flush what they have written; names of the processes that did.

    Raises
    ------
    RasterWriteError
        The disk of one refused.
    """
    answers = client.run(sync_writing, partial.path, workers=workers, on_error="return")
    names: set[str] = set()
    for address, answer in answers.items():
        if isinstance(answer, str):
            names.add(answer)
        elif isinstance(answer, RasterWriteError) or not isinstance(answer, OSError):
            raise answer
        else:  # CommClosedError and time-outs: it is dead, or will be asked again
            logger.info("%s: the worker %s does not answer: %s", partial.target, address, answer)
    return names
