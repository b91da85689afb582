"""Versions of what reads, computes and writes pixels."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import sys

import rasterio

from daskraster.formats.hdf5 import h5py

PACKAGES = ("daskraster", "dask", "distributed", "xarray", "numpy", "rasterio", "h5py", "imagecodecs")


def library_versions() -> dict[str, str]:
    """Name -> version: Python, GDAL, those packages of `PACKAGES` that are installed, and HDF5 where this process has used it."""
    versions = {**_installed(), "Python": platform.python_version(), "GDAL": rasterio.__gdal_version__}
    if "h5py" in sys.modules:
        versions["HDF5"] = h5py.version.hdf5_version
    return versions


@functools.cache
def _installed() -> dict[str, str]:
    versions: dict[str, str] = {}
    for name in PACKAGES:
        # A package that is imported knows its own; looking for what is installed takes 0.3 ms for each.
        own = getattr(sys.modules.get(name), "__version__", None)
        try:
            versions[name] = importlib.metadata.version(name) if own is None else str(own)
        except importlib.metadata.PackageNotFoundError:  # run from its sources, not installed
            continue
    return versions
