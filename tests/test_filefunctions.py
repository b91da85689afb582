"""The recipe's functions, unchanged: a file in, a file out."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from scipy.ndimage import median_filter

import daskraster as dr
from daskraster.errors import BlockResultError, OptionError, RasterNotFoundError
from daskraster.running import isolation
from tests.conftest import MakeRaster, pixels, read

RIO = Path(sys.executable).with_name("rio")
MESSAGE = "a line of text that only failures may show"


@pytest.fixture
def scratch(tmp_path: Path) -> Any:
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert not list(folder.iterdir()), "small files are left"


def add_one(tile: str) -> str:
    import rasterio

    out = tile.replace(".tif", "_1.tif")
    with rasterio.open(tile) as source:
        profile = source.profile
        with rasterio.open(out, "w", **profile) as target:
            target.write(source.read() + 1)
    return out


def median(tile: str, size: int = 3) -> str:
    import rasterio
    from scipy.ndimage import median_filter

    with rasterio.open(tile) as source, rasterio.open(tile + ".out.tif", "w", **source.profile) as target:
        target.write(median_filter(source.read(), size=(1, size, size), mode="nearest"))
    return tile + ".out.tif"


@pytest.mark.parametrize("shape", [(2, 61, 83), (1, 1, 1)])
def test_equals_the_function_on_the_whole_image(
    shape: tuple[int, int, int], make_raster: MakeRaster, tmp_path: Path, scratch: Path, engine: str
) -> None:
    if shape == (1, 1, 1) and engine != "threads":
        pytest.skip("one engine is enough for a single pixel")
    values = pixels(shape)
    path = make_raster(values, nodata=9)
    report = dr.process_files(
        median, path, tmp_path / "out.tif", overlap=2, chunks=32, scratch=scratch, kwargs={"size": 5}
    )
    assert report.shape == shape
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), median_filter(values, size=(1, 5, 5), mode="nearest"))


def test_the_tile_says_what_the_raster_says(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    image = make_raster(pixels((2, 40, 40), "int16"), nodata=-7)
    with rasterio.open(image, "r+") as dataset:
        dataset.descriptions = ("red", "nir")
        dataset.update_tags(SENSOR="tm")

    def look(tile: str) -> str:
        import json

        import rasterio

        with rasterio.open(tile) as dataset:
            seen = [
                dataset.crs.to_string(),
                list(dataset.transform)[:6],
                dataset.nodata,
                list(dataset.descriptions),
                dataset.tags()["SENSOR"],
                [dataset.height, dataset.width],
                dataset.profile.get("compress"),
            ]
        raise ValueError(json.dumps(seen))

    with pytest.raises(ValueError, match="EPSG:32755") as caught:
        dr.process_files(look, image, tmp_path / "out.tif", overlap=3, chunks=((16, 24), (30, 10)), scratch=scratch)
    # The smallest block, rows 0-16 and columns 30-40: with its halo 19 rows from the top, 13 columns from column 27.
    assert str(caught.value) == (
        '["EPSG:32755", [10.0, 0.0, 300270.0, 0.0, -10.0, 6000000.0], -7.0, ["red", "nir"], "tm", [19, 13], null]'
    )


@pytest.mark.skipif(not RIO.exists(), reason="rasterio's command line is not installed")
def test_a_function_that_calls_the_command_line(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    values = pixels((1, 50, 70), "uint8").clip(1)  # rio calc needs a nodata value

    def by_command(tile: str) -> str:
        out = tile + ".calc.tif"
        subprocess.run([str(RIO), "calc", "--dtype", "float32", "(+ 1 (read 1))", tile, out], check=True)
        return out

    dr.process_files(by_command, make_raster(values, nodata=0), tmp_path / "out.tif", chunks=48, scratch=scratch)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), values.astype("float32") + 1)


def test_a_command_that_fails_tells_what_it_said(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    def by_command(tile: str) -> str:
        code = f"import sys; print({MESSAGE!r}, file=sys.stderr); sys.exit(3)"
        subprocess.run([sys.executable, "-c", code], check=True)
        return tile

    with pytest.raises(subprocess.CalledProcessError, match="status 3") as caught:
        dr.process_files(by_command, make_raster(pixels((1, 40, 40))), tmp_path / "out.tif", scratch=scratch)
    assert any(MESSAGE in note for note in caught.value.__notes__)


def test_what_it_prints_is_not_shown(
    make_raster: MakeRaster, tmp_path: Path, scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def chatty(tile: str) -> str:
        print(MESSAGE)  # noqa: T201 - as such functions do
        os.write(2, MESSAGE.encode())
        subprocess.run(["echo", MESSAGE], check=True)
        return add_one(tile)

    values = pixels((1, 40, 40))
    dr.process_files(chatty, make_raster(values), tmp_path / "out.tif", chunks=16, scratch=scratch, progress=False)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), values + 1)
    assert capfd.readouterr() == ("", "")


class OwnError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def test_a_function_that_raises(make_raster: MakeRaster, tmp_path: Path, scratch: Path, engine: str) -> None:
    path = make_raster(pixels((1, 40, 40)), nodata=0)
    (tmp_path / "out.tif").write_text("what stood there")

    def fails(tile: str) -> str:
        print(MESSAGE)  # noqa: T201 - as such functions do
        Path(tile).with_name("half").write_text("left behind")
        if "_1_1" in tile:
            raise KeyError("no such class")
        return add_one(tile)

    with pytest.raises(KeyError, match="no such class") as caught:
        dr.process_files(fails, path, tmp_path / "out.tif", chunks=((32, 8), (8, 32)), overlap=1, scratch=scratch)
    notes = "\n".join(caught.value.__notes__)
    assert MESSAGE in notes
    assert "in the process of fails:" in notes
    assert "KeyError: 'no such class'" in notes
    assert "Window(row_off=32, col_off=8, height=8, width=32)" in notes
    assert (tmp_path / "out.tif").read_text() == "what stood there"


def test_an_error_that_does_not_travel(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    def fails(tile: str) -> str:
        raise OwnError("one", "two")

    with pytest.raises(BlockResultError, match=r"the function raised .*OwnError: one and two"):
        dr.process_files(fails, make_raster(pixels((1, 40, 40))), tmp_path / "out.tif", scratch=scratch)


def test_a_function_that_exits(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    path = make_raster(pixels((1, 40, 40)))
    with pytest.raises(BlockResultError, match="the function raised SystemExit: 3"):
        dr.process_files(lambda tile: sys.exit(3), path, tmp_path / "out.tif", scratch=scratch)

    def dies(tile: str) -> str:
        print(MESSAGE, flush=True)  # noqa: T201 - as such functions do
        os.kill(os.getpid(), signal.SIGSEGV)
        return tile

    with pytest.raises(BlockResultError, match="process in which dies ran was killed by SIGSEGV") as caught:
        dr.process_files(dies, path, tmp_path / "out.tif", scratch=scratch)
    assert any(MESSAGE in note for note in caught.value.__notes__)


def shrinks(tile: str) -> str:
    import rasterio

    with rasterio.open(tile) as source:
        profile = {**source.profile, "height": source.height - 1}
        with rasterio.open(tile + "o", "w", **profile) as target:
            target.write(source.read()[:, 1:])
    return tile + "o"


def in_another_type(tile: str) -> str:
    import rasterio

    with rasterio.open(tile) as source:
        kind = "float32" if "_0_0" in tile else "float64"
        with rasterio.open(tile + "o", "w", **{**source.profile, "dtype": kind}) as target:
            target.write(source.read().astype(kind))
    return tile + "o"


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (lambda tile: tile + ".out", r"<?lambda>? returned .*block_0_0\.tif\.out, but wrote no file there"),
        (lambda tile: None, "must return the path of the file it wrote, got None"),
        (lambda tile: 3, "must return the path of the file it wrote, got 3"),
        (lambda tile: __file__, "which is no raster"),
        (shrinks, "shrinks wrote a file of 16 x 15 pixels; it must have the 16 x 16"),
    ],
)
def test_what_comes_back_is_checked(
    func: Any, message: str, make_raster: MakeRaster, tmp_path: Path, scratch: Path
) -> None:
    with pytest.raises(BlockResultError, match=message) as caught:
        dr.process_files(func, make_raster(pixels((1, 16, 16))), tmp_path / "out.tif", scratch=scratch)
    assert any("Window(row_off=0, col_off=0, height=16, width=16)" in note for note in caught.value.__notes__)
    assert Path(__file__).exists()


def test_dtype_may_not_change_between_blocks(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(BlockResultError, match="expected dtype float32, got float64"):
        dr.process_files(
            in_another_type, make_raster(pixels((1, 16, 32))), tmp_path / "out.tif", chunks=16, scratch=scratch
        )


def test_the_file_says_more_than_the_input(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    def classes(tile: str) -> str:
        import rasterio

        with rasterio.open(tile) as source:
            profile = {**source.profile, "dtype": "uint8", "nodata": 255}
            with rasterio.open(tile + "c", "w", **profile) as target:
                target.write((source.read(1) > 20_000).astype("uint8"), 1)
                target.set_band_description(1, "water")
                target.write_colormap(1, {1: (0, 0, 255, 255)})
        return tile + "c"

    dr.process_files(classes, make_raster(pixels((1, 40, 40)), nodata=0), tmp_path / "out.tif", scratch=scratch)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.nodata, dataset.descriptions, dataset.colormap(1)[1]) == (255, ("water",), (0, 0, 255, 255))


def test_nodata_of_the_input_is_kept_where_the_file_says_none(
    make_raster: MakeRaster, tmp_path: Path, scratch: Path
) -> None:
    def forgetful(tile: str) -> str:
        import rasterio

        with rasterio.open(tile) as source:
            profile = {**source.profile, "nodata": None, "crs": None}
            with rasterio.open(tile + "c", "w", **profile) as target:
                target.write(source.read())
        return tile + "c"

    path = make_raster(pixels((1, 40, 40)), nodata=4)
    dr.process_files(forgetful, path, tmp_path / "out.tif", scratch=scratch)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.nodata, dataset.crs.to_epsg()) == (4, 32755)


def test_kea_in_and_out(make_raster: MakeRaster, tmp_path: Path, scratch: Path) -> None:
    values = pixels((2, 40, 50))

    def plus_two(tile: str) -> str:
        import daskraster as dr

        out = tile.replace(".kea", "_2.kea")
        dr.write_raster(dr.open_raster(tile) + 2, out, progress=False)
        return out

    dr.process_files(plus_two, make_raster(values), tmp_path / "out.kea", format="kea", chunks=32, scratch=scratch)
    np.testing.assert_array_equal(dr.open_raster(tmp_path / "out.kea").values, values + 2)


def test_files_elsewhere_go_too_where_the_function_made_them(
    make_raster: MakeRaster, tmp_path: Path, scratch: Path
) -> None:
    values = pixels((1, 16, 32))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    constant = make_raster(values[:, :, :16], "constant.tif")

    def beside(tile: str) -> str:
        os.chdir(elsewhere)
        shutil.copy(tile, f"{os.getpid()}.tif")
        return f"{os.getpid()}.tif"  # relative to where the function went

    home = Path.cwd()
    path = make_raster(values)
    dr.process_files(beside, path, tmp_path / "out.tif", chunks=16, scratch=scratch)
    np.testing.assert_array_equal(read(tmp_path / "out.tif"), values)
    assert not list(elsewhere.iterdir())
    assert Path.cwd() == home
    # A file that was there before is the user's.
    dr.process_files(lambda tile: constant, path, tmp_path / "out.tif", chunks=16, scratch=scratch)
    assert constant.exists()


def test_the_folder_is_private_and_in_memory(
    make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def where(tile: str) -> str:
        raise ValueError(f"{Path(tile).parent} {Path(tile).parent.stat().st_mode}")

    path = make_raster(pixels((1, 16, 16)))
    for ram_disk, due in ((isolation.RAM_DISK, isolation.RAM_DISK), (tmp_path / "none", Path(tempfile.gettempdir()))):
        if not ram_disk.is_dir() and ram_disk == due:
            continue
        monkeypatch.setattr(isolation, "RAM_DISK", ram_disk)
        with pytest.raises(ValueError, match=str(due)) as caught:
            dr.process_files(where, path, tmp_path / "out.tif")
        folder, mode = str(caught.value).split()
        assert Path(folder).parent == due
        assert stat.S_IMODE(int(mode)) == 0o700
        assert not Path(folder).exists()
    monkeypatch.setattr(isolation, "RAM_DISK", tmp_path)
    assert isolation.memory_folder(1000) == str(tmp_path)
    assert isolation.memory_folder(1 << 60) == tempfile.gettempdir()


def test_a_process_whose_owner_is_killed_removes_its_files(make_raster: MakeRaster, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    path = make_raster(pixels((1, 16, 16)))
    code = f"""
