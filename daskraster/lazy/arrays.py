"""Between DataArray and raster: what an array says about its grid, nodata, names, and how to say it.

Conventions are rioxarray's, so that ``.rio`` works on everything that comes out and everything rioxarray made can go in:
coordinates ``x`` and ``y`` at pixel centres, ``spatial_ref`` with CRS and GeoTransform, ``_FillValue`` in attrs (in encoding where
pixels are masked), ``long_name``, ``scale_factor``, ``add_offset``, ``units``, and tags as further attrs. Attrs of our own: ``nodatavals``
where bands differ in nodata, ``colormap`` (``colormaps``), ``categories``, ``colors``, ``thematic``, ``band_tags``, and ``bands``, the numbers chosen at opening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401 - gives DataArrays their .rio
import xarray as xr
from numpy.typing import NDArray

from daskraster.blocks.masking import holds
from daskraster.errors import RasterArrayError
from daskraster.grid import Grid
from daskraster.labels import checked_categories
from daskraster.lazy.chunking import auto_chunks
from daskraster.lazy.georeference import coordinates, georeferenced, grid_of
from daskraster.lazy.slicing import source_of
from daskraster.lazy.sources import SourceView
from daskraster.metadata import BandMetadata, Number, RasterMetadata, without_derived

FILL_ATTRS = ("_FillValue", "missing_value", "fill_value", "nodata")
BAND_ATTRS = (
    "bands",
    "long_name",
    "scale_factor",
    "add_offset",
    "scales",
    "offsets",
    "units",
    "nodatavals",
    "colormap",
    "colormaps",
    "categories",
    "band_tags",
    "colors",
    "thematic",
)
NO_TAGS = (*FILL_ATTRS, *BAND_ATTRS, "grid_mapping", "transform", "crs", "is_tiled", "res", "gcps", "gcp_wkt")


@dataclass(frozen=True, slots=True)
class Raster:
    """A DataArray seen as a raster."""

    array: xr.DataArray
    """As the user gave it."""
    data: da.Array
    """Its pixels as ``(band, y, x)``."""
    grid: Grid
    has_transform: bool
    view: SourceView | None
    """What the pixels are read from, where they are a plain rectangle of a source."""
    name: str
    """What messages call it."""

    @property
    def nodata(self) -> tuple[Number | None, ...]:
        """The value of each band that stands for "no data" in the array's own pixels: NaN where it is masked."""
        if encoded_nodata(self.array) is not None:
            return (float("nan"),) * self.data.shape[0]
        return tuple(_nodata_values(self.array, self.data.shape[0]))


def as_raster(array: xr.DataArray, name: str = "the raster") -> Raster:
    """A DataArray as a raster; nothing is computed.

    Parameters
    ----------
    array
        Dims ``(band, y, x)`` in any order, or ``(y, x)``; dask or NumPy inside.
    name
        What messages call it where it has no name of its own.

    Raises
    ------
    RasterArrayError
        It is no DataArray, has other dims, no pixels, or coordinates that are not evenly spaced.
    """
    if isinstance(array, xr.Dataset):
        variable = next(iter(array.data_vars), "name")
        raise RasterArrayError(
            f"{name} is a Dataset, not an xarray.DataArray; pick a variable, as in dataset[{str(variable)!r}], or make bands of all: dataset.to_array()"
        )
    if not isinstance(array, xr.DataArray):
        raise RasterArrayError(
            f"{name} is a {type(array).__name__}, not an xarray.DataArray; open a file with open_raster, pick a variable of a Dataset"
        )
    y_dim, x_dim, others = _dims(array, name)
    if not array.size:
        raise RasterArrayError(f"{name} has no pixels: its shape is {array.shape}")
    ordered = array.transpose(*others, y_dim, x_dim)
    data = ordered.data if isinstance(ordered.data, da.Array) else _from_numpy(np.asarray(ordered.data))
    view = source_of(data)
    grid, has_transform = grid_of(array, y_dim, x_dim, name)
    return Raster(
        array=array,
        data=data if data.ndim == 3 else data[np.newaxis],
        grid=grid,
        has_transform=has_transform,
        view=view,
        name=view.source.name if view is not None else (str(array.name) if array.name is not None else name),
    )


