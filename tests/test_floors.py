"""A module imports only from floors below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "daskraster"
GROUND = {
    "errors",
    "grid",
    "metadata",
    "labels",
    "pixeltypes",
    "options",
    "files",
    "positioned",
    "writers",
    "gaps",
    "posting",
    "timing",
    "spans",
    "showing",
    "printing",
    "hints",
}
FLOORS = [
    GROUND,
    {"blocks"},
    {"formats"},
    {"lazy"},
    {"pictures"},
    {"running"},
    {"accessor", "backend", "cli"},
    {"__main__"},
]
# What a floor may know of the world outside.
FORBIDDEN = {
    0: {"dask", "distributed", "xarray", "rioxarray", "rasterio", "h5py"},
    1: {"dask", "distributed", "xarray", "rioxarray", "rasterio", "h5py"},
    2: {"dask", "distributed", "xarray", "rioxarray"},
    3: {"rasterio", "h5py", "distributed"},
    4: {"rasterio", "h5py", "distributed"},
    5: {"rasterio", "h5py"},
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def floor_of(name: str) -> int:
    """Floor of ``daskraster.<name>...``."""
    return next(number for number, names in enumerate(FLOORS) if name in names)


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    floor = floor_of(parts[0])
    for name in imports(path):
        if name.startswith("daskraster."):
            other = name.split(".")[1]
            same_package = len(parts) > 1 and other == parts[0]
            assert same_package or floor_of(other) < floor or {parts[0], other} <= GROUND, (
                f"{path.name} imports {name}, not below it"
            )
        assert name.split(".")[0] not in FORBIDDEN.get(floor, set()), (
            f"{path.name} imports {name}, which its floor does not know"
        )


def test_ground_has_no_circles() -> None:
    wanted = {
        name: {n.split(".")[1] for n in imports(PACKAGE / f"{name}.py") if n.startswith("daskraster.")}
        for name in GROUND
    }
    done: set[str] = set()
    while len(done) < len(GROUND):
        ready = {name for name, needs in wanted.items() if name not in done and needs <= done}
        assert ready, f"a circle among {GROUND - done}"
        done |= ready


def test_no_import_of_our_own_inside_a_function() -> None:
    for path in MODULES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                inner = [
                    n
                    for n in ast.walk(function)
                    if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("daskraster")
                ]
                assert not inner, f"{path}: {function.name}"
