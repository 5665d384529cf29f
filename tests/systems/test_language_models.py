"""Every language model inside a Flamingo: two steps, then its own words."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.generation.sample import Sampling, generate
from mmjax.systems import flamingo
from tests.systems.documents import data, drawn_model, first_batch, write

COMMON = dict(
  vocab_size=1864, extra_tokens=2, width=16, num_layers=2, num_heads=2
)
FAMILIES = {
  "gpt_neox": dict(hidden=16, rotary_fraction=0.5, parallel=False),
  "mpt": dict(hidden=16, qk_norm=True),
  "opt": dict(hidden=16, max_positions=32),
}


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
  path = tmp_path_factory.mktemp("documents") / "documents.jsonl"
  return jax.tree.map(jnp.asarray, first_batch(data(write(path))))


@pytest.mark.heavy
@pytest.mark.parametrize(
  "name",
  [
    pytest.param("gpt_neox", marks=pytest.mark.long),
    pytest.param("mpt", marks=pytest.mark.long),
    "opt",
  ],
)
def test_it_learns_and_writes_within_a_flamingo(batch, name):
  lm = dict(name=name, **COMMON, **FAMILIES[name])
  module, params = drawn_model(batch, lm=lm)
  optimizer = optax.adam(3e-3)

  def mean(params):
    total, count = flamingo.loss(module, params, batch)["loss"]
    return total / count

  @jax.jit
  def step(params, state):
    value, grads = jax.value_and_grad(mean)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value, grads

  state, losses = optimizer.init(params), []
  for _ in range(3):
    params, state, value, grads = step(params, state)
    losses.append(float(value))
  assert losses[0] > losses[1] > losses[2]
  reached = jax.tree.map(lambda g: float(np.abs(g).max()) > 0, grads)
  assert all(jax.tree.leaves(reached["encoder"]["layers"]))
  assert reached["lm"]["embedding"] == {"table": True, "extra": True}

  out = generate(module, params, batch, Sampling(3))
  real = np.asarray(batch["segments"]) > 0
  shown = {k: batch[k] for k in ("tokens", "positions", "segments", "media")}
  logits = jax.jit(module.apply)({"params": params}, shown).logits
  last = real.sum(axis=1) - 1
  best = np.asarray(logits)[np.arange(len(last)), last].argmax(-1)
  np.testing.assert_array_equal(out.tokens[:, 0], best)
  assert np.isfinite(out.log_probs).all() and out.mask.all()
