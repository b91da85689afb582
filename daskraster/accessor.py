"""``array.dr``: the public functions as methods of a DataArray, one line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import xarray as xr
from dask.delayed import Delayed

from daskraster.grid import Window
from daskraster.lazy.calculating import calc
from daskraster.lazy.neighbourhood import apply
from daskraster.lazy.opening import tile_windows
from daskraster.options import WriteKeywords
from daskraster.pictures.plotting import plot
from daskraster.running.plan import Plan
from daskraster.running.planning import explain
from daskraster.running.report import WriteReport
from daskraster.running.writing import write_raster


@xr.register_dataarray_accessor("dr")
class DaskRasterAccessor:
    """daskraster's functions with this array as their first raster."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def apply(self, func: Callable[..., Any], *others: xr.DataArray, **arguments: Any) -> Any:
        """`daskraster.apply` of ``func`` to this array and others."""
        return apply(func, self._array, *others, **arguments)

    def calc(self, expression: str, *others: xr.DataArray, **arguments: Any) -> xr.DataArray:
        """`daskraster.calc` of ``expression`` on the bands of this array, b1 and up, and others."""
        return calc(expression, self._array, *others, **arguments)

    def explain(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        function_memory: int | None = None,
        **options: Unpack[WriteKeywords],
    ) -> Plan:
        """`daskraster.explain` of writing this array."""
        return explain(self._array, path, function_memory=function_memory, **options)

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
        """`daskraster.pictures.plotting.plot` of this array: a quick look, from overviews where the file has them; matplotlib Axes."""
        return plot(self._array, bands=bands, percent=percent, size=size, ax=ax, cmap=cmap, legend=legend)

    def tile_windows(self, width: int, height: int, overlap: int = 0, offset: bool = False) -> list[Window]:
        """`daskraster.tile_windows` of this array."""
        return tile_windows(self._array, width, height, overlap, offset)

    def write(
        self, path: str | os.PathLike[str], *, compute: bool = True, **options: Unpack[WriteKeywords]
    ) -> WriteReport | Delayed:
        """`daskraster.write_raster` of this array."""
        return write_raster(self._array, path, compute=compute, **options)
