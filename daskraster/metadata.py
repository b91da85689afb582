"""What is known of a raster besides its pixels: the language that files and arrays share.

Ground floor. A format reads a file into a `RasterMetadata`, the lazy floor turns it into a DataArray and back, a format writes
it into another file. No field is ever looked up in a source behind the user's back: what was removed from the array is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from daskraster.grid import Grid

type Number = int | float
type Colormap = Mapping[int, tuple[int, int, int, int]]

PROVENANCE_PREFIX = "PROVENANCE_"
# Describe the pixels of one file; wrong for any pixels computed from them.
DERIVED_TAG_PREFIXES = ("STATISTICS_", "HISTO", "OVR_", PROVENANCE_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class BandMetadata:
    """One band."""

    nodata: Number | None = None
    """Pixel value that means "no data", exact for 64-bit integers."""
    name: str | None = None
    """Description shown by GIS programs."""
    scale: float = 1.0
    """Physical value = pixel * scale + offset; carried along, never applied."""
    offset: float = 0.0
    """See ``scale``."""
    units: str | None = None
    """Unit of the physical value."""
    color: str | None = None
    """Colour interpretation, by GDAL's lower-case name (``red``, ``gray``, ``alpha``, ``palette``); None where unsaid."""
    colormap: Colormap | None = None
    """Pixel value to (red, green, blue, alpha), each 0-255."""
    categories: Mapping[int, str] | None = None
    """Pixel value to the name of its class."""
    thematic: bool = False
    """Pixels are classes: never to be averaged."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The band's own metadata items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterMetadata:
    """A raster without its pixels."""

    grid: Grid
    dtype: np.dtype
    """One pixel type for all bands."""
    bands: Sequence[BandMetadata]
    tags: Mapping[str, str] = field(default_factory=dict)
    """Metadata items of the whole raster."""
    has_transform: bool = True
    """False where the file has no georeference: ``grid`` then counts pixels."""
    gcps: Sequence[tuple[str, str, float, float, float, float, float]] = ()
    """Ground control points: id, info, column, row, x, y, z."""
    gcp_wkt: str = ""
    """CRS of the ground control points."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return (len(self.bands), *self.grid.shape_yx)

    @property
    def nbytes(self) -> int:
        """Size of all pixels in memory."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def without_derived(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that still hold for pixels computed from those of the tagged file: all but statistics, histograms, provenance."""
    return {key: text for key, text in tags.items() if not key.startswith(DERIVED_TAG_PREFIXES)}
