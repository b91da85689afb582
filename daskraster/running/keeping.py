"""Whether finished blocks outlive a run that fails: said by the user, or by the kind of cluster.

On batch systems hours of many machines are at stake and nobody watches, so there they are kept; at a terminal the next try begins clean.
"""

from __future__ import annotations

from typing import Any

from daskraster.options import WriteOptions

RETRIES_ON_CLUSTER = 2


def is_batch(client: Any) -> bool:
    """Whether the workers of a Client are jobs of a batch system, which may end at any time; as far as it can be seen from here."""
    kinds = type(getattr(client, "cluster", None)).__mro__
    return any(kind.__module__.partition(".")[0] == "dask_jobqueue" for kind in kinds)


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
