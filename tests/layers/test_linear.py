"""The one projection, and its low-rank update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.layers.linear import (
  Linear,
  Lora,
  contraction,
  dense,
  merge_lora,
)

EQUATIONS = {
  "...D,DF->...F": (4, 6),
  "...D,DNH->...NH": (4, 2, 3),
  "...NH,NHD->...D": (2, 3, 4),
  "...D,FD->...F": (6, 4),
}


def make(equation, lora=None, use_bias=True):
  shape = EQUATIONS[equation]
  contracted, _ = contraction(equation)
  axes = tuple(f"axis{i}" for i in range(len(shape)))
  module = Linear(equation, shape, axes, use_bias=use_bias, lora=lora)
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


@pytest.mark.parametrize("equation", list(EQUATIONS)[:3])
def test_a_merged_update_gives_the_same(equation):
  lora = Lora(2, alpha=3.0)
  module, params, x = make(equation, lora)
  merged = merge_lora(params, lora.scale)
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
  module = dense(4, 6, lora=Lora(2))
  x = jnp.ones((1, 4))
  params = nn.unbox(module.init(jax.random.key(0), x))["params"]
  assert not params["lora_b"].any() and params["lora_a"].any()
  np.testing.assert_allclose(
    module.apply({"params": params}, x), x @ params["kernel"], rtol=1e-5
  )


def test_every_dim_has_a_name():
  module, _, x = make("...D,DNH->...NH", lora=Lora(2))
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


def test_layers_of_a_stack_are_merged_each_with_its_own():
  lora = Lora(2)
  made = [make("...D,DNH->...NH", lora)[1] for _ in range(2)]
  made[1] = {k: v + 1 for k, v in made[1].items()}
  stacked = {k: jnp.stack([p[k] for p in made]) for k in made[0]}
  merged = merge_lora(stacked, lora.scale)
  for i, params in enumerate(made):
    alone = merge_lora(params, lora.scale)
    np.testing.assert_allclose(merged["kernel"][i], alone["kernel"], rtol=1e-5)


def test_a_kernel_that_is_contracted_last_cannot_be_merged():
  _, params, _ = make("...D,FD->...F", Lora(2))
  with pytest.raises(ValueError, match="expected"):
    merge_lora(params, 1.0)


def test_dropout_is_of_training_alone_and_right_on_average():
  """The kernel's part stays; the update reads a part of x, scaled up."""
  module, params, _ = make("...D,DF->...F", Lora(2, dropout=0.25))
  x = jnp.ones((4000, 4))
  plain = module.apply({"params": params}, x)
  np.testing.assert_array_equal(plain[0], plain[1])
  keys = {"dropout": jax.random.key(0)}
  dropped = module.apply({"params": params}, x, rngs=keys)
  assert np.abs(dropped[0] - dropped[1]).max() > 0.1
  np.testing.assert_allclose(dropped.mean(0), plain[0], rtol=0.1, atol=0.3)
  again = module.apply({"params": params}, x, rngs=keys)
  np.testing.assert_array_equal(dropped, again)


def test_senseless_updates_are_refused():
  for fields in (dict(rank=0), dict(rank=2, dropout=1.0)):
    with pytest.raises(ValueError, match="expected|rank is 1"):
      Lora(**fields)
