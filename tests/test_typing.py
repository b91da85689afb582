"""Types as a user's type checker and editor see them, in the package as it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import daskraster as dr

ROOT = Path(__file__).parents[1]


def test_a_users_script_is_fully_typed(tmp_path: Path) -> None:
    # From a folder of the user's, without this project's own settings; the script's "type: ignore" are errors that have to be there.
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(ROOT / ".mypy_cache" / "user"),
            str(ROOT / "tests/typed/user_script.py"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_editors_see_every_name_and_nothing_else_is_claimed() -> None:
    assert set(dr.__all__) <= set(dir(dr))
    code = "import daskraster as dr, sys; print(sorted(set(dr.__all__) - set(dir(dr))), 'daskraster.lazy.opening' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[]", "False"]
    assert (Path(dr.__file__).parent / "py.typed").exists()
