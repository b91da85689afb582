"""What the rasters of a mosaic must have in common, and what they have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dask.array as da

from daskraster.errors import GridMismatchError, OptionError, RasterArrayError
from daskraster.lazy.arrays import Raster, encoded_nodata, metadata_of
from daskraster.lazy.sources import SourceView
from daskraster.metadata import BandMetadata, Number, RasterMetadata


@dataclass(frozen=True, slots=True)
class Candidate:
    """A raster as it was given, looked at."""

    name: str
    metadata: RasterMetadata
    nodata: tuple[Number | None, ...]
    """Of each band, as it stands in the pixels."""
    masked: bool
    """Whether its pixels are NaN where the file has ``metadata``'s nodata."""
    view: SourceView | None
    data: da.Array | None
    """Its pixels, where there is no view."""


def candidate_of(raster: Raster) -> Candidate:
    """A DataArray as a candidate; nothing is computed."""
    return Candidate(
        raster.name,
        metadata_of(raster),
        raster.nodata,
        encoded_nodata(raster.array) is not None,
        raster.view,
        None if raster.view is not None else raster.data,
    )


def check_alike(first: Candidate, one: Candidate) -> None:
    """Refuse a raster that makes no mosaic with the first.

    Raises
    ------
    GridMismatchError, RasterArrayError
        With both rasters' names and what they have.
    """
    grids = first.metadata.grid, one.metadata.grid
    difference = grids[0].lattice_difference(grids[1])
    if difference:
        raise GridMismatchError(
            f"{one.name} does not lie on the pixels of {first.name}, the first of the mosaic ({difference}):\n"
            f"  {first.name}: {grids[0]}\n  {one.name}: {grids[1]}\n"
            "bring them to one grid first: use dr.align"
        )
    if one is not first:
        for raster in (first, one):
            if raster.metadata.gcps and not raster.metadata.has_transform:
                raise GridMismatchError(
                    f"{raster.name} has ground control points and no transform, so it lies on no grid that the mosaic could share; "
                    "warp it first, as gdalwarp does"
                )
    facts = [(len(raster.metadata.bands), raster.metadata.dtype) for raster in (first, one)]
    if facts[0] != facts[1]:
        raise RasterArrayError(
            f"the rasters of a mosaic must have one band count and dtype: {first.name} has {facts[0][0]} bands of {facts[0][1]}, "
            f"{one.name} {facts[1][0]} of {facts[1][1]}; choose bands with open_raster(path, bands=...), convert with array.astype"
        )
    _check_physical(first, one)


def _check_physical(first: Candidate, one: Candidate) -> None:
    """Equal pixels must mean equal values: refuse another scale, offset or unit."""
    for number, (ours, theirs) in enumerate(zip(first.metadata.bands, one.metadata.bands, strict=True), 1):
        for what in ("scale", "offset", "units"):
            mine, other = getattr(ours, what), getattr(theirs, what)
            if mine != other and None not in (mine, other):
                raise RasterArrayError(
                    f"band {number} has {what} {mine} in {first.name}, {other} in {one.name}: one pixel value would mean two things in the "
                    "mosaic; open them and bring them to one scale first"
                )


def check_method(metadata: RasterMetadata, method: str) -> None:
    """Refuse the mean of classes.

    Raises
    ------
    OptionError
        A band is thematic or has a colour table.
    """
    classes = [number for number, band in enumerate(metadata.bands, 1) if band.thematic or band.colormap]
    if method == "mean" and classes:
        raise OptionError(
            f"method='mean' would mix the classes or palette colours into ones that do not exist, in band {classes[0]}; "
            "take 'last', 'first', 'min' or 'max'"
        )


def common_metadata(known: RasterMetadata, other: RasterMetadata) -> RasterMetadata:
    """What two rasters of one band count say alike: names, units, colours, tags; nodata where it is the same."""
    if known.bands == other.bands and known.tags == other.tags:
        return known
    bands = [_agreed_band(*pair) for pair in zip(known.bands, other.bands, strict=True)]
    return replace(known, bands=bands, tags=_common(known.tags, other.tags))


def _agreed_band(known: BandMetadata, other: BandMetadata) -> BandMetadata:
    palette = known.colormap if known.colormap == other.colormap else None
    color = known.color if known.color == other.color else None
    return replace(
        known,
        nodata=known.nodata if repr(known.nodata) == repr(other.nodata) else None,
        name=known.name if known.name == other.name else None,
        units=known.units if known.units == other.units else None,
        color=None if color == "palette" and palette is None else color,
        colormap=palette,
        thematic=known.thematic or other.thematic,
        tags=_common(known.tags, other.tags),
    )


def _common(one: Any, other: Any) -> dict[str, str]:
    return {key: text for key, text in one.items() if other.get(key) == text}
