"""Media in words, of any kind: a caption each, from a jsonl.

{"id": "a1", "caption": "A dog barks.", "audio": "a1.flac"}
"""

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping
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
