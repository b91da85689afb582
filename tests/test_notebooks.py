"""Each notebook runs from top to bottom in a kernel of its own, and no output is committed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SAYS = {
    "1_three_lines": ["differ with a halo of 2: 0"],
    "2_your_own_function": ["none: [268 280 280 268]", "reflect: [280 280 280 280]"],
    "5_on_a_cluster": ["a worker died: True", "half.tif is there: False", "blocks were there already"],
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    if kept := os.environ.get("DASKRASTER_NOTEBOOKS_OUT"):
        nbformat.write(notebook, Path(kept) / path.name)
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )
    for text in SAYS.get(path.stem, []):
        assert text in printed
    assert "differ without a halo:  0\n" not in printed
