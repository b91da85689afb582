"""What a user writes, with the types that an editor and a type checker should see; `test_typing.py` has mypy read it. It never runs."""

from pathlib import Path
from typing import assert_type

import distributed
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from dask.delayed import Delayed

import daskraster as dr


def smooth(block: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    return block


def placed(block: npt.NDArray[np.uint16], where: dr.Block) -> npt.NDArray[np.uint16]:
    assert_type(where.window, dr.Window)
    return block + np.uint16(where.index[0])


def split(block: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    return block, block > 1


image = assert_type(dr.open_raster("in.tif", chunks=512, bands=["red", "nir"]), xr.DataArray)
result = assert_type(dr.apply(smooth, image, overlap=2), xr.DataArray)
report = assert_type(dr.write_raster(result, "out.tif", compress="zstd", nodata=None), dr.WriteReport)
assert_type(report.path, Path)
assert_type(report.seconds, float)
assert_type(report.statistics[0].mean, float | None)
assert_type(report.to_json(), str)

assert_type(dr.apply(placed, image, with_block=True, boundary="reflect"), xr.DataArray)
several = assert_type(dr.apply(split, image, outputs=2), tuple[xr.DataArray, ...])
values, mask = several
assert_type(dr.write_rasters({"values.tif": values, "mask.tif": mask}), list[dr.WriteReport])
assert_type(dr.write_rasters({Path("values.tif"): values}), list[dr.WriteReport])
assert_type(dr.write_raster(result, Path("out.kea"), compute=False), Delayed)
assert_type(dr.calc("(b2-b1)/(b2+b1)", image, dtype="float32"), xr.DataArray)
assert_type(dr.mosaic([Path("a.tif"), Path("b.tif")], method="mean"), xr.DataArray)
assert_type(dr.align(image, image), tuple[xr.DataArray, ...])
assert_type(dr.align(image, like="grid.tif"), xr.DataArray)
assert_type(dr.process(smooth, "in.tif", "out.tif", overlap=2, compress="lzw"), dr.WriteReport)
assert_type(dr.process(split, "in.tif", ["a.tif", "b.tif"]), list[dr.WriteReport])
assert_type(dr.process(split, {"scene": "in.tif"}, {"a": "a.tif"}), dict[str, dr.WriteReport])
assert_type(dr.process_files(str, "in.tif", "out.tif", overlap=5), dr.WriteReport)
plan = assert_type(dr.explain(result, "out.tif"), dr.Plan)
assert_type(plan.fits, bool)
assert_type(dr.check_overlap(smooth, image, overlap=2).suggested, int | None)
assert_type(dr.info("in.tif"), dr.RasterInfo)
assert_type(dr.label(image), xr.DataArray)
assert_type(dr.predict("model.joblib", image), xr.DataArray)
assert_type(dr.zonal_statistics(image, image), pd.DataFrame)
assert_type(dr.read_attribute_table("in.kea"), pd.DataFrame)
assert_type(dr.tile_windows(image, 100, 100, overlap=2), list[dr.Window])
assert_type(dr.example_scene("in.tif", 512), Path)
assert_type(dr.cluster("local", n_workers=2), distributed.Client)

dr.write_raster(result, "out.tif", compres="zstd")  # type: ignore[call-overload]
dr.apply(smooth, image, overlp=2)  # type: ignore[call-overload]
dr.open_rastr("in.tif")  # type: ignore[attr-defined]
