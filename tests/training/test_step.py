"""One update: what is dropped, and what micro-batches and weights do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.training import step
from mmjax.training.state import TrainState
from mmjax.training.step import Guard, make_step


def loss(params, batch):
  """Squared error of a line; `weights` makes the mean uneven over rows."""
  error = batch["x"] @ params["w"] + params["fixed"] - batch["y"]
  weights = batch["weights"]
  return {"loss": ((error**2 * weights).sum(), weights.sum())}


def make_state(optimizer):
  trainable = {"w": jnp.array([0.5, -1.0])}
  zero = jnp.zeros((), jnp.int32)
  return TrainState(
    zero,
    trainable,
    {"fixed": jnp.array(0.3)},
    optimizer.init(trainable),
    zero,
    jnp.zeros(()),
  )


def make_batch(seed=0, scale=1.0):
  random = np.random.RandomState(seed)
  return {
    "x": jnp.asarray(random.randn(8, 2) * scale, jnp.float32),
    "y": jnp.asarray(random.randn(8), jnp.float32),
    "weights": jnp.asarray(random.randint(0, 3, 8), jnp.float32),
  }


def run(batches, weights=None, **options):
  optimizer = optax.adam(0.1)
  weights = weights or {"a": 1.0, "b": 1.0}
  step = jax.jit(make_step(loss, optimizer, weights, **options))
  states = [make_state(optimizer)]
  for batch in batches:
    states.append(step(states[-1], batch)[0])
  return states


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_dropped_and_counted(bad):
  poisoned = make_batch() | {"y": jnp.full(8, bad)}
  first, good, same, after = run(
    [{"a": make_batch()}, {"a": poisoned}, {"a": make_batch(1)}]
  )
  for old, new in zip(
    jax.tree.leaves((good.trainable, good.opt_state, good.norm)),
    jax.tree.leaves((same.trainable, same.opt_state, same.norm)),
  ):
    np.testing.assert_array_equal(old, new)
  assert (int(same.step), int(same.skipped)) == (2, 1)
  assert not np.array_equal(after.trainable["w"], good.trainable["w"])
  assert (int(after.step), int(after.skipped)) == (3, 1)


def test_a_spike_is_dropped_once_the_guard_is_warm():
  calm, spike = {"a": make_batch()}, {"a": make_batch(scale=100.0)}
  guard = Guard(spike=5.0, warmup=2)
  states = run([calm, calm, spike], guard=guard)
  assert int(states[-1].skipped) == 1
  np.testing.assert_array_equal(
    states[-1].trainable["w"], states[-2].trainable["w"]
  )
  early = run([calm, spike], guard=guard)
  assert int(early[-1].skipped) == 0


def test_a_mean_of_norms_begins_with_the_first_good_one():
  good, poisoned = make_batch(), make_batch() | {"y": jnp.full(8, np.nan)}
  _, skipped, first, second = run(
    [{"a": poisoned}, {"a": good}, {"a": make_batch(1)}],
    guard=Guard(decay=0.9),
  )
  assert float(skipped.norm) == 0.0
  (alone,) = run([{"a": good}])[1:]
  np.testing.assert_allclose(first.norm, alone.norm, rtol=1e-6)
  last = (second.norm - 0.9 * first.norm) / 0.1
  slope = jax.grad(lambda w: mean_loss(w, make_batch(1)))(first.trainable["w"])
  np.testing.assert_allclose(last, jnp.linalg.norm(slope), rtol=1e-4)


def mean_loss(w, batch):
  total, count = loss({"w": w, "fixed": 0.3}, batch)["loss"]
  return total / count


def test_micro_batches_give_the_update_of_the_whole():
  whole = run([{"a": make_batch()}])[-1]
  parts = run([{"a": make_batch()}], microbatches=4)[-1]
  np.testing.assert_allclose(parts.norm, whole.norm, rtol=1e-6)
  np.testing.assert_allclose(
    parts.trainable["w"], whole.trainable["w"], rtol=1e-6
  )
  with pytest.raises(ValueError, match="micro-batches"):
    run([{"a": make_batch()}], microbatches=3)


def test_micro_batches_keep_no_second_copy_of_the_gradients():
  """They are added up layer by layer; the sums are those of whole ones."""
  layers, width, rows = 4, 256, 4
  w = jax.random.normal(jax.random.key(0), (layers, width, width)) / 16
  x = jax.random.normal(jax.random.key(1), (rows, width))
  zero = jnp.zeros(())
  state = TrainState(zero, {"w": w, "unused": w[0]}, {}, (), zero, zero)

  def loss(params, batch):
    one = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None))
    x, _ = jax.lax.scan(one, batch["x"], params["w"])
    return {"loss": ((x**2).sum(), zero)}

  def compiled(x, microbatches):
    def gradient(x):
      key = jax.random.key(0)
      given = (loss, state, {"x": x}, key, microbatches, ("w",))
      return step._gradient(*given)[0]

    return jax.jit(gradient).lower(x).compile()

  whole = compiled(x[:1], 1)
  apart = sum(whole(row[None])["w"] for row in x)
  parts = compiled(x, rows)
  np.testing.assert_allclose(parts(x)["w"], apart, atol=1e-6)
  assert not parts(x)["unused"].any()
  # Neither parameters nor the sum of the gradients are temporary.
  assert parts.memory_analysis().temp_size_in_bytes < w.nbytes


def test_the_gradient_is_the_weighted_sum_of_mean_losses():
  a, b = make_batch(0), make_batch(1)

  def total(w):
    sums = [loss({"w": w, "fixed": 0.3}, x)["loss"] for x in (a, b)]
    return 0.2 * sums[0][0] / sums[0][1] + 0.7 * sums[1][0] / sums[1][1]

  expected = jnp.linalg.norm(jax.grad(total)(jnp.array([0.5, -1.0])))
  state = run([{"a": a, "b": b}], weights={"a": 0.2, "b": 0.7})[-1]
  np.testing.assert_allclose(state.norm, expected, rtol=1e-5)
