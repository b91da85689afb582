"""What can be asked of a write, checked before anything starts.

Ground floor. `WriteOptions` says what the user asked for; what becomes of it with a given array and format is decided where both
are known (`daskraster.running.writing`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

import numpy as np

from daskraster.errors import OptionError
from daskraster.hints import near
from daskraster.labels import check_colormap, checked_categories
from daskraster.metadata import Colormap, Number
from daskraster.pixeltypes import pixel_type


class Inherit(Enum):
    """The type of `INHERIT`."""

    INHERIT = "inherit"

    def __repr__(self) -> str:
        return "INHERIT"


INHERIT: Final = Inherit.INHERIT
"""Default of ``nodata``: what the array says. None means none."""

# The effort or quality each compression takes.
LEVELS: dict[str, range] = {
    "deflate": range(1, 13),
    "zstd": range(1, 23),
    "lzma": range(10),
    "lerc_deflate": range(1, 13),
    "lerc_zstd": range(1, 23),
}
QUALITIES: dict[str, range] = {"jpeg": range(1, 101), "webp": range(1, 101)}
COMPRESSIONS = (
    "none",
    "deflate",
    "zstd",
    "lzw",
    "packbits",
    "lzma",
    "lerc",
    "lerc_deflate",
    "lerc_zstd",
    "jpeg",
    "webp",
)
MAX_TILE = 16384
MAX_RETRIES = 1000
PREDICTABLE = ("deflate", "zstd", "lzw")
"""Compressions that TIFF readers combine with a predictor."""

RESAMPLINGS = ("average", "bilinear", "mode", "nearest")
"""How a cell of an overview is made; see `daskraster.blocks.overviews`."""

DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".gtiff": "GTiff", ".kea": "KEA"}


class WriteKeywords(TypedDict, total=False):
    """Keyword arguments of `write_raster`, `write_rasters`, `process` and ``.dr.write``; see `WriteOptions`."""

    driver: str | None
    compress: str
    level: int | None
    quality: int | None
    max_error: float
    predictor: int | None
    blocksize: int | tuple[int, int] | None
    interleave: Literal["pixel", "band"]
    bigtiff: bool | None
    nodata: Number | Inherit | None
    dtype: Any
    band_names: Sequence[str] | None
    tags: Mapping[str, str] | None
    colormap: Colormap | None
    thematic: bool | None
    attribute_table: Any
    categories: Mapping[int, str] | Sequence[str] | None
    sidecar: bool
    mask: bool
    statistics: bool
    overviews: bool | Sequence[int]
    overview_resampling: str | None
    progress: bool
    provenance: bool
    resume: bool
    keep_partial: bool | None
    retries: int | None
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """Validated options of one output."""

    driver: str | None = None
    """GDAL's name of the format, GTiff, COG or KEA; None: from the suffix (.tif, .tiff, .gtiff: GTiff; .kea: KEA)."""
    compress: str = "deflate"
    """none, deflate, zstd, lzw, packbits, lzma, lerc, lerc_deflate, lerc_zstd, jpeg, webp. In KEA none and deflate."""
    level: int | None = None
    """Effort of the compression; None: the fastest good one (deflate by ISA-L, zstd 1)."""
    quality: int | None = None
    """jpeg and webp, 1-100; None: 75 for jpeg, lossless for webp."""
    max_error: float = 0.0
    """lerc: the largest error a pixel may get; 0 keeps every bit."""
    predictor: int | None = None
    """1 none, 2 horizontal differences, 3 floating point; None: 2 for integers and 3 for floats with deflate, zstd and lzw. KEA has none: it shuffles bytes."""
    blocksize: int | tuple[int, int] | None = None
    """Size of the file's tiles in pixels, one number or (y, x); multiples of 16 in GeoTIFF, square in KEA. None: 512, less for smaller rasters."""
    interleave: Literal["pixel", "band"] = "pixel"
    """Whether a tile holds all bands of its pixels or one band; in KEA it is always one."""
    bigtiff: bool | None = None
    """Of GeoTIFF and COG. None: BigTIFF from 2 GiB of pixels on, so that no file passes the 4 GiB of classic TIFF."""
    nodata: Number | Inherit | None = INHERIT
    """The value that means "no data" in the file. A number: that value; NaN is written as it, and pixels of the value that meant "no data" before stay
    as they are. None: no such value. Left out: what the array says. NaN of an array opened with ``masked=True`` then becomes its file's value again, other NaN
    stays NaN. (xarray's arithmetic forgets the file's value: ``masked * 2`` only has NaN, so give the number here.) Of truth values, as of ``image > 5``, which
    keeps what ``image`` says, only 0 or 1 counts; ``nodata=None`` where False is meant."""
    dtype: np.dtype[Any] | None = None
    """Pixel type of the file; None: the array's. Conversion rounds half away from zero and clamps."""
    band_names: tuple[str, ...] | None = None
    """A name for each band; None: what the array says."""
    tags: Mapping[str, str] | None = None
    """Metadata items added to those of the array."""
    colormap: Colormap | None = None
    """Pixel value -> (red, green, blue, alpha), of one band of uint8 or uint16; None: what the array says, where the format can hold it."""
    thematic: bool | None = None
    """Whether pixels are classes; None: what the array says."""
    attribute_table: Any = None
    """The table of band 1 as a DataFrame, or of several as ``{band: DataFrame}``, or the path of a file whose table of band 1 is taken
    over without its pixel counts, which would be those of other pixels. KEA holds it, GeoTIFF and COG with ``sidecar=True``."""
    categories: Mapping[int, str] | None = None
    """Pixel value -> name of its class, in all bands; a sequence names the values 0, 1, 2 ... None: what the array says. KEA holds
    them, in its attribute table, GeoTIFF and COG with ``sidecar=True``."""
    sidecar: bool = False
    """GeoTIFF and COG: write a file ``.aux.xml`` beside, for what GDAL keeps there: category names, attribute tables, that pixels are classes,
    histograms. Without it what the array brings along of these is left out, and what was asked for is refused."""
    mask: bool = False
    """Write masks. A pixel is valid that is neither nodata nor NaN. GeoTIFF and COG have one mask for all bands, as GDAL has it: a pixel is masked
    where no band of it is valid. KEA has one for each band. With ``nodata=None`` the mask alone says what is valid, and pixels that the array
    calls nodata are masked. GDAL and QGIS look at a mask before nodata, and each overview of a GeoTIFF has its own. Pixels opened with
    ``masked=False`` from a file that has a mask are refused, since they do not show it. In GeoTIFF all bands of a pixel are then computed in one block."""
    statistics: bool = True
    """Statistics of every band, in the same pass, in the file and in the report."""
    overviews: bool | tuple[int, ...] = True
    """Overviews in the same pass. True: 2, 4, 8 ... down to one tile; a list of powers of two, as ``[2, 4, 8]``: those; False: none."""
    overview_resampling: str | None = None
    """average, nearest, mode or bilinear; None: average, and nearest for classes and palettes."""
    progress: bool = True
    """One progress line on a terminal, a widget in Jupyter, elsewhere a line a minute through `logging` (logger ``daskraster``, level INFO). What
    the function prints meanwhile goes to ``report.output``, or with the exception if it fails. False: no line, and what it prints is left alone."""
    provenance: bool = False
    """Store in the file where its pixels come from: metadata items PROVENANCE_SOFTWARE, _DATE (UTC), _FUNCTIONS, _INPUTS (names without folders,
    sizes, times of change), _OPTIONS. A file made from this one does not inherit them."""
    resume: bool = False
    """Go on with what a run that was killed or failed has left of this very output; with nothing left it starts afresh."""
    keep_partial: bool | None = None
    """Whether finished blocks are kept for ``resume`` when the run ends in an exception or is interrupted (when it is killed they always are);
    None: with ``resume``, and on batch clusters."""
    retries: int | None = None
    """How often a block that raised is tried again before it stops the run; None: 2 on a cluster, 0 elsewhere."""
    name: str | None = None
    """A name for what is computed. You vouch that the same name means the same function: ``resume`` then compares the name
    and not the functions. None: functions are compared by their code and arguments."""

    def __post_init__(self) -> None:
        for check in (self._check_codec, self._check_layout, self._check_overviews, self._check_running):
            check()

    @classmethod
    def of(cls, keywords: WriteKeywords | Mapping[str, Any]) -> WriteOptions:
        """Options from keyword arguments.

        Raises
        ------
        OptionError
            A name is unknown, a value out of range, or two clash.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(keywords) - known)
        if unknown:
            raise OptionError(
                f"write_raster has no option {', '.join(unknown)}{near(unknown[0], known)}; it has {', '.join(sorted(known))}"
            )
        values = dict(keywords)
        _check_kinds(values)
        if values.get("dtype") is not None:
            values["dtype"] = pixel_type(values["dtype"])
        if values.get("band_names") is not None:
            values["band_names"] = tuple(str(name) for name in values["band_names"])
        if values.get("categories") is not None:
            values["categories"] = checked_categories(values["categories"])
        if not isinstance(values.get("overviews", True), bool):
            values["overviews"] = _factors(values["overviews"])
        if isinstance(values.get("compress"), str):
            values["compress"] = values["compress"].lower()
        elif "compress" in values and values["compress"] is None:
            values["compress"] = "none"
        if isinstance(values.get("interleave"), str):
            values["interleave"] = values["interleave"].lower()
        return cls(**values)

    def driver_for(self, path: Path) -> str:
        """The format a path asks for.

        Raises
        ------
        OptionError
            Neither ``driver`` nor the suffix names a format that can be written.
        """
        names = sorted({*DRIVERS.values(), "COG"})
        possible = ", ".join(names)
        if self.driver is None:
            if path.suffix.lower() not in DRIVERS:
                raise OptionError(
                    f"cannot tell the format of {path} from its suffix {path.suffix!r}; known suffixes are "
                    f"{', '.join(DRIVERS)}; give driver= ({possible})"
                )
            return DRIVERS[path.suffix.lower()]
        for name in names:
            if self.driver.lower() == name.lower():
                return name
        raise OptionError(f"driver={self.driver!r} cannot be written; possible are {possible}")

    def _check_codec(self) -> None:
        if self.compress not in COMPRESSIONS:
            raise OptionError(f"compress={self.compress!r} is not known; possible are {', '.join(COMPRESSIONS)}")
        _check_number("level", self.level, LEVELS.get(self.compress), self.compress)
        _check_number("quality", self.quality, QUALITIES.get(self.compress), self.compress)
        if self.predictor not in (None, 1, 2, 3):
            raise OptionError(
                f"predictor={self.predictor!r} is not known; possible are 1 (none), 2 (horizontal), 3 (floating point)"
            )
        if self.predictor in (2, 3) and self.compress not in PREDICTABLE:
            raise OptionError(
                f"predictor={self.predictor} does not go with compress={self.compress!r}; it goes with {', '.join(PREDICTABLE)}"
            )
        if self.max_error < 0 or not np.isfinite(self.max_error):
            raise OptionError(f"max_error={self.max_error} must be a number not below 0")
        if self.max_error and not self.compress.startswith("lerc"):
            raise OptionError(f"max_error= goes with compress='lerc', not with {self.compress!r}")

    def _check_layout(self) -> None:
        if self.interleave not in ("pixel", "band"):
            raise OptionError(f"interleave={self.interleave!r} is not known; possible are 'pixel' and 'band'")
        if self.blocksize is not None:
            sizes = (self.blocksize,) * 2 if isinstance(self.blocksize, int) else tuple(self.blocksize)
            if len(sizes) != 2 or any(not isinstance(size, int) or not 1 <= size <= MAX_TILE for size in sizes):
                raise OptionError(
                    f"blocksize={self.blocksize!r} must be a number of pixels up to {MAX_TILE}, or a pair (y, x)"
                )

    def _check_overviews(self) -> None:
        if not isinstance(self.statistics, bool):
            raise OptionError(f"statistics={self.statistics!r} must be True or False")
        if self.overview_resampling is not None and self.overview_resampling not in RESAMPLINGS:
            raise OptionError(
                f"overview_resampling={self.overview_resampling!r} is unknown; possible are {', '.join(RESAMPLINGS)}"
            )
        if self.overview_resampling is not None and not self.overviews:
            raise OptionError(f"overview_resampling={self.overview_resampling!r} does not go with overviews=False")
        if isinstance(self.overviews, bool):
            return
        for factor in self.overviews:
            if (
                isinstance(factor, bool)
                or not isinstance(factor, int | np.integer)
                or factor < 2
                or factor & (factor - 1)
            ):
                raise OptionError(
                    f"overviews={list(self.overviews)!r}: {factor!r} is not possible; possible are True, False and powers of two "
                    "from 2, since each level is made of the one before"
                )

    def _check_running(self) -> None:
        if not isinstance(self.provenance, bool):
            raise OptionError(f"provenance={self.provenance!r} must be True or False")
        if not isinstance(self.resume, bool):
            raise OptionError(f"resume={self.resume!r} must be True or False")
        if self.retries is not None and (isinstance(self.retries, bool) or not 0 <= self.retries <= MAX_RETRIES):
            raise OptionError(f"retries={self.retries!r} is out of range; it takes 0 to {MAX_RETRIES}")
        if self.resume and self.keep_partial is False:
            raise OptionError(
                "resume=True does not go with keep_partial=False: what it resumes would be removed; leave one out"
            )

    @property
    def tile_yx(self) -> tuple[int, int] | None:
        """``blocksize`` as a pair; None where it was left out."""
        if self.blocksize is None:
            return None
        return (
            (self.blocksize, self.blocksize)
            if isinstance(self.blocksize, int)
            else (self.blocksize[0], self.blocksize[1])
        )


def _factors(overviews: Any) -> tuple[int, ...] | bool:
    if overviews is None:
        raise OptionError("overviews=None must be True, False or a list of factors, as [2, 4, 8]")
    return tuple(overviews) or False


# What each keyword may be; None is always one more.
_KINDS: dict[str, tuple[type, ...]] = {
    "driver": (str,),
    "compress": (str,),
    "level": (int, np.integer),
    "quality": (int, np.integer),
    "max_error": (int, float, np.number),
    "predictor": (int, np.integer),
    "blocksize": (int, np.integer, tuple, list),
    "interleave": (str,),
    "bigtiff": (bool,),
    "nodata": (int, float, np.number, Inherit),
    "band_names": (tuple, list),
    "tags": (Mapping,),
    "colormap": (Mapping,),
    "categories": (Mapping, tuple, list),
    "sidecar": (bool,),
    "mask": (bool,),
    "statistics": (bool,),
    "overviews": (bool, list, tuple),
    "overview_resampling": (str,),
    "progress": (bool,),
    "provenance": (bool,),
    "resume": (bool,),
    "keep_partial": (bool,),
    "retries": (int, np.integer),
    "name": (str,),
}


def _check_kinds(values: dict[str, Any]) -> None:
    """Refuse values of the wrong type, which would else fail far from the call; make NumPy's integers Python's."""
    for name, value in values.items():
        kinds = _KINDS.get(name)
        if kinds is None or value is None:
            continue
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds if kind.__module__ != "numpy")
            raise OptionError(f"{name}={value!r} is a {type(value).__name__}; it must be {wanted}")
        if isinstance(value, np.number):
            values[name] = value.item()
    if isinstance(values.get("blocksize"), tuple | list):
        values["blocksize"] = tuple(int(size) if isinstance(size, np.integer) else size for size in values["blocksize"])
    for key in values.get("tags") or {}:
        if not isinstance(key, str) or any(sign in key for sign in "=:") or not key:
            raise OptionError(
                f"tags= has the name {key!r}; a name is text without '=' and ':', which GDAL would cut it at"
            )
    check_colormap(values.get("colormap"))


def _check_number(name: str, value: int | None, possible: range | None, compress: str) -> None:
    if value is None:
        return
    if possible is None:
        raise OptionError(f"{name}= does not go with compress={compress!r}")
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value not in possible:
        raise OptionError(f"{name}={value!r} is out of range; {compress} takes {possible.start} to {possible.stop - 1}")
