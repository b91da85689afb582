"""Every example in a docstring does what it says; every public function has one."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import daskraster as dr

MODULES = ["daskraster", *(found.name for found in pkgutil.walk_packages(dr.__path__, "daskraster."))]
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [
    example
    for module in MODULES
    if not module.endswith("__main__")
    for example in FINDER.find(importlib.import_module(module), module)
    if example.examples
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples find beside them."""
    made = tmp_path_factory.mktemp("examples")
    image = dr.open_raster(dr.example_scene(made / "in.tif", 100))
    dr.write_raster(image.astype("int32"), made / "in.kea", progress=False, thematic=True)
    for band, name in ((1, "b4.tif"), (2, "b8.tif")):
        dr.write_raster(image.sel(band=[band]), made / name, progress=False)
    return made


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("daskraster."))
def test_example(example: doctest.DocTest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not result.failed, "".join(said)


@pytest.mark.parametrize("name", [name for name in dr.__all__ if name.islower()])
def test_public_functions_have_examples_that_run(name: str) -> None:
    doc = getattr(dr, name).__doc__
    assert "Examples\n" in doc
    assert ">>>" in doc
    assert "+SKIP" not in doc