def _dims(array: xr.DataArray, name: str) -> tuple[str, str, list[Any]]:
    pairs = [("y", "x"), ("latitude", "longitude"), ("lat", "lon")]
    for y_dim, x_dim in pairs:
        if y_dim in array.dims and x_dim in array.dims:
            break
    else:
        try:
            y_dim, x_dim = array.rio.y_dim, array.rio.x_dim
        except Exception as error:
            raise RasterArrayError(f"{name} has dims {array.dims}; a raster has (band, y, x) or (y, x)") from error
    others = [dim for dim in array.dims if dim not in (y_dim, x_dim)]
    if len(others) > 1:
        first = others[0]
        raise RasterArrayError(
            f"{name} has dims {array.dims}; a raster has one dimension beside {y_dim} and {x_dim}: select one, as in array.isel({first}=0), "
            f'reduce them, as in array.median("{first}"), or write a file for each {first}: for one in array.{first}: write_raster(array.sel({first}=one), ...)'
        )
    return y_dim, x_dim, others


def _from_numpy(values: NDArray[Any]) -> da.Array:
    shape = values.shape if values.ndim == 3 else (1, *values.shape)
    rows, cols = auto_chunks((shape[0], shape[1], shape[2]), values.dtype, (1, 1))
    # name=False: a token would hash all pixels.
    return da.from_array(values.reshape(shape), chunks=((shape[0],), rows, cols), name=False)


def encoded_nodata(array: xr.DataArray) -> Number | None:
    """The nodata value of the file, where the array has NaN instead (opened with ``masked=True``)."""
    if array.dtype.kind != "f":
        return None
    for key in FILL_ATTRS:
        value = array.encoding.get(key)
        if value is not None:
            return _number(value)
    return None


def _nodata_values(array: xr.DataArray, count: int) -> list[Number | None]:
    values = _told_nodata(array, count)
    if array.dtype == bool:
        # Of ``image > 5`` xarray keeps the attrs of ``image``: its -9999 or 255 is no truth value, and no pixel can be nodata.
        return [value if value in (0, 1) else None for value in values]
    return values


def _told_nodata(array: xr.DataArray, count: int) -> list[Number | None]:
    several = _per_band(array.attrs.get("nodatavals"), array, count)
    if several != [None] * count:
        return [None if value is None else _number(value) for value in several]
    for key in FILL_ATTRS:
        value = array.attrs.get(key)
        if value is not None:
            return [_number(value)] * count
    encoded = encoded_nodata(array)
    if encoded is not None and any(
        array.encoding.get(key) not in (None, neutral) for key, neutral in (("scale_factor", 1), ("add_offset", 0))
    ):
        # Unpacked pixels: the packed value means something else among them, NaN is all they have.
        return [float("nan")] * count
    return [encoded] * count


def _number(value: Any) -> Number:
    value = np.asarray(value).reshape(-1)[0].item()
    return value if isinstance(value, int | float) else float(value)


