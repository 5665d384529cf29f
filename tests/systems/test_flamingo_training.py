"""A whole Flamingo on interleaved documents, from the file to the gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.layers.dot_product import rises
from mmjax.systems import flamingo
from mmjax.training.state import TrainState
from mmjax.training.step import make_step
from tests.systems.documents import data, drawn_model, first_batch, write


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  return write(tmp_path_factory.mktemp("documents") / "documents.jsonl")


@pytest.fixture(scope="module")
def model(path):
  return drawn_model(first_batch(data(path)))


def test_p_next_moves_every_token_to_the_next_image(path):
  last, following = (first_batch(data(path, p_next=p)) for p in (0.0, 1.0))
  np.testing.assert_array_equal(last["tokens"], following["tokens"])
  before = last["media"]["image"]["index"]
  after = following["media"]["image"]["index"]
  # <s> one EOC <image> two EOC <image> three EOC </s>; two pictures.
  assert before[1].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2] + [0] * 6
  assert after[1].tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0, 0] + [0] * 6
  images = last["media"]["image"]["mask"].any(-1).sum(-1)[:, None]
  real = last["segments"] > 0
  expected = np.where(real & (before < images), before + 1, 0)
  np.testing.assert_array_equal(after, expected)


@pytest.mark.parametrize("fields", [{}, dict(batch=2, pack=2, pack_length=28)])
def test_positions_of_a_batch_rise_as_fast_attention_needs_it(path, fields):
  batch = first_batch(data(path, **fields))
  assert rises(batch["segments"], batch["positions"]).all()


@pytest.mark.parametrize("p_next", [0.0, 1.0])
def test_the_loss_reads_the_image_of_the_index(path, model, p_next):
  """A new picture j changes the predictions of the tokens that see it."""
  module, params = model
  # Without self-attention a token knows nothing but itself and its picture.
  layers = params["lm"]["layers"]
  out = layers["attention"]["out"]
  silent = {**layers["attention"], "out": jax.tree.map(jnp.zeros_like, out)}
  params = params | {
    "lm": params["lm"] | {"layers": layers | {"attention": silent}}
  }
  batch = first_batch(data(path, p_next=p_next))
  index = batch["media"]["image"]["index"]

  @jax.jit
  def losses(values):
    image = batch["media"]["image"] | {"values": values}
    changed = batch | {"media": {"image": image}}

    def one(weights):
      found = flamingo.loss(module, params, changed | {"weights": weights})
      return found["loss"][0]

    # The loss of a token is the slope of the sum in its weight.
    return jax.grad(one)(batch["weights"])

  values = batch["media"]["image"]["values"]
  before = np.asarray(losses(values))
  for j in range(3):
    other = values.copy()
    other[:, j] = 255 - other[:, j]
    changed = np.abs(np.asarray(losses(other)) - before) > 1e-4
    np.testing.assert_array_equal(changed, index == j + 1)


def updated(module, params, batch, microbatches=1):
  """Parameters after a step of plain gradient descent, and its metrics."""
  optimizer = optax.sgd(1.0)
  zero = jnp.zeros(())
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=params,
    frozen={},
    opt_state=optimizer.init(params),
    skipped=jnp.zeros((), jnp.int32),
    norm=zero,
  )
  step = make_step(
    lambda params, batch: flamingo.loss(module, params, batch),
    optimizer,
    {"documents": 1.0},
    microbatches=microbatches,
  )
  state, metrics = jax.jit(step)(state, {"documents": batch})
  assert not metrics.pop("dropped")
  return state.trainable, metrics


@pytest.mark.heavy
def test_packed_rows_and_microbatches_make_the_same_update(path, model):
  module, params = model
  plain = first_batch(data(path))
  packed = first_batch(data(path, batch=2, pack=2, pack_length=28))
  assert packed["segments"].max() == 2
  assert packed["media"]["image"]["index"].max() == 4
  expected, metrics = updated(module, params, plain)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected, params)
  for part in ("encoder", "resampler", "blocks", "lm"):
    assert max(jax.tree.leaves(moved[part])) > 1e-4
  for batch, microbatches in ((plain, 2), (packed, 1)):
    found, own = updated(module, params, batch, microbatches)
    for key, (total, count) in metrics.items():
      np.testing.assert_allclose(own[key][0], total, rtol=1e-4, err_msg=key)
      assert own[key][1] == count
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected
    )
