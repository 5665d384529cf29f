"""Gradients that micro-batches add up in place are those added up apart."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import tree
from mmjax.systems import llava
from mmjax.training import step
from mmjax.training.state import TrainState
from tests.lms.test_decoding import FAMILIES

ROWS, LENGTH, MEDIA = 4, 8, 4
LORA = dict(rank=2, alpha=4.0, dropout=0.5)
# Of every language model; LoRA's, whose other matrices are the same.
MODELS = {name: dict(name=name, **fields) for name, fields in FAMILIES.items()}
MODELS["lora"] = MODELS["llama"] | dict(remat="full", lora=LORA)


def batch(vocab: int, features: int):
  random = np.random.default_rng(0)
  tokens = random.integers(1, vocab, (ROWS, LENGTH))
  index = np.zeros((ROWS, LENGTH), int)
  index[:, 2 : 2 + MEDIA] = 1
  return dict(
    tokens=tokens,
    targets=np.roll(tokens, -1, axis=1),
    weights=random.random((ROWS, LENGTH), np.float32),
    positions=np.broadcast_to(np.arange(LENGTH), tokens.shape),
    segments=np.ones_like(tokens),
    media=dict(
      image=dict(
        features=random.random((ROWS, 1, 1, MEDIA, features), np.float32),
        mask=np.ones((ROWS, 1, 1), bool),
        index=index,
      )
    ),
  )


@pytest.mark.heavy
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_its_own_gradient(name):
  lm = MODELS[name]
  connector = dict(name="projection", width=lm["width"], depth=2)
  module = llava.build(dict(lm=lm, connector=connector))
  given = batch(lm["vocab_size"], 6)
  like = jax.eval_shape(module.init, jax.random.key(0), given)["params"]
  random = np.random.RandomState(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(random.standard_normal(x.shape) * 0.3, x.dtype),
    nn.unbox(like),
  )
  loss, zero = functools.partial(llava.loss, module), jnp.zeros(())

  @functools.partial(jax.jit, static_argnums=2)
  def gradient(params, batch, paths):
    state = TrainState(zero, params, {}, (), zero, zero)
    return step._gradient(loss, state, batch, jax.random.key(1), 2, paths)

  apart, told = gradient(params, given, ())
  inside, own = gradient(params, given, module.in_place)
  assert told["loss"] == own["loss"]
  apart, inside = tree.flatten(apart), tree.flatten(inside)
  assert any(path.startswith(module.in_place) for path in inside)
  assert apart.keys() == inside.keys()
  for path, expected in apart.items():
    assert np.abs(expected).max() > 0, path
    np.testing.assert_allclose(
      inside[path], expected, atol=1e-5, rtol=1e-4, err_msg=path
    )
