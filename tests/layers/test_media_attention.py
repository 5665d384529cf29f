"""Gathered attention against a table of who sees which medium."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers import media_attention
from mmjax.layers.dot_product import attend
from mmjax.layers.media_attention import attend_media, tiles

B, L, M, Q, N, H = 2, 70, 5, 3, 2, 4


def draw(*shape, seed=0):
  return jnp.asarray(
    np.random.RandomState(seed).standard_normal(shape), jnp.float32
  )


def dense(query, key, value, index, previous=False):
  """All media for all tokens, and a table."""
  number = jnp.repeat(jnp.arange(1, key.shape[1] + 1), key.shape[2])
  at = index[..., None]
  inside = (at > 0) & (at <= key.shape[1])
  seen = inside & ((number <= at) if previous else (number == at))
  flat = [x.reshape(x.shape[0], -1, *x.shape[3:]) for x in (key, value)]
  return attend(query, *flat, mask=seen[:, None])


def inputs(length=L, media=M):
  query = draw(B, length, N, H)
  key, value = (draw(B, media, Q, N, H, seed=s) for s in (1, 2))
  return query, key, value


def random_map(seed, length=L, media=M):
  """Numbers that grow over a document, 0 before its first medium."""
  random = np.random.RandomState(seed)
  return jnp.asarray(np.sort(random.randint(0, media + 1, (B, length)), axis=1))


@pytest.fixture(scope="module")
def compiled():
  return jax.jit(attend_media, static_argnames="previous")


@pytest.mark.parametrize("previous", [False, True])
def test_random_documents(compiled, previous):
  query, key, value = inputs()
  for seed in range(5):
    index = random_map(seed)
    out = compiled(query, key, value, index, previous=previous)
    expected = dense(query, key, value, index, previous)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_packed_documents_start_again(compiled):
  query, key, value = inputs()
  row = [0] * 5 + [1] * 20 + [2] * 10 + [0] * 3 + [3] * 22 + [5] * 10
  index = jnp.asarray([row, row[::-1]])
  np.testing.assert_allclose(
    compiled(query, key, value, index),
    dense(query, key, value, index),
    atol=1e-5,
  )


def test_numbers_beyond_the_media_see_nothing(compiled):
  query, key, value = inputs()
  index = jnp.where(jnp.arange(L) < 30, 2, M + 1) * jnp.ones((B, 1), int)
  for previous in (False, True):
    out = np.asarray(compiled(query, key, value, index, previous=previous))
    assert not out[:, 30:].any() and out[:, :30].any(axis=(2, 3)).all()
  negative = compiled(query, key, value, jnp.full((B, L), -1))
  assert not negative.any()


def test_more_runs_than_room_give_nan_and_never_a_wrong_number(compiled):
  query, key, value = inputs()
  index = jnp.broadcast_to(jnp.arange(L) % M + 1, (B, L))
  out = np.asarray(compiled(query, key, value, index))
  expected = np.asarray(dense(query, key, value, index))
  lost = np.isnan(out).any(axis=(2, 3))
  assert lost.any() and not lost.all()
  np.testing.assert_allclose(out[~lost], expected[~lost], atol=1e-5)


def test_gradients():
  query, key, value = inputs()
  index, weight = random_map(7), draw(B, L, N, H, seed=9)

  def total(f, *args):
    return (f(*args, index) * weight).sum()

  found, expected = (
    jax.jit(jax.grad(functools.partial(total, f), (0, 1, 2)))(query, key, value)
    for f in (attend_media, dense)
  )
  for ours, theirs in zip(found, expected):
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("length, media", [(1, 3), (7, 1), (1, 1)])
def test_short_cuts(length, media):
  query, key, value = inputs(length, media)
  for number in range(media + 2):
    index = jnp.full((B, length), number)
    np.testing.assert_allclose(
      attend_media(query, key, value, index),
      dense(query, key, value, index),
      atol=1e-5,
    )


def test_without_a_map_all_is_seen():
  query, key, value = inputs(4)
  flat = [x.reshape(B, -1, N, H) for x in (key, value)]
  np.testing.assert_allclose(
    attend_media(query, key, value, None), attend(query, *flat), atol=1e-6
  )


def test_tiles_are_cut_at_media_and_at_blocks():
  index = jnp.array([[0, 1, 1, 1, 2, 2, 2, 2], [1, 2, 2, 2, 2, 2, 3, 3]])
  first, mine = tiles(index, 4, 5)
  np.testing.assert_array_equal(first, [[1, 4, 8, 8, 8], [0, 1, 4, 6, 8]])
  np.testing.assert_array_equal(mine[0], [-1, 0, 0, 0, 1, 1, 1, 1])
  np.testing.assert_array_equal(mine[1], [0, 1, 1, 1, 2, 2, 3, 3])


def test_cost_grows_with_the_text_not_with_the_media():
  """No array of the compiled program holds L * M * Q scores."""
  length, media = 512, 64
  query = draw(1, length, 1, 2)
  key = draw(1, media, 8, 1, 2)
  index = jnp.sort(jnp.arange(length) % media + 1)[None]
  program = jax.make_jaxpr(attend_media)(query, key, key, index)
  largest = max(
    v.aval.size for e in _equations(program.jaxpr) for v in e.outvars
  )
  tiles_in_all = media + length // media_attention.TILE
  assert largest <= 2 * tiles_in_all * media_attention.TILE * 8
  assert largest < length * media * 8 / 2


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _equations(inner)
