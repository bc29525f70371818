"""The notebook that people start from runs, cell by cell, and shows what it promises."""

from pathlib import Path
from typing import Any

import pytest

from documents.pages import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


def read() -> Any:
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def shown(cell: Any) -> dict[str, Any]:
    """What the last line of a cell showed, by type."""
    return dict(cell.outputs[-1].data)


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    notebook = read()
    nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    first, history, found, energy, own, answer = [c for c in notebook.cells if c.get("outputs")]
    assert "<progress value='10' max='10'>" in first.outputs[0].data["text/html"]
    assert "<svg" in shown(first)["text/html"]
    assert "downlink_bits" in shown(history)["text/html"]
    assert "fixed" in shown(found)["text/plain"]
    assert shown(energy)["image/png"]
    assert "same-sign" in shown(own)["text/html"]
    assert shown(answer)["text/plain"] == "tensor([1, 0])"
    assert list(tmp_path.iterdir()) == []
    streams = [out for cell in notebook.cells for out in cell.get("outputs", [])
               if out.output_type == "stream"]  # fmt: skip
    assert streams == []  # nothing beside what was asked for


def test_the_notebook_is_kept_without_outputs() -> None:
    assert all(not cell.get("outputs") for cell in read().cells)
