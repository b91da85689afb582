"""Pixels onto another grid by GDAL's warper, window by window, equal to a warp of the whole.

Strategy. GDAL's warper gives other pixels for a part than for the whole, for four reasons; each is taken away here.

1. The part's own transform is rounded anew. So both grids stay whole: the part of the source that is at hand is put, without a copy, at its
   place in a virtual raster of the source's full size, and the window is read from a virtual warped raster of the target's full size.
2. Coordinates are interpolated along each row of the part (``ERROR_THRESHOLD``). So each pixel is transformed, as by ``gdalwarp -et 0``: 230 ns a
   pixel between UTM zones where interpolation to 0.125 pixels takes 8, which however gives 4 % of the pixels of a class image another class.
3. XSCALE and YSCALE, the width of the kernel where the target is coarser, are taken from the part. So they are computed once for the whole grid.
4. The window of the source is taken from samples along the part's edge. So it is widened by what the samples may have missed.

The virtual rasters are texts; they are opened and closed in the thread that reads, and nothing of GDAL outlives a read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.windows
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from daskraster.blocks.masking import holds
from daskraster.errors import RasterReadError
from daskraster.grid import Window
from daskraster.metadata import Number

# The warper's names of the kernels, by the names of gdalwarp -r, and how many source pixels each looks to either side.
KERNELS: dict[str, tuple[str, float]] = {
    "nearest": ("NearestNeighbour", 1),
    "bilinear": ("Bilinear", 1),
    "cubic": ("Cubic", 2),
    "cubic_spline": ("CubicSpline", 2),
    "lanczos": ("Lanczos", 3),
    "average": ("Average", 1),
    "mode": ("Mode", 1),
    "min": ("Minimum", 1),
    "max": ("Maximum", 1),
    "med": ("Median", 1),
    "q1": ("Quartile1", 1),
    "q3": ("Quartile3", 1),
    "sum": ("Sum", 1),
    "rms": ("RootMeanSquare", 1),
}
_GDAL_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64", "complex64": "CFloat32", "complex128": "CFloat64",
}  # fmt: skip
_WORK_MEMORY_NBYTES = 1 << 30  # the warper's limit; what a window needs is bounded by whoever asks for it
EXACT_INTEGER = 1 << 53  # doubles hold every integer up to here


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpPlan:
    """What is the same for every window: both grids, the kernel and its width."""

    source_wkt: str
    """CRS of the source."""
    source_transform: Affine
    source_shape_yx: tuple[int, int]
    target_wkt: str
    """CRS of the target."""
    target_transform: Affine
    target_shape_yx: tuple[int, int]
    kernel: str
    """One of `KERNELS`."""
    scale_yx: tuple[float, float]
    """Target pixels by source pixel along the source's axes: below 0.95 the kernel is widened."""
    area_of_interest: tuple[float, float, float, float] | None
    """West, south, east, north of the source in degrees: which of several operations between two CRS is the best one."""


