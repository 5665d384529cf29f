"""Media in their places, against tables that are written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.systems.merge import merge, rows_of

# Of media of three tokens: the index, which of the media's tokens each place
# is, and whether it is one.
TABLES = {
  "text": ([0, 0, 0, 0, 0, 0, 0, 0], [0] * 8, [0] * 8),
  "two, text between": (
    [0, 1, 1, 1, 0, 2, 2, 2],
    [0, 0, 1, 2, 0, 3, 4, 5],
    [0, 1, 1, 1, 0, 1, 1, 1],
  ),
  "one behind the other, from the first place": (
    [1, 1, 1, 2, 2, 2, 0, 0],
    [0, 1, 2, 3, 4, 5, 0, 0],
    [1, 1, 1, 1, 1, 1, 0, 0],
  ),
  "to the last place, padded on the left": (
    [0, 0, 0, 0, 0, 1, 1, 1],
    [0, 0, 0, 0, 0, 0, 1, 2],
    [0, 0, 0, 0, 0, 1, 1, 1],
  ),
  "in another order than they come": (
    [2, 2, 2, 0, 1, 1, 1, 0],
    [3, 4, 5, 0, 0, 1, 2, 0],
    [1, 1, 1, 0, 1, 1, 1, 0],
  ),
  "one twice": (
    [1, 1, 1, 0, 1, 1, 1, 0],
    [0, 1, 2, 0, 0, 1, 2, 0],
    [1, 1, 1, 0, 1, 1, 1, 0],
  ),
  "a place too many": (
    [0, 1, 1, 1, 1, 0, 0, 0],
    [0, 0, 1, 2, 0, 0, 0, 0],
    [0, 1, 1, 1, 0, 0, 0, 0],
  ),
  "a place too few": (
    [0, 1, 1, 0, 2, 2, 2, 0],
    [0, 0, 0, 0, 3, 4, 5, 0],
    [0, 1, 0, 0, 1, 1, 1, 0],
  ),
  "too few, and another at once": (
    [1, 1, 2, 2, 2, 0, 0, 0],
    [0, 0, 3, 4, 5, 0, 0, 0],
    [1, 0, 1, 1, 1, 0, 0, 0],
  ),
  "cut off by the end": (
    [0, 0, 0, 0, 0, 0, 1, 1],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, 0],
  ),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_those_of_the_table(name):
  index, rows, there = TABLES[name]
  found, real = rows_of(jnp.array([index]), 3)
  np.testing.assert_array_equal(found[0], rows)
  np.testing.assert_array_equal(real[0], np.array(there, bool))


def test_media_of_one_token():
  index = jnp.array([[0, 1, 2, 0, 3], [1, 1, 0, 2, 0]])
  rows, there = rows_of(index, 1)
  np.testing.assert_array_equal(rows, [[0, 0, 1, 0, 2], [0, 0, 0, 1, 0]])
  np.testing.assert_array_equal(there, [[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]])


# Text is 100 and more; medium m of row r has the tokens 10 r + 3 m + 0 1 2.
TEXT = np.float32(100 + np.arange(16).reshape(2, 8, 1))
MEDIA = np.arange(3) + 3 * np.arange(2)[:, None]
MEDIA = np.float32(MEDIA + 10 * np.arange(2)[:, None, None])[..., None]
NAN = np.nan


def merged(*index):
  return np.asarray(merge(TEXT, MEDIA, np.array(index)))[..., 0]


def test_every_row_gets_its_own():
  np.testing.assert_array_equal(
    merged([0, 1, 1, 1, 0, 2, 2, 2], [2, 2, 2, 0, 0, 0, 0, 0]),
    [
      [100, 0, 1, 2, 104, 3, 4, 5],
      [13, 14, 15, 111, 112, 113, 114, 115],
    ],
  )


def test_a_place_without_a_token_is_no_number():
  """A place too many, one too few, and a medium that is not there."""
  np.testing.assert_array_equal(
    merged([0, 1, 1, 1, 1, 0, 2, 2], [3, 3, 3, 0, 1, 1, 1, 0]),
    [
      [100, 0, 1, 2, NAN, 105, 3, NAN],
      [NAN, NAN, NAN, 111, 10, 11, 12, 115],
    ],
  )


def test_without_media_a_place_for_one_is_no_number():
  index = np.zeros((2, 8), int)
  none = MEDIA[:, :0]
  np.testing.assert_array_equal(merge(TEXT, none, index), TEXT)
  index[1, 3] = 1
  found = np.asarray(merge(TEXT, none, index))
  assert np.isnan(found[1, 3]).all() and np.isfinite(found).sum() == 15


def test_media_take_the_kind_of_the_text():
  text = jnp.asarray(TEXT, jnp.bfloat16)
  found = merge(text, MEDIA, jnp.ones((2, 8), int))
  assert found.dtype == jnp.bfloat16


def test_gradients_reach_what_is_in_its_place_and_nothing_else():
  index = jnp.array([[0, 1, 1, 1, 0, 0, 0, 0], [0, 2, 2, 2, 1, 1, 1, 0]])
  slope = 1.0 + np.arange(16).reshape(2, 8, 1)

  def total(x, media):
    return (merge(x, media, index) * slope).sum()

  of_text, of_media = jax.grad(total, (0, 1))(TEXT, MEDIA)
  text = np.asarray(index) == 0
  np.testing.assert_array_equal(of_text[..., 0], text * slope[..., 0])
  np.testing.assert_array_equal(
    of_media[..., 0],
    [[[2, 3, 4], [0, 0, 0]], [[13, 14, 15], [10, 11, 12]]],
  )


def test_a_medium_that_is_there_twice_gets_both_gradients():
  index = jnp.array([[1, 1, 1, 0, 1, 1, 1, 0]] * 2)
  slope = 1.0 + np.arange(8)[:, None]
  total = jax.grad(lambda media: (merge(TEXT, media, index) * slope).sum())
  np.testing.assert_array_equal(
    total(MEDIA)[..., 0], [[[6, 8, 10], [0, 0, 0]]] * 2
  )
