"""Positions by convolution against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn

from mmjax.layers.conv import PositionConv


@pytest.mark.parametrize("size, groups", [(6, 2), (5, 3), (1, 1)])
def test_position_conv_is_a_weight_normed_convolution(size, groups):
  random = np.random.RandomState(0)
  x = random.standard_normal((2, 9, 12)).astype(np.float32)
  shapes = dict(kernel=(size, 12 // groups, 12), gain=(size,), bias=(12,))
  params = {
    k: random.standard_normal(s).astype(np.float32) for k, s in shapes.items()
  }
  conv = torch.nn.Conv1d(12, 12, size, padding=size // 2, groups=groups)
  conv = torch.nn.utils.parametrizations.weight_norm(conv, dim=2)
  kernel = params["kernel"].transpose(2, 1, 0)
  state = dict(
    zip(
      ("bias", "original0", "original1"),
      (params["bias"], params["gain"][None, None], kernel),
    )
  )
  for name, value in conv.named_parameters():
    value.data = torch.tensor(state[name.rsplit(".")[-1]])
  with torch.no_grad():
    y = conv(torch.tensor(x).transpose(1, 2))[..., :9]
    expected = torch.nn.functional.gelu(y).transpose(1, 2).numpy()
  out = PositionConv(size, groups).apply({"params": params}, x)
  np.testing.assert_allclose(out, expected, atol=2e-5)


def test_a_first_draw_is_as_it_is_drawn():
  """The gain starts as the norm, so that the kernel is what was drawn."""
  module = PositionConv(4, 2)
  x = jnp.zeros((1, 3, 8))
  params = nn.unbox(module.init(jax.random.key(0), x))["params"]
  norm = np.sqrt(np.square(params["kernel"]).sum(axis=(1, 2)))
  np.testing.assert_allclose(params["gain"], norm, rtol=1e-6)


def test_channels_that_do_not_part_into_groups():
  with pytest.raises(ValueError, match="8 channels do not part into 3"):
    PositionConv(4, 3).init(jax.random.key(0), jnp.zeros((1, 3, 8)))
