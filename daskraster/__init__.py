"""Your own function over rasters larger than memory: lazily, with a halo, in one pass, into one file.

::

    import daskraster as dr

    image = dr.open_raster("in.tif")                 # lazy DataArray (band, y, x); nothing read yet
    result = dr.apply(smooth, image, overlap=5)      # lazy; smooth(block) sees its halo, the halo is trimmed
    report = dr.write_raster(result, "out.tif")      # streams: read, compute, encode, write; one task a block

The package has seven floors; a module imports only from floors below its own. README names every module::

    7  doors       accessor, backend, cli/     .dr, xarray's engine "kea", the command: each line calls one public function
    6  running/    arrays into files           write_raster, process, explain, check_overlap, cluster; resume, progress, report
    5  pictures/   what is looked at           quick looks, the plan's page, seams, the timeline; knows matplotlib if it is there
    4  lazy/       xarray and dask             open_raster, apply, calc, mosaic, align, label, predict; computes and writes nothing
    3  formats/    one module a format         rasterio and h5py: GeoTIFF, COG, KEA; what serves windows, what takes blocks
    2  blocks/     NumPy only                  what is done to one block: codecs, statistics, overviews, expressions, merging
    1  ground      errors, grid, options ...   values that all floors share; files that appear whole or not at all
"""

import sys as _sys
from importlib import import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

# xarray takes a second, and registering .dr needs it. The command answers --help, a wrong option and the Tab key before: there .dr comes with the
# first name that is asked for. Only the process that the shell started is the command, not the workers that it starts.
if [_Path(word).stem for word in _sys.orig_argv[1:2]] != ["daskraster"]:
    from daskraster import accessor as _accessor  # noqa: F401

if TYPE_CHECKING:
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
    from daskraster.formats.inspecting import RasterInfo, info
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
    from daskraster.pictures.plotting import plot
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
    "RasterInfo",
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
    "info",
    "label",
    "mosaic",
    "open_raster",
    "plot",
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

# Where each name lives. A module is imported when one of its names is first asked for: all of them, with h5py, would take a tenth of
# what xarray and dask take, and few scripts need more than half.
_HOMES = {
    "INHERIT": "options",
    "Block": "lazy.functions",
    "BlockResultError": "errors",
    "ClusterError": "errors",
    "DaskRasterError": "errors",
    "DaskRasterWarning": "errors",
    "ExpressionError": "errors",
    "FunctionPicklingError": "errors",
    "Grid": "grid",
    "GridMismatchError": "errors",
    "OptionError": "errors",
    "OverlapCheck": "running.checking",
    "Plan": "running.plan",
    "RasterArrayError": "errors",
    "RasterFormatError": "errors",
    "RasterInfo": "formats.inspecting",
    "RasterMemoryError": "errors",
    "RasterNotFoundError": "errors",
    "RasterReadError": "errors",
    "RasterWriteError": "errors",
    "Window": "grid",
    "WorkerError": "errors",
    "WriteReport": "running.report",
    "align": "lazy.aligning",
    "apply": "lazy.neighbourhood",
    "calc": "lazy.calculating",
    "check_overlap": "running.checking",
    "cluster": "running.clusters",
    "example_scene": "running.examples",
    "explain": "running.planning",
    "info": "formats.inspecting",
    "label": "lazy.labelling",
    "mosaic": "lazy.mosaicking",
    "open_raster": "lazy.opening",
    "plot": "pictures.plotting",
    "predict": "lazy.predicting",
    "process": "running.processing",
    "process_files": "running.filefunctions",
    "read_attribute_table": "formats.attribute_tables",
    "tile_windows": "lazy.opening",
    "write_attribute_table": "formats.kea_tables",
    "write_raster": "running.writing",
    "write_rasters": "running.writing",
    "zonal_statistics": "running.zonal",
}


if not TYPE_CHECKING:  # which takes a module with __getattr__ for one that has every name, misspelt ones too

    def __getattr__(name: str) -> Any:
        """Import what a public name stands for (PEP 562); from then on it is found without coming here."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import_module(f"{__name__}.accessor")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
