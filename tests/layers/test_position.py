"""Positions against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mmjax.layers.position import (
  alibi_slopes,
  fold_positions,
  grid_distances,
  interpolate,
  interpolate_grid,
  num_grid_distances,
  relative_buckets,
  rotary,
  sinusoids,
)


def draw(*shape):
  return jnp.asarray(
    np.random.RandomState(0).standard_normal(shape), jnp.float32
  )


@pytest.mark.parametrize(
  "table, length, expected",
  [
    ([0, 1, 2], 3, [0, 1, 2]),
    ([0, 1, 2], 5, [0, 0.5, 1, 1.5, 2]),
    ([0, 4], 5, [0, 1, 2, 3, 4]),
    ([0, 1, 2, 3, 4], 3, [0, 2, 4]),
    ([0, 1, 2], 1, [0]),
    ([7], 3, [7, 7, 7]),
  ],
)
def test_interpolation_keeps_both_ends(table, length, expected):
  column = jnp.asarray(table, jnp.float32)[:, None]
  np.testing.assert_allclose(
    interpolate(column, length)[:, 0], expected, atol=1e-6
  )


def test_interpolation_of_a_grid_is_that_of_pytorch():
  grid = np.asarray(draw(4, 5, 3))
  for height, width in ((7, 8), (3, 2), (4, 5)):
    theirs = torch.nn.functional.interpolate(
      torch.tensor(grid).permute(2, 0, 1)[None],
      size=(height, width),
      mode="bicubic",
    )[0].permute(1, 2, 0)
    ours = interpolate_grid(jnp.asarray(grid), height, width)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_rotary_scores_depend_on_the_distance_only():
  query, key = draw(1, 1, 2, 8), draw(1, 1, 2, 8)[..., ::-1]

  def score(i, j):
    q = rotary(query, jnp.array([[i]]))
    k = rotary(key, jnp.array([[j]]))
    return np.asarray((q * k).sum(-1))

  np.testing.assert_allclose(score(5, 2), score(103, 100), rtol=1e-4)
  assert np.abs(score(5, 2) - score(5, 4)).max() > 1e-3
  np.testing.assert_allclose(score(0, 0), (query * key).sum(-1), rtol=1e-6)


def test_rotary_turns_only_the_dims_it_is_told():
  x = draw(1, 3, 2, 8)
  y = rotary(x, jnp.arange(3)[None], dims=4)
  np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
  assert not np.allclose(y[:, 1:, :, :4], x[:, 1:, :, :4])


def test_rotary_by_hand():
  x = jnp.array([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 4)
  y = rotary(x, jnp.array([[2]]), base=100.0).ravel()
  fast, slow = 2.0, 2.0 / 10.0
  expected = [np.cos(fast), -np.sin(slow), np.sin(fast), np.cos(slow)]
  np.testing.assert_allclose(y, expected, atol=1e-6)


def test_slopes():
  np.testing.assert_allclose(alibi_slopes(8), 2.0 ** -np.arange(1.0, 9.0))
  # Six heads: of the eight slopes every second one, then the others.
  expected = 2.0 ** -np.array([2, 4, 6, 8, 1, 3.0])
  np.testing.assert_allclose(alibi_slopes(6), expected, rtol=1e-6)


def test_sinusoids():
  table = np.asarray(sinusoids(jnp.arange(3), 4))
  angles = np.arange(3)[:, None] * np.array([1.0, 0.01])
  np.testing.assert_allclose(
    table, np.concatenate([np.sin(angles), np.cos(angles)], -1), atol=1e-6
  )


def test_distances_in_a_grid():
  """The example of the docstring, and a grid by its definition."""
  expected = [[5, 3, 3], [4, 1, 0], [4, 2, 1]]
  np.testing.assert_array_equal(grid_distances(1, 2), expected)
  rows = grid_distances(3, 4)
  assert rows.shape == (13, 13)
  # Every row of the table is read, and no other.
  assert set(rows.ravel()) == set(range(num_grid_distances(3, 4)))
  grid = rows[1:, 1:].reshape(3, 4, 3, 4)
  assert grid[2, 1, 0, 3] == (2 + 2) * 7 + (-2) + 3
  # The same distance is the same row, wherever it lies.
  np.testing.assert_array_equal(grid[1:, 1:, 1:, 1:], grid[:-1, :-1, :-1, :-1])


def test_folded_positions():
  mask = jnp.array([[0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 1, 1]])
  np.testing.assert_array_equal(
    fold_positions(mask), [[0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 2, 3]]
  )


def test_buckets_of_the_example():
  """The table of the docstring."""
  rows = relative_buckets(np.arange(-20, 3), 16, 20)
  counts = [(7, 7), (6, 5), (5, 3), (4, 2), (3, 1), (2, 1), (1, 1), (0, 1)]
  expected = [row for row, count in counts for _ in range(count)] + [9, 10]
  np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize(
  "num_buckets, max_distance",
  [(320, 800), (32, 128), (33, 64), (16, 16), (64, 1024), (4, 2)],
)
def test_buckets_are_the_formula_in_single_precision(num_buckets, max_distance):
  """Also where a step ends on a whole number."""
  distance = torch.arange(-1100, 1101)
  half = num_buckets // 2
  exact = half // 2
  size = distance.abs()
  step = torch.log(size.float() / exact) / np.log(max_distance / exact)
  far = exact + (step * (half - exact)).to(torch.long)
  row = torch.where(size < exact, size, far.clamp(max=half - 1))
  expected = row + half * (distance > 0)
  rows = relative_buckets(distance.numpy(), num_buckets, max_distance)
  np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("sizes", [(3, 9), (32, 8)])
def test_tables_without_room_for_buckets(sizes):
  with pytest.raises(ValueError, match=f"A table of {sizes[0]} rows"):
    relative_buckets(np.arange(3), *sizes)
