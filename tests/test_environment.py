"""The papers agree with one another and with the package."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import daskraster as dr

ROOT = Path(__file__).parents[1]
NOT_OURS = {"Any", "TYPE_CHECKING", "annotations", "import_module"}
CONDA_NAMES = {"dask[array]": "dask-core", "matplotlib": "matplotlib-base", "build": "python-build"}


def test_environment_yml_names_the_packages_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"]}.union(*project["optional-dependencies"].values())
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    have = {re.sub(r"\s+", "", entry) for entry in entries if isinstance(entry, str)} - {"pip"}
    conda = set()
    for requirement in wanted:
        name, version = re.fullmatch(r"([^>]+)(>=.+)", requirement).groups()  # type: ignore[union-attr]
        conda.add(CONDA_NAMES.get(name, name) + version)
    assert have == conda | {"python" + project["requires-python"]}


def test_python_version_file_is_allowed() -> None:
    assert (ROOT / ".python-version").read_text().strip() == "3.13"


def test_all_is_sorted_and_importable() -> None:
    assert dr.__all__ == sorted(dr.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in dr.__all__:
        assert getattr(dr, name) is not None
    public = {
        name
        for name in vars(dr)
        if not name.startswith("_") and name not in NOT_OURS and not isinstance(getattr(dr, name), type(importlib))
    }
    assert public == set(dr.__all__) == set(dr._HOMES)
    assert set(dr.__all__) <= set(dir(dr))
    with pytest.raises(AttributeError, match="no attribute 'write_rasta'"):
        dr.write_rasta  # noqa: B018


def test_import_brings_no_more_than_was_asked_for() -> None:
    """Names come when they are asked for; ``.rio`` and ``.dr`` are there at once, h5py where a KEA file is met."""
    script = """
import sys, daskraster as dr, xarray as xr, numpy as np
assert {name for name in sys.modules if name.startswith("daskraster.")} == {"daskraster.accessor"}
assert xr.DataArray(np.ones((2, 2)), dims=("y", "x")).rio.count == 1
dr.open_raster, dr.apply, dr.write_raster
print([name for name in ("h5py", "distributed", "tqdm.auto") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in dr.__all__ if name != "INHERIT"])
def test_public_names_have_docstrings_with_raises(name: str) -> None:
    doc = getattr(dr, name).__doc__
    assert doc
    assert len(doc.strip()) > 20
    if name.islower():
        assert "Raises\n" in doc
        assert "Parameters\n" in doc


def test_docstring_draws_every_floor() -> None:
    assert dr.__doc__ is not None
    for path in (ROOT / "daskraster").iterdir():
        if (path / "__init__.py").exists():
            assert f"{path.name}/" in dr.__doc__, f"{path.name} is missing in the picture of the floors"
