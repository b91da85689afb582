"""daskraster."""
from daskraster.lazy.neighbourhood import Block, apply
from daskraster.lazy.opening import open_raster
from daskraster.running.writing import write_raster, write_rasters
