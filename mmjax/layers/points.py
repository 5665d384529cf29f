"""Sets of points: the unit sphere, farthest points, neighbours, groups.

Shapes are static, so a cloud has as many points as any other of its batch. A
NaN or an infinity among its coordinates cannot raise on the device: it goes
into the centres, the groups and all that is computed of them, so that no
damaged cloud passes for another.
"""

import jax
import jax.numpy as jnp
from flax import struct

from mmjax.typing import Array, Float, Int


@struct.dataclass
class Groups:
  """Neighbourhoods of some points of a cloud.

  Attributes:
    centres: where they are.
    offsets: from a centre to its neighbours, the nearest first.
  """

  centres: Float[Array, "B groups 3"]
  offsets: Float[Array, "B groups size 3"]


def unit_sphere(points: Float[Array, "B points 3"]) -> Array:
  """Moves clouds to mean 0 and scales them to a largest norm of 1.

  A cloud whose points are all in one place becomes zeros.
  """
  # Their mean is exact then where all points are in one place.
  points = points - points[:, :1]
  points -= points.mean(axis=1, keepdims=True)
  norm = jnp.sqrt(jnp.square(points).sum(axis=-1)).max(axis=1)
  return points / jnp.where(norm == 0, 1.0, norm)[:, None, None]


def farthest_points(
  points: Float[Array, "B points 3"],
  count: int,
  start: Int[Array, "B"] | None = None,
  key: Array | None = None,
) -> Int[Array, "B count"]:
  """Indices of points each of which is farthest from all before it.

  The sampling of PointNet++ (arXiv 1706.02413), as a scan over `count` steps.
  Of equally far points the first is taken. Once every place is taken, as in a
  cloud with fewer different points than `count`, it is point 0 again and
  again.

  Args:
    points: clouds.
    count: how many to take of each.
    start: the first point of each cloud, 0 .. points - 1; by default point 0,
      so that the same cloud gives the same points.
    key: draws the first points when there is no `start`, as released code of
      ULIP-2 does.
  """
  batch, size = points.shape[:2]
  if start is None and key is not None:
    start = jax.random.randint(key, (batch,), 0, size)
  first = jnp.zeros(batch, jnp.int32) if start is None else start

  def step(state, _):
    distance, last = state
    chosen = jnp.take_along_axis(points, last[:, None, None], axis=1)
    distance = jnp.minimum(distance, _squared(points, chosen))
    farthest = jnp.argmax(distance, axis=-1).astype(jnp.int32)
    return (distance, farthest), last

  far = jnp.full((batch, size), jnp.inf, points.dtype)
  state = far, first.astype(jnp.int32)
  return jnp.moveaxis(jax.lax.scan(step, state, length=count)[1], 0, 1)


def nearest_points(
  points: Float[Array, "B points 3"],
  centres: Float[Array, "B groups 3"],
  count: int,
) -> tuple[Int[Array, "B groups count"], Float[Array, "B groups count"]]:
  """The `count` points nearest to every centre, and their squared distances.

  The nearest comes first; of equally near points the first in the cloud. The
  distances are summed from differences, which is exact for near points where
  the expanded square is not.

  Raises:
    ValueError: for clouds of fewer points than `count`.
  """
  if points.shape[1] < count:
    raise ValueError(
      f"Clouds of {points.shape[1]} points have no {count} neighbours each: "
      "bring more points, or ask for fewer."
    )
  distance = _squared(points[:, None], centres[:, :, None])
  nearness, index = jax.lax.top_k(-distance, count)
  return index, -nearness


def _squared(one: Array, other: Array) -> Array:
  """Squared distances, without a last dim of 3, which would fill few lanes."""
  return sum(jnp.square(one[..., i] - other[..., i]) for i in range(3))


def take_points(
  points: Float[Array, "B points 3"], index: Int[Array, "B *places"]
) -> Float[Array, "B *places 3"]:
  """Coordinates of points by their indices."""
  return jax.vmap(lambda cloud, index: cloud[index])(points, index)


def group_points(
  points: Float[Array, "B points 3"],
  groups: int,
  size: int,
  start: Int[Array, "B"] | None = None,
  key: Array | None = None,
) -> Groups:
  """Farthest points of a cloud, each with its neighbours.

  Args:
    points: clouds.
    groups: centres of each.
    size: neighbours of a centre, itself among them.
    start, key: see farthest_points.

  Raises:
    ValueError: for clouds of fewer points than `size`.
  """
  chosen = farthest_points(points, groups, start, key)
  centres = take_points(points, chosen)
  index, _ = nearest_points(points, centres, size)
  offsets = take_points(points, index) - centres[:, :, None]
  return Groups(centres, offsets)
