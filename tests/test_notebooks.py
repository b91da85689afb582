"""The code of each notebook runs, and no output is committed."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mpl.use("Agg")
    space: dict[str, object] = {"__name__": "notebook"}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), path.name, "exec"), space)
    out = capsys.readouterr().out
    assert "differ with a halo of 2: 0" in out
    assert "differ without a halo:  0" not in out
    mpl.pyplot.close("all")
