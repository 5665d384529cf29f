"""Random access to tar shards, without ever extracting one.

A shard is scanned once, header by header; what is found can be written next
to it (`mmjax data index`), so that the next run needs no scan:

  shard-000.tar  ->  shard-000.tar.index.json

Only plain files are read. A link, a device, a pipe, a sparse file, an absolute
name or one with `..` is a member with a problem: it is listed without a place,
so nothing of it can be read, and the rest of the shard is as good as before.
A shard that is damaged is refused as a whole, and so is one with something
behind its end mark, where other readers would stop in silence.
"""

import dataclasses
import json
import logging
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mmjax.data.document import printable
from mmjax.data.reader import Reader

log = logging.getLogger(__name__)

BLOCK = 512
# Programs fill the last record up with zeros; downloads leave them where
# nothing has arrived.
MAX_PADDING = 2**20
# How compressed files begin, and what unpacks them.
PACKED = {
  b"\x1f\x8b": "gunzip",
  b"BZh": "bunzip2",
  b"\xfd7zXZ": "unxz",
  b"\x28\xb5\x2f\xfd": "unzstd",
}
# More than the padding that tar puts at the end.
TAIL = 2**14
INDEX_FORMAT = "mmjax-tar-index-2"
# A long name or a table of attributes; real ones have some hundred bytes.
MAX_HEADER = 2**20
REGULAR, DIRECTORY = (b"0", b"\0", b"7"), b"5"
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", (b"x", b"X"), b"g"
EXTENDED = (LONG_NAME, LONG_LINK, *PAX, PAX_GLOBAL)
SPARSE = b"S"
REFUSED = {
  b"1": "a hard link",
  b"2": "a symbolic link",
  b"3": "a character device",
  b"4": "a block device",
  b"6": "a pipe",
  SPARSE: "a sparse file",
}
# No bytes belong to these, whatever size their header says.
WITHOUT_BODY = (b"1", b"2", b"3", b"4", DIRECTORY, b"6")
UNSAFE = "with an unsafe name"
# Characters of a name in a message.
SHOWN = 100


class BadTar(ValueError):
  """A shard that is damaged, or no tar."""


@dataclasses.dataclass(frozen=True)
class Member:
  """A file inside a tar: where its bytes are.

  Attributes:
    name: below the folder that the shard is; an unsafe one as `shown`.
    offset, size: of its bytes; 0 and 0 for one with a problem.
    problem: what it is, if it is no plain file with a safe name, such as
      "a symbolic link". Nothing of it may be read.
  """

  name: str
  offset: int
  size: int
  problem: str = ""

  @property
  def unsafe(self) -> bool:
    """Whether its name is, and so belongs to no other member."""
    return self.problem.endswith(UNSAFE)

  def __str__(self) -> str:
    name = shown(self.name)
    return f"{self.problem}, {name}" if self.problem else name


def shown(name: str) -> str:
  """A name for a log: on one line, not too long, never empty."""
  text = printable(name) or "''"
  if len(text) <= SHOWN:
    return text
  half = (SHOWN - 3) // 2
  return f"{text[:half]}...{text[-half:]}"


def members(path: str | Path) -> list[Member]:
  """The files of a shard and what poses as one, by its index or a scan.

  Raises:
    BadTar: for a shard that is damaged or no tar.
  """
  return read_index(path) or scan(path)


def scan(path: str | Path) -> list[Member]:
  """Reads all headers of a tar.

  Returns:
    Its plain files, and the members with a problem; directories are passed
    over.

  Raises:
    BadTar: for a shard that is damaged or no tar.
  """
  found: list[Member] = []
  with Reader(path) as reader:
    _check_begin(reader)
    at, said = 0, {}
    while at < reader.size:
      if reader.size - at < BLOCK:
        raise BadTar(f"{path} ends inside a header, at byte {at}.")
      block = reader.read(at, BLOCK)
      if not block.strip(b"\0"):
        break
      kind, name, size = _header(block, path, at)
      if kind in EXTENDED:
        said |= _said(kind, _small(reader, at + BLOCK, size, path), path)
        at += BLOCK + _blocks(size)
        continue
      name = said.get("path", said.get(LONG_NAME, name))
      # GNU's sparse files keep their own name apart.
      name = said.get("GNU.sparse.name", name)
      if "size" in said:
        size = _number(said["size"], path, name)
      body, size = _body(reader, block, at, size, name)
      problem = _problem(kind, name, said)
      if problem:
        found.append(Member(_listed(name, problem), 0, 0, problem))
      elif kind != DIRECTORY:
        found.append(Member(_plain(name), body, size))
      at, said = body + _blocks(size), {}
    _check_end(reader, min(at, reader.size))
  return found


