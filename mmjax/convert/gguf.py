"""GGUF files as a lazy mapping from names to float32 arrays.

Reading and dequantising is the work of the `gguf` package; quantised tensors
come out as the numbers that their blocks stand for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Gguf(Mapping):
  """Tensors and metadata of a GGUF file.

  Attributes:
    path: of the file.

  Raises:
    ValueError: when the `gguf` package is missing, or the file is no GGUF.
  """

  def __init__(self, path: str | Path):
    try:
      from gguf import GGUFReader, dequantize
    except ImportError as error:
      raise ValueError(
        "Reading GGUF files needs the gguf package: pip install gguf"
      ) from error
    self.path, self._dequantize = Path(path), dequantize
    try:
      self._reader = GGUFReader(str(path))
    except (ValueError, OSError, IndexError, KeyError) as error:
      raise ValueError(f"{path} is no GGUF file: {error}") from error
    self._tensors = {t.name: t for t in self._reader.tensors}

  def __getitem__(self, name: str) -> np.ndarray:
    tensor = self._tensors[name]
    return self._dequantize(tensor.data, tensor.tensor_type)

  def __iter__(self):
    return iter(self._tensors)

  def __len__(self):
    return len(self._tensors)

  def metadata(self, key: str) -> Any:
    """A field of the header; ValueError when it is not there."""
    field = self._reader.get_field(key)
    if field is None:
      raise ValueError(f"The GGUF file has no field {key!r}.")
    return field.contents()
