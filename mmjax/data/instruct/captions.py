"""Media in words, of any kind: a caption each, from a jsonl.

{"id": "a1", "caption": "A dog barks.", "audio": "a1.flac"}

Or things that two kinds of media show, from a table of `mmjax data fetch`, in
which both are rows of one object: `shown_twice`.
"""

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.annotations import Field


@dataclasses.dataclass(frozen=True)
class Item:
  """A caption, and what it is of.

  Attributes:
    id: unique in its file.
    caption: on one line.
    row: all of its row, which data sets carry on.
  """

  id: str
  caption: str
  row: Mapping[str, Any]


def read(path: str | Path, text: str = "caption") -> list[Item]:
  """The items of a jsonl.

  Args:
    path: of the file.
    text: name of the field that is the caption.

  Raises:
    ValueError: for a file that cannot be read, a row without an id or a
      caption, or an id that is there twice; names file and line.
  """
  found = []
  for place, row in _rows(path):
    field = Field(row, place)
    caption = " ".join(field.text(text).split())
    if not caption:
      raise ValueError(f"{place}: {text!r} is empty.")
    found.append(Item(str(field.id("id")), caption, row))
  return _checked(found, path)


def shown_twice(path: str | Path, kinds: Sequence[str]) -> list[Item]:
  """Things of a table of `mmjax data fetch` that have files of two kinds.

  points/a.npy "a 3d lamp"     ->  a "a 3d lamp"
  image/a.png "a lamp"

  Args:
    path: of the table, `items.jsonl`.
    kinds: of media; captions are those of the first. Attributes are of both.

  Raises:
    ValueError: for a damaged table, for kinds that it has not or that share
      nothing, and for a thing whose two files differ in more than the suffix.
  """
  rows: dict[str, dict[str, Field]] = {}
  known = set()
  for place, row in _rows(path):
    field = Field(row, place)
    known.add(kind := field.text("kind"))
    rows.setdefault(field.text("object"), {})[kind] = field
  if len(set(kinds)) != 2 or not known.issuperset(kinds):
    raise ValueError(
      f"kinds are {list(kinds)}; expected two of those in {path}: "
      f"{', '.join(sorted(known)) or 'none'}. Name them: --kinds A B"
    )
  found = [
    _thing(*(each[kind] for kind in kinds))
    for each in rows.values()
    if each.keys() >= set(kinds)
  ]
  return _checked(found, path)


def _thing(first: Field, second: Field) -> Item:
  one, other = _stem(first), _stem(second)
  if one != other:
    raise ValueError(
      f"{first.text('object')!r} has the files {first.text('file')} and "
      f"{second.text('file')}; expected one name in two folders, as one id "
      "has to name both."
    )
  attributes = {**second.strings("attributes"), **first.strings("attributes")}
  row = {**first.content, "id": one, "attributes": attributes}
  return Item(one, " ".join(first.text("caption").split()), row)


def _stem(row: Field) -> str:
  """The name of a file below the folder of its kind: points/a.npy -> a."""
  file = row.text("file")
  name = file.partition("/")[2].rpartition(".")[0]
  if not name:
    raise ValueError(
      f"{row.text('object')!r} has the file {file!r}; expected one such as "
      "points/a.npy."
    )
  return name


def _checked(found: list[Item], path: str | Path) -> list[Item]:
  """Items with ids of their own, one or more."""
  counts = collections.Counter(item.id for item in found)
  if twice := [key for key, count in counts.items() if count > 1]:
    raise ValueError(f"{path} has the ids {twice[:3]} more than once.")
  if not found:
    raise ValueError(f"{path} has no row.")
  return found


def _rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Rows, and where each is."""
  try:
    lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
  except (OSError, ValueError) as error:
    raise ValueError(f"Cannot read captions {path}: {error}") from None
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    place = f"{path}, line {number}"
    try:
      row = json.loads(line)
      # Half a character cannot be sent.
      json.dumps(row, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
      raise ValueError(f"{place} is no JSON of UTF-8: {error}") from None
    if not isinstance(row, dict):
      raise ValueError(f"{place} is no JSON object.")
    yield place, row
