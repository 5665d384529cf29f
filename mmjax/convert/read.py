"""Weights on disk as a lazy mapping from names to arrays."""

import collections
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from mmjax.convert.torch_file import TorchFile

# What a safetensors file calls a dtype.
DTYPES = {
  "BOOL": np.dtype(np.bool_),
  "U8": np.dtype(np.uint8),
  "I8": np.dtype(np.int8),
  "I16": np.dtype(np.int16),
  "I32": np.dtype(np.int32),
  "I64": np.dtype(np.int64),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F32": np.dtype(np.float32),
  "F64": np.dtype(np.float64),
}
_TORCH = (".pth", ".pt", ".bin", ".ckpt")


class Safetensors(Mapping):
  """Tensors of one `.safetensors` file, or of a directory of shards.

  A directory is read through its `*.safetensors.index.json` when it has one,
  and as the union of its files otherwise. Only a tensor that is asked for is
  read.

  Raises:
    ValueError: for a file that is no safetensors file or holds nothing, an
      index that points out of its directory or at a missing file or tensor, or
      leaves out a tensor of its files, or a tensor that two files hold.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path)
    self._files: dict[Path, object] = {}
    self._where = dict(self._locate())
    if not self._where:
      raise ValueError(f"{self.path} holds no tensors.")

  def _locate(self) -> Iterator[tuple[str, Path]]:
    if self.path.is_file():
      files = [self.path]
    elif index := _index(self.path, "safetensors"):
      yield from self._indexed(index)
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
    where = read_index(index)
    for name, file in where.items():
      if name not in self._names(file):
        raise ValueError(
          f"{index} says {file.name} holds {name!r}; it does not."
        )
      yield name, file
    for file in dict.fromkeys(where.values()):
      if more := [name for name in self._names(file) if name not in where]:
        raise ValueError(
          f"{file} holds {len(more)} tensors that {index.name} does not name, "
          f"such as {more[0]!r}."
        )

  def _open(self, file: Path):
    if file not in self._files:
      try:
        self._files[file] = safe_open(str(file), framework="numpy")
      except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file: {error}") from error
      except OSError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return self._files[file]

  def _names(self, file: Path) -> list[str]:
    return list(self._open(file).keys())

  def __getitem__(self, name: str) -> np.ndarray:
    return self._open(self._where[name]).get_tensor(name)

  def __contains__(self, name: object) -> bool:
    return name in self._where  # Mapping's own way reads the tensor.

  def __iter__(self):
    return iter(self._where)

  def __len__(self):
    return len(self._where)

  def shape(self, name: str) -> tuple[int, ...]:
    """Of a tensor, without reading it."""
    return tuple(self._open(self._where[name]).get_slice(name).get_shape())

  def dtype(self, name: str) -> np.dtype:
    """Of a tensor, without reading it."""
    named = self._open(self._where[name]).get_slice(name).get_dtype()
    if named not in DTYPES:
      raise ValueError(
        f"{self.path}: {name} is {named}; known: {list(DTYPES)}."
      )
    return DTYPES[named]

  def part(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """A block of a tensor, `tensor[index]`, without reading the rest."""
    where = self._open(self._where[name])
    return where.get_slice(name)[index] if index else where.get_tensor(name)

  def row(self, name: str, row: int) -> np.ndarray:
    """One row of a tensor, without reading the others."""
    return self._open(self._where[name]).get_slice(name)[row]

  def metadata(self) -> dict[str, str]:
    """The text metadata of all files together."""
    merged: dict[str, str] = {}
    for file in dict.fromkeys(self._where.values()):
      merged |= self._open(file).metadata() or {}
    return merged


class Joined(collections.ChainMap):
  """The tensors of several files, or other lazy mappings, as of one.

  Raises:
    ValueError: when two of them hold a tensor of one name.
  """

  def __init__(self, *parts: Any):
    names = [name for part in parts for name in part]
    if len(set(names)) < len(names):
      twice = [n for n, c in collections.Counter(names).items() if c > 1]
      where = [str(getattr(part, "path", "a part")) for part in parts]
      raise ValueError(f"{where} share names, such as {twice[:3]}.")
    super().__init__(*parts)

  def shape(self, name: str) -> tuple[int, ...]:
    return self._part(name).shape(name)

  def dtype(self, name: str) -> np.dtype:
    return self._part(name).dtype(name)

  def _part(self, name: str) -> Any:
    return next(part for part in self.maps if name in part)


class Renamed(Mapping):
  """The same tensors under other names, or some of them.

  Args:
    weights: tensors by name.
    rename: a name to the new one; None leaves a tensor out.

  Raises:
    ValueError: when two get one name.
  """

  def __init__(self, weights: Mapping, rename: Callable[[str], str | None]):
    self._weights = weights
    named = [(rename(name), name) for name in weights]
    named = [(new, name) for new, name in named if new is not None]
    self._names = dict(named)
    if len(self._names) != len(named):
      raise ValueError("Two names of the weights mean the same tensor.")

  def __getitem__(self, name: str) -> np.ndarray:
    return self._weights[self._names[name]]

  def __contains__(self, name: object) -> bool:
    return name in self._names

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)

  def shape(self, name: str) -> tuple[int, ...]:
    return self._weights.shape(self._names[name])

  def dtype(self, name: str) -> np.dtype:
    return self._weights.dtype(self._names[name])


def open_weights(
  path: str | Path, part: str | None = None, usual: str | None = None
) -> Safetensors | TorchFile | Joined:
  """The tensors of a file, or of a directory of shards.

  Args:
    path: `.safetensors`, a PyTorch file, or a directory of either; the former
      is preferred where there are both.
    part, usual: which dict of a PyTorch checkpoint, see TorchFile.
  """
  path = Path(path)
  if path.suffix in _TORCH and not path.is_dir():
    return TorchFile(path, part, usual)
  files = sorted(path.iterdir()) if path.is_dir() else []
  torch_files = [file for file in files if file.suffix in _TORCH]
  if torch_files and not any(file.suffix == ".safetensors" for file in files):
    return _torch_shards(path, torch_files, part, usual)
  if part is not None:
    raise ValueError(f"{path} is no PyTorch checkpoint and has no parts.")
  return Safetensors(path)


def _torch_shards(
  folder: Path, files: list[Path], part: str | None, usual: str | None
) -> Joined:
  """Those files of a directory that hold weights.

  Beside them, training leaves its arguments and the optimizer's state.
  """
  if index := _index(folder, "bin"):
    wanted = read_index(index)
    files = sorted(set(wanted.values()))
    shards = [TorchFile(file, part, usual) for file in files]
    weights = Joined(*shards)
    if missing := [name for name in wanted if name not in weights]:
      raise ValueError(f"{index} names {missing[:3]}; no file holds them.")
    return weights
  named = [file for file in files if file.name.startswith("pytorch_model")]
  return Joined(*(TorchFile(file, part, usual) for file in named or files))


def _index(folder: Path, suffix: str) -> Path | None:
  """The index of a folder's shards, if it has one."""
  found = sorted(folder.glob(f"*.{suffix}.index.json"))
  if len(found) > 1:
    raise ValueError(
      f"{folder} holds {len(found)} models: {[path.name for path in found]}. "
      "Move the files of one to a folder of their own."
    )
  return found[0] if found else None


def read_index(path: Path) -> dict[str, Path]:
  """The `weight_map` of an index: name to file, which is beside it."""
  names = read_json(path).get("weight_map")
  if not isinstance(names, dict) or not all(
    isinstance(shard, str) for shard in names.values()
  ):
    raise ValueError(f"{path} has no 'weight_map' from names to files.")
  for shard in sorted(set(names.values())):
    if Path(shard).name != shard:
      raise ValueError(f"{path}: {shard!r} is no file name beside it.")
    if not (path.parent / shard).is_file():
      raise ValueError(f"{path} names {shard}, which is missing.")
  return {name: path.parent / shard for name, shard in names.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """An object whose keys differ; JSON would let the last one win."""
  found = dict(pairs)
  if len(found) != len(pairs):
    ((key, _),) = collections.Counter(k for k, _ in pairs).most_common(1)
    raise ValueError(f"it has the key {key!r} twice")
  return found


def read_json(path: Path) -> dict:
  """A JSON object; a ValueError says which file is none."""
  try:
    content = json.loads(path.read_bytes(), object_pairs_hook=_once)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is not read as JSON: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"{path} holds a {type(content).__name__}, no object.")
  return content
