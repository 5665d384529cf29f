"""Safetensors files written piece by piece, in as little memory as a piece.

Names, dtypes and shapes are known first; the files are laid out for them and
arrays, or rows of arrays, are then written where they belong in any order.
"""

import json
import math
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmjax.convert.read import DTYPES

SHARD = 4 << 30
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
Entries = Mapping[str, tuple[np.dtype, tuple[int, ...]]]


class Writer:
  """A directory of safetensors, and an index when there are several files.

  Args:
    directory: new; must not exist.
    entries: dtype and shape of every array.
    metadata: text that every file keeps.
    limit: bytes of a file; only a larger array exceeds it.

  Raises:
    ValueError: when the directory exists, or an array is of a dtype that
      safetensors does not know.
    OSError: when the disk has no room for all of it.
  """

  def __init__(
    self,
    directory: str | Path,
    entries: Entries,
    metadata: Mapping[str, str],
    limit: int = SHARD,
  ):
    self.directory = Path(directory)
    self._entries = dict(entries)
    self._left = {name: _rows(shape) for name, (_, shape) in entries.items()}
    self._written: set[tuple[str, int | None]] = set()
    self._where: dict[str, tuple[int, int]] = {}
    self._files: dict[int, str] = {}
    for name, (dtype, _) in entries.items():
      if np.dtype(dtype) not in _NAMES:
        raise ValueError(f"{name} is {dtype}; known: {list(map(str, _NAMES))}.")
    total = sum(_size(entry) for entry in entries.values())
    _make(self.directory, total)
    shards = _split(entries, limit)
    for i, names in enumerate(shards):
      file = "model.safetensors"
      if len(shards) > 1:
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
      self._lay_out(file, names, metadata)
    if len(shards) > 1:
      self._write_index(shards, total)

  def _lay_out(self, file, names, metadata) -> None:
    """Writes the header and reserves the room behind it."""
    header, end = {"__metadata__": dict(metadata)}, 0
    for name in names:
      dtype, shape = self._entries[name]
      start, end = end, end + _size(self._entries[name])
      header[name] = {
        "dtype": _NAMES[np.dtype(dtype)],
        "shape": list(shape),
        "data_offsets": [start, end],
      }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    handle = os.open(self.directory / file, flags, 0o644)
    self._files[handle] = file
    _write_all(handle, struct.pack("<Q", len(text)) + text, 0)
    os.truncate(handle, 8 + len(text) + end)
    for name in names:
      start = header[name]["data_offsets"][0]
      self._where[name] = handle, 8 + len(text) + start

  def _write_index(self, shards, total) -> None:
    files = list(self._files.values())
    index = {
      "metadata": {"total_size": total},
      "weight_map": {
        name: files[i] for i, names in enumerate(shards) for name in names
      },
    }
    path = self.directory / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2))

  def put(self, name: str, value: np.ndarray, row: int | None = None) -> None:
    """Writes an array, or one row of it.

    Raises:
      ValueError: for another dtype or shape than was announced, or for what
        was written before.
    """
    dtype, shape = self._entries[name]
    wanted = shape if row is None else shape[1:]
    if value.dtype != dtype or tuple(value.shape) != tuple(wanted):
      raise ValueError(
        f"{name} is to be {dtype}{list(wanted)}, not "
        f"{value.dtype}{list(value.shape)}."
      )
    if {(name, row), (name, None)} & self._written:
      raise ValueError(f"{name} (row {row}) is written twice.")
    self._written.add((name, row))
    self._left[name] -= _rows(shape) if row is None else 1
    handle, offset = self._where[name]
    content = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    _write_all(handle, memoryview(content), offset + (row or 0) * content.size)

  def close(self) -> None:
    """Makes sure that all is there.

    Raises:
      ValueError: when something was announced and not written.
    """
    for handle in self._files:
      os.fsync(handle)
      os.close(handle)
    self._files.clear()
    if missing := [name for name, rows in self._left.items() if rows]:
      raise ValueError(f"Never written: {missing[:5]} ({len(missing)} in all).")


def _make(directory: Path, size: int) -> None:
  if directory.exists():
    raise ValueError(f"{directory} is there already; name a new directory.")
  directory.parent.mkdir(parents=True, exist_ok=True)
  free = shutil.disk_usage(directory.parent).free
  if size > free:
    raise OSError(
      f"{directory} needs {size / 1e9:.1f} GB; {free / 1e9:.1f} GB are free."
    )
  directory.mkdir()


def _rows(shape: tuple[int, ...]) -> int:
  return shape[0] if shape else 1


def _size(entry: tuple[np.dtype, tuple[int, ...]]) -> int:
  dtype, shape = entry
  return np.dtype(dtype).itemsize * math.prod(shape)


def _split(entries: Entries, limit: int) -> list[list[str]]:
  shards, size = [[]], 0
  for name, entry in entries.items():
    if shards[-1] and size + _size(entry) > limit:
      shards.append([])
      size = 0
    shards[-1].append(name)
    size += _size(entry)
  return shards


def _write_all(handle: int, content: bytes | memoryview, offset: int) -> None:
  """One call writes at most 2 GiB on Linux."""
  view = memoryview(content)
  while view:
    written = os.pwrite(handle, view, offset)
    view, offset = view[written:], offset + written
