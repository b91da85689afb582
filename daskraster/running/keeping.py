"""Whether finished blocks outlive a run that fails: said by the user, or by the kind of cluster.

On batch systems hours of many machines are at stake and nobody watches, so there they are kept; at a terminal the next try begins clean.
"""

from __future__ import annotations

import weakref
from typing import Any

from daskraster.options import WriteOptions

_batch_clients: weakref.WeakSet[Any] = weakref.WeakSet()
RETRIES_ON_CLUSTER = 2


def mark_as_batch(client: Any) -> None:
    """Say that the workers of a `distributed.Client` are jobs of a batch system."""
    _batch_clients.add(client)


def is_batch(client: Any) -> bool:
    """Whether the workers of a client are jobs of a batch system: marked so, or started by dask-jobqueue."""
    if client is None:
        return False
    kinds = type(getattr(client, "cluster", None)).__mro__
    return client in _batch_clients or any(kind.__module__.startswith("dask_jobqueue") for kind in kinds)


def keeps_partial(options: WriteOptions, client: Any) -> bool:
    """Whether a run that fails or is interrupted leaves its finished blocks for ``resume=True``."""
    if options.keep_partial is not None:
        return options.keep_partial
    return options.resume or is_batch(client)


def retries_of(options: WriteOptions, client: Any) -> int:
    """How often a block that raised is tried again: machines fail on clusters, functions elsewhere."""
    if options.retries is not None:
        return options.retries
    return 0 if client is None else RETRIES_ON_CLUSTER
