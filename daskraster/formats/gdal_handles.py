"""Open datasets, lent to one thread at a time.

Handles are never shared between threads at one time and never pickled: each read borrows one from a pool and gives it back, so a
process holds as many handles of a file as it has threads reading it. (`thread_safe=True` handles scale worse: 354-520 MB/s.)
"""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from daskraster.errors import RasterFormatError, RasterNotFoundError, RasterReadError
from daskraster.hints import missing_file

# GDAL's own default is 5 % of the machine's memory for each process, which would hide in every measurement of peak memory.
CACHE_NBYTES = 32 << 20
# Each keeps its last tile and its buffers, some 1.7 MB: of 400 files of a mosaic 64 idle ones made 110 MB, and opening one again takes 0.2 ms
# (1 ms by the GTiff driver) where decoding a tile takes 2. With 8 of them a mosaic of 400 tiles took 12 to 18 MB more than with 4,
# in the same CPU time.
IDLE_HANDLES = min(64, (os.cpu_count() or 1) + 2)


class _HandlePool:
    """Open datasets that no thread uses just now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_exit = False
        self._idle: list[tuple[tuple[object, ...], Any]] = []

    @contextmanager
    def borrow(self, path: str, *, driver: str, overview_level: int | None, token: str) -> Iterator[Any]:
        """A dataset for this thread alone; closed, not kept, when its use fails.

        Raises
        ------
        RasterNotFoundError, RasterFormatError
            It cannot be opened (any more).
        """
        key = (path, driver, overview_level, token)
        dataset = self._take(key)
        if dataset is None:
            dataset = open_dataset(path, driver=driver, overview_level=overview_level)
        try:
            yield dataset
        except BaseException:
            dataset.close()
            raise
        self._give_back(key, dataset)

    def _take(self, key: tuple[object, ...]) -> Any:
        with self._lock:
            for position in range(len(self._idle) - 1, -1, -1):
                if self._idle[position][0] == key:
                    return self._idle.pop(position)[1]
        return None

    def _give_back(self, key: tuple[object, ...], dataset: Any) -> None:
        with self._lock:
            if not self._at_exit:
                # Handles that outlive the interpreter's modules complain on the way out.
                atexit.register(self.close)
                self._at_exit = True
            self._idle.append((key, dataset))
            superfluous = [self._idle.pop(0)[1] for _ in range(len(self._idle) - IDLE_HANDLES)]
        for old in superfluous:
            old.close()

    def close(self) -> None:
        """Close the handles that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, dataset in idle:
            dataset.close()


handles = _HandlePool()
"""This process's pool."""


def close_idle_handles() -> None:
    """Close what no thread reads just now: an open handle keeps a replaced file's space on the disk."""
    handles.close()


class _Silence:
    """The warning about a missing georeference, off while any thread is inside.

    ``catch_warnings`` changes what the whole process shows, so the first thread to come switches it off and the last to leave
    restores it; one at a time would make the headers of 10,000 files a queue.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_silence = _Silence()


def limit_cache(nbytes: int) -> int:
    """Set the size of this process's block cache, and return what it was; its default is 5 % of the machine in every process."""
    before = int(rasterio.env.get_gdal_config("GDAL_CACHEMAX"))
    rasterio.env.set_gdal_config("GDAL_CACHEMAX", nbytes)
    return before


@contextmanager
def quiet_gdal() -> Iterator[None]:
    """GDAL as this project uses it: a bounded block cache, no threads of its own, no warning about a missing georeference."""
    options = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": CACHE_NBYTES}
    if rasterio.env.hasenv() and "GDAL_CACHEMAX" in rasterio.env.getenv():
        options = {}
    with _silence, rasterio.Env(**options):
        yield


def open_dataset(path: str, *, driver: str | None = None, overview_level: int | None = None) -> Any:
    """An open rasterio dataset, read-only.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        There is no such file, or GDAL cannot read it as a raster.
    """
    options = {} if overview_level is None else {"overview_level": overview_level}
    with quiet_gdal():
        try:
            return rasterio.open(path, driver=driver, **options)
        except RasterioIOError as error:
            if is_local(path) and not Path(path).exists():
                raise RasterNotFoundError(missing_file(path)) from error
            raise RasterFormatError(f"GDAL cannot open {path} as a raster: {error}") from error


def is_local(path: str) -> bool:
    """Whether a path names a file of this machine, not a URL or one of GDAL's virtual files."""
    return "://" not in path and not path.startswith("/vsi")


def token_of(path: str, files: tuple[str, ...]) -> str:
    """A text that changes when the file, or one it is made of, does: from path, size, mtime in ns, inode.

    Raises
    ------
    RasterReadError
        One of the files is gone.
    """
    return _token(path, files, _facts_of(path, files))


def _token(path: str, files: tuple[str, ...], facts: tuple[tuple[int, int, int], ...]) -> str:
    # Tokens stand in journals that later versions go on with: their text stays as it is.
    named = [(part, *fact) for part, fact in zip(files, facts, strict=True)]
    return hashlib.sha256(repr([str(Path(path).resolve()), *named]).encode()).hexdigest()


def _facts_of(path: str, files: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """Size, mtime in ns and inode of each file.

    Raises
    ------
    RasterReadError
        One of the files is gone.
    """
    facts: list[tuple[int, int, int]] = []
    for part in files:
        try:
            status = Path(part).stat()
        except FileNotFoundError as error:
            raise RasterReadError(f"{part} is gone; it was there when {path} was opened") from error
        facts.append((status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(facts)


# Facts by path and token: following every link of the path again, and its text, cost 0.1 to 0.2 ms a block.
_checked: OrderedDict[tuple[str, str], tuple[tuple[int, int, int], ...]] = OrderedDict()
_checked_lock = threading.Lock()
CHECKED_KEPT = 1024


def check_unchanged(path: str, files: tuple[str, ...], token: str) -> None:
    """Refuse a file that is not the one ``token`` was taken from; for every window, since handles and cached tiles outlive a change.

    Costs 2 microseconds a file, and the first time 100; a remote source, which has no ``files``, is not checked.

    Raises
    ------
    RasterReadError
        The file changed, or is gone.
    """
    if not files:
        return
    facts = _facts_of(path, files)
    if _checked.get((path, token)) == facts:
        return
    if _token(path, files, facts) != token:
        raise RasterReadError(f"{path} changed after it was opened; open it again")
    with _checked_lock:
        _checked[path, token] = facts
        while len(_checked) > CHECKED_KEPT:
            _checked.popitem(last=False)
