"""KEA's names and codes, and reading its items with errors that say which file and which item.

KEA is an HDF5 file with fixed names (Bunting & Gillingham 2013, doi 10.1016/j.cageo.2013.03.025)::

    /HEADER     FILETYPE VERSION GENERATOR NUMBANDS SIZE TL RES ROT WKT
    /METADATA   one text an item
    /GCPS       empty, or GCPS NUM_GCPS PROJ
    /BAND1      DATA DATATYPE DESCRIPTION LAYER_TYPE LAYER_USAGE [NO_DATA_VAL] [MASK]
                METADATA/  OVERVIEWS/OVERVIEW1..  ATT/{DATA,HEADER,NEIGHBOURS}   the attribute table
    /BAND2 ...
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from daskraster.errors import DaskRasterError, RasterFormatError, RasterNotFoundError, RasterReadError
from daskraster.formats.hdf5 import h5py
from daskraster.formats.kea_heap import read_text
from daskraster.hints import missing_file

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
VERSIONS = ("1.0", "1.1", "2.0")
WRITTEN_VERSION = "1.1"  # what kealib 1.4 to 2.0 write themselves, and all of them read

# DATATYPE counts from 1.
PIXEL_TYPES = tuple(
    np.dtype(name).newbyteorder("<")
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
)
# LAYER_USAGE counts from 0, "generic", which says nothing. The names are GDAL's.
COLORS = (
    None, "gray", "palette", "red", "green", "blue", "alpha", "hue", "saturation", "lightness",
    "cyan", "magenta", "yellow", "black", "Y", "Cb", "Cr",
)  # fmt: skip
# KEA has no place for these; kept as metadata items of the band, which other programs show and leave alone.
SCALE_ITEM, OFFSET_ITEM, UNITS_ITEM = "SCALE", "OFFSET", "UNITTYPE"
# GDAL invents these when it reads a KEA file; in the file they would contradict LAYER_TYPE and ATT.
VIRTUAL_ITEMS = ("LAYER_TYPE", "ATTRIBUTETABLE_CHUNKSIZE")

MAX_KEPT = 64  # items that stay open in a file that is read: more than one band has

# What h5py raises on a damaged file: HDF5's own error stack comes as whichever of these its text resembles, and sizes read from
# garbage overflow NumPy or memory.
HDF5_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    MemoryError,
    OverflowError,
    NotImplementedError,
)


def band_item(band: int, name: str) -> str:
    """Path of an item of a band, numbered from 1."""
    return f"BAND{band}/{name}"


class KeaFile:
    """An open KEA file; remembers the item under way, for errors."""

    def __init__(self, path: str, file: h5py.File, raw: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.raw = raw
        self.item = ""
        # What was looked up last, while nothing can change: an item is asked for two to five times, and each look takes HDF5 0.04 ms.
        self._found: dict[str, Any] = {}
        self._keeps = file.mode == "r"

    def has(self, name: str) -> bool:
        """Whether there is such an item."""
        self.item = name
        return name in self.file

    def group(self, name: str) -> h5py.Group:
        """A group.

        Raises
        ------
        RasterFormatError
            It is missing, or no group.
        """
        return self._get(name, h5py.Group)

    def dataset(self, name: str) -> h5py.Dataset:
        """A dataset.

        Raises
        ------
        RasterFormatError
            It is missing, or no dataset.
        """
        return self._get(name, h5py.Dataset)

    def _get(self, name: str, kind: type) -> Any:
        self.item = name
        found = self._look(name)
        if not isinstance(found, kind):
            raise self.error("it is missing" if found is None else f"it is no {kind.__name__.lower()}")
        return found

    def _look(self, name: str) -> Any:
        """Whatever has a name; None where nothing has."""
        if name in self._found:
            return self._found[name]
        found = self.file.get(name)
        if self._keeps and found is not None:
            if len(self._found) >= MAX_KEPT:
                self._found.clear()
            self._found[name] = found
        return found

    def text(self, name: str) -> str:
        """A dataset of one text.

        Raises
        ------
        RasterFormatError
            It is missing, or no text.
        """
        dataset = self.dataset(name)
        if dataset.size != 1:
            raise self.error(f"it has {dataset.size} values where one is due")
        position = dataset.id.get_offset()
        kind = h5py.check_string_dtype(dataset.dtype)
        if position is None or kind is None or kind.length is not None or self.file.userblock_size:
            return decode(np.asarray(dataset[()]).reshape(-1)[0])
        return decode(read_text(self.raw, position))

    def numbers(self, name: str, count: int) -> NDArray[Any]:
        """A dataset of ``count`` numbers.

        Raises
        ------
        RasterFormatError
            It is missing, holds another number of values, or no numbers.
        """
        dataset = self.dataset(name)
        if dataset.size != count:
            raise self.error(f"it has {dataset.size} values where {count} are due")
        if dataset.dtype.kind not in "iuf":
            raise self.error(f"it holds {dataset.dtype} where numbers are due")
        return np.asarray(dataset[()]).reshape(-1)

    def texts(self, name: str) -> dict[str, str]:
        """All texts of a group, by name; none where the group is missing, as in files of other programs."""
        if not self.has(name):
            return {}
        texts: dict[str, str] = {}
        for key in self.group(name):
            # Other programs put numbers and groups here too, which are none of ours.
            if isinstance(self._look(f"{name}/{key}"), h5py.Dataset):
                dataset = self.dataset(f"{name}/{key}")
                if dataset.dtype.kind in "OS" and dataset.size == 1:
                    texts[str(key)] = self.text(f"{name}/{key}")
        return texts

    def error(self, what: str) -> RasterFormatError:
        """An error about the item under way."""
        return RasterFormatError(f"{self.path} is no valid KEA file, item {self.item}: {what}")


def decode(value: Any) -> str:
    """Text as HDF5 gives it: bytes in UTF-8, in Latin-1 from old programs.

    Raises
    ------
    ValueError
        It is no text.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise ValueError(f"{type(value).__name__} where a text is due")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


