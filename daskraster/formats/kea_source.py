"""KEA as a Source: pixels, masks and overviews, without GDAL's KEA driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import CRSError

from daskraster.blocks.masking import masked as masked_pixels
from daskraster.blocks.masking import masked_dtype
from daskraster.errors import OptionError, RasterFormatError, RasterReadError
from daskraster.formats import tilecache
from daskraster.formats.gdal_handles import check_unchanged, quiet_gdal, token_of
from daskraster.formats.hdf5 import h5py
from daskraster.formats.kea_chunks import chunk_table, read_by_hdf5, tile_rows_cols, windows_of_rows
from daskraster.formats.kea_heap import check_references
from daskraster.formats.kea_layout import (
    COLORS,
    OFFSET_ITEM,
    PIXEL_TYPES,
    SCALE_ITEM,
    UNITS_ITEM,
    VIRTUAL_ITEMS,
    KeaFile,
    band_item,
    decode,
    open_kea,
)
from daskraster.formats.kea_tables import read_colormap, read_names
from daskraster.grid import Grid, Window, crs_of
from daskraster.metadata import BandMetadata, Number, RasterMetadata, without_derived

# What GDAL and kealib itself write where nobody told them a transform.
NO_TRANSFORMS = (Affine.identity(), Affine.scale(1, -1))
MASK_ROWS = 512  # rows of the mask in memory while an overview's mask is picked from it


@dataclass(frozen=True, slots=True, kw_only=True)
class KeaSource:
    """A KEA file's pixels; see `daskraster.formats.protocols.Source`."""

    path: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    """Of what is read: floats where masked."""
    pixel_dtype: np.dtype[Any]
    """Of the file."""
    tile_yx: tuple[int, int]
    token: str
    """Changes with the file."""
    overview_level: int | None = None
    """0 for the first overview; None for the full resolution."""
    mask_nodata: tuple[Number | None, ...] | None = None
    """With a value for each band, masked pixels are read as NaN; None reads pixels as they are."""
    mask_bands: tuple[int, ...] = ()
    """Bands with a mask of their own that counts when masked."""
    full_yx: tuple[int, int]
    """Rows and columns at full resolution, those of the masks."""
    hides_mask: bool = False
    """Whether a band has a mask that the pixels do not show, since they are not masked."""

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    def read(self, window: Window, bands: tuple[int, ...]) -> NDArray[Any]:
        """Pixels ``(band, y, x)`` of a window; see `Source.read`.

        Raises
        ------
        RasterReadError
            The file is gone, changed, or damaged here.
        """
        check_unchanged(self.path, (self.path,), self.token)
        key = f"{self.token} {self.overview_level} {bands} {self.mask_nodata} {self.mask_bands}"
        into = tilecache.ReadInto(
            bands=len(bands), dtype=self.dtype, read=lambda part, out: self._decode(part, bands, out)
        )
        return tilecache.read_window(
            key,
            window,
            self.shape[1:],
            self.tile_yx,
            lambda part: self._decode(part, bands),
            into=into if self.mask_nodata is None else None,
        )

    def _decode(self, window: Window, bands: tuple[int, ...], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Pixels as they are, into ``out`` where it is given; masked ones in a new array."""
        pixels = np.empty((len(bands), *window.shape_yx), self.pixel_dtype) if out is None else out
        try:
            for band, of_band in zip(bands, pixels, strict=True):
                self._read_item(data_item(band, self.overview_level), window, of_band)
            valid = self._valid(window, bands) if any(band in self.mask_bands for band in bands) else None
        except RasterFormatError as error:
            raise RasterReadError(str(error)) from error
        if self.mask_nodata is None:
            return pixels
        return masked_pixels(pixels, valid, [self.mask_nodata[band - 1] for band in bands], self.dtype)

    def _read_item(self, item: str, window: Window, out: NDArray[Any]) -> None:
        table = chunk_table(self.path, self.token, item)
        if table is None:
            read_by_hdf5(self.path, item, window, out)
        else:
            table.read(window, out)

    def _valid(self, window: Window, bands: tuple[int, ...]) -> NDArray[np.uint8]:
        """255 where the bands' masks say valid, 0 where they say masked; at an overview the nearest pixel of the mask."""
        valid = np.full((len(bands), *window.shape_yx), 255, np.uint8)
        for band, out in zip(bands, valid, strict=True):
            if band not in self.mask_bands:
                continue
            if self.overview_level is None:
                self._read_item(band_item(band, "MASK"), window, out)
                continue
            rows = _nearest(window.row_off, window.row_stop, self.shape[1], self.full_yx[0])
            cols = _nearest(window.col_off, window.col_stop, self.shape[2], self.full_yx[1])
            for start, stop in windows_of_rows(rows, MASK_ROWS):
                part = Window(rows[start], cols[0], rows[stop - 1] + 1 - rows[start], cols[-1] + 1 - cols[0])
                mask = np.empty(part.shape_yx, np.uint8)
                self._read_item(band_item(band, "MASK"), part, mask)
                out[start:stop] = mask[np.ix_(rows[start:stop] - rows[start], cols - cols[0])]
        return valid


def _nearest(start: int, stop: int, size: int, full_size: int) -> NDArray[np.int64]:
    """Pixels at full resolution under the middles of an overview's pixels ``start`` to ``stop``."""
    return ((np.arange(start, stop) + 0.5) * full_size / size).astype(np.int64)


def data_item(band: int, overview_level: int | None) -> str:
    """Path of a band's pixels, or of those of an overview."""
    return band_item(band, "DATA" if overview_level is None else f"OVERVIEWS/OVERVIEW{overview_level + 1}")


def describe(
    path: str, *, bands: tuple[int, ...] | None, masked: bool, overview_level: int | None
) -> tuple[KeaSource, RasterMetadata, tuple[int, ...]]:
    """What a KEA file holds, without reading a pixel; parameters and result as of `daskraster.formats.gdal.describe`.

    The chunks of the bands wanted are listed here and checked, so that a file that was cut off is refused at once.

    Raises
    ------
    RasterNotFoundError, RasterFormatError, OptionError
        No such file; no KEA, damaged; bands or overview that it does not have, bands of different dtype or block size.
    """
    with open_kea(path) as kea:
        count = int(kea.numbers("HEADER/NUMBANDS", 1)[0])
        bands = tuple(range(1, count + 1)) if bands is None else bands
        if not bands or not all(1 <= band <= count for band in bands):
            kea.item = "HEADER/NUMBANDS"
            if not count:
                raise kea.error("there are no bands")
            raise OptionError(f"bands={bands}: {path} has bands 1 to {count}")
        full = _full_grid(kea)
        _check_bands(kea, bands, full.shape_yx)
        first = _level(kea, bands, overview_level)
        source = KeaSource(
            path=path,
            shape=(count, *first.shape),
            dtype=masked_dtype(first.dtype) if masked else first.dtype,
            pixel_dtype=first.dtype,
            tile_yx=tile_rows_cols(first),
            token=token_of(path, (path,)),
            overview_level=overview_level,
            mask_nodata=_all_nodata(kea, bands, count) if masked else None,
            mask_bands=tuple(band for band in bands if masked and _has_mask(kea, band, full.shape_yx)),
            hides_mask=not masked and any(kea.has(band_item(band, "MASK")) for band in bands),
            full_yx=full.shape_yx,
        )
        metadata = RasterMetadata(
            grid=_level_grid(full, source.shape[1:]),
            dtype=source.dtype,
            bands=[_band(kea, band) for band in bands],
            tags=without_derived(kea.texts("METADATA")),
            has_transform=full.transform not in NO_TRANSFORMS,
            gcps=_gcps(kea),
            gcp_wkt=_gcp_wkt(kea),
        )
    for band in bands:
        chunk_table(path, source.token, data_item(band, overview_level))
    return source, metadata, bands


def _full_grid(kea: KeaFile) -> Grid:
    cols, rows = (int(number) for number in kea.numbers("HEADER/SIZE", 2))
    if cols < 1 or rows < 1:
        raise kea.error(f"a raster of {cols} x {rows} pixels")
    left, top = map(float, kea.numbers("HEADER/TL", 2))
    x_rotation, y_rotation = map(float, kea.numbers("HEADER/ROT", 2))
    x_step, y_step = map(float, kea.numbers("HEADER/RES", 2))
    transform = Affine(x_step, x_rotation, left, y_rotation, y_step, top)
    if not np.all(np.isfinite(transform[:6])) or transform.is_degenerate:
        raise kea.error(f"HEADER/TL, RES and ROT make no transform: {transform[:6]}")
    return Grid(_crs(kea, "HEADER/WKT"), transform, (rows, cols))


def _crs(kea: KeaFile, item: str) -> pyproj.CRS | None:
    wkt = kea.text(item).strip()
    if not wkt:
        return None
    try:
        # Through GDAL, as for every other format: a KEA file and its GeoTIFF twin then have one CRS, not two spellings of it.
        with quiet_gdal():
            return crs_of(rasterio.CRS.from_wkt(wkt).to_wkt())
    except (CRSError, pyproj.exceptions.CRSError) as error:
        raise kea.error(f"no CRS can be made of {wkt[:60]!r}: {error}") from error


def _level_grid(full: Grid, shape_yx: Sequence[int]) -> Grid:
    rows, cols = shape_yx
    if (rows, cols) == full.shape_yx:
        return full
    # An overview's pixels are larger by the ratio of the sizes, which at odd sizes is not a whole number.
    scale = Affine.scale(full.shape_yx[1] / cols, full.shape_yx[0] / rows)
    return Grid(full.crs, full.transform @ scale, (rows, cols))


def _check_bands(kea: KeaFile, bands: Sequence[int], shape_yx: tuple[int, int]) -> None:
    """Every band is there, of one dtype and block size, as large as the header says."""
    datasets = {band: kea.dataset(band_item(band, "DATA")) for band in bands}
    for band, dataset in datasets.items():
        kea.item = band_item(band, "DATA")
        if dataset.shape != shape_yx:
            raise kea.error(f"its shape is {dataset.shape}, HEADER/SIZE says {shape_yx}")
        code = int(kea.numbers(band_item(band, "DATATYPE"), 1)[0])
        if not 1 <= code <= len(PIXEL_TYPES):
            raise kea.error(f"pixel type {code} is not known")
        if dataset.dtype.newbyteorder("<") != PIXEL_TYPES[code - 1]:
            raise kea.error(f"it says {PIXEL_TYPES[code - 1]}, the pixels are {dataset.dtype}")
    _check_alike(kea, "dtypes", datasets, lambda dataset: str(dataset.dtype))
    _check_alike(kea, "block sizes", datasets, lambda dataset: "{} x {}".format(*tile_rows_cols(dataset)))


def _check_alike(
    kea: KeaFile, what: str, datasets: dict[int, h5py.Dataset], describe_one: Callable[[h5py.Dataset], str]
) -> None:
    kinds: dict[str, list[int]] = {}
    for band, dataset in datasets.items():
        kinds.setdefault(describe_one(dataset), []).append(band)
    if len(kinds) > 1:
        listed = "; ".join(f"{kind}: bands {numbers}" for kind, numbers in kinds.items())
        raise RasterFormatError(
            f"{kea.path} has bands of different {what} ({listed}); choose bands of one kind with bands="
        )


def _level(kea: KeaFile, bands: Sequence[int], overview_level: int | None) -> h5py.Dataset:
    """The first band's pixels at a level, after a check that all bands have the same there."""
    if overview_level is None:
        return kea.dataset(data_item(bands[0], None))
    full = kea.dataset(data_item(bands[0], None))
    for band in bands:
        sizes = overview_sizes(kea, band)
        if not 0 <= overview_level < len(sizes):
            have = f"overviews 0 to {len(sizes) - 1}" if sizes else "no overviews"
            raise OptionError(f"overview_level={overview_level}: {kea.path} has {have} in band {band}")
    levels = [kea.dataset(data_item(band, overview_level)) for band in bands]
    for level in levels:
        if level.ndim != 2 or level.shape != levels[0].shape or 0 in level.shape or level.dtype != full.dtype:
            raise kea.error(
                f"its shape or dtype ({level.shape}, {level.dtype}) does not fit its band or the other bands"
            )
    return levels[0]


def overview_shapes(path: str, bands: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Rows and columns of the overviews of each band, in the order of their numbers.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        No such file; no KEA, damaged.
    """
    with open_kea(path) as kea:
        return [[(shape[0], shape[1]) for shape in overview_sizes(kea, band)] for band in bands]


def overview_sizes(kea: KeaFile, band: int) -> list[tuple[int, ...]]:
    """Shape of each overview of a band, in the order of their numbers."""
    group = band_item(band, "OVERVIEWS")
    names = set(kea.group(group)) if kea.has(group) else set()
    sizes: list[tuple[int, ...]] = []
    while f"OVERVIEW{len(sizes) + 1}" in names:
        sizes.append(kea.dataset(f"{group}/OVERVIEW{len(sizes) + 1}").shape)
    return sizes


def _has_mask(kea: KeaFile, band: int, shape_yx: tuple[int, int]) -> bool:
    item = band_item(band, "MASK")
    if not kea.has(item):
        return False
    mask = kea.dataset(item)
    if mask.shape != shape_yx or mask.dtype != np.uint8:
        raise kea.error(f"a mask of {mask.dtype} {mask.shape} for a raster of {shape_yx}")
    return True


def _all_nodata(kea: KeaFile, bands: Sequence[int], count: int) -> tuple[Number | None, ...]:
    return tuple(_nodata(kea, band) if band in bands else None for band in range(1, count + 1))


def _nodata(kea: KeaFile, band: int) -> Number | None:
    item = band_item(band, "NO_DATA_VAL")
    if not kea.has(item):
        return None
    value: Number = kea.numbers(item, 1)[0].item()
    # Files of version 1.0 have no such attribute: there the item alone says it.
    defined = kea.dataset(item).attrs.get("NO_DATA_DEFINED", 1)
    return value if int(np.asarray(defined).reshape(-1)[0]) else None


def _band(kea: KeaFile, band: int) -> BandMetadata:
    thematic = _code(kea, band_item(band, "LAYER_TYPE")) == 1
    usage = _code(kea, band_item(band, "LAYER_USAGE"))
    dtype = kea.dataset(band_item(band, "DATA")).dtype
    tags = {key: text for key, text in kea.texts(band_item(band, "METADATA")).items() if key not in VIRTUAL_ITEMS}
    scale, offset = _number_tag(tags, SCALE_ITEM, 1.0), _number_tag(tags, OFFSET_ITEM, 0.0)
    name = band_item(band, "DESCRIPTION")
    return BandMetadata(
        nodata=_nodata(kea, band),
        name=kea.text(name) or None if kea.has(name) else None,
        scale=scale,
        offset=offset,
        units=tags.pop(UNITS_ITEM, None),
        color=COLORS[usage] if 0 <= usage < len(COLORS) else None,
        colormap=read_colormap(kea, band) if dtype.kind == "u" and dtype.itemsize <= 2 else None,
        categories=read_names(kea, band) if dtype.kind in "iu" else None,
        thematic=thematic,
        tags=without_derived(tags),
    )


def _number_tag(tags: dict[str, str], name: str, otherwise: float) -> float:
    """Take a number from the tags; what other programs mean by the name ("1:10000") stays a tag."""
    try:
        number = float(tags.get(name, ""))
    except ValueError:
        return otherwise
    del tags[name]
    return number


def _code(kea: KeaFile, item: str) -> int:
    return int(kea.numbers(item, 1)[0]) if kea.has(item) else 0


def _gcps(kea: KeaFile) -> tuple[tuple[str, str, float, float, float, float, float], ...]:
    if not kea.has("GCPS/GCPS"):
        return ()
    dataset = kea.dataset("GCPS/GCPS")
    check_references(kea.raw, dataset)
    points = np.asarray(dataset[()])
    fields = [points[f"DF_{name}"].astype(float).tolist() for name in ("PIXEL", "LINE", "X", "Y", "Z")]
    ids, infos = ([decode(text) for text in points[f"PSZ_{name}"]] for name in ("ID", "INFO"))
    return tuple(zip(ids, infos, *fields, strict=True))


def _gcp_wkt(kea: KeaFile) -> str:
    crs = _crs(kea, "GCPS/PROJ") if kea.has("GCPS/PROJ") else None
    return "" if crs is None else str(crs.to_wkt())
