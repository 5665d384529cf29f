"""3D shapes: safe decoding to a fixed number of points in the unit sphere.

  bytes -> vertices and triangles -> points on the surface -> unit sphere

A file that has no faces is a cloud, whose own points are taken.
"""

import numpy as np

from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.data.meshes import glb, npy, obj, ply, xyz
from mmjax.data.meshes.mesh import Mesh, sample_surface
from mmjax.typing import Float

# Fewer points are no shape.
MIN_POINTS = 4
# Readers by how a file begins. OBJ has no mark, but never begins with a number:
# what is left is parsed as one.
READERS = (
  (b"\x93NUMPY", npy.read),
  (b"PK\x03\x04", npy.read_archive),
  (b"ply\n", ply.read),
  (b"ply\r", ply.read),
  (b"glTF", glb.read),
  *((bytes([mark]), xyz.read) for mark in b"+-.0123456789"),
)


def decode(
  data: bytes | np.ndarray,
  count: int = 8192,
  seed: int = 0,
  name: str = "points",
) -> Float[np.ndarray, "count 3"]:
  """A shape as `count` points around 0, the farthest of them 1 away.

  A surface gives points drawn evenly from its area. Of a cloud with more than
  `count` points some are drawn, each at most once; one with fewer is gone
  through again and again:

    a b c d e at count=12  ->  a b c d e a b c d e a b

  What is drawn depends on the file and the seed alone. Colours, normals and
  textures are left out.

  Args:
    data: a NumPy array [n 3] or wider, whose first columns are x, y and z, as
      it is or as a file (.npy, .npz); a PLY; a binary glTF (.glb); lines of
      numbers, as ModelNet40's; or a Wavefront OBJ. Its first bytes tell which.
    count: how many points; 8192 is what ULIP-2 was trained with.
    seed: of what is drawn.
    name: what an error calls it.

  Raises:
    BadSample: for damaged, oversized and other files, for points that are not
      finite, less than MIN_POINTS of them or all in one place, and for a
      surface of no area.
  """
  if count < 2:
    raise ValueError(f"count is {count}, expected at least 2.")
  return sample(read(data, name), count, seed, name)


def sample(
  mesh: Mesh, count: int = 8192, seed: int = 0, name: str = "points"
) -> Float[np.ndarray, "count 3"]:
  """Those points of a shape that is read already."""
  rng = np.random.default_rng(seed)
  if len(mesh.triangles):
    points = sample_surface(mesh, count, rng, name)
  else:
    points = _pick(mesh.vertices, count, rng, name)
  return _unit_sphere(points, name)


def read(data: bytes | np.ndarray, name: str = "points") -> Mesh:
  """The vertices and triangles of a file, all of them finite in float32."""
  cap = MAX_BYTES["points"]
  size = data.nbytes if isinstance(data, np.ndarray) else len(data)
  if size > cap:
    raise BadSample(f"{name} has {size} bytes, the cap is {cap}.")
  if isinstance(data, np.ndarray):
    return _finite(npy.cloud(data, name), name)
  reader = next((r for mark, r in READERS if data.startswith(mark)), obj.read)
  if reader is obj.read and (b"\0" in data or not data):
    raise BadSample(
      f"{name} is no NumPy array, PLY, glTF binary, OBJ or lines of numbers; "
      f"its {len(data)} bytes begin with {data[:12]!r}."
    )
  # What a hostile number overflows to is refused afterwards.
  with np.errstate(all="ignore"):
    mesh = reader(data, name)
  return _finite(mesh, name)


def _finite(mesh: Mesh, name: str) -> Mesh:
  # What is not a number is not below either.
  fine = np.abs(mesh.vertices) <= np.finfo(np.float32).max
  wrong = len(fine) - int(fine.all(axis=1).sum())
  if wrong:
    raise BadSample(f"{name} has {wrong} points that are not finite.")
  return mesh


def _pick(
  points: Float[np.ndarray, "points 3"],
  count: int,
  rng: np.random.Generator,
  name: str,
) -> Float[np.ndarray, "count 3"]:
  """`count` of the points, without one twice as long as there are enough."""
  found = len(points)
  if found < MIN_POINTS:
    raise BadSample(f"{name} has {found} points, the least is {MIN_POINTS}.")
  if found > count:
    return points[rng.choice(found, count, replace=False)]
  return points[np.arange(count) % found]


def _unit_sphere(
  points: Float[np.ndarray, "points 3"], name: str = "points"
) -> Float[np.ndarray, "points 3"]:
  """Moves points to mean 0 and scales them to a largest norm of 1, as float32.

  In float64: a shape that is far from 0, as those of maps are, would lose its
  form in float32. The encoder may do it again, which changes nothing.

  Raises:
    BadSample: for points that are all in one place.
  """
  # Their mean is exact then where all points are in one place.
  points = points - points[:1]
  points -= points.mean(axis=0)
  norm = np.linalg.norm(points, axis=-1).max()
  if not norm:
    raise BadSample(f"{name} has all its points in one place.")
  return (points / norm).astype(np.float32)
