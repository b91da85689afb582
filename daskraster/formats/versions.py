"""Versions of what reads, computes and writes pixels."""

from __future__ import annotations

import importlib.metadata
import platform

import h5py
import rasterio

PACKAGES = ("daskraster", "dask", "distributed", "xarray", "numpy", "rasterio", "h5py", "imagecodecs")


def library_versions() -> dict[str, str]:
    """Name -> version: Python, GDAL, HDF5, and those packages of `PACKAGES` that are installed."""
    versions = {
        "Python": platform.python_version(),
        "GDAL": rasterio.__gdal_version__,
        "HDF5": h5py.version.hdf5_version,
    }
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from its sources, not installed
            continue
    return versions
