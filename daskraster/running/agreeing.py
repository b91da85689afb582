"""Whether workers have the same daskraster as the process that leads, before a run begins.

Blocks, receipts and sinks travel as pickles of this package's own classes: another version reads them wrongly or not at all, and says so in words
of its inside. Of the packages that read, compute and write pixels another version is told once: results may differ in their last digits, or in their bytes.
Workers that join later are not asked.
"""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from daskraster.errors import DaskRasterWarning, WorkerError

logger = logging.getLogger(__name__)

OWN = "daskraster"
PIXEL_PACKAGES = ("numpy", "rasterio", "imagecodecs", "h5py")
NAMED = 3  # workers, of those that differ


def check_versions(client: Any) -> None:
    """Ask the workers that are there now. One round of messages; nothing is asked of a LocalCluster within this process.

    Raises
    ------
    WorkerError
        Some have another version of daskraster.

    Warns
    -----
    DaskRasterWarning
        Some have another version of what handles pixels.
    """
    if client is None or client.scheduler.address.startswith("inproc"):
        return
    try:
        answers = client.get_versions(packages=[OWN, *PIXEL_PACKAGES])
    except OSError as error:  # a worker died just now: the run itself will tell what matters of it
        logger.debug("the versions of the workers are not known: %s", error)
        return
    here = answers["client"]["packages"]
    there = {address: answer["packages"] for address, answer in answers["workers"].items() if answer}
    if others := _others(here, there, OWN):
        raise WorkerError(
            f"this process has daskraster {here[OWN]}, but {_told(others, len(there))}; install one version on all machines, and start the workers anew: nothing was computed"
        )
    for name in PIXEL_PACKAGES:
        if others := _others(here, there, name):
            warnings.warn(
                f"this process has {name} {here[name]}, but {_told(others, len(there))}: pixels or bytes may differ between blocks",
                DaskRasterWarning,
                stacklevel=2,
            )


def _others(
    here: Mapping[str, str | None], there: Mapping[str, Mapping[str, str | None]], name: str
) -> dict[str, list[str]]:
    """Other versions of a package -> the workers that have them. What was never installed, but is run from its sources, has no version."""
    found: dict[str, list[str]] = defaultdict(list)
    for address, packages in there.items():
        version = packages.get(name)
        if version is not None and here.get(name) is not None and version != here[name]:
            found[version].append(address)
    return found


def _told(others: Mapping[str, list[str]], count: int) -> str:
    addresses = [address for of_version in others.values() for address in of_version]
    more = f" and {len(addresses) - NAMED} more" if len(addresses) > NAMED else ""
    return (
        f"{len(addresses)} of {count} workers have {', '.join(sorted(others))} ({', '.join(addresses[:NAMED])}{more})"
    )
