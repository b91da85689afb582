"""The report, what it tells of prints, retries, versions and inputs; provenance in the file."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import sys
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray

import daskraster as dr
from daskraster.formats.versions import PACKAGES, library_versions
from daskraster.running import facts
from tests.conftest import MakeRaster, ignoring_georeference, pixels


def talk(block: NDArray[Any]) -> NDArray[Any]:
    """Prints to both streams."""
    print("mean of", block.shape)  # noqa: T201 - as users do
    print("to the other stream", file=sys.stderr)  # noqa: T201 - as users do
    return block


def fail(block: NDArray[Any]) -> NDArray[Any]:
    """Prints and raises in one block."""
    print("the largest pixel is", block.max())  # noqa: T201 - as users do
    if block.shape[1:] != (32, 32):
        return block
    raise ValueError("no such block")


class FailsOnce:
    """Raises the first time, as a file beside tells."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        try:
            self.path.touch(exist_ok=False)
        except FileExistsError:
            return block
        print("before the failure")  # noqa: T201 - as users do
        raise ValueError("once")


class FailsWhile:
    """Raises in the block that begins with a value, as long as a file exists."""

    def __init__(self, path: Path, value: int) -> None:
        self.path, self.value = path, value

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        if block[0, 0, 0] == self.value and self.path.exists():
            raise ValueError("still failing")
        return block


def lazily(func: Any, path: Path, **options: Any) -> xr.DataArray:
    return dr.apply(func, dr.open_raster(path, chunks=32), dtype="uint16", bands=1, **options)


