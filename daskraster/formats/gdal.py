"""Any raster that GDAL reads, as a Source.

Which driver reads the pixels: LIBERTIFF decodes a TIFF on two threads at 780 MB/s where the GTiff driver reaches 540, because it
takes no lock; but it is read-only, must be asked for by name, and knows no sidecar files. So the usual driver describes the file, and
LIBERTIFF serves its pixels where it opens the file and the codec is one whose result has no second interpretation.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from daskraster.blocks.masking import masked, masked_dtype
from daskraster.errors import OptionError, RasterFormatError, RasterReadError
from daskraster.formats import tilecache
from daskraster.formats.gdal_handles import check_unchanged, handles, is_local, open_dataset, token_of
from daskraster.formats.sidecars import read_categories, vrt_of
from daskraster.grid import Grid, Window, crs_of
from daskraster.metadata import BandMetadata, Number, RasterMetadata, without_derived

# What LIBERTIFF decodes to the very bytes the GTiff driver gives. JPEG and WebP go through colour conversions; left to GTiff.
LIBERTIFF_CODECS = {None, "DEFLATE", "LZW", "ZSTD", "LERC", "LERC_DEFLATE", "LERC_ZSTD", "PACKBITS", "LZMA"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GdalSource:
    """A raster file's pixels; see `daskraster.formats.protocols.Source`."""

    path: str
    """As rasterio takes it: a path, a URL, ``zip://``."""
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    tile_yx: tuple[int, int]
    token: str
    """Changes with the files; of a remote file, whose facts are not at hand, it is new with each opening."""
    files: tuple[str, ...]
    """The local files the pixels come from, checked for changes whenever a handle is opened; none for a remote file."""
    driver: str
    """The GDAL driver that reads the pixels."""
    overview_level: int | None = None
    """0 for the first overview; None for the full resolution."""
    mask_nodata: tuple[Number | None, ...] | None = None
    """With a value for each band, masked pixels are read as NaN; None reads pixels as they are."""
    mask_band: bool = False
    """Whether the file has a mask of its own (alpha, internal mask) that counts when masked."""
    hides_mask: bool = False
    """Whether it has one that the pixels do not show, since they are not masked."""

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
        check_unchanged(self.path, self.files, self.token)
        key = f"{self.token} {self.path} {self.overview_level} {bands} {self.mask_nodata} {self.mask_band}"
        # What has to be masked is converted to a new array anyway.
        into = tilecache.ReadInto(
            bands=len(bands), dtype=self.dtype, read=lambda part, out: self._decode(part, bands, out)
        )
        return tilecache.read_window(
            key, window, self.shape[1:], self.tile_yx, lambda part: self._decode(part, bands),
            into=into if self.mask_nodata is None else None,
        )  # fmt: skip

    def _decode(self, window: Window, bands: tuple[int, ...], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Pixels as GDAL gives them, into ``out`` where it is given; masked ones in a new array."""
        area = rasterio.windows.Window(window.col_off, window.row_off, window.width, window.height)
        try:
            with handles.borrow(
                self.path, driver=self.driver, overview_level=self.overview_level, token=self.token
            ) as dataset:
                pixels: NDArray[Any] = dataset.read(list(bands), window=area, out=out)
                valid = dataset.read_masks(list(bands), window=area) if self.mask_band else None
        except RasterioError as error:
            raise RasterReadError(f"cannot read {self.path} in {window}: {error}") from error
        if self.mask_nodata is None:
            return pixels
        return masked(pixels, valid, [self.mask_nodata[band - 1] for band in bands], self.dtype)


def describe(
    path: str, *, bands: tuple[int, ...] | None, masked: bool, overview_level: int | None
) -> tuple[GdalSource, RasterMetadata, tuple[int, ...]]:
    """What a file holds, without reading a pixel.

    Parameters
    ----------
    path
        As rasterio takes it.
    bands
        Numbers from 1 of the bands wanted; None: all.
    masked
        Whether the pixels are to come as floats with NaN for nodata.
    overview_level
        0 for the first overview, None for the full resolution.

    Returns
    -------
    The source (of all bands), the metadata of the bands wanted, and their numbers.

    Raises
    ------
    RasterNotFoundError, RasterFormatError, OptionError
        No such file; no raster; bands or overview that it does not have, bands of different dtype.
    """
    with open_dataset(path) as dataset:
        if not dataset.count:
            listed = "\n  ".join(dataset.subdatasets) or "none"
            raise RasterFormatError(f"{path} has no bands of its own; open one of its subdatasets:\n  {listed}")
        bands = _check_bands(path, dataset, bands)
        grid_dataset = dataset if overview_level is None else _overview(path, dataset, bands, overview_level)
        try:
            nodata = _nodata_values(dataset)
            categories = read_categories(dataset)
            source = _source(path, dataset, grid_dataset, bands, masked=masked, overview_level=overview_level)
            metadata = RasterMetadata(
                grid=_grid(dataset, grid_dataset.shape),
                dtype=source.dtype,
                bands=[_band(dataset, band, nodata[band - 1], categories.get(band)) for band in bands],
                tags=without_derived(dataset.tags()),
                has_transform=not dataset.transform.is_identity,
                gcps=_gcps(dataset, grid_dataset.shape),
                gcp_wkt=_wkt(dataset.gcps[1]),
            )
        finally:
            if grid_dataset is not dataset:
                grid_dataset.close()
    return source, metadata, bands


def overview_shapes(path: str, bands: tuple[int, ...]) -> list[list[tuple[int, int]]]:
    """Rows and columns of the overviews of each band, in the order of their numbers, as GDAL rounds them.

    Raises
    ------
    RasterNotFoundError, RasterFormatError
        No such file; no raster.
    """
    with open_dataset(path) as dataset:
        rows, cols = dataset.shape
        return [[(-(-rows // factor), -(-cols // factor)) for factor in dataset.overviews(band)] for band in bands]


def _check_bands(path: str, dataset: Any, bands: tuple[int, ...] | None) -> tuple[int, ...]:
    bands = tuple(range(1, dataset.count + 1)) if bands is None else bands
    wrong = [band for band in bands if not 1 <= band <= dataset.count]
    if wrong or not bands:
        raise OptionError(f"bands={bands}: {path} has bands 1 to {dataset.count}")
    kinds: dict[str, list[int]] = {}
    for band in bands:
        kinds.setdefault(dataset.dtypes[band - 1], []).append(band)
    if len(kinds) > 1:
        listed = "; ".join(f"{kind}: bands {numbers}" for kind, numbers in kinds.items())
        raise RasterFormatError(
            f"{path} has bands of different dtypes ({listed}); choose bands of one dtype with bands="
        )
    return bands


def _overview(path: str, dataset: Any, bands: tuple[int, ...], level: int) -> Any:
    factors = dataset.overviews(bands[0])
    if not 0 <= level < len(factors):
        have = f"overviews 0 to {len(factors) - 1} (factors {factors})" if factors else "no overviews"
        raise OptionError(f"overview_level={level}: {path} has {have}")
    return open_dataset(path, overview_level=level)


def _source(
    path: str, dataset: Any, grid_dataset: Any, bands: tuple[int, ...], *, masked: bool, overview_level: int | None
) -> GdalSource:
    dtype = np.dtype(dataset.dtypes[bands[0] - 1])
    tile_yx = grid_dataset.block_shapes[bands[0] - 1]
    mask_nodata: tuple[Number | None, ...] | None = None
    flags = [dataset.mask_flag_enums[band - 1] for band in bands]
    has_mask = any(MaskFlags.nodata not in flag and MaskFlags.all_valid not in flag for flag in flags)
    mask_band = masked and has_mask
    if masked:
        mask_nodata = _nodata_values(dataset)
        dtype = masked_dtype(dtype)
    files = _pixel_files(dataset)
    fast = not mask_band and _libertiff_reads(path, dataset, grid_dataset, overview_level)
    return GdalSource(
        path=path,
        shape=(dataset.count, *grid_dataset.shape),
        dtype=dtype,
        tile_yx=(int(tile_yx[0]), int(tile_yx[1])),
        token=token_of(path, files) if files else uuid.uuid4().hex,
        files=files,
        driver="LIBERTIFF" if fast else dataset.driver,
        overview_level=overview_level,
        mask_nodata=mask_nodata,
        mask_band=mask_band,
        hides_mask=has_mask and not masked,
    )


def _libertiff_reads(path: str, dataset: Any, grid_dataset: Any, overview_level: int | None) -> bool:
    """Whether LIBERTIFF opens the file as the very raster that the GTiff driver sees."""
    if (
        dataset.driver != "GTiff"
        or not is_local(path)
        or dataset.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION") not in LIBERTIFF_CODECS
    ):
        return False
    if dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"):
        return False
    rows, cols = dataset.block_shapes[0]
    if "COMPRESSION" not in dataset.tags(ns="IMAGE_STRUCTURE") and cols == dataset.width and dataset.height % rows:
        # GDAL stores a last strip of zeros with all the rows of a whole one, which LIBERTIFF refuses ("Strile size != expected size").
        return False
    try:
        with open_dataset(path, driver="LIBERTIFF", overview_level=overview_level) as other:
            return (other.count, other.shape, other.dtypes, other.block_shapes) == (
                grid_dataset.count, grid_dataset.shape, grid_dataset.dtypes, grid_dataset.block_shapes,
            )  # fmt: skip
    except RasterFormatError:
        return False


def _grid(dataset: Any, shape_yx: tuple[int, int]) -> Grid:
    crs = crs_of(dataset.crs.to_wkt()) if dataset.crs else None
    rows, cols = shape_yx
    # An overview's pixels are larger by the ratio of the sizes, which at odd sizes is not a whole number.
    scale = rasterio.Affine.scale(dataset.width / cols, dataset.height / rows)
    transform = dataset.transform if shape_yx == dataset.shape else dataset.transform @ scale
    return Grid(crs, transform, (int(rows), int(cols)))


def _band(dataset: Any, band: int, nodata: Number | None, categories: dict[int, str] | None) -> BandMetadata:
    color = dataset.colorinterp[band - 1].name
    colormap = None
    if color == "palette":
        colormap = {value: tuple(entry) for value, entry in dataset.colormap(band).items()}
    tags = without_derived(dataset.tags(band))
    return BandMetadata(
        nodata=nodata,
        name=dataset.descriptions[band - 1],
        scale=dataset.scales[band - 1],
        offset=dataset.offsets[band - 1],
        units=dataset.units[band - 1] or None,
        color=None if color == "undefined" else color,
        colormap=colormap,
        categories=categories,
        thematic=tags.get("LAYER_TYPE") == "thematic",
        tags=tags,
    )


def _nodata_values(dataset: Any) -> tuple[Number | None, ...]:
    """Each band's nodata, exact: rasterio gives a double (or nothing), which has not enough digits for 64-bit integers."""
    exact = _exact_nodata(dataset) if any(kind in ("int64", "uint64") for kind in dataset.dtypes) else {}
    values: list[Number | None] = []
    for band, kind, nodata in zip(dataset.indexes, dataset.dtypes, dataset.nodatavals, strict=True):
        if kind in ("int64", "uint64"):
            values.append(exact.get(band))
        elif nodata is not None and not kind.startswith("float") and nodata == int(nodata):
            values.append(int(nodata))
        else:
            values.append(nodata)
    return tuple(values)


def _exact_nodata(dataset: Any) -> dict[int, int]:
    """Nodata of 64-bit integer bands, from the text in which GDAL's VRT tells it."""
    root = vrt_of(dataset)
    texts = {int(band.get("band", 0)): band.findtext("NoDataValue") for band in root.iter("VRTRasterBand")}
    return {band: int(text) for band, text in texts.items() if text is not None}


def _gcps(dataset: Any, shape_yx: tuple[int, int]) -> tuple[tuple[str, str, float, float, float, float, float], ...]:
    """Ground control points, in pixels of the raster or of its overview."""
    points, _ = dataset.gcps
    down, right = shape_yx[0] / dataset.height, shape_yx[1] / dataset.width
    return tuple((p.id or "", p.info or "", p.col * right, p.row * down, p.x, p.y, p.z or 0.0) for p in points)


def _wkt(crs: Any) -> str:
    return crs.to_wkt() if crs else ""


def _pixel_files(dataset: Any) -> tuple[str, ...]:
    """The local files that the pixels come from, sorted; GIS programs may write ``.aux.xml`` beside them at any time."""
    return tuple(
        sorted(
            name for name in dataset.files if is_local(name) and not name.endswith(".aux.xml") and Path(name).exists()
        )
    )