def warps(dtype: np.dtype[Any]) -> bool:
    """Whether pixels of ``dtype`` can be warped."""
    return dtype.name in _GDAL_TYPES or dtype.name in ("int64", "uint64", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePart:
    """The pixels of the source that a window of the target is made of."""

    pixels: NDArray[Any]
    """``(band, y, x)``, of any real or complex dtype that GDAL has, 64-bit integers too."""
    placed: Window
    """Where they lie in the source."""
    nodata: tuple[Number | None, ...]
    """One for each band, NaN too; None: none. Such pixels take no part in any kernel, band by band, and stand where nothing comes from the
    source (0 where there is none)."""


def warp(part: SourcePart, wanted: Window, plan: WarpPlan, extra: int) -> NDArray[Any]:
    """A window of the target from the pixels of the source that it needs.

    Parameters
    ----------
    part
        What the window needs of the source.
    wanted
        The window of the target.
    plan
        Grids and kernel.
    extra
        Source pixels that the warper looks at beyond what it thinks it needs.

    Returns
    -------
    ``(band, y, x)`` of ``wanted``, in the dtype of its pixels.

    Raises
    ------
    RasterReadError
        A 64-bit integer beyond 2**53 would have to be interpolated; or GDAL fails.
    """
    pixels = part.pixels
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 8:
        return (_halves if plan.kernel == "nearest" else _doubles)(part, wanted, plan, extra)
    if pixels.dtype == np.float16:
        return warp(replace(part, pixels=pixels.astype(np.float32)), wanted, plan, extra).astype(np.float16)
    if (
        plan.kernel == "cubic"
        and pixels.dtype in (np.uint8, np.uint16)
        and len(pixels) > 1
        and set(part.nodata) == {None}
    ):
        # For several bands without nodata GDAL (3.12) has a cubic of its own, in floats, that gives a neighbouring value in a pixel of
        # 10,000 when the source's window is another one. In a signed type it takes the usual way, the one of a single band.
        wide = warp(replace(part, pixels=pixels.astype(np.int32)), wanted, plan, extra)
        return wide.clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
    return _warped(replace(part, pixels=np.ascontiguousarray(pixels)), wanted, plan, extra)


def _halves(part: SourcePart, wanted: Window, plan: WarpPlan, extra: int) -> NDArray[Any]:
    """64-bit integers picked exactly: GDAL would take them through doubles, so their halves travel as two bands, and a third says where."""
    pixels = part.pixels
    bands, rows, cols = pixels.shape
    parts = np.empty((2 * bands + 1, rows, cols), np.uint32)
    parts[:-1].reshape(bands, 2, rows, cols)[:] = np.moveaxis(
        np.ascontiguousarray(pixels).view(np.uint32).reshape(bands, rows, cols, 2), -1, 1
    )
    parts[-1] = 1
    picked = _warped(replace(part, pixels=parts, nodata=(None,) * len(parts)), wanted, plan, extra)
    pairs = np.moveaxis(picked[:-1].reshape(bands, 2, *wanted.shape_yx), 1, -1)
    result = np.ascontiguousarray(pairs).view(pixels.dtype)[..., 0]
    for band, value in enumerate(part.nodata):
        if value is not None and holds(pixels.dtype, value):
            result[band][picked[-1] == 0] = value
    return result


def _doubles(part: SourcePart, wanted: Window, plan: WarpPlan, extra: int) -> NDArray[Any]:
    """64-bit integers interpolated as doubles, nodata compared before; rounded and kept off the nodata value as GDAL does."""
    pixels = part.pixels
    values = pixels.astype(np.float64)
    usable = [value if value is not None and holds(pixels.dtype, value) else None for value in part.nodata]
    for band, value in enumerate(usable):
        if value is not None:
            values[band][pixels[band] == pixels.dtype.type(value)] = np.nan
    if values.size and np.nanmax(np.abs(values), initial=0) >= EXACT_INTEGER:
        raise RasterReadError(
            f"{pixels.dtype} pixels beyond 2**53 in {part.placed} of the source cannot be resampled by {plan.kernel!r}: doubles have not enough digits; use 'nearest'"
        )
    warped = _warped(replace(part, pixels=values, nodata=(float("nan"),) * len(values)), wanted, plan, extra)
    result = np.zeros(warped.shape, pixels.dtype)
    for band, value in enumerate(usable):
        valid = np.isfinite(warped[band])
        numbers = np.floor(warped[band][valid] + 0.5).clip(0 if pixels.dtype.kind == "u" else None, None)
        result[band][valid] = numbers.astype(pixels.dtype)
        if value is not None:
            limit = np.iinfo(pixels.dtype).max
            result[band][valid & (result[band] == value)] = value + 1 if value < limit else value - 1
            result[band][~valid] = value
    return result


def _warped(part: SourcePart, wanted: Window, plan: WarpPlan, extra: int) -> NDArray[Any]:
    text = _target_text(part, plan, extra)
    area = rasterio.windows.Window(wanted.col_off, wanted.row_off, wanted.width, wanted.height)
    try:
        with (
            # The source's pixels are handed over by their address.
            rasterio.Env(GDAL_MEM_ENABLE_OPEN=True, GDAL_VRT_WARP_USE_DATASET_RASTERIO=True),
            rasterio.open(text) as dataset,
        ):
            result: NDArray[Any] = dataset.read(window=area)
    except RasterioError as error:
        raise RasterReadError(f"cannot warp {wanted} by {plan.kernel!r}: {error}") from error
    return result


def _target_text(part: SourcePart, plan: WarpPlan, extra: int) -> str:
    """The virtual warped raster as GDAL writes it for ``gdalwarp -et 0 -of VRT``."""
    pixels, nodata = part.pixels, part.nodata
    rows, cols = plan.target_shape_yx
    kind = _GDAL_TYPES[pixels.dtype.name]
    working = kind if pixels.dtype.itemsize < 8 else ("CFloat64" if pixels.dtype.kind == "c" else "Float64")
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}" subClass="VRTWarpedRasterBand"/>'
        for band in range(1, len(pixels) + 1)
    )
    options = {
        # A value a band: with NO_DATA a band without one would become -1.1e20.
        "INIT_DEST": ",".join(repr(_fill(value, pixels.dtype)) for value in nodata),
        # As gdalwarp: nodata counts band by band, and where it stands in all bands nothing is made up from around it.
        "UNIFIED_SRC_NODATA": "PARTIAL",
        "XSCALE": repr(plan.scale_yx[1]),
        "YSCALE": repr(plan.scale_yx[0]),
        "SAMPLE_GRID": "YES",
        "SAMPLE_STEPS": "64",
        "SOURCE_EXTRA": str(extra),
        "NUM_THREADS": "1",
        "ERROR_OUT_IF_EMPTY_SOURCE_WINDOW": "FALSE",
    }
    settings = "".join(f'<Option name="{key}">{value}</Option>' for key, value in options.items())
    mappings = "".join(_band_text(band, value, pixels.dtype) for band, value in enumerate(nodata, 1))
    return (
        f'<VRTDataset rasterXSize="{cols}" rasterYSize="{rows}" subClass="VRTWarpedDataset">'
        f"<SRS>{escape(plan.target_wkt)}</SRS><GeoTransform>{_numbers(plan.target_transform)}</GeoTransform>{bands}"
        # Small blocks: a window larger than a block is warped in one go.
        "<BlockXSize>64</BlockXSize><BlockYSize>64</BlockYSize>"
        f"<GDALWarpOptions><WarpMemoryLimit>{_WORK_MEMORY_NBYTES}</WarpMemoryLimit>"
        f"<ResampleAlg>{KERNELS[plan.kernel][0]}</ResampleAlg><WorkingDataType>{working}</WorkingDataType>{settings}"
        f'<SourceDataset relativeToVRT="0">{escape(_source_text(pixels, part.placed, plan, kind))}</SourceDataset>'
        f"<Transformer>{_transformer_text(plan)}</Transformer><BandList>{mappings}</BandList></GDALWarpOptions></VRTDataset>"
    )


