"""Next-token loss and accuracy as sums and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.losses.token import accuracy, cross_entropy, next_token

LOGITS = 3 * jax.random.normal(jax.random.key(0), (2, 3, 7))
TARGETS = jnp.array([[1, 6, 0], [3, 3, 2]])
WEIGHTS = jnp.array([[1.0, 0.0, 0.5], [0.25, 1.0, 0.0]])


def test_the_weighted_sum_and_the_sum_of_weights():
  each = optax.softmax_cross_entropy_with_integer_labels(LOGITS, TARGETS)
  total, count = cross_entropy(LOGITS, TARGETS, WEIGHTS)
  np.testing.assert_allclose(total, (each * WEIGHTS).sum(), rtol=1e-6)
  assert count == 2.75
  best = LOGITS.argmax(-1)
  half = jnp.where(jnp.arange(3) == 0, best, (best + 1) % 7)
  assert accuracy(LOGITS, half, WEIGHTS) == (1.25, 2.75)
  found = next_token(LOGITS, {"targets": TARGETS, "weights": WEIGHTS})
  assert found["loss"] == (total, count) and found["accuracy"][1] == count


def test_low_precision_logits_are_summed_in_float32():
  low = LOGITS.astype(jnp.bfloat16)
  total, _ = cross_entropy(low, TARGETS, WEIGHTS)
  expected, _ = cross_entropy(low.astype(jnp.float32), TARGETS, WEIGHTS)
  assert total.dtype == jnp.float32 and total == expected


def test_nothing_to_predict_has_no_gradient():
  zero = jnp.zeros_like(WEIGHTS)
  total, count = cross_entropy(LOGITS, TARGETS, zero)
  assert (total, count) == (0, 0)
  slope = jax.grad(lambda x: cross_entropy(x, TARGETS, zero)[0])(LOGITS)
  assert not slope.any()
