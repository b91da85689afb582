"""``array.dr``: the public functions as methods of a DataArray, one line each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import rioxarray  # noqa: F401 - registers .rio, which every raster here has
import xarray as xr

import daskraster as dr  # its names are imported when a method first asks for them

if TYPE_CHECKING:
    from dask.delayed import Delayed

    from daskraster.grid import Window
    from daskraster.lazy.aligning import AlignKeywords
    from daskraster.lazy.neighbourhood import ApplyKeywords
    from daskraster.options import WriteKeywords
    from daskraster.running.plan import Plan
    from daskraster.running.report import WriteReport


@xr.register_dataarray_accessor("dr")
class DaskRasterAccessor:
    """daskraster's functions with this array as their first raster."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    @overload
    def align(self, **arguments: Unpack[AlignKeywords]) -> xr.DataArray: ...
    @overload
    def align(
        self, first: xr.DataArray, /, *others: xr.DataArray, **arguments: Unpack[AlignKeywords]
    ) -> tuple[xr.DataArray, ...]: ...
    def align(
        self, *others: xr.DataArray, **arguments: Unpack[AlignKeywords]
    ) -> xr.DataArray | tuple[xr.DataArray, ...]:
        """`daskraster.align` of this array and others."""
        return dr.align(self._array, *others, **arguments)

    @overload
    def apply(  # type: ignore[overload-overlap]  # as of daskraster.apply
        self,
        func: Callable[..., Any],
        *others: xr.DataArray,
        outputs: Literal[1] = 1,
        **arguments: Unpack[ApplyKeywords],
    ) -> xr.DataArray: ...
    @overload
    def apply(
        self, func: Callable[..., Any], *others: xr.DataArray, outputs: int, **arguments: Unpack[ApplyKeywords]
    ) -> tuple[xr.DataArray, ...]: ...
    def apply(
        self, func: Callable[..., Any], *others: xr.DataArray, outputs: int = 1, **arguments: Unpack[ApplyKeywords]
    ) -> xr.DataArray | tuple[xr.DataArray, ...]:
        """`daskraster.apply` of ``func`` to this array and others."""
        return dr.apply(func, self._array, *others, outputs=outputs, **arguments)

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

    @overload
    def write(
        self, path: str | os.PathLike[str], *, compute: Literal[True] = True, **options: Unpack[WriteKeywords]
    ) -> WriteReport: ...
    @overload
    def write(
        self, path: str | os.PathLike[str], *, compute: bool, **options: Unpack[WriteKeywords]
    ) -> WriteReport | Delayed: ...
    def write(
        self, path: str | os.PathLike[str], *, compute: bool = True, **options: Unpack[WriteKeywords]
    ) -> WriteReport | Delayed:
        """`daskraster.write_raster` of this array."""
        return dr.write_raster(self._array, path, compute=compute, **options)
