"""A fitted model on every pixel, lazily."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from daskraster.blocks.rows import BATCH_ROWS, by_rows, valid_pixels
from daskraster.errors import BlockResultError, OptionError
from daskraster.grid import Window
from daskraster.lazy.arrays import Raster, as_raster, like, metadata_of
from daskraster.lazy.broadcasting import shared
from daskraster.lazy.models import ModelFile, check_features, classes_of, features_of
from daskraster.lazy.schedulers import scheduler_in_use
from daskraster.lazy.sources import BlockWindows
from daskraster.metadata import Number
from daskraster.pixeltypes import check_nodata, pixel_type
from daskraster.timing import stage

# Blocks read in search of one valid pixel, where the model must be tried to learn what it returns.
BLOCKS_TRIED = 16
ROWS_TRIED = 4


def predict(
    model: Any, raster: xr.DataArray, *, nodata: Number | None = None, proba: bool = False, dtype: Any = None
) -> xr.DataArray:
    """A fitted model on every pixel; lazy.

    Parameters
    ----------
    model
        Anything with ``.predict`` as scikit-learn has it (rows ``(n, band)`` in, ``(n,)`` or ``(n, k)`` out, each row by itself), or the
        path of a joblib or pickle file that holds one. Loading such a file runs code that is in it: give only files you trust. A model in memory travels
        once to each worker. One in a file is loaded once by each worker process, which is better for large models and for dask's scheduler of
        processes. Blocks run side by side already, so ``n_jobs=1`` is fastest.
    raster
        Bands are the model's features, in its order. Pixels where any band is nodata or NaN are never given to the model.
    nodata
        Value of these pixels in the result. None: NaN in floats; in integers 0, or the largest the dtype holds where 0 is a class; no nodata
        value where the raster cannot have such pixels.
    proba
        Probabilities instead, by ``.predict_proba``: one band for each class, named after it.
    dtype
        Of the result; None: what the model returns, of a classifier the dtype of its classes. With ``"uint8"`` a class map takes an eighth of the size of int64.

    Returns
    -------
    xarray.DataArray
        Lazy, ``(band, y, x)`` on the raster's grid and in its blocks; thematic for classes. Equals ``model.predict`` of all valid pixels.

    Notes
    -----
    A classifier tells its classes, so nothing is run for it; else the model is tried now on a few valid pixels of the smallest blocks, unless
    ``dtype`` is given (then it returns one band, or the probabilities of its classes). Models fitted with column names get their rows as a
    DataFrame with these.

    Raises
    ------
    OptionError
        No model; a file that is none; classes that are no numbers or do not fit ``dtype``; a nodata value that is a class; another number or order of bands.
    RasterArrayError
        The array is no raster.
    BlockResultError
        When computed: the model returned another shape or dtype than was due.
    Exception
        Whatever the model raises, with a note that names the block.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> class Threshold:
    ...     classes_ = np.array([1, 2], dtype="uint8")
    ...     def predict(self, rows):
    ...         return np.where(rows.sum(axis=1) > 6, 2, 1).astype("uint8")
    >>> image = xr.DataArray(np.arange(8.0).reshape(2, 2, 2), dims=("band", "y", "x"))
    >>> predict(Threshold(), image).values[0]
    array([[1, 1],
           [2, 2]], dtype=uint8)
    """
    given = as_raster(raster, "the raster of predict")
    if given.data.dtype.kind not in "biuf":
        raise OptionError(f"predict works on numbers, {given.name} has dtype {given.data.dtype}")
    held = ModelFile.of(model) if isinstance(model, str | os.PathLike) else model
    loaded = held.load() if isinstance(held, ModelFile) else held
    method = "predict_proba" if proba else "predict"
    if not callable(getattr(loaded, method, None)):
        raise OptionError(f"the model is a {type(loaded).__name__} without .{method}")
    check_features(loaded, [band.name for band in metadata_of(given).bands])
    classes = classes_of(loaded)
    data = given.data.rechunk({0: -1})
    step = Prediction(
        method=method,
        nodata=given.nodata,
        fill=None,
        due=_due(loaded, classes, proba=proba, dtype=dtype),
        windows=BlockWindows((data.chunks[1], data.chunks[2]), (0, 0), Window(0, 0, *given.grid.shape_yx)),
        name=given.name,
    )
    if step.due is None:
        step = replace(step, due=_tried(step, loaded, data, None if dtype is None else pixel_type(dtype)))
    assert step.due is not None
    if classes and not proba:
        _check_classes(classes, step.due.dtype)
    step = replace(step, fill=_fill(nodata, step.due.dtype, [] if proba else classes, given))
    array = _predicted(step, held, data)
    return like(array, given, _attrs(step, classes, proba=proba), {})


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRows:
    """What the model is due to return."""

    bands: int
    dtype: np.dtype[Any]
    """Of the raster; what the model returns is converted where nothing is lost, or floats to narrower ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The model's method on one block. Travels with every task; the model does not."""

    method: str
    nodata: tuple[Number | None, ...]
    """Of the raster."""
    fill: Number | None
    """Of pixels that are not predicted; None where there are none."""
    due: DueRows | None
    windows: BlockWindows
    name: str
    """What messages call the raster."""

    def __call__(self, block: NDArray[Any], model: Any, *, block_id: tuple[int, int, int]) -> NDArray[Any]:
        """Predictions ``(band, y, x)`` of one block.

        Raises
        ------
        BlockResultError
            The model returned another shape or dtype than was due.
        """
        assert self.due is not None
        loaded = model.load() if isinstance(model, ModelFile) else model
        out = np.full((self.due.bands, *block.shape[1:]), 0 if self.fill is None else self.fill, self.due.dtype)
        with stage("function"):
            try:
                by_rows(
                    lambda rows: self._checked(self.rows(loaded, rows), len(rows)),
                    block,
                    valid_pixels(block, self.nodata),
                    out,
                )
            except Exception as error:
                row, col = block_id[-2:]
                error.add_note(
                    f"raised by {type(loaded).__name__}.{self.method} in {self.windows.core(row, col)}, block ({row}, {col}), of {self.name}"
                )
                raise
        return out

    @property
    def what(self) -> str:
        """Its name in a plan."""
        return "predict"

    def work_nbytes(self, pixels: int, bands: int, itemsize: int) -> int:
        """See `daskraster.lazy.anatomy.WorkingStep`; of what the model takes for a batch of rows a guess: three copies in float64."""
        due = self.due.bands * self.due.dtype.itemsize if self.due is not None else 8
        rows = min(pixels, BATCH_ROWS)
        return pixels * (due + np.dtype(np.intp).itemsize + 2) + rows * bands * (itemsize + 3 * 8)

    def rows(self, model: Any, rows: NDArray[Any]) -> NDArray[Any]:
        """What the model says of rows ``(n, band)``, as ``(n, band)``."""
        features = features_of(model)
        table = rows if features is None else pd.DataFrame(rows, columns=features, copy=False)
        results = np.asarray(getattr(model, self.method)(table))
        return results[:, np.newaxis] if results.ndim == 1 else results

    def _checked(self, results: NDArray[Any], count: int) -> NDArray[Any]:
        assert self.due is not None
        if results.shape != (count, self.due.bands):
            raise BlockResultError(
                f".{self.method} of {count} rows must return ({count}, {self.due.bands}) values, got {results.shape}; "
                "without dtype= it is tried beforehand"
            )
        if results.dtype != self.due.dtype and not (
            np.can_cast(results.dtype, self.due.dtype, "same_kind")
            or np.array_equal(results.astype(self.due.dtype), results)
        ):
            raise BlockResultError(
                f".{self.method} returned {results.dtype}, which {self.due.dtype} cannot hold; give another dtype="
            )
        return results.astype(self.due.dtype, copy=False)


