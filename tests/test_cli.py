"""The command: pixels as GDAL, NumPy and SciPy have them, options that cannot drift from Python's, messages and exit codes."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from rasterio.merge import merge
from rasterio.transform import from_origin
from scipy.ndimage import median_filter

import daskraster as dr
from daskraster.cli import main, values
from daskraster.cli.writeoptions import WORDING, given_options
from daskraster.options import WriteOptions
from tests.conftest import MakeRaster, pixels, read

FILTERS = """
import numpy as np
from scipy.ndimage import median_filter


def smooth(block, size=3):
    return median_filter(block, size=(1, size, size))


def two(block):
    return block[0], block[1] > 1000


def failing(block):
    wrong = block.size
    raise KeyError(f"no entry {wrong > 0}")
"""
WRITING = ("calc", "apply", "mosaic", "convert")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, with functions in it."""
    (tmp_path / "filters.py").write_text(FILTERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "filters", raising=False)
    return tmp_path


def run(*arguments: Any, code: int = 0) -> Result:
    """The command in this process."""
    result = CliRunner().invoke(main, list(map(str, arguments)), prog_name="daskraster")
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def start(folder: Path, *arguments: Any, script: str = "sys.exit(main())", **environment: str) -> subprocess.Popen[str]:
    """The command as the shell starts it: a script of its name."""
    path = folder / "bin" / "daskraster"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"import sys\nfrom daskraster.cli import main\nif __name__ == '__main__':\n    {script}\n")
    root = str(Path(dr.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("name", WRITING)
def test_every_write_option_is_an_option(name: str) -> None:
    for command in (main.commands[name], main.commands["explain"].commands[name]):  # type: ignore[attr-defined]
        have = {param.name: param for param in command.params}
        for field in dataclasses.fields(WriteOptions):
            option = have[field.name]
            assert field.name in WORDING, f"{field.name} has no help of its own"
            assert f"--{field.name.replace('_', '-')}" in option.opts
        # What is not given is not passed on, so that the default is Python's.
        context = command.make_context(name, ["one", "two", "three"][: 2 if name == "convert" else 3])
        assert given_options(context.params) == {}


@pytest.mark.parametrize("name", ["info", "explain", *WRITING])
def test_help_has_an_example(name: str) -> None:
    text = run(name, "--help").stdout
    assert f"daskraster {name} " in text


def test_the_recipe_in_one_line(folder: Path, make_raster: MakeRaster) -> None:
    image = pixels((2, 70, 90))
    dr.write_raster(dr.open_raster(make_raster(image)), "in.kea")
    result = run("calc", "b1+1", "in.kea", "out.kea", "--dtype", "int32", "--overlap", "0")
    assert "KEA, 90 x 70 x 1 int32" in result.stdout
    written = dr.open_raster("out.kea")
    assert written.dtype == "int32"
    assert (written.values == image[:1].astype("int32") + 1).all()


def test_calc_with_names_and_numbers(folder: Path, make_raster: MakeRaster) -> None:
    red, nir = pixels((2, 40, 50))
    make_raster(red[None], "red.tif")
    make_raster(nir[None], "nir.tif")
    run(
        "calc",
        "gain*(nir-red)",
        "-i",
        "nir=nir.tif",
        "-i",
        "red=red.tif",
        "-i",
        "gain=0.5",
        "out.tif",
        "--dtype=float64",
    )
    np.testing.assert_array_equal(read(folder / "out.tif")[0], 0.5 * (nir.astype("float64") - red))
    run("calc", "b1-b2", "nir.tif", "red.tif", "out.tif", "--dtype", "int32", "--nodata", "-99999")
    with rasterio.open("out.tif") as out:
        assert out.nodata == -99999
        np.testing.assert_array_equal(out.read(1), nir.astype("int32") - red)


@pytest.mark.parametrize("name", ["filters:smooth", "filters.py:smooth"])
def test_apply_with_a_halo_equals_the_function_on_the_whole(folder: Path, make_raster: MakeRaster, name: str) -> None:
    image = pixels((2, 131, 97))
    make_raster(image)
    run(
        "apply",
        name,
        "in.tif",
        "out.tif",
        "--overlap",
        "2",
        "--kwargs",
        '{"size": 5}',
        "--chunks",
        "48,32",
        "--blocksize",
        "16",
    )
    assert (read(folder / "out.tif") == median_filter(image, size=(1, 5, 5))).all()


def test_apply_with_several_outputs_and_json(folder: Path, make_raster: MakeRaster) -> None:
    image = pixels((2, 40, 50))
    make_raster(image)
    result = run("apply", "filters:two", "in.tif", "-o", "a.tif", "-o", "b.tif", "--json")
    reports = json.loads(result.stdout)
    assert [Path(report["path"]).name for report in reports] == ["a.tif", "b.tif"]
    assert (read(folder / "a.tif") == image[:1]).all()
    assert (read(folder / "b.tif") == (image[1:] > 1000)).all()


@pytest.fixture
def tiles(folder: Path, make_raster: MakeRaster) -> list[str]:
    """Three tiles that overlap."""
    for number in range(3):
        transform = from_origin(300_000 + 200 * number, 6_000_000, 10, 10)
        make_raster(pixels((1, 30, 40), seed=number), f"tile{number}.tif", transform=transform)
    return [f"tile{number}.tif" for number in range(3)]


@pytest.mark.parametrize("how", ["names", "pattern", "list", "stdin"])
def test_mosaic(folder: Path, tiles: list[str], how: str) -> None:
    (folder / "list.txt").write_text("# tiles\n\n" + "\n".join(tiles) + "\n")
    given = {"names": tiles, "pattern": ["tile*.tif"], "list": ["@list.txt"], "stdin": ["@-"]}[how]
    result = CliRunner().invoke(main, ["mosaic", *given, "whole.tif", "--method", "first"], input="\n".join(tiles))
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(read(folder / "whole.tif"), merge(tiles, method="first")[0])


def test_mosaic_without_an_output_keeps_the_last_tile(folder: Path, tiles: list[str]) -> None:
    before = (folder / tiles[-1]).read_bytes()
    result = run("mosaic", *tiles, code=1)
    assert "tile2.tif exists; --clobber replaces it" in result.stderr
    assert (folder / tiles[-1]).read_bytes() == before
    run("mosaic", *tiles[:2], tiles[-1], "--clobber", "--quiet")
    np.testing.assert_array_equal(read(folder / tiles[-1]), merge(tiles[:2], method="last")[0])


def test_convert_passes_every_wish_on(folder: Path, make_raster: MakeRaster) -> None:
    image = pixels((3, 150, 170), "uint16")
    make_raster(image, nodata=0)
    run(
        "convert", "in.tif", "out.tif", "--bands", "3,1", "--compress", "zstd", "--level", "3", "--blocksize", "32,64", "--nodata", "7",
        "--tags", "A=1", "--tags", "B=x=y", "--band-names", "nir,red", "--overviews", "2,4", "--no-statistics", "--interleave", "band", "--quiet",
    )  # fmt: skip
    with rasterio.open("out.tif") as out:
        assert (out.read() == image[[2, 0]]).all()
        assert out.block_shapes == [(32, 64)] * 2
        assert (out.compression.value, out.interleaving.value, out.nodata) == ("ZSTD", "BAND", 7)
        assert out.descriptions == ("nir", "red")
        assert out.overviews(1) == [2, 4]
        assert {"A": "1", "B": "x=y"}.items() <= out.tags().items()
        assert "STATISTICS_MEAN" not in out.tags(1)
    run("convert", "in.tif", "none.tif", "--nodata", "none", "--masked", "--no-overviews", "--dtype", "float32")
    with rasterio.open("none.tif") as out:
        assert out.nodata is None


def test_convert_overviews_labels_and_cog(folder: Path, make_raster: MakeRaster) -> None:
    image = pixels((1, 1100, 1100), "uint8") % 3
    make_raster(image)
    (folder / "names.json").write_text('{"0": "none", "1": "water", "2": "wood"}')
    run(
        "convert",
        "in.tif",
        "classes.kea",
        "--thematic",
        "--categories",
        "names.json",
        "--colormap",
        '{"1": [0, 0, 255, 255]}',
    )
    assert list(dr.read_attribute_table("classes.kea")["Class_Names"]) == ["none", "water", "wood"]
    run("convert", "classes.kea", "cog.tif", "--driver", "cog", "--overview-level", "0", "--sidecar")
    with rasterio.open("cog.tif") as out:
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert out.colormap(1)[1] == (0, 0, 255, 255)
        np.testing.assert_array_equal(out.read(1), dr.open_raster("classes.kea", overview_level=0).values[0])


def test_info_says_what_gdal_says(folder: Path, make_raster: MakeRaster) -> None:
    make_raster(
        pixels((2, 600, 700), "float32"), nodata=math.nan, tiled=True, blockxsize=128, blockysize=256, compress="lzw"
    )
    with rasterio.open("in.tif", "r+") as file:
        file.build_overviews([2, 4])
        file.descriptions = ("red", None)
    found = json.loads(run("info", "in.tif", "--json").stdout)
    with rasterio.open("in.tif") as file:
        assert found["shape"] == [file.count, *file.shape]
        assert (found["driver"], found["dtype"], found["compression"]) == ("GTiff", "float32", "lzw")
        assert found["transform"] == list(file.transform)[:6]
        assert found["bounds"] == list(file.bounds)
        assert found["tile"] == list(file.block_shapes[0])
        assert found["overviews"] == [[300, 350], [150, 175]]
    assert found["crs"] == "EPSG:32755"
    assert [(band["name"], band["nodata"]) for band in found["bands"]] == [("red", "nan"), (None, "nan")]
    text = run("info", "in.tif").stdout
    for part in (
        "GTiff, 700 x 600 x 2 float32",
        "lzw",
        "EPSG:32755",
        "128 x 256",
        "350 x 300, 175 x 150",
        "band 1     red: nodata nan",
    ):
        assert part in text
    assert [one["path"] for one in json.loads(run("info", "in.tif", "in.tif", "--json").stdout)] == ["in.tif"] * 2


def test_info_of_a_table_and_of_no_place(folder: Path, make_raster: MakeRaster) -> None:
    make_raster(pixels((1, 10, 20), "uint8"), crs=None, transform=None)
    dr.write_raster(dr.open_raster("in.tif"), "in.kea", thematic=True)
    assert "place      not known" in run("info", "in.tif").stdout
    found = json.loads(run("info", "in.kea", "--json").stdout)
    assert found["transform"] is None or found["transform"][0] == 1
    assert "Histogram" in found["bands"][0]["table"]["columns"]


def test_plan_writes_nothing_and_is_the_same_both_ways(folder: Path, make_raster: MakeRaster) -> None:
    make_raster(pixels((1, 100, 100)))
    arguments = [
        "filters:smooth",
        "in.tif",
        "out.tif",
        "--overlap",
        "3",
        "--chunks",
        "64",
        "--blocksize",
        "32",
        "--json",
    ]
    plans = [json.loads(run(*words, *arguments).stdout) for words in (["explain", "apply"], ["apply", "--dry-run"])]
    assert plans[0].keys() == plans[1].keys()
    assert (plans[0]["blocks"], plans[0]["halo"], plans[0]["functions"]) == (4, [3, 3], ["smooth"])
    assert not (folder / "out.tif").exists()
    assert "halo 3" in run("explain", "apply", *arguments[:-1]).stdout


def test_quiet_says_nothing(folder: Path, make_raster: MakeRaster) -> None:
    make_raster(pixels((1, 10, 10)))
    result = run("convert", "in.tif", "out.tif", "-q", "--threads", "1")
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["convert", "in.tif"], 2, "Missing argument 'OUTPUT'"),
        (["convert", "in.tif", "out.tif", "--level", "99"], 2, "level=99 is out of range"),
        (["convert", "in.tif", "out.tif", "--nodata", "x"], 2, "'x' is no number"),
        (["convert", "in.tif", "out.tif", "--overviews", "2", "--no-overviews"], 2, "does not go with"),
        (["convert", "in.tif", "out.tif", "--overviews", "two"], 2, "must be whole numbers"),
        (["convert", "in.tif", "out.tif", "--blocksize", "1,2,3"], 2, "rows,columns"),
        (["convert", "in.tif", "out.tif", "--tags", "A"], 2, "must be NAME=VALUE"),
        (["convert", "in.tif", "out.xyz"], 2, "known suffixes are"),
        (["convert", "in.tif", "out.tif", "--no-clobber"], 0, ""),
        (["convert", "in.tif", "in.tif", "--no-clobber"], 1, "in.tif exists; --clobber replaces it"),
        (["convert", "missing.tif", "out.tif"], 1, "Error: there is no file missing.tif"),
        (["convert", "filters.py", "out.tif"], 1, "filters.py"),
        (["convert", "in.tif", "nowhere/out.tif"], 1, "nowhere"),
        (["convert", "in.tif", "out.tif", "--workers", "2"], 2, "--workers needs --cluster"),
        (["convert", "in.tif", "out.tif", "--cluster", "slurm", "--dry-run"], 2, "starts no jobs"),
        (["calc", "b1+", "in.tif", "out.tif"], 2, "Error: "),
        (["calc", "b1", "in.tif"], 2, "an input and an output are needed"),
        (["mosaic", "no*.tif", "out.tif"], 2, "no file matches"),
        (["mosaic", "@no.txt", "out.tif"], 2, "cannot be read"),
        (["apply", "smooth", "in.tif", "out.tif"], 2, "must be module:function"),
        (["apply", "no_such:smooth", "in.tif", "out.tif"], 2, "there is no module 'no_such'"),
        (["apply", "no.py:smooth", "in.tif", "out.tif"], 2, "there is no file no.py"),
        (["apply", "filters:smoth", "in.tif", "out.tif"], 2, "it has failing, median_filter, smooth, two"),
        (["apply", "filters:smooth", "in.tif", "out.tif", "--kwargs", "{size: 5}"], 2, "is no JSON"),
        (["apply", "filters:smooth", "in.tif", "out.tif", "--kwargs", "5"], 2, "must be names and values"),
        (["apply", "filters:smooth", "in.tif", "out.tif", "--boundary", "mirror"], 2, "mirror"),
    ],
)  # fmt: skip
def test_exit_codes(folder: Path, make_raster: MakeRaster, arguments: list[str], code: int, message: str) -> None:
    make_raster(pixels((1, 20, 20)))
    result = run(*arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    if code:
        assert sorted(os.listdir()) == ["filters.py", "in.tif"] or "__pycache__" in os.listdir()


def test_the_users_exception_comes_with_its_line(folder: Path, make_raster: MakeRaster) -> None:
    make_raster(pixels((1, 20, 20)))
    arguments = ["apply", "filters:failing", "in.tif", "out.tif", "--dtype", "uint8", "--bands", "1"]
    result = run(*arguments, code=1)
    line = FILTERS.splitlines().index('    raise KeyError(f"no entry {wrong > 0}")') + 1
    assert "Error: KeyError: 'no entry True'" in result.stderr
    assert f"filters.py:{line} in failing: raise KeyError" in result.stderr
    assert "Window(row_off=0" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "out.tif").exists()
    assert "Traceback" in run(*arguments, "--debug", code=1).stderr