@contextmanager
def open_kea(path: str, mode: str = "r") -> Iterator[KeaFile]:
    """An open KEA file, its type and version checked; whatever HDF5 raises inside comes out as RasterFormatError.

    Raises
    ------
    RasterNotFoundError
        There is no such file.
    RasterFormatError
        It is no HDF5, no KEA, of an unknown version, damaged, or open elsewhere; with the item.
    """
    if not Path(path).exists():
        raise RasterNotFoundError(missing_file(path))
    kea: KeaFile | None = None
    try:
        # Many network disks have no locks: then HDF5 goes on without.
        with open(path, "rb", buffering=0) as raw, h5py.File(path, mode, locking="best-effort") as file:
            kea = KeaFile(path, file, cast(BinaryIO, raw))
            _check_kind(kea)
            yield kea
    except DaskRasterError:
        raise
    except HDF5_ERRORS as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM):
            raise RasterReadError(f"cannot open {path}: {error.strerror or error}") from error  # not the file's fault
        if kea is None:
            raise RasterFormatError(f"cannot open {path} as HDF5, which a KEA file is: {error}") from error
        raise kea.error(f"HDF5 cannot read it: {error}") from error


def _check_kind(kea: KeaFile) -> None:
    kind = kea.text("HEADER/FILETYPE")
    if kind != "KEA":
        raise kea.error(f"it says {kind[:40]!r}, not 'KEA'")
    version = kea.text("HEADER/VERSION")
    if version not in VERSIONS:
        raise kea.error(f"version {version[:40]!r} is not known; known are {', '.join(VERSIONS)}")


def is_kea(path: str) -> bool:
    """Whether a path is to be read as KEA: by its suffix, as GDAL does, or as an HDF5 file that says so."""
    if path.lower().endswith(".kea"):
        return "://" not in path and not path.startswith("/vsi")
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        if file.read(len(HDF5_SIGNATURE)) != HDF5_SIGNATURE:
            return False
    try:
        with open_kea(path):
            return True
    except RasterFormatError:
        return False