def metadata_of(raster: Raster) -> RasterMetadata:
    """What an array says of itself, band by band; nothing is looked up anywhere else."""
    array, count = raster.array, raster.data.shape[0]
    attrs = array.attrs
    names = _per_band(attrs.get("long_name"), array, count)
    labels = _band_labels(array)
    if names == [None] * count and labels is not None and labels.dtype.kind in "UOT" and len(labels) == count:
        names = [str(label) for label in labels]
    scales = _per_band(attrs.get("scales", attrs.get("scale_factor")), array, count)
    offsets = _per_band(attrs.get("offsets", attrs.get("add_offset")), array, count)
    units = _per_band(attrs.get("units"), array, count)
    colors = _per_band(attrs.get("colors"), array, count)
    tags = _per_band(attrs.get("band_tags"), array, count)
    colormaps = _per_band(attrs.get("colormaps"), array, count)
    categories = _categories(array, count)
    thematic = _per_band(attrs.get("thematic", False), array, count)
    nodata = _nodata_values(array, count)
    return RasterMetadata(
        grid=raster.grid,
        dtype=raster.data.dtype,
        bands=[
            BandMetadata(
                nodata=nodata[band],
                name=str(names[band]) if names[band] else None,
                scale=1.0 if scales[band] is None else float(scales[band]),
                offset=0.0 if offsets[band] is None else float(offsets[band]),
                units=units[band] or None,
                color=colors[band],
                colormap=colormaps[band] or (attrs.get("colormap") if count == 1 else None),
                categories=categories[band],
                thematic=bool(thematic[band]),
                tags=without_derived(tags[band] or {}),
            )
            for band in range(count)
        ],
        tags=without_derived(
            {str(key): str(value) for key, value in attrs.items() if key not in NO_TAGS and _is_tag(value)}
        ),
        has_transform=raster.has_transform,
        gcps=attrs.get("gcps", ()),
        gcp_wkt=attrs.get("gcp_wkt", ""),
    )


def _per_band(value: Any, array: xr.DataArray, count: int) -> list[Any]:
    """A value for each band: from one for all, or from a sequence; None where it does not fit.

    A sequence belongs to the bands of the file, in the order of their numbers (or of the ``bands`` attr, where those were chosen at
    opening). Selecting bands changes the ``band`` coordinate and not the attrs, so values are found by number where the coordinate
    has numbers, else by position.
    """
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        return [value] * count
    labels = _band_labels(array)
    if labels is not None and labels.dtype.kind in "iu" and len(set(labels.tolist())) == count:
        known = list(array.attrs.get("bands", range(1, len(value) + 1)))
        if len(known) == len(value) and set(labels.tolist()) <= set(known):
            return [value[known.index(label)] for label in labels.tolist()]
    return list(value) if len(value) == count else [None] * count


def _categories(array: xr.DataArray, count: int) -> list[Mapping[int, str] | None]:
    """Class names of each band: from one mapping or list of names for all, or a mapping (or None) for each.

    Anything else is another program's attr of that name.
    """
    value = array.attrs.get("categories")
    found: list[Any] = [None] * count
    if isinstance(value, Mapping) or (isinstance(value, tuple | list) and all(isinstance(one, str) for one in value)):
        found = [value] * count
    elif isinstance(value, tuple | list) and all(one is None or isinstance(one, Mapping) for one in value):
        found = _per_band(value, array, count)
    return [checked_categories(one) or None if one is not None else None for one in found]


def _band_labels(array: xr.DataArray) -> NDArray[Any] | None:
    """The coordinate of the band dimension, or the one number left where a single band was picked."""
    y_dim, x_dim, others = _dims(array, "the raster")
    name = others[0] if others else "band"
    if name not in array.coords or name in (y_dim, x_dim) or array.coords[name].ndim > 1:
        return None
    return np.atleast_1d(array.coords[name].values)


def _is_tag(value: Any) -> bool:
    return isinstance(value, str | int | float | np.integer | np.floating) and not isinstance(value, bool)


