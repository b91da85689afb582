"""Predictions are those of the model on all valid pixels at once."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import daskraster as dr
from daskraster.blocks import rows
from daskraster.errors import BlockResultError, OptionError
from daskraster.lazy import models
from tests.conftest import MakeRaster, pixels

SHAPE = (3, 60, 70)
NODATA = 9


class Threshold:
    """A classifier in plain NumPy; refuses what a model must never see."""

    def __init__(self, classes: Any = (2, 5), weight: int = 0) -> None:
        self.classes_ = np.asarray(classes)
        self.n_features_in_ = 3
        self.ballast = bytes(weight)

    def predict(self, table: Any) -> NDArray[Any]:
        assert len(table)
        assert not np.isnan(table).any()
        assert not (table == NODATA).any()
        return self.classes_[(table.astype("float64").sum(axis=1) > 75_000).astype(int)]

    def predict_proba(self, table: Any) -> NDArray[Any]:
        share = (table[:, 0] / 65_536).astype("float32")
        return np.stack((share, 1 - share), axis=1)


class Line:
    """A regressor of one or several outputs."""

    def __init__(self, outputs: int = 1) -> None:
        self.outputs = outputs

    def predict(self, table: Any) -> NDArray[Any]:
        values = table.astype("float64") @ np.arange(3 * self.outputs).reshape(3, self.outputs)
        return values[:, 0] if self.outputs == 1 else values


@pytest.fixture
def values() -> NDArray[Any]:
    image = pixels(SHAPE)
    image[1, :20, 5:30] = NODATA
    image[0, 40] = NODATA
    return image


@pytest.fixture
def image(make_raster: MakeRaster, values: NDArray[Any]) -> xr.DataArray:
    return dr.open_raster(make_raster(values, nodata=NODATA), chunks=(16, 32))


def whole(method: Any, values: NDArray[Any], bands: int, fill: Any) -> NDArray[Any]:
    """The model on all valid pixels at once."""
    valid = (values != NODATA).all(axis=0)
    results = method(values[:, valid].T)
    out = np.full((bands, *values.shape[1:]), fill, results.dtype)
    out[:, valid] = results.reshape(len(results), -1).T
    return out


def test_classes(image: xr.DataArray, values: NDArray[Any], engine: str) -> None:
    result = dr.predict(Threshold(), image)
    assert (result.dtype, result.rio.nodata, result.attrs["thematic"]) == (np.int64, 0, True)
    assert result.rio.crs == image.rio.crs
    np.testing.assert_array_equal(result.values, whole(Threshold().predict, values, 1, 0))


def test_a_model_in_a_file(image: xr.DataArray, values: NDArray[Any], tmp_path: Path, engine: str) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Threshold()))
    result = dr.predict(tmp_path / "model.pkl", image, dtype="uint8", nodata=255)
    report = dr.write_raster(result, tmp_path / "out.tif")
    assert report.dtype == "uint8"
    np.testing.assert_array_equal(
        dr.open_raster(tmp_path / "out.tif").values, whole(Threshold().predict, values, 1, 255).astype("uint8")
    )


def test_probabilities(image: xr.DataArray, values: NDArray[Any]) -> None:
    result = dr.predict(Threshold(), image, proba=True)
    assert result.dtype == np.float32
    assert result.attrs["long_name"] == ("2", "5")
    assert "thematic" not in result.attrs
    assert np.isnan(result.rio.nodata)
    np.testing.assert_array_equal(result.values, whole(Threshold().predict_proba, values, 2, np.nan))


@pytest.mark.parametrize("outputs", [1, 2])
def test_regression(outputs: int, image: xr.DataArray, values: NDArray[Any]) -> None:
    result = dr.predict(Line(outputs), image)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result.values, whole(Line(outputs).predict, values, outputs, np.nan))
    narrow = dr.predict(Line(1), image, dtype="float32", nodata=-1)
    assert narrow.rio.nodata == -1
    np.testing.assert_array_equal(narrow.values, whole(Line(1).predict, values, 1, -1).astype("float32"))


def test_nan_is_nodata(make_raster: MakeRaster, values: NDArray[Any]) -> None:
    path = make_raster(values, nodata=NODATA)
    masked, plain = (dr.open_raster(path, masked=one, chunks=32) for one in (True, False))
    np.testing.assert_array_equal(dr.predict(Threshold(), masked).values, dr.predict(Threshold(), plain).values)


def test_without_nodata_there_is_none(make_raster: MakeRaster, values: NDArray[Any]) -> None:
    result = dr.predict(Threshold(), dr.open_raster(make_raster(values.clip(10))))
    assert result.rio.nodata is None
    assert set(np.unique(result.values)) == {2, 5}


def test_the_class_zero_is_no_nodata(image: xr.DataArray) -> None:
    result = dr.predict(Threshold(np.array([0, 1], "uint8")), image)
    assert result.rio.nodata == 255
    assert set(np.unique(result.values)) == {0, 1, 255}


def test_rows_come_in_batches(image: xr.DataArray, values: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", 7)
    sizes: list[int] = []

    class Watching(Threshold):
        def predict(self, table: Any) -> NDArray[Any]:
            sizes.append(len(table))
            assert table.flags.c_contiguous
            assert table.dtype == np.uint16
            return super().predict(table)

    np.testing.assert_array_equal(dr.predict(Watching(), image).values, whole(Threshold().predict, values, 1, 0))
    assert max(sizes) == 7


def test_nothing_runs_for_a_classifier(image: xr.DataArray, nothing_runs: None) -> None:
    assert dr.predict(Threshold(), image).shape == (1, 60, 70)
    assert dr.predict(Threshold(), image, proba=True, dtype="float32").shape == (2, 60, 70)
    assert dr.predict(Line(), image, dtype="float32").shape == (1, 60, 70)


class Counted(Threshold):
    pickled = 0

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return self.__dict__


def test_a_large_model_travels_once(image: xr.DataArray, values: NDArray[Any], client: Any) -> None:
    Counted.pickled = 0
    result = dr.predict(Counted(weight=5_000_000), image)
    # 20 blocks, one model in the graph.
    assert len(pickle.dumps(dask.optimize(result.data)[0].dask)) < 6_000_000
    before = Counted.pickled
    np.testing.assert_array_equal(result.values, whole(Threshold().predict, values, 1, 0))
    assert Counted.pickled - before <= 2


def test_a_file_is_loaded_once(image: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    original = models._load
    monkeypatch.setattr(models, "_load", lambda path: (loads.append(path), original(path))[1])
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Threshold()))
    first = dr.predict(path, image).values
    dr.predict(str(path), image).values  # noqa: B018
    assert len(loads) == 1
    # Another model under the same name.
    path.write_bytes(pickle.dumps(Threshold((3, 4))))
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(dr.predict(path, image).values == 3, first == 2)
    assert len(loads) == 2


def test_what_the_model_raises_names_the_block(image: xr.DataArray) -> None:
    class Fails(Threshold):
        def predict(self, table: Any) -> NDArray[Any]:
            raise RuntimeError("no memory of this")

    with pytest.raises(RuntimeError, match="no memory of this") as caught:
        dr.predict(Fails(), image).isel(y=slice(16, 32), x=slice(0, 32)).compute()
    assert "raised by Fails.predict in Window(row_off=16, col_off=0, height=16, width=32)" in caught.value.__notes__[0]


def test_what_the_model_returns_is_checked(image: xr.DataArray) -> None:
    class Short(Threshold):
        def predict(self, table: Any) -> NDArray[Any]:
            return super().predict(table)[1:]

    with pytest.raises(BlockResultError, match=r"must return \(\d+, 1\) values, got"):
        dr.predict(Short(), image).compute()
    with pytest.raises(BlockResultError, match="without dtype= it is tried beforehand"):
        dr.predict(Line(2), image, dtype="float64").compute()
    with pytest.raises(BlockResultError, match="predict returned float64, which uint8 cannot hold"):
        dr.predict(Line(), image, dtype="uint8", nodata=0).compute()


def test_refused(image: xr.DataArray, tmp_path: Path) -> None:
    (tmp_path / "text.pkl").write_text("no model")
    named = image.assign_attrs(long_name=("a", "b", "c"))
    fitted = Threshold()
    fitted.feature_names_in_ = np.array(["b", "a", "c"], dtype=object)  # type: ignore[attr-defined]
    wide = Threshold()
    wide.n_features_in_ = 4
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (object(), {}, r"the model is a object without \.predict"),
        (Line(), {"proba": True}, r"the model is a Line without \.predict_proba"),
        ("gone.pkl", {}, r"model='gone\.pkl': there is no file gone"),
        (tmp_path / "text.pkl", {}, "cannot be loaded as a joblib or pickle file"),
        (Threshold(("water", "wood")), {}, "the model's classes are .*pixels are numbers"),
        (Threshold((2, 300)), {"dtype": "uint8"}, "dtype='uint8' cannot hold the model's classes, 2 to 300"),
        (Threshold(), {"nodata": 5}, "nodata=5 is one of the model's classes"),
        (Threshold(), {"nodata": 300, "dtype": "uint8"}, "nodata=300 does not fit uint8"),
        (Threshold(), {"proba": True, "dtype": "uint8"}, "cannot hold probabilities"),
        (wide, {}, "fitted on 4 features, the raster has 3 bands"),
        (fitted, {}, r"fitted on \['b', 'a', 'c'\] in this order"),
        (Line(), {"dtype": "int32"}, "no value of the int32 result is free for them; give nodata="),
    ]
    for model, arguments, message in cases:
        with pytest.raises(OptionError, match=message):
            dr.predict(model, named, **arguments)
    nothing = image.where(image < 0)
    with pytest.raises(OptionError, match="has no valid pixel in 16 of its blocks to try the model on; give dtype="):
        dr.predict(Line(), nothing)
    assert np.isnan(dr.predict(Line(), nothing, dtype="float32").values).all()


# --- scikit-learn's own


@pytest.fixture(scope="module")
def training() -> tuple[NDArray[Any], NDArray[Any]]:
    pytest.importorskip("sklearn")
    table = pixels((3, 20, 20), seed=8).reshape(3, -1).T
    return table, (table[:, 0] > 30_000) + 1 + (table[:, 1] > 32_000)


@pytest.mark.parametrize("kind", ["forest", "neighbours", "pipeline"])
def test_scikit_learn_classifiers(
    kind: str, image: xr.DataArray, values: NDArray[Any], training: Any, engine: str
) -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if engine != "threads" and (kind, engine) != ("forest", "client"):
        pytest.skip("one model is enough for other engines")
    makers = {
        "forest": lambda: RandomForestClassifier(5, random_state=0),
        "neighbours": lambda: KNeighborsClassifier(3),
        "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    }
    model = makers[kind]().fit(*training)
    np.testing.assert_array_equal(dr.predict(model, image).values, whole(model.predict, values, 1, 0))
    proba = dr.predict(model, image, proba=True)
    assert proba.attrs["long_name"] == ("1", "2", "3")
    np.testing.assert_allclose(proba.values, whole(model.predict_proba, values, 3, np.nan), rtol=1e-12)


def test_scikit_learn_regressors_with_names_from_joblib(
    image: xr.DataArray, values: NDArray[Any], training: Any, tmp_path: Path
) -> None:
    import joblib
    import pandas as pd
    from sklearn.tree import DecisionTreeRegressor

    table = pd.DataFrame(training[0], columns=["red", "nir", "swir"])
    model = DecisionTreeRegressor(random_state=0).fit(table, training[0][:, :2] / 3)
    joblib.dump(model, tmp_path / "tree.joblib")
    # scikit-learn warns of rows without names, and warnings are errors here.
    result = dr.predict(tmp_path / "tree.joblib", image)
    expected = whole(lambda rows: model.predict(pd.DataFrame(rows, columns=table.columns)), values, 2, np.nan)
    np.testing.assert_array_equal(result.values, expected)


def test_classes_of_several_outputs(image: xr.DataArray, values: NDArray[Any], training: Any) -> None:
    from sklearn.tree import DecisionTreeClassifier

    table, labels = training
    model = DecisionTreeClassifier(random_state=0).fit(table, np.stack((labels, 4 - labels), axis=1))
    np.testing.assert_array_equal(dr.predict(model, image).values, whole(model.predict, values, 2, 0))
    with pytest.raises(OptionError, match="proba=True works with one output, the model has 2"):
        dr.predict(model, image, proba=True)
