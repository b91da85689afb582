"""KEA for ``xarray.open_dataset(path, engine="kea")``, found by entry point; files ending in .kea need no ``engine=``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from daskraster.formats.kea_layout import is_kea
from daskraster.lazy.opening import open_raster

VARIABLE = "band_data"  # as rioxarray's engine calls it


class _Pixels(BackendArray):
    """An array that reads the part asked for; picklable, safe in threads."""

    def __init__(self, array: xr.DataArray) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        # As ints and slices, which our own layer sees through: only the blocks touched are read.
        return np.asarray(self.array.data[key].compute(scheduler="synchronous"))


class KeaBackend(BackendEntrypoint):
    """xarray's engine "kea"."""

    description = "KEA rasters, without GDAL's KEA driver"
    open_dataset_parameters = (
        "filename_or_obj", "drop_variables", "masked", "bands", "overview_level",
        "mask_and_scale", "decode_times", "decode_timedelta", "use_cftime", "concat_characters", "decode_coords",
    )  # fmt: skip
    url = ""

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        masked: bool = False,
        bands: int | Sequence[int] | None = None,
        overview_level: int | None = None,
        mask_and_scale: bool | None = None,
        decode_times: Any = None,
        decode_timedelta: Any = None,
        use_cftime: Any = None,
        concat_characters: Any = None,
        decode_coords: Any = None,
    ) -> xr.Dataset:
        """A Dataset with one variable, ``band_data`` ``(band, y, x)``, read when needed; see `daskraster.open_raster`.

        Parameters
        ----------
        filename_or_obj
            Path of a KEA file.
        drop_variables
            Names of variables that are not wanted.
        masked, bands, overview_level
            As in `daskraster.open_raster`.
        mask_and_scale
            xarray's own word for ``masked``; scale is not applied.
        decode_times, decode_timedelta, use_cftime, concat_characters, decode_coords
            xarray's keywords for what a raster has not; taken and without effect.

        Returns
        -------
        xarray.Dataset
            In the file's dtype, nothing read yet; with ``chunks={}`` dask chunks of whole tiles. Coordinates and ``.rio`` as of
            `daskraster.open_raster`.

        Raises
        ------
        RasterNotFoundError, RasterFormatError, OptionError
            As `daskraster.open_raster`.
        """
        masked = masked or bool(mask_and_scale)
        array = open_raster(filename_or_obj, masked=masked, bands=bands, overview_level=overview_level)
        variable = xr.Variable(
            array.dims,
            indexing.LazilyIndexedArray(_Pixels(array)),
            array.attrs,
            {**array.encoding, **_preferred(array)},
        )
        dataset = xr.Dataset({VARIABLE: variable}, coords=array.coords)
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is the path of a KEA file."""
        return isinstance(filename_or_obj, str | os.PathLike) and is_kea(os.fspath(filename_or_obj))


def _preferred(array: xr.DataArray) -> dict[str, Any]:
    """What ``chunks={}`` gives: blocks as of `open_raster`."""
    return {"preferred_chunks": {dim: sizes[0] for dim, sizes in zip(array.dims, array.chunks or (), strict=True)}}
