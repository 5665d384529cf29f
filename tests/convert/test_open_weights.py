"""One door to weights, whatever the file."""

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
