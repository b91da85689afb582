"""xarray and dask: builds lazy arrays from sources; computes and writes nothing."""
