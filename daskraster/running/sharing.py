"""Workers that do not see the folder of the output: their encoded blocks travel to the leading process, which writes them.

Strategy. The leading process listens while a run lasts. A worker that does not see the partial file connects, says how much it has, waits to be let in,
sends the encoded tiles of its block, and waits until they are written. So a block is in the file before its task is done: what the
scheduler passes on is the same small receipt, a worker that dies takes no finished block with it, and each thread of a worker has at most one block on
its way. The leading process lets few in at a time, which bounds its memory however many workers there are.

The way is that of dask itself (its comm, with TLS where the cluster has it); nothing that comes is unpickled, and who does not know the run's secret is
turned away. ::

    worker                                     leading process
    hello, secret, file, bytes       ---->     waits for one of SLOTS
                                     <----     come
    tiles                            ---->     PartialFile.append
                                     <----     where each begins
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import ipaddress
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskraster.errors import RasterWriteError
from daskraster.files import PartialFile
from daskraster.formats.protocols import Sink
from daskraster.positioned import Buffer
from daskraster.posting import is_shared

logger = logging.getLogger(__name__)

SLOTS = 4
"""Blocks under way in the leading process: one is written while others come in."""
CONNECT_SECONDS = 30
# Of all tries but the last: a leading process that was killed refuses at once, but distributed asks on for all of the time that it is given, with the
# worker's threads waiting: 100 s of a worker that another run needs.
FIRST_SECONDS = 2
TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CommPost:
    """The way to the leading process; see `daskraster.posting.Post`. Travels with every task."""

    address: str
    secret: str = field(repr=False)
    beside_scheduler: bool = False
    """Whether the leading process is on the scheduler's machine and listens to all networks: then workers find it where they find the scheduler."""

    def sees(self, path: Path) -> bool | None:
        """Whether the leading process sees a file; None where it cannot be asked."""
        try:
            return bool(self._answer({"path": str(path)}, tries=2)["sees"])
        except OSError as error:
            logger.debug("%s cannot be asked whether it sees %s: %s", self.address, path, error)
            return None

    def deliver(self, path: Path, parts: Sequence[Buffer], *, reserved: bool) -> list[int]:
        """Have the leading process append parts; see `daskraster.posting.Post`.

        Raises
        ------
        RasterWriteError
            As `daskraster.posting.Post.deliver`.
        """
        content = [bytes(part) for part in parts]
        request = {"path": str(path), "reserved": reserved, "nbytes": sum(map(len, content))}
        try:
            answer = self._answer(request, content, tries=TRIES)
        except OSError as error:
            raise RasterWriteError(
                f"this worker does not see {path.parent} and cannot pass its block on to the leading process at {self.address}: "
                f"{error}; write to a folder that all machines see"
            ) from error
        if "refused" in answer:
            raise RasterWriteError(f"the leading process at {self.address} did not write a block: {answer['refused']}")
        return list(answer["offsets"])

    def _answer(self, request: dict[str, Any], content: Sequence[bytes] = (), *, tries: int) -> dict[str, Any]:
        """What the leading process says; an OSError, as CommClosedError and time-outs are, where it cannot be reached."""
        for attempt in range(tries):
            try:
                seconds = CONNECT_SECONDS if attempt + 1 == tries else FIRST_SECONDS
                return asyncio.run(self._ask(request, content, seconds))
            except OSError as error:
                if attempt + 1 == tries or _nobody_listens(error):
                    raise
                time.sleep(0.2 * 5**attempt)
        raise AssertionError("the last try returns or raises")

    def _found(self) -> str:
        """The address as this worker reaches it: another network may call the scheduler's machine by another name."""
        from distributed.comm.addressing import get_address_host  # noqa: PLC0415 - as below

        worker = _worker_here()
        if not self.beside_scheduler or worker is None:
            return self.address
        scheme, _, rest = self.address.partition("://")
        return f"{scheme}://{_bracketed(get_address_host(worker.scheduler.address))}:{rest.rpartition(':')[2]}"

    async def _ask(self, request: dict[str, Any], content: Sequence[bytes], seconds: float) -> dict[str, Any]:
        from distributed.comm.core import connect  # noqa: PLC0415 - a second of import that only clusters need

        comm = await connect(self._found(), timeout=seconds, deserialize=False, **_connection_args())
        try:
            await comm.write({"secret": self.secret, **request})
            answer: dict[str, Any] = await comm.read()
            if "come" in answer:
                await comm.write({"parts": list(content)})
                answer = await comm.read()
            return answer
        finally:
            comm.abort()


def _nobody_listens(error: BaseException | None) -> bool:
    """Whether a machine answered that no one listens there: the leading process has ended, however often it is asked."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__
    return False


def _connection_args() -> dict[str, Any]:
    """As this process's worker connects: with TLS where the cluster has it."""
    worker = _worker_here()
    return {} if worker is None else dict(worker.security.get_connection_args("worker"))


def _worker_here() -> Any:
    from distributed import Worker  # noqa: PLC0415 - a second of import that only clusters need

    return next(iter(Worker._instances), None)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:  # a name
        return host == "localhost"


