"""What is done to one block in memory. NumPy only: no dask, xarray, rasterio or h5py."""
