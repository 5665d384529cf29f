"""The notebook runs from the first to the last cell, on a tiny run."""

from pathlib import Path

import pytest

from configs.llava import tiny
from mmjax.cli.train import train
from tests.notebooks.executing import (
  check_is_kept_without_outputs,
  execute,
)

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
  printed = execute(NOTEBOOK, tmp_path, 4, monkeypatch)
  assert "Llava of" in printed and "wrong_query" in printed


def test_is_kept_without_outputs():
  check_is_kept_without_outputs(NOTEBOOK)
