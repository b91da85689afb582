"""A Client that stops its cluster when it is closed."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

from daskraster.running.watching import Watchdog


@functools.cache
def client_class() -> Any:
    """The class of the Clients that `daskraster.cluster` gives; made when it is first wanted, since distributed takes a second to import."""
    import distributed  # noqa: PLC0415 - see above

    class ClusterClient(distributed.Client):
        """A Client with a cluster of its own."""

        def __init__(self, cluster: Any, *, watchdog: Watchdog | None = None, remove: Path | None = None) -> None:
            self.watchdog = watchdog
            """What keeps a batch cluster at its size; None on this machine."""
            self._remove = remove
            distributed.Client.__init__(self, cluster)

        def close(self, timeout: Any = None) -> None:
            """Close the client and stop its workers; harmless when done already."""
            if self.watchdog is not None:
                self.watchdog.stop()
            distributed.Client.close(self, **({} if timeout is None else {"timeout": timeout}))
            cluster = getattr(self, "cluster", None)
            if cluster is not None and cluster.status.name not in ("closed", "closing"):
                cluster.close()
            if self._remove is not None:
                shutil.rmtree(self._remove, ignore_errors=True)

        def __repr__(self) -> str:
            text: str = distributed.Client.__repr__(self)
            return f"{text.removesuffix('>')}, dashboard={self.dashboard_link}>" if self.status == "running" else text

    return ClusterClient
