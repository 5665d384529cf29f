"""Wavefront OBJ: vertices, and faces of any number of corners."""

from array import array

import numpy as np

from mmjax.data.document import BadSample
from mmjax.data.meshes import mesh
from mmjax.data.meshes.mesh import Mesh

# Lines of a file, and so its vertices; the shortest ones would else be tens of
# millions.
MAX_LINES = mesh.MAX_VERTICES
# What has no part in where the surface is. Files that `mtllib` and others name
# are never looked for.
IGNORED = frozenset(
  b"vt vn vp l p g s o mg usemtl mtllib usemap maplib bevel c_interp d_interp "
  b"lod shadow_obj trace_obj".split()
)


def read(data: bytes, name: str) -> Mesh:
  """The triangles of all objects and groups of a file.

  Curved surfaces (`curv`, `surf`, ...) and what runs or reads other files
  (`call`, `csh`) are refused, as is every other unknown statement: a damaged
  line would else move the numbers of all vertices behind it.
  """
  # Lines that end in a backslash go on; some files end lines as old Macs do.
  data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
  data = data.replace(b"\r", b"\n").replace(b"\\\n", b" ")
  mesh.check_count(data.count(b"\n"), MAX_LINES, "lines", name)
  vertices, sizes, corners = array("d"), array("q"), array("q")
  for line, (kind, *words) in mesh.text_lines(data, name):
    try:
      if kind == b"v":
        x, y, z, *_ = words
        vertices.extend((float(x), float(y), float(z)))
      elif kind == b"f":
        corners.extend(_corners(words, len(vertices) // 3))
        sizes.append(len(words))
      elif not kind.startswith(b"#") and kind not in IGNORED:
        raise BadSample(
          f"{name} is no .npy, PLY or glTF binary, and line {line} begins with "
          f"{kind[:20]!r}, which is no statement of an OBJ's polygons."
        )
    # Too few words, or one that is no number or too large a one.
    except (ValueError, OverflowError) as error:
      if isinstance(error, BadSample):
        raise
      shown = b" ".join([kind, *words])[:60]
      raise BadSample(f"{name}, line {line}: {shown!r}: {error}.") from error
    mesh.check_count(len(corners), mesh.MAX_CORNERS, "corners", name)
  return mesh.polygons(
    np.array(vertices).reshape(-1, 3),
    np.array(sizes, np.int64),
    np.array(corners, np.int64),
    name,
  )


def _corners(words: list[bytes], seen: int) -> list[int]:
  """Of `7/2/1`, `7//1`, `7`, or `-1` for the last vertex so far."""
  numbers = [int(word.partition(b"/")[0]) for word in words]
  if 0 in numbers or min(numbers, default=0) < -seen:
    raise ValueError(f"vertices are 1 to {seen} here, or -{seen} to -1")
  return [n - 1 if n > 0 else seen + n for n in numbers]
