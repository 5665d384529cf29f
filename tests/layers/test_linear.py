"""The one projection, and its low-rank update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.layers.linear import Linear, contraction, dense, merge_lora

EQUATIONS = {
  "...D,DF->...F": (4, 6),
  "...D,DNH->...NH": (4, 2, 3),
  "...NH,NHD->...D": (2, 3, 4),
  "...D,FD->...F": (6, 4),
}


def make(equation, rank=0, use_bias=True):
  shape = EQUATIONS[equation]
  contracted, _ = contraction(equation)
  axes = tuple(f"axis{i}" for i in range(len(shape)))
  module = Linear(equation, shape, axes, use_bias=use_bias, rank=rank)
  x = np.random.RandomState(0).standard_normal(
    (3, 5, *(shape[i] for i in contracted))
  )
  x = jnp.asarray(x, jnp.float32)
  params = nn.unbox(module.init(jax.random.key(0), x))["params"]
  keys = jax.random.split(jax.random.key(1), len(params))
  drawn = {
    name: jax.random.normal(key, value.shape)
    for key, (name, value) in zip(keys, sorted(params.items()))
  }
  return module, drawn, x


@pytest.mark.parametrize("equation", EQUATIONS)
def test_it_is_the_einsum(equation):
  module, params, x = make(equation)
  expected = np.einsum(equation, x, params["kernel"]) + params["bias"]
  np.testing.assert_allclose(
    module.apply({"params": params}, x), expected, atol=1e-5
  )


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_merged_update_gives_the_same(equation):
  module, params, x = make(equation, rank=2)
  merged = merge_lora(params, equation)
  plain, _, _ = make(equation)
  assert merged.keys() == {"kernel", "bias"}
  with_update = module.apply({"params": params}, x)
  np.testing.assert_allclose(
    plain.apply({"params": merged}, x), with_update, rtol=1e-4, atol=1e-4
  )
  without = plain.apply(
    {"params": {k: params[k] for k in ("kernel", "bias")}}, x
  )
  assert np.abs(with_update - without).max() > 1


def test_an_update_starts_at_zero():
  module = dense(4, 6, rank=2)
  x = jnp.ones((1, 4))
  params = nn.unbox(module.init(jax.random.key(0), x))["params"]
  assert not params["lora_b"].any() and params["lora_a"].any()
  np.testing.assert_allclose(
    module.apply({"params": params}, x), x @ params["kernel"], rtol=1e-5
  )


def test_every_dim_has_a_name():
  module, _, x = make("...D,DNH->...NH", rank=2)
  boxed = module.init(jax.random.key(0), x)["params"]
  names = {name: box.names for name, box in boxed.items()}
  assert names == {
    "kernel": ("axis0", "axis1", "axis2"),
    "bias": ("axis1", "axis2"),
    "lora_a": ("axis0", None),
    "lora_b": (None, "axis1", "axis2"),
  }


def test_the_dtype_of_the_computation():
  module = dense(4, 6, dtype=jnp.bfloat16)
  x = jnp.ones((1, 4))
  params = module.init(jax.random.key(0), x)
  assert nn.unbox(params)["params"]["kernel"].dtype == jnp.float32
  assert module.apply(params, x).dtype == jnp.bfloat16
