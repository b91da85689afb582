"""File formats, one module each; the only floor that imports rasterio and h5py."""
