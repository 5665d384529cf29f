"""Weights on disk as a lazy mapping from names to arrays."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from mmjax.convert.torch_file import TorchFile


class Safetensors(Mapping):
  """Tensors of one `.safetensors` file, or of a directory of shards.

  A directory is read through its `*.safetensors.index.json` when it has one,
  and as the union of its files otherwise. Only a tensor that is asked for is
  read.

  Raises:
    ValueError: for a file that is no safetensors file, an index that points
      out of its directory or at a missing file or tensor, or a tensor that two
      files hold.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path)
    self._files: dict[Path, object] = {}
    self._where = dict(self._locate())

  def _locate(self) -> Iterator[tuple[str, Path]]:
    if self.path.is_file():
      files = [self.path]
    elif index := sorted(self.path.glob("*.safetensors.index.json")):
      yield from self._indexed(index[0])
      return
    else:
      files = sorted(self.path.glob("*.safetensors"))
      if not files:
        raise ValueError(f"{self.path} holds no .safetensors file.")
    seen: dict[str, Path] = {}
    for file in files:
      for name in self._names(file):
        if name in seen:
          raise ValueError(f"{file} and {seen[name]} both hold {name!r}.")
        seen[name] = file
        yield name, file

  def _indexed(self, index: Path) -> Iterator[tuple[str, Path]]:
    names = json.loads(index.read_text()).get("weight_map", {})
    for name, shard in names.items():
      if Path(shard).name != shard:
        raise ValueError(f"{index}: {shard!r} is no file name beside it.")
      file = index.parent / shard
      if not file.is_file():
        raise ValueError(f"{index} names {shard}, which is missing.")
      if name not in self._names(file):
        raise ValueError(f"{index} says {shard} holds {name!r}; it does not.")
      yield name, file

  def _open(self, file: Path):
    if file not in self._files:
      try:
        self._files[file] = safe_open(str(file), framework="numpy")
      except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file: {error}") from error
    return self._files[file]

  def _names(self, file: Path) -> list[str]:
    return list(self._open(file).keys())

  def __getitem__(self, name: str) -> np.ndarray:
    return self._open(self._where[name]).get_tensor(name)

  def __iter__(self):
    return iter(self._where)

  def __len__(self):
    return len(self._where)

  def shape(self, name: str) -> tuple[int, ...]:
    """Of a tensor, without reading it."""
    return tuple(self._open(self._where[name]).get_slice(name).get_shape())

  def metadata(self) -> dict[str, str]:
    """The text metadata of all files together."""
    merged: dict[str, str] = {}
    for file in dict.fromkeys(self._where.values()):
      merged |= self._open(file).metadata() or {}
    return merged


def open_weights(
  path: str | Path, part: str | None = None
) -> Safetensors | TorchFile:
  """Safetensors, one file or a directory, or one file of PyTorch.

  Args:
    path: of the file or directory; `.pth`, `.pt`, `.bin` and `.ckpt` are
      PyTorch's.
    part: which dict of a PyTorch checkpoint, see TorchFile.
  """
  path = Path(path)
  if path.suffix in (".pth", ".pt", ".bin", ".ckpt"):
    return TorchFile(path, part)
  if part is not None:
    raise ValueError(f"{path} is no PyTorch checkpoint and has no parts.")
  return Safetensors(path)