def _fill(nodata: Number | None, dtype: np.dtype[Any]) -> Number:
    """What stands where nothing comes from the source: nodata as the pixels hold it, or 0."""
    if nodata is None or not fits(nodata, dtype):
        return 0
    return nodata if dtype.kind not in "fc" else float(np.dtype(dtype.type(0).real.dtype).type(nodata))


def fits(nodata: Number, dtype: np.dtype[Any]) -> bool:
    """Whether pixels of ``dtype`` can be ``nodata``, NaN included."""
    return dtype.kind in "fc" or holds(dtype, nodata)


def _band_text(band: int, nodata: Number | None, dtype: np.dtype[Any]) -> str:
    values = ""
    if nodata is not None and fits(nodata, dtype):
        value = repr(_fill(nodata, dtype))
        values = f"<SrcNoDataReal>{value}</SrcNoDataReal><SrcNoDataImag>0</SrcNoDataImag>"
        values += f"<DstNoDataReal>{value}</DstNoDataReal><DstNoDataImag>0</DstNoDataImag>"
    return f'<BandMapping src="{band}" dst="{band}">{values}</BandMapping>'


def _source_text(pixels: NDArray[Any], placed: Window, plan: WarpPlan, kind: str) -> str:
    """The virtual raster of the source's size that has pixels only where ``placed``."""
    count, height, width = pixels.shape
    rows, cols = plan.source_shape_yx
    address = f"MEM:::DATAPOINTER={pixels.ctypes.data},PIXELS={width},LINES={height},BANDS={count},DATATYPE={kind}"
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0" shared="0">{address}</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="{kind}" BlockXSize="{width}" BlockYSize="1"/>'
        f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
        f'<DstRect xOff="{placed.col_off}" yOff="{placed.row_off}" xSize="{width}" ySize="{height}"/>'
        "</SimpleSource></VRTRasterBand>"
        for band in range(1, count + 1)
    )
    return f'<VRTDataset rasterXSize="{cols}" rasterYSize="{rows}">{bands}</VRTDataset>'


def _transformer_text(plan: WarpPlan) -> str:
    projection = ""
    if plan.source_wkt != plan.target_wkt:
        area = ""
        if plan.area_of_interest is not None:
            area = ",".join(f"{value:.16g}" for value in plan.area_of_interest)
            area = f'<Options><Option key="AREA_OF_INTEREST">{area}</Option></Options>'
        projection = (
            "<ReprojectTransformer><ReprojectionTransformer>"
            f"<SourceSRS>{escape(plan.source_wkt)}</SourceSRS><TargetSRS>{escape(plan.target_wkt)}</TargetSRS>{area}"
            "</ReprojectionTransformer></ReprojectTransformer>"
        )
    return (
        f"<GenImgProjTransformer><SrcGeoTransform>{_numbers(plan.source_transform)}</SrcGeoTransform>"
        f"<DstGeoTransform>{_numbers(plan.target_transform)}</DstGeoTransform>{projection}</GenImgProjTransformer>"
    )


def _numbers(transform: Affine) -> str:
    """A transform in GDAL's order, to the last bit."""
    return ",".join(repr(float(value)) for value in transform.to_gdal())
