"""Your own function over rasters larger than memory: lazily, with a halo, in one pass, into one file.

::

    import daskraster as dr

    image = dr.open_raster("in.tif")                 # lazy DataArray (band, y, x); nothing read yet
    result = dr.apply(smooth, image, overlap=5)      # lazy; smooth(block) sees its halo, the halo is trimmed
    report = dr.write_raster(result, "out.tif")      # streams: read, compute, encode, write; one task a block

The house has six floors; a module imports only from floors below its own::

    6  accessor  backend                                 the doors: each line calls one public function
    5  running/    writing  outputs  pyramid  gathering             arrays into files
                   engines  delaying  finishing  progress  report
                   clusters  wishes  sizing  batch  queues  watching
                   owning  limits  sharing
    4  lazy/       opening  neighbourhood  functions  arrays        xarray and dask; computes and writes nothing
                   georeference  sources
    3  formats/    protocols  choosing  tiles  tilecache            one module a format; rasterio and h5py
                   gdal  gdal_handles  geotiff  tiff
                   kea_source  kea_sink  kea_layout  kea_chunks  kea_index  kea_heap
                   kea_tables  kea_columns  kea_statistics  kea_texts
    2  blocks/     codecs  tiling  conversion  masking  scratch     NumPy only: what is done to one block
                   shuffle  statistics  bins  results  overviews
    1  errors  grid  metadata  options  files  gaps  positioned  posting  timing               ground
"""

from daskraster import accessor as _accessor  # noqa: F401 - registers .dr
from daskraster.errors import (
    BlockResultError,
    ClusterError,
    DaskRasterError,
    DaskRasterWarning,
    GridMismatchError,
    OptionError,
    RasterArrayError,
    RasterFormatError,
    RasterNotFoundError,
    RasterReadError,
    RasterWriteError,
)
from daskraster.formats.kea_tables import read_attribute_table, write_attribute_table
from daskraster.grid import Grid, Window
from daskraster.lazy.functions import Block
from daskraster.lazy.neighbourhood import apply
from daskraster.lazy.opening import open_raster
from daskraster.options import INHERIT
from daskraster.running.clusters import cluster
from daskraster.running.report import WriteReport
from daskraster.running.writing import write_raster, write_rasters

__all__ = [
    "INHERIT",
    "Block",
    "BlockResultError",
    "ClusterError",
    "DaskRasterError",
    "DaskRasterWarning",
    "Grid",
    "GridMismatchError",
    "OptionError",
    "RasterArrayError",
    "RasterFormatError",
    "RasterNotFoundError",
    "RasterReadError",
    "RasterWriteError",
    "Window",
    "WriteReport",
    "apply",
    "cluster",
    "open_raster",
    "read_attribute_table",
    "write_attribute_table",
    "write_raster",
    "write_rasters",
]
