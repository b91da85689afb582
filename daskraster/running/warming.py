"""What a worker needs for its first block, imported while nothing else is to be done.

rasterio, the codecs and our own modules take a worker about a second of its first block otherwise. dask runs the text `PRELOAD` in each worker before it joins; that only starts a
thread, so that a worker joins no later. A block that comes before the thread is through waits for what it needs, as it would have to in any case.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Any

import dask

logger = logging.getLogger(__name__)

# dask takes anything with a blank for a text, and with a name for a module, whose import would hold up the worker: it would bring all of xarray.
PRELOAD = """import threading


def dask_setup(worker):
    threading.Thread(target=warm, name="daskraster-warming", daemon=True).start()


def warm():
    try:
        import daskraster.running.warming
    except ImportError:  # the first block says so, with what is missing
        return
    daskraster.running.warming.import_all()
"""
MODULES = (
    "daskraster.running.outputs",
    "daskraster.running.engines",
    "daskraster.running.limits",
    "daskraster.running.sharing",
    "daskraster.lazy.neighbourhood",
    "daskraster.lazy.calculating",
    "imagecodecs.imagecodecs",
    "imagecodecs._isal",
    "imagecodecs._zstd",
    "threadpoolctl",
)


def preloads(options: Mapping[str, Any]) -> dict[str, Any]:
    """What workers are to run before they join: `PRELOAD`, and what a user wants, in ``options`` or dask's configuration, with its arguments."""
    wanted = options.get("preload") or dask.config.get("distributed.worker.preload", [])
    texts = [PRELOAD, *([wanted] if isinstance(wanted, str) else wanted)]
    arguments = options.get("preload_argv") or dask.config.get("distributed.worker.preload-argv", [])
    if not arguments or isinstance(arguments[0], str):  # for each of them
        return {"preload": texts}
    return {"preload": texts, "preload_argv": [[], *arguments]}


def import_all() -> None:
    """Import what most runs need; what is not there is left to those that need it."""
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            logger.debug("%s was not imported beforehand: %s", name, error)