def test_a_warning_is_one_line(folder: Path, make_raster: MakeRaster) -> None:
    make_raster(pixels((1, 20, 20), "uint8"))
    process = start(folder, "calc", "b1/b1", "in.tif", "out.tif", "--dtype", "uint8", "--quiet")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("Warning: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (values.number_or_none, "none", "none"),
        (values.number_or_none, "18446744073709551615", 18446744073709551615),
        (values.number_or_none, "-1.5", -1.5),
        (values.pixels, "512", 512),
        (values.pixels, "256,512", (256, 512)),
        (values.chunks, "auto", "auto"),
        (values.names, "red, nir", ("red", "nir")),
        (values.names, '["a,b", "c"]', ("a,b", "c")),
        (values.by_value, '{"1": [1, 2, 3, 4]}', {1: (1, 2, 3, 4)}),
        (values.by_value, '["a", "b"]', ["a", "b"]),
        (values.plain, {"a": (math.nan, -math.inf, np.float32(1.5), np.arange(2), Path("x"))}, {"a": ["nan", "-inf", 1.5, [0, 1], "x"]}),
    ],
)  # fmt: skip
def test_texts_as_values(convert: Any, text: Any, value: Any) -> None:
    assert convert(text) == value


def test_help_and_the_tab_key_load_nothing_heavy(folder: Path) -> None:
    script = "main(standalone_mode=False); print({'xarray', 'dask', 'rasterio', 'h5py', 'pandas'} & set(sys.modules))"
    out, err = start(folder, "apply", "--help", script=script).communicate(timeout=60)
    assert out.splitlines()[-1] == "set()", err


