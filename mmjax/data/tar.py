"""Random access to tar shards, without ever extracting one.

A shard is scanned once, header by header; what is found can be written next
to it (`mmjax data index`), so that the next run needs no scan:

  shard-000.tar  ->  shard-000.tar.index.json

Only plain files are read. Links, devices, sparse files, absolute names and
names with `..` make a shard hostile: it is refused as a whole. So is one with
something behind its end mark, where other readers would stop in silence.
"""

import dataclasses
import json
import logging
import os
import re
import zlib
from pathlib import Path, PurePosixPath

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
INDEX_FORMAT = "mmjax-tar-index-1"
# A long name or a table of attributes; real ones have some hundred bytes.
MAX_HEADER = 2**20
REGULAR, DIRECTORY = (b"0", b"\0", b"7"), b"5"
LONG_NAME, PAX, PAX_GLOBAL = b"L", b"x", b"g"
REFUSED = {
  b"1": "a hard link",
  b"2": "a symbolic link",
  b"3": "a character device",
  b"4": "a block device",
  b"6": "a pipe",
  b"K": "a link with a long name",
  b"S": "a sparse file",
}


class BadTar(ValueError):
  """A shard that is damaged or hostile."""


@dataclasses.dataclass(frozen=True)
class Member:
  """A plain file inside a tar: where its bytes are."""

  name: str
  offset: int
  size: int


def members(path: str | Path) -> list[Member]:
  """The plain files of a shard, from its index or by a scan."""
  return read_index(path) or scan(path)


def scan(path: str | Path) -> list[Member]:
  """Reads all headers of a tar.

  Raises:
    BadTar: for a shard that is damaged, hostile or no tar.
  """
  found: list[Member] = []
  with Reader(path) as reader:
    _check_begin(reader)
    at, end, long_name, pax = 0, reader.size, None, {}
    while at < end:
      if end - at < BLOCK:
        raise BadTar(f"{path} ends inside a header, at byte {at}.")
      block = reader.read(at, BLOCK)
      if not block.strip(b"\0"):
        break
      kind, name, size = _header(block, path, at)
      body, at = at + BLOCK, at + BLOCK + -(-size // BLOCK) * BLOCK
      if kind in (LONG_NAME, PAX, PAX_GLOBAL):
        data = _small(reader, body, size, path)
        if kind == LONG_NAME:
          long_name = data.rstrip(b"\0").decode("utf-8", "replace")
        elif kind == PAX:
          pax = _pax(data, path)
        continue
      name = pax.get("path", long_name or name)
      if "size" in pax:
        size = _number(pax["size"], path, name)
        at = body + -(-size // BLOCK) * BLOCK
      long_name, pax = None, {}
      _check(kind, name, path)
      if body + size > end:
        raise BadTar(
          f"{path}: {name!r} says {size} bytes, {end - body} are left. The "
          "shard is truncated or its header is wrong."
        )
      if kind != DIRECTORY:
        found.append(Member(_plain(name, path), body, size))
    _check_end(reader, min(at, end))
  return found


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
  if any(key.startswith("GNU.sparse") for key in fields):
    raise BadTar(f"{path} has {REFUSED[b'S']}; only plain files are read.")
  return fields


def _number(text: str, path, name: str) -> int:
  if not (text.isascii() and text.isdigit()):
    raise BadTar(f"{path}: {name!r} has the size {text!r}.")
  return int(text)


def _check(kind: bytes, name: str, path) -> None:
  if kind not in (*REGULAR, DIRECTORY):
    what = REFUSED.get(kind, f"an entry of the unknown kind {kind!r}")
    raise BadTar(f"{path}: {name!r} is {what}; only plain files are read.")
  if not safe_name(name):
    raise BadTar(f"{path} has the unsafe name {name!r}.")


def _plain(name: str, path) -> str:
  """`./a/b.jpg` is `a/b.jpg`: `tar -C folder .` names every file so."""
  plain = str(PurePosixPath(name))
  if plain == ".":
    raise BadTar(f"{path} has a file of the name {name!r}.")
  return plain


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
  """Scans a shard and writes what it found next to it."""
  found = scan(path)
  content = {
    "format": INDEX_FORMAT,
    **_stamp(path),
    "members": [[m.name, m.offset, m.size] for m in found],
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
    found = [Member(str(n), int(o), int(s)) for n, o, s in content["members"]]
  except (KeyError, OverflowError, TypeError, ValueError):
    return None
  sound = all(
    m.offset >= BLOCK
    and m.size >= 0
    and m.offset + m.size <= stamp["size"]
    and safe_name(m.name)
    for m in found
  )
  return found if sound else None


def _stamp(path: str | Path) -> dict[str, int]:
  """What tells a changed shard: its size, its first and its last bytes."""
  with Reader(path) as reader:
    some = min(TAIL, reader.size)
    ends = reader.read(0, some) + reader.read(reader.size - some, some)
    return {"size": reader.size, "ends": zlib.crc32(ends)}
