"""Every block of code in README runs, in order, on a small scene."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import daskraster as dr
from tests.conftest import read

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    makes_the_image = re.search(r'python -c "(.*?)"', README)
    assert makes_the_image is not None
    exec(makes_the_image[1], {})
    values = dr.open_raster("in.tif").values
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    space: dict[str, object] = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)
    from scipy.ndimage import median_filter

    assert (read(tmp_path / "out.tif") == median_filter(values, size=(1, 5, 5))).all()
    assert (dr.open_raster(tmp_path / "smooth.kea").values == median_filter(values, size=(1, 5, 5))).all()
    red, nir = values.astype("float32")
    np.testing.assert_array_equal(read(tmp_path / "ndvi.tif")[0], (nir - red) / np.maximum(nir + red, 1))


def test_commands_exist() -> None:
    for command in re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{command}:", MAKEFILE, re.MULTILINE), f"README says make {command}"


def test_every_module_is_named() -> None:
    for path in (ROOT / "daskraster").rglob("*.py"):
        if path.name != "__init__.py":
            assert re.search(rf"\b{path.stem}\b", README), f"README does not name {path}"


def test_nothing_links_to_what_is_not_there() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / link).exists(), link