def test_the_package_is_whole_for_the_users_module(folder: Path) -> None:
    script = "import daskraster as dr; assert not hasattr(dr, 'nonsense'); dr.Grid; import xarray as xr; print(xr.DataArray([1]).dr, sorted(dr.__all__) == sorted(n for n in dr.__all__ if hasattr(dr, n)))"
    out, err = start(folder, script=script).communicate(timeout=60)
    assert "DaskRasterAccessor" in out, err
    assert out.endswith("True\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [("daskraster co", "convert"), ("daskraster explain ca", "calc"), ("daskraster calc --cl", "--cluster")],
)
def test_completion(folder: Path, words: str, found: str) -> None:
    number = str(len(words.split()) - 1)
    process = start(folder, _DASKRASTER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
    assert f"plain,{found}" in process.communicate(timeout=60)[0].splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_script_is_bash(folder: Path) -> None:
    script, err = start(folder, _DASKRASTER_COMPLETE="bash_source").communicate(timeout=60)
    assert "complete" in script, err
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_worker_processes_get_the_code_of_the_folder(folder: Path, make_raster: MakeRaster) -> None:
    image = pixels((1, 60, 60))
    make_raster(image)
    (folder / "workers.yaml").write_text(
        "memory: 1 GiB\nenvironment: {OMP_NUM_THREADS: '1'}\ndistributed: {comm: {timeouts: {connect: 60s}}}\n"
    )
    arguments = [
        "--overlap",
        "1",
        "--cluster",
        "local",
        "--workers",
        "1",
        "--threads",
        "1",
        "--cluster-config",
        "workers.yaml",
    ]
    process = start(folder, "apply", "filters:smooth", "in.tif", "out.tif", *arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (read(folder / "out.tif") == median_filter(image, size=(1, 3, 3))).all()
    result = run("convert", "in.tif", "o.tif", "--cluster-config", "filters.py", code=2)
    assert "--cluster-config filters.py" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals as a terminal sends them")
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_nothing(folder: Path, make_raster: MakeRaster, presses: int) -> None:
    make_raster(pixels((1, 256, 256)))
    (folder / "out").mkdir()
    (folder / "slow.py").write_text("import time\ndef slow(block):\n    time.sleep(0.3)\n    return block\n")
    process = start(
        folder,
        "apply",
        "slow:slow",
        "in.tif",
        "out/o.tif",
        "--chunks",
        "16",
        "--blocksize",
        "16",
        "--dtype",
        "uint16",
        "--bands",
        "1",
    )
    while not any(name.endswith(".part") for name in os.listdir("out")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    for _ in range(presses):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted: no output was touched." in err
    assert "Traceback" not in err
    assert os.listdir("out") == []


@pytest.mark.parametrize("dry", [False, True])
def test_apply_with_inputs_by_name(folder: Path, make_raster: MakeRaster, dry: bool) -> None:
    (folder / "index.py").write_text(
        "def ndvi(first, red, nir, block=None, gain=1):\n"
        "    return (nir.astype('float32') - red) / (nir + red) * gain + first * 0 + block.window.row_off\n"
    )
    red, nir = pixels((1, 40, 50)), pixels((1, 40, 50), "float32")
    make_raster(red, "red.tif")
    make_raster(nir, "nir.tif")
    arguments = [
        "apply",
        "index.py:ndvi",
        "red.tif",
        "-i",
        "nir=nir.tif",
        "-i",
        "red=red.tif",
        "out.tif",
        "--with-block",
    ]
    arguments += ["--kwargs", '{"gain": 2}', "--json", "--chunks", "32", *(["--dry-run"] if dry else [])]
    told = json.loads(run(*arguments).stdout)
    if dry:
        assert told["functions"] == ["ndvi"]
        assert not (folder / "out.tif").exists()
        return
    assert told["dtype"] == "float32"
    rows = np.where(np.arange(40) < 32, 0, 32)[:, np.newaxis]
    due = (nir.astype("float32") - red) / (nir + red) * 2 + rows
    np.testing.assert_allclose(read(folder / "out.tif"), due, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "a=in.tif", "-i", "a=in.tif", "o.tif"], "the function gets 'a' already"),
        (["-i", "class=in.tif", "o.tif"], "cannot be the name of an argument"),
        (["-i", "block=in.tif", "o.tif", "--with-block"], "the function gets 'block' already"),
        (["-i", "size=in.tif", "o.tif", "--kwargs", '{"size": 3}'], "the function gets 'size' already"),
        (["-o", "o.tif"], "an input is needed"),
        ([], "an output is needed"),
        (["in.tif", "-q"], "an input and an output are needed"),
    ],
)
def test_apply_refuses_wrong_names_of_inputs(
    folder: Path, make_raster: MakeRaster, arguments: list[str], message: str
) -> None:
    make_raster(pixels((1, 20, 20)), "in.tif")
    result = run("apply", "filters.py:smooth", *arguments, code=2)
    assert message in result.output
    assert not (folder / "o.tif").exists()


def test_the_tab_key_offers_files(folder: Path) -> None:
    from click.shell_completion import ShellComplete

    completion = ShellComplete(main, {}, "daskraster", "_DASKRASTER_COMPLETE")
    for words in (
        ["convert"],
        ["apply"],
        ["apply", "f.py:smooth"],
        ["apply", "f.py:smooth", "-o"],
        ["mosaic"],
        ["info"],
    ):
        assert [one.type for one in completion.get_completions(words, "in")] == ["file"], words


def test_help_names_every_command_in_whole_sentences() -> None:
    lines = run("--help").output.partition("Commands:")[2].strip().splitlines()
    assert len(lines) == 6
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_python_m(folder: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "daskraster", "info", "nowhere.tif"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(dr.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stderr.startswith("Error: there is no file nowhere.tif in ")
