"""Norms against their formulas, in float32 whatever comes in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mmjax.layers.norm import LayerNorm, RMSNorm

X = np.random.RandomState(0).standard_normal((3, 5, 8)).astype(np.float32) * 3
SCALE = np.linspace(0.5, 2.0, 8).astype(np.float32)
BIAS = np.linspace(-1.0, 1.0, 8).astype(np.float32)


@pytest.mark.parametrize("use_bias", [True, False])
def test_layer_norm(use_bias):
  params = {"scale": SCALE} | ({"bias": BIAS} if use_bias else {})
  ours = LayerNorm(use_bias=use_bias).apply({"params": params}, X)
  theirs = torch.nn.functional.layer_norm(
    torch.tensor(X),
    (8,),
    torch.tensor(SCALE),
    torch.tensor(BIAS) if use_bias else None,
  )
  np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_rms_norm():
  ours = RMSNorm(1e-6).apply({"params": {"scale": SCALE}}, X)
  theirs = torch.nn.functional.rms_norm(
    torch.tensor(X), (8,), torch.tensor(SCALE), 1e-6
  )
  np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("norm", [LayerNorm(), RMSNorm()])
def test_low_precision_keeps_its_dtype_and_its_digits(norm):
  # A mean of 8-bit digits over 300 equal numbers would be off by percents.
  x = jnp.full((1, 300), 1.5, jnp.bfloat16).at[0, 0].set(-40.0)
  params = norm.init(jax.random.key(0), x)
  y = norm.apply(params, x)
  exact = norm.apply(params, x.astype(jnp.float32))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(y, np.float32), exact, rtol=1e-2)


def test_names():
  boxed = LayerNorm(axis="embed").init(jax.random.key(0), X)["params"]
  assert {k: v.names for k, v in boxed.items()} == {
    "scale": ("embed",),
    "bias": ("embed",),
  }
