"""Lines of numbers, parted by commas or blanks, as clouds.

0.1,0.2,0.3,0,0,1     x, y and z of a point; what follows is left out
"""

from array import array

import numpy as np

from mmjax.data.document import BadSample
from mmjax.data.meshes import mesh
from mmjax.data.meshes.mesh import Mesh


def read(data: bytes, name: str) -> Mesh:
  """The cloud of all lines that have any number."""
  mesh.check_count(data.count(b"\n"), mesh.MAX_VERTICES, "lines", name)
  found = array("d")
  for line, words in mesh.text_lines(data.replace(b",", b" "), name):
    try:
      x, y, z, *_ = words
      found.extend((float(x), float(y), float(z)))
    # Too few words, or one that is no number.
    except ValueError as error:
      shown = b" ".join(words)[:60]
      raise BadSample(f"{name}, line {line}: {shown!r}: {error}.") from error
  return Mesh(np.array(found).reshape(-1, 3), np.zeros((0, 3), np.int64))