@pytest.mark.parametrize("overlap", [0, 3])
def test_what_functions_print(
    engine: str, overlap: int, make_raster: MakeRaster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = make_raster(pixels((1, 64, 96)))
    report = dr.write_raster(lazily(talk, source, overlap=overlap), tmp_path / "out.tif", blocksize=32)
    lines = report.output.splitlines()
    assert lines.count("to the other stream") == 6
    assert sorted(line for line in lines if line.startswith("--")) == [
        f"-- block ({row}, {col})" for row in (0, 1) for col in (0, 1, 2)
    ]
    assert capfd.readouterr() == ("", "")
    assert "18 lines in report.output" in str(report)


def test_what_is_printed_in_steps_before_the_last(client: Any, tmp_path: Path) -> None:
    """A foreign function whose neighbours are exchanged after it, so in tasks of its own."""
    array = xr.DataArray(np.ones((1, 64, 64), "uint16"), dims=("band", "y", "x")).chunk({"y": 32, "x": 32})
    shouting = array.copy(data=array.data.map_blocks(talk, dtype="uint16", meta=np.empty((0, 0, 0), "uint16")))
    report = dr.write_raster(
        dr.apply(np.negative, shouting, overlap=2, dtype="uint16"), tmp_path / "out.tif", blocksize=32
    )
    assert report.output.count("to the other stream") == 4


def test_without_progress_prints_are_left_alone(
    make_raster: MakeRaster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_raster(pixels((1, 64, 64)))
    report = dr.write_raster(lazily(talk, source), tmp_path / "out.tif", blocksize=32, progress=False)
    assert report.output == ""
    assert capsys.readouterr().out.count("mean of") == 4


def test_what_a_failing_block_had_printed(engine: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(np.full((1, 64, 64), 7, "uint16"))
    with pytest.raises(ValueError, match="no such block") as caught:
        dr.write_raster(lazily(fail, source), tmp_path / "out.tif", blocksize=32, retries=0)
    assert "it had printed:\nthe largest pixel is 7" in caught.value.__notes__


def test_retries_are_counted(engine: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(pixels((1, 64, 64)))
    func = FailsOnce(tmp_path / "failed")
    report = dr.write_raster(lazily(func, source), tmp_path / "out.tif", blocksize=32, retries=1)
    assert report.retries == 1
    assert "before the failure" in report.output
    assert "1 tried again" in str(report)


def test_facts_of_each_engine(engine: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(pixels((2, 64, 64)))
    report = dr.write_raster(dr.open_raster(source, chunks=32), tmp_path / "out.tif", blocksize=32, level=3)
    run = report.run
    assert run is not None
    assert run.engine == {"client": "cluster"}.get(engine, engine)
    expected = {"synchronous": (1, 1), "threads": (1, 2), "processes": (2, 1), "client": (2, 2)}
    assert (run.processes, run.threads) == expected[engine]
    if sys.platform == "linux":
        assert (run.worker_peak_nbytes is not None) == (engine in ("processes", "client"))
    assert run.begun <= run.ended
    assert run.versions["GDAL"] == rasterio.__gdal_version__
    assert run.versions["numpy"] == np.__version__
    assert run.options["level"] == 3
    assert list(run.inputs) == [str(source)]
    assert run.inputs[str(source)].startswith(f"{source.stat().st_size} bytes, modified at ")
    # The leading process puts overviews together meanwhile: in a stage, but in none of the threads.
    threads = report.seconds * run.processes * run.threads
    assert run.wait_seconds is not None
    assert threads - sum(report.stage_seconds.values()) <= run.wait_seconds + 1e-6 <= threads + 2e-6


def test_json_holds_everything(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = np.full((2, 40, 40), np.nan, "float32")
    values[1, :5] = np.inf
    source = make_raster(values, nodata=np.nan)
    report = dr.write_raster(
        dr.open_raster(source),
        tmp_path / "out.tif",
        nodata=np.nan,
        tags={"a": "b"},
        dtype="float32",
        band_names=["x", "y"],
    )
    text = report.to_json(tmp_path / "report.json")
    told = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told == report.to_dict() == json.loads((tmp_path / "report.json").read_text())
    assert told["path"] == str(tmp_path / "out.tif")
    assert told["shape"] == [2, 40, 40]
    assert told["statistics"][0]["mean"] is None
    assert told["run"]["options"]["nodata"] == "NaN"
    assert told["run"]["options"]["dtype"] == "float32"
    assert "wait" in told["stage_seconds"]
    assert told["planned_nbytes"] > 0


def test_later_and_in_html(make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 40, 40))))
    report = dr.write_raster(image, tmp_path / "a&b.tif", compute=False).compute()
    assert (report.output, report.retries) == ("", 0)
    assert json.loads(report.to_json())["run"]["inputs"] == {}
    assert "a&amp;b.tif" in report._repr_html_()
    report = dr.write_raster(image, tmp_path / "c.tif")
    rows = str(report).splitlines()
    assert rows[0] == str(tmp_path / "c.tif")
    assert len({row.index(word) for row, word in zip(rows[1:], ("GTiff", "1;"), strict=False)}) == 1
    for name in ("raster", "blocks", "time", "stages", "memory", "engine"):
        assert f">{name}</th>" in report._repr_html_()


def test_log_lines(make_raster: MakeRaster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = dr.open_raster(make_raster(pixels((1, 64, 64))), chunks=32)
    with caplog.at_level(logging.DEBUG, logger="daskraster"):
        dr.write_raster(image, tmp_path / "out.tif", blocksize=32, progress=False)
    of_run = [record for record in caplog.records if record.name == "daskraster"]
    assert [record.levelname for record in of_run] == ["INFO", *["DEBUG"] * 4, "INFO"]
    assert of_run[0].getMessage().startswith("out.tif: begun")
    assert "block (1, 1) of (2, 2)" in " ".join(record.getMessage() for record in of_run)
    assert of_run[-1].getMessage().startswith("out.tif: finished in ")


def tags_of(path: Path) -> dict[str, str]:
    """By GDAL, which may have no driver for KEA: then as the HDF5 that it is."""
    if path.suffix == ".kea":
        with h5py.File(path) as file:
            found = {key: item[0].decode() for key, item in file["METADATA"].items()}
        return {key: text for key, text in found.items() if key.startswith("PROVENANCE_")}
    with ignoring_georeference(), rasterio.open(path) as dataset:
        return {key: text for key, text in dataset.tags().items() if key.startswith("PROVENANCE_")}


@pytest.mark.parametrize("name", ["out.tif", "cog.tif", "out.kea"])
def test_provenance(name: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(pixels((1, 64, 64)))
    options: Any = {"driver": "COG"} if name == "cog.tif" else {}
    twice = dr.calc("b1*2+1", dr.apply(talk, dr.calc("b1-1", dr.open_raster(source, chunks=32)), overlap=4))
    dr.write_raster(twice, tmp_path / name, provenance=True, tags={"mine": "kept"}, level=2, **options)
    told = tags_of(tmp_path / name)
    assert json.loads(told["PROVENANCE_FUNCTIONS"]) == [
        {"expression": "b1-1"},
        {"function": f"{__name__}:talk", "overlap": [4, 4]},
        {"expression": "b1*2+1"},
    ]
    (found,) = json.loads(told["PROVENANCE_INPUTS"])
    assert found.pop("modified").endswith("Z")
    assert found == {"name": "in.tif", "nbytes": source.stat().st_size}
    assert json.loads(told["PROVENANCE_OPTIONS"])["level"] == 2
    assert told["PROVENANCE_SOFTWARE"].startswith("daskraster ")
    assert told["PROVENANCE_DATE"].endswith("Z")
    assert str(tmp_path) not in "".join(told.values())
    # A file made from it does not say the same.
    again = dr.open_raster(tmp_path / name)
    assert not [key for key in again.attrs if key.startswith("PROVENANCE")]
    dr.write_raster(again, tmp_path / "copy.tif")
    assert tags_of(tmp_path / "copy.tif") == {}
    with ignoring_georeference(), rasterio.open(tmp_path / "copy.tif") as dataset:
        assert dataset.tags()["mine"] == "kept"


def test_provenance_of_rioxarray_and_process(make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(pixels((1, 64, 64)))
    dr.process(talk, {"block": source}, tmp_path / "out.tif", provenance=True)
    assert json.loads(tags_of(tmp_path / "out.tif")["PROVENANCE_FUNCTIONS"]) == [
        {"function": f"{__name__}:talk", "overlap": [0, 0]}
    ]
    rioxarray = pytest.importorskip("rioxarray")
    with rioxarray.open_rasterio(tmp_path / "out.tif") as image:
        dr.write_raster(image, tmp_path / "copy.tif")
    assert tags_of(tmp_path / "copy.tif") == {}


@pytest.mark.parametrize("suffix", [".tif", ".kea"])
def test_a_resumed_run_may_be_of_another_day(
    suffix: str, make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = pixels((1, 64, 64))
    values[0, 0, 32] = 7
    out, failing = tmp_path / f"out{suffix}", tmp_path / "failing"
    image = lazily(FailsWhile(failing, 7), make_raster(values))
    failing.touch()
    monkeypatch.setattr("daskraster.running.provenance.iso_now", lambda: "2024-02-29T00:00:01Z")
    with dask.config.set(scheduler="synchronous"), pytest.raises(ValueError, match="still failing"):
        dr.write_raster(image, out, blocksize=32, provenance=True, keep_partial=True, overviews=False)
    failing.unlink()
    monkeypatch.setattr("daskraster.running.provenance.iso_now", lambda: "2024-03-01T00:00:01Z")
    report = dr.write_raster(image, out, blocksize=32, provenance=True, resume=True, overviews=False)
    assert 0 < report.resumed_blocks < 4
    assert tags_of(out)["PROVENANCE_DATE"] == "2024-03-01T00:00:01Z"
    np.testing.assert_array_equal(dr.open_raster(out).values, values)


def test_wrong_wish(make_raster: MakeRaster, tmp_path: Path) -> None:
    with pytest.raises(dr.OptionError, match="provenance='yes'"):
        dr.write_raster(dr.open_raster(make_raster(pixels((1, 8, 8)))), tmp_path / "o.tif", provenance="yes")  # type: ignore[arg-type]


def test_plain_values() -> None:
    assert facts.plain({1: (np.float32("nan"), -np.inf, np.int64(2**62)), "p": Path("a"), "f": object()}) == {
        "1": ["NaN", "-Infinity", 2**62],
        "p": "a",
        "f": "a object",
    }


def test_versions_are_those_that_are_installed() -> None:
    found = library_versions()
    for name in PACKAGES:
        assert found[name] == importlib.metadata.version(name)
