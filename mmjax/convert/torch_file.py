"""`.pth`, `.pt` and `.bin` files of PyTorch, read without PyTorch.

Both layouts are read: the zip archive (PyTorch 1.6 on) and the older one, of
five programs and then the raw storages; and TorchScript archives, such as
OpenAI's of CLIP, whose tensors get the names that a state dict has. Nothing in
the file is executed, see `opcodes`; tensors are views of the memory-mapped
file.
"""

import io
import mmap
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.config import nearest
from mmjax.convert import opcodes
from mmjax.convert.opcodes import Module, RefusedFile, Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


class TorchFile(Mapping):
  """The tensors of a file by name, read when asked for.

  Attributes:
    path: the file.
    part: which of a checkpoint's dicts to read (`state_dict`, `model`, ...);
      None when the file is one state dict.
    usual: that of a file that turns out to be a checkpoint, where no part is
      named.

  Raises:
    RefusedFile: for a file that is damaged, or asks for anything but tensors,
      dicts and plain values.
  """

  def __init__(
    self, path: str | Path, part: str | None = None, usual: str | None = None
  ):
    self.path = Path(path)
    self.part, self.usual = part, usual
    with self.path.open("rb") as file:
      if not file.seek(0, io.SEEK_END):
        raise RefusedFile(f"{self.path} is empty.")
      self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
      zipped = self._bytes[:4] == b"PK\x03\x04"
      content, self._offsets = (_zipped if zipped else _legacy)(
        self.path, self._bytes
      )
      self._content = content
      self._entries = _select(content, part, usual)
      self._tensors = {
        k: v for k, v in self._entries.items() if isinstance(v, Tensor)
      }
      for tensor in self._tensors.values():
        self._check(tensor)
    except RefusedFile as error:
      raise RefusedFile(f"{self.path} is not read: {error}.") from error

  def _check(self, tensor: Tensor) -> None:
    storage = tensor.storage
    if storage.key not in self._offsets:
      raise RefusedFile(f"storage {storage.key!r:.50} is missing")
    offset, size = self._offsets[storage.key]
    if size != storage.count * storage.dtype.itemsize:
      raise RefusedFile(
        f"storage {storage.key!r:.50} has {size} bytes for {storage.count} "
        f"numbers of {storage.dtype}"
      )
    if offset + size > len(self._bytes):
      raise RefusedFile(f"it is cut off within storage {storage.key!r:.50}")

  def __getitem__(self, name: str) -> np.ndarray:
    tensor = self._tensors[name]
    dtype = tensor.storage.dtype
    start, _ = self._offsets[tensor.storage.key]
    return np.ndarray(
      tensor.shape,
      dtype,
      buffer=self._bytes,
      offset=start + tensor.offset * dtype.itemsize,
      strides=[stride * dtype.itemsize for stride in tensor.strides],
    )

  def __iter__(self) -> Iterator[str]:
    return iter(self._tensors)

  def __len__(self) -> int:
    return len(self._tensors)

  def shape(self, name: str) -> tuple[int, ...]:
    """Of a tensor, without reading it."""
    return self._tensors[name].shape

  def dtype(self, name: str) -> np.dtype:
    """Of a tensor, without reading it."""
    return self._tensors[name].storage.dtype

  def metadata(self) -> dict[str, str]:
    """The plain values that stand beside the tensors, as text."""
    plain = (str, int, float)
    return {
      str(k): str(v) for k, v in self._entries.items() if isinstance(v, plain)
    }

  def settings(self, part: str) -> dict[str, Any]:
    """The plain values of another dict of the checkpoint; {} if it has none."""
    content = self._content if isinstance(self._content, dict) else {}
    found, plain = content.get(part), (str, int, float, type(None))
    found = found if isinstance(found, dict) else {}
    return {str(k): v for k, v in found.items() if isinstance(v, plain)}


def _select(
  content: Any, part: str | None, usual: str | None
) -> dict[str, Any]:
  """The dict that holds the tensors."""
  if isinstance(content, Module):
    content = _state(content)
  if not isinstance(content, dict):
    raise RefusedFile(f"it holds a {type(content).__name__}, no state dict")
  parts = [k for k, v in content.items() if isinstance(v, dict)]
  whole = any(isinstance(v, Tensor) for v in content.values())
  if part is None and not whole and usual in parts:
    part = usual
  if part is not None:
    if part not in parts:
      raise RefusedFile(f"it has no part {part!r}. {nearest(part, parts)[:-1]}")
    content = content[part]
  elif not whole and parts:
    raise RefusedFile(f"it is a checkpoint: name one of its parts {parts}")
  if not any(isinstance(v, Tensor) for v in content.values()):
    raise RefusedFile("it holds no tensors")
  return content


