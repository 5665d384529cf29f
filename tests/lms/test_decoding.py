"""Every family: cached, padded and packed decoding give the plain logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.lms import LMS

V, L = 31, 10
COMMON = dict(vocab_size=V, width=16, num_layers=2, num_heads=2)
FAMILIES = {
  "chinchilla": COMMON,
  "gpt_neox": COMMON | dict(hidden=24, rotary_fraction=0.5),
  "llama": COMMON | dict(hidden=24, num_kv_heads=1),
  "mpt": COMMON | dict(hidden=24),
  "opt": COMMON | dict(hidden=24, max_positions=40),
}


def test_every_language_model_is_tried():
  assert FAMILIES.keys() == LMS.keys()


@functools.cache
def built(name):
  """A module, drawn parameters, and its compiled calls."""
  module = LMS[name](**FAMILIES[name])
  one = jnp.ones((1, 1), jnp.int32)
  like = jax.eval_shape(module.init, jax.random.key(0), one, one, one)
  flat, structure = jax.tree.flatten(nn.unbox(like))
  random = np.random.RandomState(0)
  params = structure.unflatten(
    [jnp.asarray(random.standard_normal(x.shape) * 0.3, x.dtype) for x in flat]
  )

  @jax.jit
  def full(tokens, positions, segments):
    return module.apply(params, tokens, positions, segments)[0]

  @jax.jit
  def start(tokens, positions, segments):
    cache = module.apply(params, 2, 2 * L, method="empty_cache")
    return module.apply(params, tokens, positions, segments, cache)

  @jax.jit
  def step(tokens, positions, segments, cache):
    return module.apply(params, tokens, positions, segments, cache)

  return full, start, step


def rows(seed=0, length=L):
  return np.random.RandomState(seed).randint(0, V, (2, length))


def places(segments):
  """Positions that count the tokens of each row's only segment."""
  return np.maximum(np.cumsum(segments, axis=1) - 1, 0)


def plain(full, tokens):
  ones = np.ones_like(tokens)
  return np.asarray(full(tokens, places(ones), ones))


def pad(tokens, lengths, side):
  """Rows cut to `lengths` and moved to one side of L, with segments."""
  ids = np.full((2, L), 7)
  segments = np.zeros((2, L), int)
  for row, length in enumerate(lengths):
    at = slice(L - length, L) if side == "left" else slice(0, length)
    ids[row, at] = tokens[row, :length]
    segments[row, at] = 1
  return ids, segments


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(name, side):
  full, _, _ = built(name)
  tokens, lengths = rows(), (6, 9)
  ids, segments = pad(tokens, lengths, side)
  out = np.asarray(full(ids, places(segments), segments))
  expected = plain(full, tokens)
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(
      out[row][segments[row] > 0], expected[row, :length], atol=1e-4
    )
  ids[segments == 0] = 3
  again = np.asarray(full(ids, places(segments), segments))
  np.testing.assert_array_equal(again[segments > 0], out[segments > 0])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_cached_decoding_is_the_full_forward(name, side):
  full, start, step = built(name)
  tokens, lengths = rows(1), np.array([3, 6])
  ids, segments = pad(tokens, lengths, side)
  expected = plain(full, tokens)
  first, cache = start(ids, places(segments), segments)
  for row, length in enumerate(lengths):
    np.testing.assert_allclose(
      np.asarray(first)[row][segments[row] > 0],
      expected[row, :length],
      atol=1e-4,
    )
  for i in range(3):
    at = (lengths + i)[:, None]
    new = np.take_along_axis(tokens, at, axis=1)
    out, cache = step(new, at, np.ones_like(new), cache)
    np.testing.assert_allclose(
      np.asarray(out)[:, 0],
      np.take_along_axis(expected, at[..., None], axis=1)[:, 0],
      atol=1e-4,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_documents_do_not_see_each_other(name):
  full, _, _ = built(name)
  tokens = rows(2)
  segments = np.array([[1] * 4 + [2] * 5 + [0], [1] * 7 + [2] * 3])
  positions = np.array([[*range(4), *range(5), 0], [*range(7), *range(3)]])
  packed = np.asarray(full(tokens, positions, segments))
  for row in range(2):
    for number in (1, 2):
      mine = segments[row] == number
      alone = np.full((2, L), 5)
      alone[0, : mine.sum()] = tokens[row, mine]
      expected = plain(full, alone)[0, : mine.sum()]
      np.testing.assert_allclose(packed[row, mine], expected, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_nobody_sees_the_future(name):
  full, _, _ = built(name)
  tokens = rows(3)
  changed = tokens.copy()
  changed[:, 6:] = (changed[:, 6:] + 1) % V
  before, after = plain(full, tokens), plain(full, changed)
  np.testing.assert_allclose(before[:, :6], after[:, :6], atol=1e-5)
  assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-2


def test_rows_of_a_cache_follow_their_beams():
  full, start, step = built("mpt")  # ALiBi needs their positions.
  tokens, lengths = rows(4), np.array([3, 6])
  ids, segments = pad(tokens, lengths, "right")
  _, cache = start(ids, places(segments), segments)
  swapped = cache.rows(jnp.array([1, 0]))
  at = lengths[:, None]
  new = np.take_along_axis(tokens, at, axis=1)
  one = np.ones_like(new)
  out, _ = step(new[::-1], at[::-1], one, swapped)
  expected, _ = step(new, at, one, cache)
  np.testing.assert_allclose(out[::-1], expected, atol=1e-5)


def test_a_full_cache_says_so():
  full, start, step = built("llama")
  tokens = rows(5, 2 * L)
  ones = np.ones_like(tokens)
  _, cache = start(tokens[:, :L], places(ones)[:, :L], ones[:, :L])
  last = (tokens[:, L:], places(ones)[:, L:], ones[:, L:])
  out, cache = step(*last, cache)
  np.testing.assert_allclose(out, plain(full, tokens)[:, L:], atol=1e-4)
  assert not cache.overflowed
  new = (tokens[:, :1], np.full((2, 1), 2 * L), ones[:, :1])
  for _ in range(2):
    out, cache = step(*new, cache)
    assert np.isnan(out).all() and cache.overflowed


def test_what_never_fits_a_cache_is_refused():
  _, start, _ = built("llama")
  tokens = rows(6, 2 * L + 1)
  ones = np.ones_like(tokens)
  with pytest.raises(ValueError, match="21 tokens.*room for 20"):
    start(tokens, places(ones), ones)


def test_a_position_beyond_the_table_says_so():
  full, _, _ = built("opt")
  tokens = rows(7)
  ones = np.ones_like(tokens)
  known = np.array([[30], [31]]) + np.arange(L)
  out = np.asarray(full(tokens, known, ones))
  assert np.isfinite(out[0]).all() and np.isnan(out[1]).all()
