"""The language model alone: it reads any system's batches and sees nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.generation.sample import Sampling, generate
from mmjax.systems import text

MODEL = dict(
  lm=dict(
    name="llama", vocab_size=40, width=16, num_layers=2, num_heads=2, hidden=24
  )
)


def batch(left: int, right: int):
  """Rows of 5 tokens with padding around them, and a picture."""
  tokens = np.random.default_rng(0).integers(1, 40, (3, 5))
  pad = ((0, 0), (left, right))
  segments = np.pad(np.ones_like(tokens), pad)
  positions = np.maximum(np.cumsum(segments, axis=1) - 1, 0)
  image = dict(mask=np.ones((3, 1, 1), bool), keys=np.zeros((3, 1), int))
  return dict(
    tokens=np.pad(tokens, pad),
    positions=positions,
    segments=segments,
    media=dict(image=image),
  )


@pytest.fixture(scope="module")
def model():
  module = text.build(MODEL)
  params = jax.jit(module.init)(jax.random.key(0), batch(0, 0))["params"]
  return module, params


def greedy(module, params, count):
  """The same answer without a cache."""
  tokens = batch(0, 0)["tokens"]
  for _ in range(count):
    length = tokens.shape[1]
    one = np.ones_like(tokens)
    at = np.broadcast_to(np.arange(length), tokens.shape)
    rows = dict(tokens=tokens, positions=at, segments=one)
    logits = module.apply({"params": params}, rows).logits
    new = np.asarray(jnp.argmax(logits[:, -1], axis=-1))[:, None]
    tokens = np.concatenate([tokens, new], axis=1)
  return tokens[:, -count:]


@pytest.mark.parametrize("padding", [(0, 0), (3, 0), (0, 3)])
def test_cached_decoding_is_the_full_forward_pass(model, padding):
  module, params = model
  found = generate(module, params, batch(*padding), Sampling(4))
  np.testing.assert_array_equal(found.tokens, greedy(module, params, 4))


def test_media_change_nothing(model):
  module, params = model
  rows = batch(0, 0)
  seen = module.apply({"params": params}, rows).logits
  del rows["media"]
  blind = module.apply({"params": params}, rows).logits
  np.testing.assert_array_equal(seen, blind)


def test_keys_of_other_systems_are_refused():
  with pytest.raises(ValueError, match="resampler"):
    text.build(MODEL | dict(resampler={}))