def _state(module: Module) -> dict[str, Tensor]:
  """The tensors of a module and of all in it, by their dotted names."""
  found: dict[str, Tensor] = {}
  seen, todo = {id(module)}, [("", module)]
  while todo:
    prefix, module = todo.pop()
    for name, value in module.items():
      if isinstance(value, Tensor):
        found[prefix + name] = value
      elif isinstance(value, Module):
        # Else a small file could hold more names than any memory.
        if id(value) in seen:
          raise RefusedFile(f"its module {prefix + name!r:.80} is there twice")
        seen.add(id(value))
        todo.append((f"{prefix}{name}.", value))
  return found


Places = dict[str, tuple[int, int]]


def _zipped(path: Path, data: mmap.mmap) -> tuple[Any, Places]:
  """What the program built, and where each storage lies: (offset, bytes)."""
  try:
    with zipfile.ZipFile(path) as file:
      members = file.infolist()
  except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
    raise RefusedFile(f"its zip directory is damaged: {error}") from error
  if len({member.filename for member in members}) != len(members):
    raise RefusedFile("two of its members have one name")
  places = {
    member.filename: _place(data, member)
    for member in members
    if _is_read(member.filename)
  }
  end = 0
  for offset, size in sorted(places.values()):
    if offset < end:
      raise RefusedFile("two of its members share bytes")
    end = offset + size
  programs = [name for name in places if name.split("/")[1:] == ["data.pkl"]]
  if len(programs) != 1:
    raise RefusedFile("it is a zip file without one data.pkl")
  root = programs[0].split("/")[0]
  offset, size = places.get(f"{root}/byteorder", (0, 0))
  if data[offset : offset + size] not in (b"", b"little"):
    raise RefusedFile("its numbers are not little-endian")
  offset, size = places[programs[0]]
  content = opcodes.run(io.BytesIO(data[offset : offset + size]))
  prefix = f"{root}/data/"
  return content, {
    name.removeprefix(prefix): place
    for name, place in places.items()
    if name.startswith(prefix)
  }


def _is_read(name: str) -> bool:
  """Whether a member is one of those that hold tensors; code is none."""
  _, _, inner = name.partition("/")
  return inner in ("data.pkl", "byteorder") or inner.startswith("data/")


def _place(data: mmap.mmap, member: zipfile.ZipInfo) -> tuple[int, int]:
  """Where a member's bytes lie; PyTorch never compresses them."""
  if member.compress_type != zipfile.ZIP_STORED:
    raise RefusedFile(f"its member {member.filename!r:.80} is compressed")
  header = data[member.header_offset : member.header_offset + 30]
  if len(header) < 30 or header[:4] != b"PK\x03\x04":
    raise RefusedFile(f"its member {member.filename!r:.80} has no header")
  name, extra = struct.unpack("<HH", header[26:])
  offset = member.header_offset + 30 + name + extra
  if offset + member.file_size > len(data):
    raise RefusedFile(f"its member {member.filename!r:.80} is cut off")
  return offset, member.file_size


def _legacy(path: Path, data: mmap.mmap) -> tuple[Any, Places]:
  """The same of the older layout: each storage is a count and its numbers."""
  del path
  data.seek(0)
  if opcodes.run(data) != _MAGIC or opcodes.run(data) != _PROTOCOL:
    raise RefusedFile("it is no PyTorch file")
  system = opcodes.run(data)
  if not isinstance(system, dict) or not system.get("little_endian"):
    raise RefusedFile("its numbers are not little-endian")
  content = opcodes.run(data)
  sizes = {
    tensor.storage.key: tensor.storage.dtype.itemsize
    for tensor in _walk(content)
  }
  keys, places, at = opcodes.run(data), {}, data.tell()
  for key in keys if isinstance(keys, list) else ():
    count = data[at : at + 8]
    if key not in sizes or len(count) < 8:
      raise RefusedFile(f"it is cut off before storage {key!r:.50}")
    places[key] = at + 8, struct.unpack("<Q", count)[0] * sizes[key]
    at += 8 + places[key][1]
  return content, places


def _walk(content: Any) -> Iterator[Tensor]:
  """All tensors within dicts, lists and tuples, every container once."""
  seen, todo = set(), [content]
  while todo:
    item = todo.pop()
    if isinstance(item, Tensor):
      yield item
    elif isinstance(item, (dict, list, tuple)) and id(item) not in seen:
      seen.add(id(item))
      todo.extend(item.values() if isinstance(item, dict) else item)
