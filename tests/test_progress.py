"""The line on a terminal, the lines in a log."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daskraster.running.progress import Progress, in_words
from tests.conftest import MakeRaster, pixels

SCRIPT = """
import sys
import daskraster as dr

def shout(block):
    print("a line from the function")
    return block

image = dr.apply(shout, dr.open_raster(sys.argv[1], chunks=32), dtype="uint16", bands=1)
report = dr.write_raster(image, sys.argv[2], blocksize=32)
assert report.output.count("a line from") == 16, report.output
"""


class Clock:
    """Time that passes when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, logger="daskraster"), Progress("x.tif", 20, wanted=True, clock=clock) as line:
        line.skip(4)
        for seconds in (20, 39, 1, 30, 200, 30):  # 20, 59, 60, 90, 290, 320
            clock.now += seconds
            line.add(3_000_000)
    assert [record.getMessage() for record in caplog.records] == [
        "x.tif: 35%, 7 of 20 blocks, 0 MB/s, 4 min left",
        "x.tif: 45%, 9 of 20 blocks, 0 MB/s, 11 min left",
        "x.tif: 50%, 10 of 20 blocks, 0 MB/s, 9 min left",
    ]


@pytest.mark.parametrize("wanted", [True, False])
def test_no_line_for_a_short_run_or_a_quiet_one(caplog: pytest.LogCaptureFixture, wanted: bool) -> None:
    clock = Clock()
    with caplog.at_level(logging.INFO, logger="daskraster"), Progress("x", 2, wanted=wanted, clock=clock) as line:
        for _ in range(2):
            clock.now += 29.9 if wanted else 100
            line.add(1)
    assert caplog.records == []


def test_time_in_words() -> None:
    assert [in_words(seconds) for seconds in (0.4, 99, 100, 5400, 11100)] == [
        "0 s",
        "99 s",
        "2 min",
        "90 min",
        "3 h 05 min",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="a pseudo terminal")
def test_one_line_on_a_terminal(make_raster: MakeRaster, tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    source = make_raster(pixels((1, 128, 128)))
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    out = tmp_path / f"{'long_' * 12}name.tif"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(out)], stdout=follower, stderr=follower, stdin=follower
    )
    os.close(follower)
    text = b""
    try:
        while part := os.read(leader, 4096):
            text += part
    except OSError:  # the terminal is gone when the process has ended
        pass
    os.close(leader)
    assert process.wait() == 0, text
    shown = text.decode().replace("\r\n", "\n")
    assert shown.count("\n") == 1
    assert "a line from the function" not in shown
    assert shown.endswith("\n")
    assert all(len(line) <= 60 for line in shown.rstrip("\n").split("\r"))


NOTEBOOK = """
import daskraster as dr
image = dr.open_raster(dr.example_scene("in.tif", 100), chunks=32)
reports = [dr.write_raster(image, "out.tif", blocksize=32)]
reports
"""
WITHOUT_WIDGETS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ipywidgets":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize("widgets", [True, False])
def test_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widgets: bool) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    cells = [nbformat.v4.new_code_cell(text) for text in ("pass" if widgets else WITHOUT_WIDGETS, NOTEBOOK)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = cells[1].outputs
    written = "".join(one.text for one in outputs if one.output_type == "stream")
    shown = [one.data for one in outputs if "data" in one]
    if widgets:
        assert "application/vnd.jupyter.widget-view+json" in shown[0]
        state = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
        texts = [str(model["state"].get("value", "")).replace("\u2007", " ") for model in state.values()]
        assert any("16/16 blocks" in text and "MB/s" in text for text in texts), texts
        assert written == ""
    else:
        # One line, written over; nothing asks for a package that the user may not have.
        assert [line for line in written.split("\n") if line.strip("\r")] == [written.rstrip("\n")]
        assert written.rstrip("\n").split("\r")[-1].startswith("out.tif: 100%")
        assert "arning" not in written
        assert "ipywidgets" not in written
    assert shown[-1]["text/plain"].startswith(f"[{tmp_path / 'out.tif'}\n")  # a list of reports as they print


def test_no_bar_is_imported_where_nobody_sees_it() -> None:
    script = """
import sys
from daskraster.running.progress import Progress
for wanted in (True, False):
    with Progress("x.tif", 3, wanted=wanted) as line:
        line.skip(1)
        line.again(1)
        line.add(5)
print("tqdm" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
