"""Vertices and triangles, and points on their surface."""

import dataclasses
import io
from collections.abc import Iterator

import numpy as np

from mmjax.data.document import BadSample
from mmjax.typing import Float, Int

# Of a file, counted after parts that are placed more than once. A vertex takes
# 24 bytes here; larger scans are thinned out before they are trained on.
MAX_VERTICES = 5_000_000
MAX_TRIANGLES = 5_000_000
MAX_CORNERS = 3 * MAX_TRIANGLES
# Bytes of a line of text. Its words weigh twenty times as much.
MAX_LINE = 2**20
# Triangles whose areas are computed together: they fit into a core's cache.
_PIECE = 2**14


@dataclasses.dataclass(frozen=True)
class Mesh:
  """A surface, or without triangles a cloud.

  Attributes:
    vertices: float64, as in the file.
    triangles: numbers of vertices; one with a number twice has no area.
  """

  vertices: Float[np.ndarray, "vertices 3"]
  triangles: Int[np.ndarray, "triangles 3"]


def polygons(
  vertices: Float[np.ndarray, "vertices 3"],
  sizes: Int[np.ndarray, "faces"],
  corners: Int[np.ndarray, "corners"],
  name: str,
) -> Mesh:
  """A mesh of faces with any number of corners, each cut into a fan.

    sizes 3 4, corners 0 1 2  2 3 0 1  ->  0 1 2, 2 3 0, 2 0 1

  A face of one or two corners has no area and is left out. The fan of a face
  that is not convex covers some of it twice.

  Raises:
    BadSample: for corners that are no vertices, and for too many faces.
  """
  check_range(corners, len(vertices), name)
  extra = np.maximum(sizes - 2, 0)
  check_count(int(extra.sum()), MAX_TRIANGLES, "triangles", name)
  first = np.repeat(np.cumsum(sizes) - sizes, extra)
  step = np.arange(len(first)) - np.repeat(np.cumsum(extra) - extra, extra)
  picked = np.stack([first, first + step + 1, first + step + 2], axis=-1)
  return Mesh(vertices, corners[picked])


def check_range(corners: Int[np.ndarray, "_"], count: int, name: str) -> None:
  """Whether all are numbers of `count` vertices."""
  wrong = corners[(corners < 0) | (corners >= count)]
  if wrong.size:
    raise BadSample(
      f"{name} has {wrong.size} corners that are none of its {count} vertices, "
      f"the first is {wrong[0]}, counted from 0."
    )


def check_count(count: int, cap: int, what: str, name: str) -> None:
  if count > cap:
    raise BadSample(f"{name} has {count} {what}, the cap is {cap}.")


def text_lines(
  data: bytes, name: str, start: int = 0
) -> Iterator[tuple[int, list[bytes]]]:
  """Number and words of each line that has any, counted from 1."""
  for i, line in enumerate(io.BytesIO(data[start:]), 1):
    if len(line) > MAX_LINE:
      raise BadSample(
        f"{name}, line {i} has {len(line)} bytes, the cap is {MAX_LINE}."
      )
    words = line.split()
    if words:
      yield i, words


def sample_surface(
  mesh: Mesh, count: int, rng: np.random.Generator, name: str
) -> Float[np.ndarray, "count 3"]:
  """Points on the triangles, as many on each as its area is worth.

  Raises:
    BadSample: for a surface of no area.
  """
  areas = _areas(mesh)
  triangles, areas = mesh.triangles[areas > 0], areas[areas > 0]
  if not areas.size:
    raise BadSample(
      f"{name} has {len(mesh.triangles)} triangles, all of them of no area."
    )
  ends = np.cumsum(areas)
  chosen = np.searchsorted(ends, rng.random(count) * ends[-1], side="right")
  # A product may be rounded up to the last end.
  chosen = np.minimum(chosen, len(areas) - 1)
  a, b, c = np.moveaxis(mesh.vertices[triangles[chosen]], 1, 0)
  along, across = rng.random((2, count, 1))
  # The root spreads points evenly, not more of them near the corner a.
  along = np.sqrt(along)
  return (1 - along) * a + along * ((1 - across) * b + across * c)


def _areas(mesh: Mesh) -> Float[np.ndarray, "triangles"]:
  areas = np.empty(len(mesh.triangles))
  for i in range(0, len(areas), _PIECE):
    a, b, c = np.moveaxis(mesh.vertices[mesh.triangles[i : i + _PIECE]], 1, 0)
    normals = np.cross(b - a, c - a)
    areas[i : i + _PIECE] = np.linalg.norm(normals, axis=-1) / 2
  return areas
