"""Your own function over rasters larger than memory: lazily, with a halo, in one pass, into one file.

::

    import daskraster as dr

    image = dr.open_raster("in.tif")                 # lazy DataArray (band, y, x); nothing read yet
    result = dr.apply(smooth, image, overlap=5)      # lazy; smooth(block) sees its halo, the halo is trimmed
    report = dr.write_raster(result, "out.tif")      # streams: read, compute, encode, write; one task a block

The house has six floors; a module imports only from floors below its own::

    6  accessor  backend                                 the doors: each line calls one public function
    5  running/    writing  outputs  pyramid  gathering             arrays into files
                   engines  waves  workers  memory  plan  planning  checking  delaying  finishing  progress  report
                   processing  filefunctions  isolation  isolated  zonal
    4  lazy/       opening  neighbourhood  functions  arrays        xarray and dask; computes and writes nothing
                   georeference  sources  anatomy  calculating  expression_sources
                   mosaicking  agreement  headers
                   labelling  predicting  models  sharing
    3  formats/    protocols  choosing  tiles  tilecache            one module a format; rasterio and h5py
                   gdal  gdal_handles  mosaic  geotiff  geotiff_directories  geotiff_checks  tiff
                   cog_order  sidecars  attribute_tables
                   kea_source  kea_sink  kea_layout  kea_chunks  kea_index  kea_heap
                   kea_tables  kea_columns  kea_statistics  kea_texts
                   tilefiles  polygons
    2  blocks/     codecs  tiling  conversion  masking  scratch     NumPy only: what is done to one block
                   shuffle  statistics  bins  results  overviews  validity
                   labelling  zones  rows
                   expressions  parsing  folding  ranges  lowering  wholes  evaluation
                   merging  averaging
    1  errors  grid  metadata  labels  options  files  gaps  positioned  timing  showing        ground
"""

from daskraster import accessor as _accessor  # noqa: F401 - registers .dr
from daskraster.errors import (
    BlockResultError,
    DaskRasterError,
    DaskRasterWarning,
    ExpressionError,
    GridMismatchError,
    OptionError,
    RasterArrayError,
    RasterFormatError,
    RasterMemoryError,
    RasterNotFoundError,
    RasterReadError,
    RasterWriteError,
)
from daskraster.formats.attribute_tables import read_attribute_table
from daskraster.formats.kea_tables import write_attribute_table
from daskraster.grid import Grid, Window
from daskraster.lazy.calculating import calc
from daskraster.lazy.functions import Block
from daskraster.lazy.labelling import label
from daskraster.lazy.mosaicking import mosaic
from daskraster.lazy.neighbourhood import apply
from daskraster.lazy.opening import open_raster, tile_windows
from daskraster.lazy.predicting import predict
from daskraster.options import INHERIT
from daskraster.running.checking import OverlapCheck, check_overlap
from daskraster.running.filefunctions import process_files
from daskraster.running.plan import Plan
from daskraster.running.planning import explain
from daskraster.running.processing import process
from daskraster.running.report import WriteReport
from daskraster.running.writing import write_raster, write_rasters
from daskraster.running.zonal import zonal_statistics

__all__ = [
    "INHERIT",
    "Block",
    "BlockResultError",
    "DaskRasterError",
    "DaskRasterWarning",
    "ExpressionError",
    "Grid",
    "GridMismatchError",
    "OptionError",
    "OverlapCheck",
    "Plan",
    "RasterArrayError",
    "RasterFormatError",
    "RasterMemoryError",
    "RasterNotFoundError",
    "RasterReadError",
    "RasterWriteError",
    "Window",
    "WriteReport",
    "apply",
    "calc",
    "check_overlap",
    "explain",
    "label",
    "mosaic",
    "open_raster",
    "predict",
    "process",
    "process_files",
    "read_attribute_table",
    "tile_windows",
    "write_attribute_table",
    "write_raster",
    "write_rasters",
    "zonal_statistics",
]
