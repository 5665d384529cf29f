"""Farthest points, neighbours and groups against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.layers.points import (
  farthest_points,
  group_points,
  nearest_points,
  take_points,
  unit_sphere,
)


@pytest.fixture(scope="module")
def clouds():
  return np.random.RandomState(0).randn(3, 40, 3).astype(np.float32)


def farthest_by_definition(cloud, count, start):
  """A point whose nearest chosen one is farthest away, again and again."""
  chosen = [start]
  while len(chosen) < count:
    gaps = np.square(cloud[:, None] - cloud[chosen]).sum(-1).min(axis=1)
    chosen.append(int(gaps.argmax()))
  return chosen


@pytest.mark.parametrize("start", [None, (7, 0, 39)])
def test_farthest_points(clouds, start):
  given = None if start is None else jnp.array(start)
  found = farthest_points(clouds, 12, given)
  assert found.shape == (3, 12)
  for cloud, ours, first in zip(clouds, found, start or (0, 0, 0)):
    assert ours.tolist() == farthest_by_definition(cloud, 12, first)


def test_a_key_draws_the_first_points(clouds):
  keys = jax.random.split(jax.random.key(0), 4)
  firsts = [farthest_points(clouds, 2, key=key)[:, 0] for key in keys]
  assert len({tuple(first.tolist()) for first in firsts}) > 1
  again = farthest_points(clouds, 2, key=keys[0])
  np.testing.assert_array_equal(again[:, 0], firsts[0])
  np.testing.assert_array_equal(again, farthest_points(clouds, 2, firsts[0]))


def test_a_given_start_goes_before_a_key(clouds):
  start = jnp.array([3, 3, 3])
  found = farthest_points(clouds, 2, start, jax.random.key(0))
  np.testing.assert_array_equal(found[:, 0], start)


def test_fewer_places_than_are_asked_for(clouds):
  """All points once, then point 0; copies of a point are no new places."""
  few = clouds[:, :5]
  found = farthest_points(few, 8)
  for row in found.tolist():
    assert sorted(row[:5]) == [0, 1, 2, 3, 4] and row[5:] == [0, 0, 0]
  twice = np.concatenate([few, few], axis=1)
  np.testing.assert_array_equal(farthest_points(twice, 8), found)


def test_nearest_points(clouds):
  centres = clouds[:, :6] + 0.1
  index, distance = nearest_points(clouds, centres, 9)
  full = np.square(clouds[:, None] - centres[:, :, None]).sum(-1)
  np.testing.assert_array_equal(index, full.argsort(-1, "stable")[..., :9])
  np.testing.assert_allclose(distance, np.sort(full)[..., :9], rtol=1e-5)


def test_far_from_the_origin_neighbours_are_the_same(clouds):
  """Where |a|^2 - 2ab + |b|^2 would have lost them."""
  shifted = np.round(clouds, 2) * 64 + np.float32(4096)
  index, distance = nearest_points(shifted, shifted[:, :6], 5)
  exact = shifted.astype(np.float64)
  full = np.square(exact[:, None] - exact[:, :6, None]).sum(-1)
  np.testing.assert_allclose(distance, np.sort(full)[..., :5], rtol=1e-5)
  np.testing.assert_array_equal(index[..., 0], [[0, 1, 2, 3, 4, 5]] * 3)


def test_more_neighbours_than_points(clouds):
  with pytest.raises(ValueError, match="40 points have no 41 neighbours"):
    jax.eval_shape(lambda x: nearest_points(x, x, 41), clouds)


def test_groups_are_points_less_their_centre(clouds):
  found = group_points(clouds, 4, 6, jnp.array([5, 6, 7]))
  np.testing.assert_array_equal(
    found.centres[:, 0], clouds[[0, 1, 2], [5, 6, 7]]
  )
  np.testing.assert_array_equal(found.offsets[:, :, 0], np.zeros((3, 4, 3)))
  for cloud, centres, offsets in zip(
    clouds, *map(np.asarray, (found.centres, found.offsets))
  ):
    points = (centres[:, None] + offsets).reshape(-1, 3)
    gaps = np.abs(points[:, None] - cloud).max(-1).min(-1)
    assert gaps.max() < 1e-6


def test_taken_points(clouds):
  index = jnp.array([[0, 3], [1, 1], [39, 2]])
  taken = take_points(clouds, index)
  np.testing.assert_array_equal(taken[2, 0], clouds[2, 39])
  np.testing.assert_array_equal(taken[1, 1], clouds[1, 1])


def test_unit_sphere(clouds):
  moved = clouds * np.array([3.0, 0.2, 50.0], np.float32)[:, None, None] + 7
  found = np.asarray(unit_sphere(moved))
  np.testing.assert_allclose(found.mean(axis=1), np.zeros((3, 3)), atol=1e-6)
  norms = np.linalg.norm(found, axis=-1).max(axis=1)
  np.testing.assert_allclose(norms, np.ones(3), rtol=1e-6)
  np.testing.assert_allclose(found, unit_sphere(clouds), atol=1e-4)
  np.testing.assert_allclose(found, unit_sphere(found), atol=1e-6)


def test_a_cloud_in_one_place():
  one = jnp.full((1, 7, 3), 0.7)
  assert not unit_sphere(one).any()
  found = group_points(one, 4, 3)
  assert not found.offsets.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_stays_none(clouds, value):
  """In its own cloud, and in no other."""
  broken = clouds.copy()
  broken[1, 20, 2] = value
  found = group_points(unit_sphere(jnp.asarray(broken)), 4, 6)
  assert not np.isfinite(found.centres[1]).any()
  assert not np.isfinite(found.offsets[1]).any()
  raw = group_points(broken, 4, 6)
  assert not np.isfinite(raw.offsets[1]).all()
  well = group_points(clouds, 4, 6)
  for row in (0, 2):
    np.testing.assert_array_equal(raw.offsets[row], well.offsets[row])


def test_the_program_does_not_grow_with_the_count(clouds):
  def size(count):
    sample = jax.jit(lambda x: farthest_points(x, count))
    return len(sample.lower(clouds).as_text().splitlines())

  assert size(4) == size(32)
