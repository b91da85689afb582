"""Your own function over rasters larger than memory: lazily, with a halo, in one pass, into one file.

::

    import daskraster as dr

    image = dr.open_raster("in.tif")                 # lazy DataArray (band, y, x); nothing read yet
    result = dr.apply(smooth, image, overlap=5)      # lazy; smooth(block) sees its halo, the halo is trimmed
    report = dr.write_raster(result, "out.tif")      # streams: read, compute, encode, write; one task a block

The house has six floors; a module imports only from floors below its own. README has one line for each module::

    6  doors       accessor, backend, cli      .dr, xarray's engine "kea", the command: each line calls one public function
    5  running/    arrays into files           write_raster, process, explain, check_overlap, cluster; resume, progress, report
    4  lazy/       xarray and dask             open_raster, apply, calc, mosaic, align, label, predict; computes and writes nothing
    3  formats/    one module a format         rasterio and h5py: GeoTIFF, COG, KEA; what serves windows, what takes blocks
    2  blocks/     NumPy only                  what is done to one block: codecs, statistics, overviews, expressions, merging
    1  ground      errors, grid, options ...   values that all floors share; files that appear whole or not at all
"""

from daskraster import accessor as _accessor  # noqa: F401 - registers .dr
from daskraster.errors import (
    BlockResultError,
    ClusterError,
    DaskRasterError,
    DaskRasterWarning,
    ExpressionError,
    FunctionPicklingError,
    GridMismatchError,
    OptionError,
    RasterArrayError,
    RasterFormatError,
    RasterMemoryError,
    RasterNotFoundError,
    RasterReadError,
    RasterWriteError,
    WorkerError,
)
from daskraster.formats.attribute_tables import read_attribute_table
from daskraster.formats.kea_tables import write_attribute_table
from daskraster.grid import Grid, Window
from daskraster.lazy.aligning import align
from daskraster.lazy.calculating import calc
from daskraster.lazy.functions import Block
from daskraster.lazy.labelling import label
from daskraster.lazy.mosaicking import mosaic
from daskraster.lazy.neighbourhood import apply
from daskraster.lazy.opening import open_raster, tile_windows
from daskraster.lazy.predicting import predict
from daskraster.options import INHERIT
from daskraster.running.checking import OverlapCheck, check_overlap
from daskraster.running.clusters import cluster
from daskraster.running.examples import example_scene
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
    "ClusterError",
    "DaskRasterError",
    "DaskRasterWarning",
    "ExpressionError",
    "FunctionPicklingError",
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
    "WorkerError",
    "WriteReport",
    "align",
    "apply",
    "calc",
    "check_overlap",
    "cluster",
    "example_scene",
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
