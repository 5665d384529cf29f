"""Notebooks are run as a user does, and kept without what they printed."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(notebook: Path, run: Path, count: int, monkeypatch) -> str:
  """What a notebook prints about a run, from its first to its last cell."""
  monkeypatch.setenv("MMJAX_RUN", str(run))
  monkeypatch.setenv("MMJAX_COUNT", str(count))
  monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
  monkeypatch.setenv("MPLBACKEND", "agg")
  made = nbformat.read(notebook, as_version=4)
  NotebookClient(made, timeout=300, kernel_name="python3").execute()
  return "".join(
    output.get("text", "")
    for cell in made.cells
    for output in cell.get("outputs", [])
  )


def check_is_kept_without_outputs(notebook: Path) -> None:
  for cell in nbformat.read(notebook, as_version=4).cells:
    assert not cell.get("outputs") and not cell.get("execution_count")
