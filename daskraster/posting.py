"""Whether this process sees the disk of an output, and the way its bytes go where it does not.

Ground floor. Machines of a cluster mostly share the folder that the output goes to, but not always: each may have a disk of its own under that name.
The name of a partial file is random, so a process that finds it, can write to it, and can leave a file beside it that the leading process
sees, shares that disk; any other hands its bytes to a `Post`. Found out once for each process and file, when its first block is due, so that workers that
join later are asked too.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from daskraster.positioned import Buffer

GREETING = "met-"  # before the random name of a file that a process leaves in the folder of claims


class Post(Protocol):
    """The way to the process that leads a run. Small and picklable; may be used by any number of threads at once."""

    def sees(self, path: Path) -> bool | None:
        """Whether the leading process sees a file; None where it cannot be asked."""

    def deliver(self, path: Path, parts: Sequence[Buffer], *, reserved: bool) -> list[int]:
        """Have the leading process append parts to a partial file, and return where each begins.

        Returns when they are written, so that each thread has one block on its way, and a task that is done needs nothing more from its worker.

        Raises
        ------
        RasterWriteError
            The leading process cannot be reached, refuses, or its disk does.
        """


_lock = threading.Lock()
_shared: dict[Path, bool] = {}


def is_shared(path: Path, claims: Path, post: Post) -> bool:
    """Whether this process and the leading one see the same partial file ``path`` with its folder ``claims``."""
    with _lock:
        known = _shared.get(path)
        if known is None:
            if len(_shared) > 1000:  # a worker that outlives many runs
                _shared.clear()
            known = _shared[path] = _meets(path, claims, post)
    return known


def _meets(path: Path, claims: Path, post: Post) -> bool:
    greeting = leave_greeting(path, claims)
    # A container may see the folder through a layer of its own: reading meets the shared disk, writing does not.
    return greeting is not None and post.sees(greeting) is not False


def leave_greeting(path: Path, claims: Path) -> Path | None:
    """A new empty file in the folder of claims of the partial file ``path``; None where one of the two is not there."""
    greeting = claims / f"{GREETING}{secrets.token_hex(8)}"
    try:
        os.close(os.open(path, os.O_RDWR))
        os.close(os.open(greeting, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return None
    return greeting