def _due(model: Any, classes: list[NDArray[Any]], *, proba: bool, dtype: Any) -> DueRows | None:
    """What comes out, as far as it is known without a trial."""
    wanted = None if dtype is None else pixel_type(dtype)
    if proba and len(classes) > 1:
        raise OptionError(f"proba=True works with one output, the model has {len(classes)}")
    if proba:
        if wanted is not None and wanted.kind != "f":
            raise OptionError(f"dtype={dtype!r} cannot hold probabilities; give a float")
        return DueRows(bands=classes[0].size, dtype=wanted) if classes and wanted is not None else None
    if classes:
        return DueRows(bands=len(classes), dtype=wanted or pixel_type(np.result_type(*classes)))
    return None if wanted is None else DueRows(bands=1, dtype=wanted)


def _tried(step: Prediction, model: Any, data: da.Array, dtype: np.dtype[Any] | None) -> DueRows:
    """What the model returns for a few valid pixels of the smallest block that has any."""
    rows, cols = step.windows.chunks_yx
    sizes = np.multiply.outer(rows, cols)
    order = np.argsort(sizes, axis=None, kind="stable")
    # The smallest one lies at a corner, often without data; then blocks from all over the raster.
    chosen = [order[0], *order[np.linspace(0, order.size - 1, BLOCKS_TRIED).astype(int)][::-1]]
    for at in dict.fromkeys(int(one) for one in chosen):
        row, col = np.unravel_index(at, sizes.shape)
        block = np.asarray(data.blocks[0, row, col].compute(scheduler=scheduler_in_use()))
        places = np.flatnonzero(valid_pixels(block, step.nodata))[:ROWS_TRIED]
        if places.size:
            results = step.rows(model, np.ascontiguousarray(block.reshape(len(block), -1)[:, places].T))
            if results.ndim != 2 or len(results) != places.size or results.dtype.kind not in "biuf":
                raise OptionError(
                    f"the model's .{step.method} of {places.size} rows returned {results.dtype} of shape {results.shape}; expected numbers, one row each"
                )
            return DueRows(bands=results.shape[1], dtype=dtype or pixel_type(results.dtype))
    raise OptionError(
        f"{step.name} has no valid pixel in {BLOCKS_TRIED} of its blocks to try the model on; give dtype="
    )


