"""CTranslate2's `model.bin` as a lazy mapping from names to float32 arrays.

The file is, with little-endian numbers and texts that say their length:

  version 6, the model's name, its revision
  how many variables; of each its name, dims, kind of numbers, bytes, the data
  how many aliases; of each its name and the variable's that it stands for

Numbers of 16 bits come out as float32. Quantised ones do not: their scales are
variables of their own, which no rule of ours reads.
"""

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

_VERSION = 6
# By their number in the file.
_DTYPES = (
  np.float32,
  np.int8,
  np.int16,
  np.int32,
  np.float16,
  ml_dtypes.bfloat16,
)


class CTranslate2(Mapping):
  """Variables of a model.bin, by name; aliases are names, too.

  Attributes:
    path: of the file.
    model: the name of the model's kind, such as "WhisperSpec".

  Raises:
    ValueError: for another version, or a file that ends early, has bytes to
      spare, or promises what it does not hold.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path)
    if not self.path.stat().st_size:
      raise ValueError(f"{self.path} is empty.")
    with self.path.open("rb") as file:
      self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    self._at, self._variables = 0, {}
    version = self._number("<I")
    if version != _VERSION:
      raise ValueError(
        f"{self.path} is a model.bin of version {version}, expected {_VERSION}."
      )
    self.model = self._text()
    self._number("<I")
    for _ in range(self._number("<I")):
      self._variable()
    for _ in range(self._number("<I")):
      alias, name = self._text(), self._text()
      if name not in self._variables:
        raise ValueError(f"{self.path}: {alias} stands for no {name!r}.")
      self._variables[alias] = self._variables[name]
    if self._at != len(self._data):
      raise ValueError(
        f"{self.path} has {len(self._data) - self._at} bytes behind its end."
      )

  def __getitem__(self, name: str) -> np.ndarray:
    shape, dtype, start = self._variables[name]
    count = int(np.prod(shape, dtype=np.int64))
    found = np.frombuffer(self._data, dtype, count, start).reshape(shape)
    return found if found.dtype.kind == "i" else found.astype(np.float32)

  def __iter__(self):
    return iter(self._variables)

  def __len__(self):
    return len(self._variables)

  def shape(self, name: str) -> tuple[int, ...]:
    return self._variables[name][0]

  def _take(self, count: int) -> bytes:
    start, self._at = self._at, self._at + count
    if self._at > len(self._data):
      raise ValueError(
        f"{self.path} ends within its variables, after {len(self._data)} "
        "bytes: it is cut short, or no model.bin."
      )
    return self._data[start : self._at]

  def _number(self, kind: str) -> int:
    return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

  def _text(self) -> str:
    text = self._take(self._number("<H"))
    try:
      return text.removesuffix(b"\0").decode()
    except UnicodeDecodeError as error:
      raise ValueError(f"{self.path} has a name that is no text.") from error

  def _variable(self) -> None:
    name = self._text()
    dims = self._number("B")
    shape = tuple(self._number("<I") for _ in range(dims))
    kind, size = self._number("B"), self._number("<I")
    if kind >= len(_DTYPES):
      raise ValueError(f"{self.path}: {name} is of an unknown kind, {kind}.")
    dtype = np.dtype(_DTYPES[kind])
    # In Python's numbers, which no shape overflows.
    wanted = dtype.itemsize
    for side in shape:
      wanted *= side
    if wanted != size:
      raise ValueError(
        f"{self.path}: {name} of shape {shape} has {size} bytes, expected "
        f"{wanted}."
      )
    if name in self._variables:
      raise ValueError(f"{self.path} has {name} twice.")
    self._variables[name] = (shape, dtype, self._at)
    self._at += size
    if self._at > len(self._data):
      self._take(0)
