import numpy as np
import pytest

from mmjax.data import points
from mmjax.data.meshes.mesh import Mesh, sample_surface
from tests.data.shapes import BOXES, VERTICES, npy, obj


@pytest.mark.parametrize("kind", BOXES)
def test_a_box_becomes_points_on_its_sides(kind):
  out = points.decode(BOXES[kind])
  assert out.shape == (8192, 3) and out.dtype == np.float32
  np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(out, axis=1).max(), 1, atol=1e-6)
  # Where they were on the box: its longest edge is three times its shortest.
  low, high = out.min(axis=0), out.max(axis=0)
  np.testing.assert_allclose(
    (high - low) / (high - low)[0], (1, 2, 3), rtol=0.01
  )
  side = np.minimum(out - low, high - out).min(axis=1)
  assert side.max() < 1e-3


def test_points_are_as_many_on_each_side_as_its_area_is_worth():
  mesh = points.read(obj())
  found = sample_surface(mesh, 40_000, np.random.default_rng(0), "box")
  for axis, area in enumerate((6, 3, 2)):
    for side in (0, VERTICES[:, axis].max()):
      share = np.isclose(found[:, axis], side, atol=1e-9).mean()
      assert share == pytest.approx(area / 22, rel=0.04)


def test_points_are_spread_evenly_in_a_triangle():
  mesh = Mesh(np.eye(3), np.array([[0, 1, 2]]))
  found = sample_surface(mesh, 40_000, np.random.default_rng(0), "one")
  np.testing.assert_allclose(found.sum(axis=1), 1)
  # The four triangles that halving the edges gives.
  for axis in range(3):
    assert (found[:, axis] > 0.5).mean() == pytest.approx(0.25, rel=0.04)


def test_triangles_of_no_area_get_no_points():
  faces = ((0, 0, 1), (0, 1, 2), (1, 1, 1), (2, 2, 0))
  mesh = points.read(obj(np.vstack([np.eye(3), np.ones(3)]), faces))
  found = sample_surface(mesh, 1000, np.random.default_rng(0), "one")
  np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("data", [obj(), npy(np.random.rand(500, 3))])
def test_the_file_and_the_seed_decide(data):
  one = points.decode(data, 100, seed=3)
  np.testing.assert_array_equal(one, points.decode(data, 100, seed=3))
  assert (one != points.decode(data, 100, seed=4)).any()


def test_many_points_are_thinned_out_without_a_second_of_any():
  cloud = np.random.default_rng(0).normal(size=(300, 3))
  out = points.decode(npy(cloud), 299)
  assert len(np.unique(out, axis=0)) == 299


def test_few_points_are_gone_through_again():
  cloud = np.random.default_rng(0).normal(size=(10, 3))
  out = points.decode(npy(cloud), 24)
  np.testing.assert_array_equal(out[:10], out[10:20])
  np.testing.assert_array_equal(out[:4], out[20:])
  whole = points.decode(npy(cloud), 10)
  expected = cloud - cloud.mean(axis=0)
  expected /= np.linalg.norm(expected, axis=1).max()
  np.testing.assert_allclose(whole, expected, atol=1e-6)


def test_a_shape_that_is_far_away_keeps_its_form():
  cloud = np.random.default_rng(0).normal(size=(50, 3))
  near, far = (points.decode(npy(cloud + d), 50) for d in (0, 1e8))
  np.testing.assert_allclose(near, far, atol=1e-6)


def test_count_must_be_two():
  with pytest.raises(ValueError, match="count is 1"):
    points.decode(obj(), 1)
