"""The notebook runs from the first to the last cell, on a tiny run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from configs.llava import tiny
from mmjax.cli.train import train

NOTEBOOK = Path("notebooks/llava.ipynb")
LM = dict(
  name="llama",
  vocab_size=49_152,
  width=16,
  num_layers=1,
  num_heads=2,
  hidden=16,
  tie_embeddings=True,
)


def shrunk():
  """The second stage, from nothing, with a language model of a layer."""
  config = tiny.get_config("finetune")
  config.model.lm = LM
  config.model.connector.width = LM["width"]
  config.init = {}
  config.data.datasets.chats.batch = 4
  config.train.plan.update(steps=2, log_every=1, checkpoint_every=2)
  return config


@pytest.mark.heavy
def test_executes(tmp_path, monkeypatch):
  train(shrunk(), tmp_path)
  root = str(Path.cwd())
  monkeypatch.setenv("MMJAX_RUN", str(tmp_path))
  monkeypatch.setenv("MMJAX_COUNT", "4")
  monkeypatch.setenv("PYTHONPATH", root)
  monkeypatch.setenv("MPLBACKEND", "agg")
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
  printed = "".join(
    output.get("text", "")
    for cell in notebook.cells
    for output in cell.get("outputs", [])
  )
  assert "Llava of" in printed and "wrong_query" in printed


def test_is_kept_without_outputs():
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  for cell in notebook.cells:
    assert not cell.get("outputs") and not cell.get("execution_count")
