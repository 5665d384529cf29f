"""What a set is made of: packages, and items with a way to make their file."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data import tar
from mmjax.data.reader import Reader

# Of the concepts of each category.
HELD_OUT = 0.15
SPLITS = ("train", "held_out")


@dataclasses.dataclass(frozen=True)
class Package:
  """A file of a package registry.

  Attributes:
    client: what gets it, "apt" or "npm".
    name, version: as the client knows them.
    file: what the client calls the file.
    sha256: of the file.
  """

  client: str
  name: str
  version: str
  file: str
  sha256: str


class Archive:
  """The files of a package, which lie in a tar that is not extracted."""

  def __init__(self, path: str | Path):
    self._reader = Reader(path)
    self._members = {m.name: m for m in tar.members(path) if not m.problem}

  def names(self, folder: str, suffix: str = "") -> list[str]:
    """Of all files below a folder, sorted."""
    return sorted(
      name
      for name in self._members
      if name.startswith(folder) and name.endswith(suffix)
    )

  def read(self, name: str) -> bytes:
    member = self._members[name]
    return self._reader.read(member.offset, member.size)


@dataclasses.dataclass(frozen=True)
class Item:
  """One file of a set.

  Attributes:
    id: unique in the set.
    file: its path below the set's folder.
    kind: of a medium, see `document.KINDS`.
    name: what it is, "glass hum".
    category: one of few.
    caption: a sentence about it.
    make: gives the content of the file.
    look: what the content tells, for `attributes`.
    object: of the thing that several files show; "" is a thing of its own.
    attributes: what else is known.
    split: of SPLITS; "" leaves it to `split`.
  """

  id: str
  file: str
  kind: str
  name: str
  category: str
  caption: str
  make: Callable[[], bytes]
  look: Callable[[bytes], Mapping[str, Any]] = lambda data: {}
  object: str = ""
  attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  split: str = ""

  def row(self, data: bytes, split: str) -> dict[str, Any]:
    """Its line of `items.jsonl`, with what the content tells."""
    return {
      "id": self.id,
      "file": self.file,
      "kind": self.kind,
      "name": self.name,
      "category": self.category,
      "caption": self.caption,
      "split": self.split or split,
      "object": self.object or self.id,
      "attributes": {**self.attributes, **self.look(data)},
    }


@dataclasses.dataclass(frozen=True)
class RealSet:
  """A set that can be fetched.

  Attributes:
    packages: what it is made of, by a short name.
    items: of their archives.
    licenses: short name of a package to the files that say its licence.
    notice: origin, licences and changes, as Markdown.
  """

  packages: Mapping[str, Package]
  items: Callable[[Mapping[str, Archive]], Iterator[Item]]
  licenses: Mapping[str, Sequence[str]]
  notice: str


def split(items: Sequence[Item]) -> dict[str, str]:
  """Name to "train" or "held_out": no name is in both.

  About HELD_OUT of the names of every category with at least four are held
  out, in an order that the names alone decide. A name in several categories
  counts for the first of them by alphabet.
  """
  groups: dict[str, str] = {}
  for item in items:
    known = groups.get(item.name, item.category)
    groups[item.name] = min(known, item.category)
  found = {}
  for group in sorted(set(groups.values())):
    names = [name for name, of in groups.items() if of == group]
    names.sort(key=lambda n: hashlib.sha256(f"{group}/{n}".encode()).digest())
    count = max(1, round(HELD_OUT * len(names))) if len(names) >= 4 else 0
    for i, name in enumerate(names):
      found[name] = "held_out" if i < count else "train"
  return found
