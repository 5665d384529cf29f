"""The notebook runs from the first to the last cell, on a tiny run."""

from pathlib import Path

import pytest

from mmjax.cli.train import train
from tests.notebooks.executing import (
  check_is_kept_without_outputs,
  execute,
)
from tests.training.child import tiny

NOTEBOOK = Path("notebooks/flamingo.ipynb")


@pytest.mark.heavy
def test_executes(tmp_path, monkeypatch):
  train(tiny(4), tmp_path)
  printed = execute(NOTEBOOK, tmp_path, 32, monkeypatch)
  assert "Flamingo of" in printed and "blank_support" in printed


def test_is_kept_without_outputs():
  check_is_kept_without_outputs(NOTEBOOK)