import os, time
import daskraster as dr
def slow(tile):
    open(tile + ".more", "w").close()
    open({str(tmp_path / "runs")!r}, "w").close()
    time.sleep(1)
    return tile
dr.process_files(slow, {str(path)!r}, {str(tmp_path / "out.tif")!r}, scratch={str(folder)!r})
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        _wait((tmp_path / "runs").exists)
        assert len(list(folder.glob("*/*"))) == 2
        process.kill()
    _wait(lambda: not list(folder.iterdir()))


def test_ctrl_c_ends_the_functions_too(make_raster: MakeRaster, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    path = make_raster(pixels((1, 16, 32)))
    code = f"""
import os, time
import daskraster as dr
def slow(tile):
    if "_0_0" not in tile:
        open({str(tmp_path / "runs")!r}, "w").close()
        time.sleep(600)
    return tile
dr.process_files(slow, {str(path)!r}, {str(tmp_path / "out.tif")!r}, scratch={str(folder)!r}, chunks=16)
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        _wait((tmp_path / "runs").exists)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in err
    assert not list(folder.iterdir())
    assert not (tmp_path / "out.tif").exists()


def _wait(ready: Any) -> None:
    import time

    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"func": "add_one"}, "first argument of process_files must be the function"),
        ({"format": "ENVI"}, "format='ENVI' cannot be handed to a function; possible are GTiff, KEA"),
        ({"scratch": "/nowhere"}, "scratch='/nowhere' is no folder"),
        ({"overlap": -1}, "overlap=-1"),
        ({"kwargs": {"lock": __import__("threading").Lock()}}, "cannot be sent to another process"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    given = {"func": add_one, "input": make_raster(pixels((1, 16, 16))), "output": tmp_path / "out.tif", **arguments}
    with pytest.raises(OptionError, match=message):
        dr.process_files(**given)
    with pytest.raises(RasterNotFoundError, match="there is no file"):
        dr.process_files(add_one, "gone.tif", tmp_path / "out.tif")
