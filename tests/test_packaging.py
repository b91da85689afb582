"""The wheel has the package and nothing else, and what it says of itself holds; nothing optional is needed to import."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

WITHOUT_EXTRAS = """
import sys
import warnings

class Absent:
    names = {"matplotlib", "dask_jobqueue", "sklearn", "scipy", "geopandas", "pyogrio", "joblib", "ipywidgets", "shapely"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import daskraster as dr

image = dr.open_raster(dr.example_scene("in.tif", 100))
report = dr.write_raster(dr.apply(lambda block: block + 1, image, overlap=2), "out.tif", progress=False)
assert report.shape == (2, 100, 100), report
try:
    dr.zonal_statistics(image, "zones.gpkg")
except dr.OptionError as error:
    assert "pip install 'daskraster[vector]'" in str(error), error
else:
    raise AssertionError("vector zones without geopandas")
try:
    dr.cluster("slurm")
except dr.ClusterError as error:
    assert "daskraster[jobqueue]" in str(error), error
else:
    raise AssertionError("a batch system without dask-jobqueue")
"""


def test_runs_without_the_extras(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_wheel_and_sdist(tmp_path: Path) -> None:
    # From a copy: a build leaves folders behind.
    source = tmp_path / "source"
    shutil.copytree(ROOT / "daskraster", source / "daskraster", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = wheel.name.rsplit("-", 3)[0] + ".dist-info"
        assert "kea = daskraster.backend:KeaBackend" in archive.read(f"{info}/entry_points.txt").decode()
        assert "Description-Content-Type: text/markdown" in archive.read(f"{info}/METADATA").decode()
    assert "daskraster/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"daskraster", info}
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as source_archive:
        packed = {name.partition("/")[2] for name in source_archive.getnames()}
    assert {name.partition("/")[0] for name in packed} == {
        *(
            "",
            "LICENSE",
            "MANIFEST.in",
            "PKG-INFO",
            "README.md",
            "daskraster",
            "daskraster.egg-info",
            "pyproject.toml",
            "setup.cfg",
        )
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "daskraster").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    assert modules <= packed
    assert "daskraster/py.typed" in packed
