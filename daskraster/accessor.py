"""``array.dr``: the public functions as methods of a DataArray, one line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import rioxarray  # noqa: F401 - registers .rio, which every raster here has
import xarray as xr

import daskraster as dr  # its names are imported when a method first asks for them

if TYPE_CHECKING:
    from dask.delayed import Delayed

    from daskraster.grid import Window
    from daskraster.options import WriteKeywords
    from daskraster.running.plan import Plan
    from daskraster.running.report import WriteReport


@xr.register_dataarray_accessor("dr")
class DaskRasterAccessor:
    """daskraster's functions with this array as their first raster."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def align(self, *others: xr.DataArray, **arguments: Any) -> Any:
        """`daskraster.align` of this array and others."""
        return dr.align(self._array, *others, **arguments)

    def apply(self, func: Callable[..., Any], *others: xr.DataArray, **arguments: Any) -> Any:
        """`daskraster.apply` of ``func`` to this array and others."""
        return dr.apply(func, self._array, *others, **arguments)

    def calc(self, expression: str, *others: xr.DataArray, **arguments: Any) -> xr.DataArray:
        """`daskraster.calc` of ``expression`` on the bands of this array, b1 and up, and others."""
        return dr.calc(expression, self._array, *others, **arguments)

    def explain(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        function_memory: int | None = None,
        **options: Unpack[WriteKeywords],
    ) -> Plan:
        """`daskraster.explain` of writing this array."""
        return dr.explain(self._array, path, function_memory=function_memory, **options)

    def plot(
        self,
        bands: int | Sequence[int] | None = None,
        percent: tuple[float, float] | None = (2, 98),
        *,
        size: int = 1000,
        ax: Any | None = None,
        cmap: Any | None = None,
        legend: bool = True,
    ) -> Any:
        """`daskraster.plot` of this array: a quick look, from overviews where the file has them; matplotlib Axes."""
        return dr.plot(self._array, bands=bands, percent=percent, size=size, ax=ax, cmap=cmap, legend=legend)

    def tile_windows(self, width: int, height: int, overlap: int = 0, offset: bool = False) -> list[Window]:
        """`daskraster.tile_windows` of this array."""
        return dr.tile_windows(self._array, width, height, overlap, offset)

    def write(
        self, path: str | os.PathLike[str], *, compute: bool = True, **options: Unpack[WriteKeywords]
    ) -> WriteReport | Delayed:
        """`daskraster.write_raster` of this array."""
        return dr.write_raster(self._array, path, compute=compute, **options)