def band_attrs(metadata: RasterMetadata, *, masked: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attrs and encoding that say what ``metadata`` says, each only where there is something to say."""
    bands = metadata.bands
    # A tag of the file must not pass for one of the attrs below.
    attrs: dict[str, Any] = {key: text for key, text in metadata.tags.items() if key not in NO_TAGS}
    encoding: dict[str, Any] = {}
    if any(band.name for band in bands):
        attrs["long_name"] = _one_or_all([band.name or "" for band in bands])
    for key, several, values in (
        ("scale_factor", "scales", [band.scale for band in bands]),
        ("add_offset", "offsets", [band.offset for band in bands]),
    ):
        neutral = 1.0 if key == "scale_factor" else 0.0
        if len(set(values)) > 1:
            attrs[several] = tuple(values)
        elif values[0] != neutral:
            attrs[key] = values[0]
    if any(band.units for band in bands):
        attrs["units"] = _one_or_all([band.units or "" for band in bands])
    nodata = [band.nodata for band in bands]
    if nodata[0] is not None:
        (encoding if masked else attrs)["_FillValue"] = nodata[0] if masked else _pixel(nodata[0], metadata.dtype)
    if len(set(map(repr, nodata))) > 1:
        attrs["nodatavals"] = tuple(nodata)
    attrs.update(_class_attrs(bands))
    if any(band.tags for band in bands):
        attrs["band_tags"] = tuple(dict(band.tags) for band in bands)
    if metadata.gcps:
        attrs["gcps"], attrs["gcp_wkt"] = tuple(metadata.gcps), metadata.gcp_wkt
    return attrs, encoding


def _class_attrs(bands: Sequence[BandMetadata]) -> dict[str, Any]:
    """Colours and whether pixels are classes."""
    attrs: dict[str, Any] = {}
    if any(band.color for band in bands):
        attrs["colors"] = tuple(band.color for band in bands)
    if bands[0].colormap and len(bands) == 1:
        attrs["colormap"] = dict(bands[0].colormap)
    elif any(band.colormap for band in bands):
        attrs["colormaps"] = tuple(dict(band.colormap) if band.colormap else None for band in bands)
    if bands[0].categories and len(bands) == 1:
        attrs["categories"] = dict(bands[0].categories)
    elif any(band.categories for band in bands):
        attrs["categories"] = tuple(dict(band.categories) if band.categories else None for band in bands)
    thematic = [band.thematic for band in bands]
    if any(thematic):
        attrs["thematic"] = True if all(thematic) else tuple(thematic)
    return attrs


def _one_or_all(values: Sequence[str]) -> Any:
    return values[0] if len(set(values)) == 1 else tuple(values)


def _pixel(value: Number, dtype: np.dtype[Any]) -> Any:
    """A nodata value in the pixels' own type, as rioxarray gives it; left a plain number where the type cannot hold it."""
    return dtype.type(value) if dtype.kind == "f" or holds(dtype, value) else value


def new_array(
    data: da.Array, metadata: RasterMetadata, *, masked: bool, bands: Sequence[int], name: str | None = None
) -> xr.DataArray:
    """A DataArray ``(band, y, x)`` that says everything in ``metadata``."""
    attrs, encoding = band_attrs(metadata, masked=masked)
    if list(bands) != list(range(1, len(bands) + 1)):
        attrs["bands"] = tuple(bands)
    array = xr.DataArray(
        data,
        dims=("band", "y", "x"),
        coords=coordinates(metadata.grid, has_transform=metadata.has_transform, bands=bands),
        attrs=attrs,
        name=name,
    )
    array.encoding = encoding
    return georeferenced(array, metadata.grid, has_transform=metadata.has_transform)


def like(data: da.Array, template: Raster, attrs: Mapping[str, Any], encoding: Mapping[str, Any]) -> xr.DataArray:
    """A DataArray ``(band, y, x)`` on the grid of ``template``, its coordinates taken over as they are."""
    array = template.array
    y_dim, x_dim = (dim for dim in _dims(array, template.name)[:2])
    coords: dict[Any, Any] = {"band": np.arange(1, data.shape[0] + 1)}
    for new, old in (("y", y_dim), ("x", x_dim)):
        if old in array.coords and array.coords[old].ndim == 1:
            coords[new] = (new, array.coords[old].values, array.coords[old].attrs)
    mapping = array.rio.grid_mapping
    if mapping in array.coords:
        coords[mapping] = ((), array.coords[mapping].values, array.coords[mapping].attrs)
    result = xr.DataArray(data, dims=("band", "y", "x"), coords=coords, attrs=dict(attrs))
    result.encoding = {**encoding, **({"grid_mapping": mapping} if mapping in coords else {})}
    return result
