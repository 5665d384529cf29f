"""Arrays in NumPy's own formats as clouds; nothing is unpickled.

A .npy holds one; of a .npz, as ULIP's clouds of Objaverse are, the first is
taken.
"""

import io
import lzma
import zipfile
import zlib

import numpy as np

from mmjax.data.document import MAX_BYTES, BadSample
from mmjax.data.meshes.mesh import Mesh


def read(data: bytes, name: str) -> Mesh:
  """The cloud whose x, y and z are the first columns of an array [n 3]."""
  file = io.BytesIO(data)
  try:
    version = np.lib.format.read_magic(file)
    header = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = header(file)
  # The header is a Python literal, and fails in as many ways as there are.
  except Exception as error:
    raise BadSample(
      f"{name} has no sound header of a NumPy array: {type(error).__name__}: "
      f"{error!s:.200}"
    ) from error
  _check(dtype, shape, name)
  size, left = shape[0] * shape[1] * dtype.itemsize, len(data) - file.tell()
  if size > left:
    raise BadSample(
      f"{name} is an array of shape {list(shape)} and {size} bytes, {left} are "
      "there."
    )
  order = "F" if fortran else "C"
  return cloud(np.ndarray(shape, dtype, data, file.tell(), order=order), name)


def read_archive(data: bytes, name: str) -> Mesh:
  """The cloud of a .npz: `arr_0`, or the one array that there is."""
  cap = MAX_BYTES["points"]
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      members = {m.filename: m for m in archive.infolist()}
      one = members.get("arr_0.npy")
      if one is None and len(members) == 1:
        (one,) = members.values()
      if one is None or one.file_size > cap:
        raise BadSample(
          f"{name} is an archive of {list(members)[:4]}, expected an array "
          f"arr_0.npy, or one alone, of {cap} bytes at most."
        )
      # No more than is promised, whatever is packed.
      with archive.open(one) as file:
        found = file.read(one.file_size)
  except BadSample:
    raise
  except (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError),
    *(EOFError, RuntimeError, ValueError, OSError),
  ) as error:
    raise BadSample(f"{name} is no sound archive: {error!s:.200}") from error
  if not found.startswith(b"\x93NUMPY"):
    raise BadSample(f"{name}: {one.filename!r:.80} is no NumPy array.")
  return read(found, name)


def cloud(values: np.ndarray, name: str) -> Mesh:
  """The same of an array that is read already."""
  _check(values.dtype, values.shape, name)
  return Mesh(values[:, :3].astype(np.float64), np.zeros((0, 3), np.int64))


def _check(dtype: np.dtype, shape: tuple[int, ...], name: str) -> None:
  if dtype.kind not in "fiu":
    raise BadSample(f"{name} is an array of {dtype!s:.80}, expected numbers.")
  if len(shape) != 2 or shape[0] < 1 or shape[1] < 3:
    raise BadSample(
      f"{name} is an array of shape {list(shape)}, expected [n 3] or wider."
    )
