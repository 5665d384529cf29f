"""One door to weights, whatever the file."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mmjax.convert.read import open_weights


def test_every_format_gives_the_same_mapping(tmp_path):
  save_file({"w": np.arange(3.0)}, tmp_path / "a.safetensors")
  torch.save({"w": torch.arange(3.0)}, tmp_path / "a.bin")
  torch.save({"model": {"w": torch.arange(3.0)}}, tmp_path / "a.pt")
  opened = [
    open_weights(tmp_path / "a.safetensors"),
    open_weights(tmp_path),
    open_weights(str(tmp_path / "a.bin")),
    open_weights(tmp_path / "a.pt", part="model"),
  ]
  for weights in opened:
    assert list(weights) == ["w"] and weights.shape("w") == (3,)
    np.testing.assert_array_equal(weights["w"], np.arange(3.0))


def test_parts_are_of_checkpoints_only(tmp_path):
  with pytest.raises(ValueError, match="has no parts"):
    open_weights(tmp_path, part="model")


def torch_shards(folder, **weight_map):
  torch.save({"a": torch.ones(1)}, folder / "pytorch_model-1.bin")
  torch.save({"b": torch.ones(2)}, folder / "pytorch_model-2.bin")
  torch.save(torch.nn.Linear, folder / "training_args.bin")
  torch.save({"state": {}}, folder / "optimizer.pt")
  if weight_map:
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
  "index", [{}, {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}]
)
def test_what_training_leaves_beside_weights(index, tmp_path):
  torch_shards(tmp_path, **index)
  assert {k: v.shape for k, v in open_weights(tmp_path).items()} == {
    "a": (1,),
    "b": (2,),
  }


@pytest.mark.parametrize(
  "index, message",
  [
    ({"a": "../pytorch_model-1.bin"}, "no file name beside it"),
    ({"a": "pytorch_model-3.bin"}, "which is missing"),
    ({"a": "pytorch_model-1.bin", "c": "pytorch_model-1.bin"}, r"\['c'\]"),
    ({"a": 1}, "no 'weight_map'"),
  ],
)
def test_an_index_of_torch_files_that_lies(index, message, tmp_path):
  torch_shards(tmp_path, **index)
  with pytest.raises(ValueError, match=message):
    open_weights(tmp_path)
