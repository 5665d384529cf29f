"""Who sees whom, and what the softmax makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.layers.attention import Cache, Context, SelfAttention
from mmjax.layers.dot_product import Visibility, attend


def draw(*shape, seed=0):
  return jnp.asarray(
    np.random.RandomState(seed).standard_normal(shape), jnp.float32
  )


def table(text):
  rows = [row.split() for row in text.strip().splitlines()]
  return np.array([[c == "1" for c in row] for row in rows])


@pytest.mark.parametrize(
  "segments, positions, causal, expected",
  [
    (
      [1, 1, 2, 2, 2],
      [0, 1, 0, 1, 2],
      True,
      """
      1 . . . .
      1 1 . . .
      . . 1 . .
      . . 1 1 .
      . . 1 1 1
      """,
    ),
    (
      [1, 1, 2, 2, 0],
      [0, 1, 0, 1, 0],
      False,
      """
      1 1 . . .
      1 1 . . .
      . . 1 1 .
      . . 1 1 .
      . . . . .
      """,
    ),
    (  # Padded on the left.
      [0, 0, 1, 1],
      [0, 0, 0, 1],
      True,
      """
      . . . .
      . . . .
      . . 1 .
      . . 1 1
      """,
    ),
  ],
)
def test_tables(segments, positions, causal, expected):
  segments, positions = jnp.array([segments]), jnp.array([positions])
  made = Visibility(segments, segments, positions, positions, causal).dense()
  np.testing.assert_array_equal(made[0, 0], table(expected))


def test_all_see_all_without_a_table():
  assert Visibility().dense() is None


def test_a_cached_query_sees_what_was_written():
  visible = Visibility(
    jnp.array([[1]]),
    jnp.array([[0, 1, 1, 1, 0]]),
    jnp.array([[2]]),
    jnp.array([[0, 0, 1, 2, 0]]),
    causal=True,
  )
  np.testing.assert_array_equal(visible.dense()[0, 0], table(". 1 1 1 ."))


def plain(query, key, value, mask):
  """One head, one query at a time, in NumPy."""
  out = np.zeros((*query.shape[:3], value.shape[-1]))
  group = query.shape[2] // key.shape[2]
  for b, l, n in np.ndindex(*query.shape[:3]):
    k = n // group
    scores = key[b, :, k] @ query[b, l, n] / np.sqrt(query.shape[-1])
    seen = mask[b, 0, l]
    if seen.any():
      weights = np.where(seen, np.exp(scores - scores[seen].max()), 0)
      out[b, l, n] = weights / weights.sum() @ value[b, :, k]
  return out


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_heads_that_share_keys(kv_heads):
  query, key = draw(2, 3, 4, 8), draw(2, 5, kv_heads, 8, seed=1)
  value = draw(2, 5, kv_heads, 6, seed=2)
  mask = np.random.RandomState(3).rand(2, 1, 3, 5) > 0.4
  mask[0, 0, 1] = False
  out = attend(query, key, value, mask=jnp.asarray(mask))
  expected = plain(*map(np.asarray, (query, key, value)), mask)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  assert not np.asarray(out)[0, 1].any()


def test_a_query_that_sees_nothing_has_no_gradient():
  key, value = draw(1, 4, 2, 8), draw(1, 4, 2, 8, seed=1)

  def total(query):
    mask = jnp.zeros((1, 1, 3, 4), bool)
    return attend(query, key, value, mask=mask).sum()

  assert not jax.grad(total)(draw(1, 3, 2, 8)).any()


def test_heads_that_do_not_share():
  with pytest.raises(ValueError, match="3 query heads"):
    attend(draw(1, 2, 3, 4), draw(1, 2, 2, 4), draw(1, 2, 2, 4))


def test_a_bias_is_added_to_scores():
  query, key, value = draw(1, 2, 4, 8), draw(1, 3, 2, 8), draw(1, 3, 2, 8)
  bias = jnp.full((1, 4, 2, 3), -1e9).at[..., 1].set(0.0)
  out = attend(query, key, value, bias=bias)
  expected = np.repeat(np.asarray(value[:, 1:2]), 2, axis=2)
  np.testing.assert_allclose(
    out, np.broadcast_to(expected, out.shape), atol=1e-6
  )


def test_a_cache_writes_where_it_is_told():
  cache = Cache(jnp.zeros((1, 4, 1, 2)), jnp.zeros((1, 4, 1, 2)))
  new = jnp.ones((1, 2, 1, 2))
  cache = cache.update(new, 2 * new, jnp.array(1))
  np.testing.assert_array_equal(cache.key[0, :, 0, 0], [0, 1, 1, 0])
  np.testing.assert_array_equal(cache.value[0, :, 0, 0], [0, 2, 2, 0])


def test_a_bias_may_depend_on_the_query_before_it_is_scaled():
  seen = {}

  def bias(context, query):
    seen["query"] = query
    return jnp.zeros((1, 1, query.shape[1], query.shape[1]))

  module = SelfAttention(2, 4, bias=bias, scale=0.1)
  x, positions = draw(1, 3, 6), jnp.zeros((1, 3), jnp.int32)
  context = Context(positions, positions, Visibility())
  _, variables = module.init_with_output(jax.random.key(0), x, context, None)
  kernel = nn.unbox(variables)["params"]["query"]["kernel"]
  expected = np.einsum("BLD,DNH->BLNH", x, kernel)
  np.testing.assert_allclose(seen["query"], expected, atol=1e-5)
