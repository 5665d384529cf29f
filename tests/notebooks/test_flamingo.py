"""The notebook runs from the first to the last cell, on a tiny run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from mmjax.cli.train import train
from tests.training.child import tiny

NOTEBOOK = Path("notebooks/flamingo.ipynb")


@pytest.mark.heavy
def test_executes(tmp_path, monkeypatch):
  train(tiny(4), tmp_path)
  root = str(Path.cwd())
  monkeypatch.setenv("MMJAX_RUN", str(tmp_path))
  monkeypatch.setenv("MMJAX_COUNT", "32")
  monkeypatch.setenv("PYTHONPATH", root)
  monkeypatch.setenv("MPLBACKEND", "agg")
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
  printed = "".join(
    output.get("text", "")
    for cell in notebook.cells
    for output in cell.get("outputs", [])
  )
  assert "Flamingo of" in printed and "blank_support" in printed


def test_is_kept_without_outputs():
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  for cell in notebook.cells:
    assert not cell.get("outputs") and not cell.get("execution_count")