def _check_classes(classes: list[NDArray[Any]], dtype: np.dtype[Any]) -> None:
    for one in classes:
        limits = (np.finfo if dtype.kind == "f" else np.iinfo)(dtype)
        if one.size and not (
            limits.min <= one.min() and one.max() <= limits.max and np.array_equal(one.astype(dtype), one)
        ):
            raise OptionError(f"dtype={str(dtype)!r} cannot hold the model's classes, {one.min()} to {one.max()}")


def _fill(nodata: Any, dtype: np.dtype[Any], classes: list[NDArray[Any]], raster: Raster) -> Number | None:
    """The value of pixels that are not predicted; None where there cannot be any."""
    known = {value for one in classes for value in one.tolist()}
    if nodata is not None:
        if nodata in known:
            raise OptionError(f"nodata={nodata} is one of the model's classes; give another value")
        return check_nodata(nodata, dtype)
    if raster.data.dtype.kind != "f" and all(value is None for value in raster.nodata):
        return None
    if dtype.kind == "f":
        return float("nan")
    limits = np.iinfo(dtype)
    for value in (0, int(limits.max), int(limits.min)) if classes else ():
        if value not in known:
            return value
    raise OptionError(
        f"{raster.name} has pixels without data, and no value of the {dtype} result is free for them; give nodata="
    )


def _predicted(step: Prediction, model: Any, data: da.Array) -> da.Array:
    assert step.due is not None
    held = model if isinstance(model, ModelFile) else shared(model, "model")
    token = tokenize(step, data.name, held if isinstance(held, ModelFile) else held.key)
    return da.map_blocks(
        step,
        data,
        held,
        chunks=((step.due.bands,), *step.windows.chunks_yx),
        dtype=step.due.dtype,
        meta=np.empty((0, 0, 0), dtype=step.due.dtype),
        name=f"{step.method}-{token}",
    )


def _attrs(step: Prediction, classes: list[NDArray[Any]], *, proba: bool) -> dict[str, Any]:
    assert step.due is not None
    attrs: dict[str, Any] = {} if step.fill is None else {"_FillValue": step.due.dtype.type(step.fill)}
    if proba and classes:
        attrs["long_name"] = tuple(str(value) for value in classes[0].tolist())
    elif classes:
        attrs["thematic"] = True
    return attrs