def _said(kind: bytes, data: bytes, path) -> dict[str | bytes, str]:
  """What an extended header says of the member behind it."""
  if kind == LONG_NAME:
    return {LONG_NAME: data.rstrip(b"\0").decode("utf-8", "replace")}
  return _pax(data, path) if kind in PAX else {}


def _blocks(size: int) -> int:
  return -(-size // BLOCK) * BLOCK


def _body(
  reader: Reader, block: bytes, at: int, size: int, name: str
) -> tuple[int, int]:
  """Where the bytes of the member at `at` are, and how many."""
  kind, body = block[156:157], at + BLOCK
  if kind in WITHOUT_BODY:
    return body, 0
  # An old sparse file's map may go on in blocks that its size leaves out.
  more = kind == SPARSE and block[482]
  while more and body + BLOCK <= reader.size:
    more, body = reader.read(body, BLOCK)[504], body + BLOCK
  if more or body + size > reader.size:
    raise BadTar(
      f"{reader.path}: {shown(name)!r} says {size} bytes, "
      f"{reader.size - body} are left. The shard is truncated or its header "
      "is wrong."
    )
  return body, size


def _check_begin(reader: Reader) -> None:
  """A file that is no tar at all, by its first bytes."""
  if not reader.size:
    raise BadTar(f"{reader.path} has 0 bytes.")
  first = reader.read(0, min(BLOCK, reader.size))
  for magic, program in PACKED.items():
    if first.startswith(magic):
      raise BadTar(
        f"{reader.path} is compressed, which allows no random access. Unpack "
        f"it first: {program} {reader.path}"
      )


def _check_end(reader: Reader, at: int) -> None:
  """What is behind the last member: zeros, and some of them."""
  left = reader.size - at
  for start in range(at, reader.size, MAX_PADDING):
    data = reader.read(start, min(MAX_PADDING, reader.size - start))
    if data.strip(b"\0"):
      raise BadTar(
        f"{reader.path} goes on behind its end mark at byte {at}. It is "
        "damaged, or several tars were joined: give them one by one."
      )
  if not left or left > MAX_PADDING:
    log.warning(
      "%s ends %s; it may be cut off. Compare it with its source.",
      reader.path,
      f"with {left} zero bytes" if left else "without an end mark",
    )


def _header(block: bytes, path, at: int) -> tuple[bytes, str, int]:
  """Kind, name and size of a header block, checked by its checksum."""
  said = block[148:156].strip(b" \0")
  total = sum(block[:148]) + 8 * ord(" ") + sum(block[156:])
  try:
    right = len(block) == BLOCK and int(said, 8) == total
  except ValueError:
    right = False
  if not right:
    raise BadTar(f"{path} has no tar header at byte {at}.")
  name = block[:100].split(b"\0")[0].decode("utf-8", "replace")
  if block[257:263] == b"ustar\0":
    prefix = block[345:500].split(b"\0")[0].decode("utf-8", "replace")
    name = f"{prefix}/{name}" if prefix else name
  raw = block[124:136]
  if raw[0] & 0x80:  # base 256, for more than 8 GiB
    size = int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
  else:
    digits = raw.strip(b" \0") or b"0"
    try:
      size = int(digits, 8)
    except ValueError:
      size = -1
  if size < 0:
    raise BadTar(f"{path}: {name!r} has the size {raw!r}.")
  return block[156:157], name, size


def _small(reader: Reader, at: int, size: int, path) -> bytes:
  if size > MAX_HEADER or at + size > reader.size:
    raise BadTar(
      f"{path} has an extended header of {size} bytes at byte {at}, the cap "
      f"is {MAX_HEADER}."
    )
  return reader.read(at, size)


def _pax(data: bytes, path) -> dict[str, str]:
  """Records of the form `30 path=some/long/name\\n`."""
  fields, at = {}, 0
  while at < len(data) and data[at : at + 1] != b"\0":
    digits, _, _ = data[at : at + 20].partition(b" ")
    length = int(digits) if digits.isdigit() else 0
    record = data[at + len(digits) + 1 : at + length]
    if length <= len(digits) or at + length > len(data) or b"=" not in record:
      raise BadTar(f"{path} has a broken extended header.")
    key, _, value = record.rstrip(b"\n").partition(b"=")
    fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    at += length
  return fields


def _number(text: str, path, name: str) -> int:
  if not (text.isascii() and text.isdigit()):
    raise BadTar(f"{path}: {name!r} has the size {text!r}.")
  return int(text)


def _problem(kind: bytes, name: str, said: Mapping) -> str:
  """What a member is, where it is no plain file or folder with a safe name."""
  what = ""
  if any(str(key).startswith("GNU.sparse") for key in said):
    what = REFUSED[SPARSE]
  elif kind not in (*REGULAR, DIRECTORY):
    what = REFUSED.get(kind, f"an entry of the unknown kind {kind!r}")
  if safe_name(name) and (kind == DIRECTORY or _plain(name) != "."):
    return what
  return f"{what or ('a folder' if kind == DIRECTORY else 'a file')} {UNSAFE}"


def _listed(name: str, problem: str) -> str:
  """The name of a member with a problem; only a safe one is kept as it is."""
  return shown(name) if problem.endswith(UNSAFE) else _plain(name)


def _plain(name: str) -> str:
  """`./a/b.jpg` is `a/b.jpg`: `tar -C folder .` names every file so."""
  return str(PurePosixPath(name))


def safe_name(name: str) -> bool:
  """Whether a name stays below the folder it is put in, on any system."""
  return bool(name) and not (
    name.startswith("/")
    or ".." in PurePosixPath(name).parts
    or "\0" in name
    or "\\" in name
    or re.match("[A-Za-z]:", name)
  )


def index_path(path: str | Path) -> Path:
  return Path(f"{path}.index.json")


def write_index(path: str | Path) -> Path:
  """Scans a shard and writes what it found next to it.

  Raises:
    BadTar: for a shard that is damaged or no tar.
  """
  found = scan(path)
  content = {
    "format": INDEX_FORMAT,
    **_stamp(path),
    "members": [_entry(m) for m in found],
  }
  target = index_path(path)
  part = target.with_name(f"{target.name}.{os.getpid()}.part")
  part.write_text(json.dumps(content))
  part.replace(target)
  return target


def read_index(path: str | Path) -> list[Member] | None:
  """The members of a shard's index; None when there is none that fits it."""
  index = index_path(path)
  try:
    if index.stat().st_mtime_ns < Path(path).stat().st_mtime_ns:
      return None
    content = json.loads(index.read_text())
  except (OSError, ValueError, RecursionError):
    return None
  stamp = _stamp(path)
  if not isinstance(content, dict) or content.get("format") != INDEX_FORMAT:
    return None
  if any(content.get(key) != value for key, value in stamp.items()):
    return None
  try:
    found = [
      Member(str(n), int(o), int(s), *map(str, problem))
      for n, o, s, *problem in content["members"]
    ]
  except (KeyError, OverflowError, TypeError, ValueError):
    return None
  return found if all(_sound(m, stamp["size"]) for m in found) else None


def _entry(member: Member) -> list:
  entry = [member.name, member.offset, member.size]
  return [*entry, member.problem] if member.problem else entry


def _sound(member: Member, size: int) -> bool:
  """Whether an index may say so of a shard of `size` bytes."""
  name, problem = member.name, member.problem
  if not problem:
    inside = 0 <= member.size <= size - member.offset
    return inside and member.offset >= BLOCK and safe_name(name)
  named = name == shown(name) if member.unsafe else safe_name(name)
  nowhere = member.offset == member.size == 0
  return named and nowhere and problem == shown(problem)


def _stamp(path: str | Path) -> dict[str, int]:
  """What tells a changed shard: its size, its first and its last bytes."""
  with Reader(path) as reader:
    some = min(TAIL, reader.size)
    ends = reader.read(0, some) + reader.read(reader.size - some, some)
    return {"size": reader.size, "ends": zlib.crc32(ends)}