class PostOffice:
    """Takes blocks in the leading process from `start` to `stop`."""

    def __init__(self, client: Any, partials: Sequence[PartialFile]) -> None:
        self._client = client
        self._partials = {str(partial.path): partial for partial in partials}
        self._secret = secrets.token_hex(16)
        self._pool = ThreadPoolExecutor(SLOTS, thread_name_prefix="daskraster-post")
        self._listener: Any = None
        self._slots: Any = None
        self._closing = False
        self._under_way = 0
        self.nbytes = 0
        """Encoded bytes that have come so far."""

    def start(self) -> CommPost:
        """Begin to listen, where the scheduler can be reached from; the way here."""
        address, everywhere = self._client.sync(self._listen)
        return CommPost(address=address, secret=self._secret, beside_scheduler=everywhere)

    async def _listen(self) -> tuple[str, bool]:
        from distributed.comm.addressing import get_address_host  # noqa: PLC0415 - as above
        from distributed.comm.core import listen  # noqa: PLC0415 - as above

        self._slots = asyncio.Semaphore(SLOTS)
        scheme, _, _ = self._client.scheduler.address.partition("://")
        host = get_address_host(self._client.scheduler_comm.comm.local_address)
        # A client that has found the scheduler on its own machine, where others find it too: they would not get to the address it came by.
        known_as = get_address_host((await self._client.scheduler.identity(n_workers=0))["address"])
        everywhere = _is_loopback(host) and not _is_loopback(known_as)
        arguments = self._client.security.get_listen_args("client")
        place = "" if everywhere else _bracketed(host)
        self._listener = listen(f"{scheme}://{place}:0", self._serve, deserialize=False, **arguments)
        await self._listener.start()
        return str(self._listener.contact_address), everywhere

    def stop(self) -> None:
        """Let no one in any more; returns when what came in is written."""
        self._client.sync(self._close)
        self._pool.shutdown()

    async def _close(self) -> None:
        self._closing = True
        if self._listener is not None:
            self._listener.stop()

    async def _serve(self, comm: Any) -> None:
        """One connection."""
        try:
            request = await comm.read()
            partial = self._partials.get(str(request.get("path")))
            if not hmac.compare_digest(str(request.get("secret")), self._secret):
                logger.warning("turned away a connection from %s without the secret of this run", comm.peer_address)
            elif "reserved" in request and partial is not None:
                await self._take(comm, partial, reserved=bool(request["reserved"]))
            elif "reserved" not in request:
                await comm.write({"sees": self._is_greeting(Path(request["path"]))})
            else:
                await comm.write({"refused": "it writes no such file"})
        except OSError:
            logger.debug("a worker went away while it passed on a block", exc_info=True)
        finally:
            comm.abort()

    def _is_greeting(self, path: Path) -> bool:
        """Whether a worker's file in one of the folders of claims is seen here."""
        return any(path.parent == partial.claims for partial in self._partials.values()) and path.exists()

    async def _take(self, comm: Any, partial: PartialFile, *, reserved: bool) -> None:
        async with self._slots:
            await comm.write({"come": True})
            parts = (await comm.read())["parts"]
            if self._closing:
                await comm.write({"refused": "the run is over"})
                return
            # The pool is shut down after this loop said no to all others: a block that is let in is written.
            append = functools.partial(partial.append, parts, reserved=reserved)
            try:
                offsets = await asyncio.get_running_loop().run_in_executor(self._pool, append)
            except RasterWriteError as error:
                await comm.write({"refused": str(error)})
                return
            self.nbytes += sum(len(part) for part in parts)
            await comm.write({"offsets": offsets})


@contextlib.contextmanager
def reachable(sinks: Sequence[Sink], client: Any) -> Iterator[list[Sink]]:
    """The sinks as workers need them: with a way to this process, should they not see the folder. Says so once, where it is so.

    Parameters
    ----------
    sinks
        Started, in this process.
    client
        The Client whose workers will write; None where no other machine will.

    Notes
    -----
    When the context ends nothing is written here any more that came from a worker.
    """
    partials = [sink.partial for sink in sinks if sink.partial is not None]
    if client is None or client.scheduler.address.startswith("inproc"):
        yield list(sinks)
        return
    office = PostOffice(client, partials)
    post = office.start()
    try:
        posting = [sink.posting(post) for sink in sinks]
        _tell_who_is_blind(client, [sink.partial for sink in posting if sink.partial is not None])
        yield posting
    finally:
        office.stop()


def _tell_who_is_blind(client: Any, partials: Sequence[PartialFile]) -> None:
    """Ask all workers that are there now whether they see the outputs, and log those that do not."""
    # A worker that dies meanwhile does not answer, and is asked again when it has come back and its first block is due.
    answers = client.run(_ask_here, list(partials), on_error="ignore")
    for number, partial in enumerate(partials):
        blind = [address for address, seen in answers.items() if not seen[number]]
        if blind:
            logger.warning(
                "%d of %d workers do not share the folder %s with this process (the first is %s): their encoded blocks travel to it "
                "and are written here; a folder that all machines see is faster",
                len(blind),
                len(answers),
                partial.target.parent,
                blind[0],
            )


async def _ask_here(partials: Sequence[PartialFile]) -> list[bool]:
    """In a worker, not in its event loop, which must go on."""
    return [
        await asyncio.to_thread(is_shared, partial.path, partial.claims, partial.post)
        for partial in partials
        if partial.post is not None
    ]
