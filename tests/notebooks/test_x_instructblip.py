"""The notebook runs from the first to the last cell, where there is no run."""

from pathlib import Path

import pytest

from tests.notebooks.executing import (
  check_is_kept_without_outputs,
  execute,
)

NOTEBOOK = Path("notebooks/x_instructblip.ipynb")


@pytest.mark.heavy
def test_executes(tmp_path, monkeypatch):
  monkeypatch.setenv("MMJAX_RUNS", str(tmp_path / "runs"))
  monkeypatch.setenv("MMJAX_DATA", str(tmp_path / "data"))
  # Most of the time is compiling.
  monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
  printed = execute(NOTEBOOK, tmp_path, 4, monkeypatch)
  assert printed.count("drawn at random") == 5
  rows = [line.split() for line in printed.splitlines() if line]
  scored = {row[0]: row[1:] for row in rows if len(row) == 4}
  assert scored.keys() == {"image", "video", "audio", "points", "both"}


def test_is_kept_without_outputs():
  check_is_kept_without_outputs(NOTEBOOK)
