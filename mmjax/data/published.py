"""Data sets of media and text in their published files, by a table of fields.

`layouts.py` says of each set where its rows are, what its files are called, and
which fields hold question and answers. A document is the media, the question
where there is one, and the first answer as the target; the metadata hold
`question`, all `answers`, and for classes the `choices`.

  dict(name="published", data="clotho",
       annotations="clotho_captions_development.csv",
       media=dict(audio="development"))

The filter "instructed" writes it with one of many wordings. COCO, VQAv2 and
others that Flamingo and LLaVA use are in `tasks.py` and `chat_tasks.py`, pairs
in shards in `formats.py`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.config import lookup, nearest
from mmjax.data.annotations import load, named
from mmjax.data.document import BadSample, Document, Media, Text, printable
from mmjax.data.fields import text_of
from mmjax.data.layouts import LAYOUTS, Layout
from mmjax.data.paths import below
from mmjax.data.table import Table


@dataclasses.dataclass(frozen=True)
class _Sample:
  files: Mapping[str, str]
  question: str
  answers: tuple[str, ...]


class Published:
  """A set of LAYOUTS as a source of documents."""

  def __init__(
    self,
    data: str,
    annotations: str,
    media: Mapping[str, str],
    *,
    files: Mapping[str, str] | None = None,
    labels: str | None = None,
    where: Mapping[str, str | int] | None = None,
    merged: bool | None = None,
  ):
    """Reads the annotations.

    Args:
      data: of LAYOUTS.
      annotations: the file, as it is published.
      media: kind to the folder of its files; a set with several kinds gives
        those that are named, in this order.
      files: kind to what a file is called, in place of the layout's.
      labels: AudioSet's `class_labels_indices.csv`.
      where: field to its value in the rows that are taken: a split, a fold.
      merged: rows of the same files and question are one sample with all
        answers; default is the layout's. Captions are trained on one by one,
        and scored against all of a medium's.

    Raises:
      ValueError: for another file than the layout's, for a folder that is not
        there, and for a field of `where` that no row has.
    """
    self._layout = layout = lookup(LAYOUTS, data, "published data set")
    self._path, self._media = annotations, dict(media)
    self._files = dict(layout.files) | dict(files or {})
    for kind, folder in self._media.items():
      lookup(self._files, kind, f"kind of medium of {data}")
      if not Path(folder).is_dir():
        raise ValueError(f"There is no folder {folder} for {kind!r}.")
    if not self._media:
      raise ValueError(f"media is empty; {data} has {', '.join(self._files)}.")
    self._labels = {} if labels is None else _label_names(labels)
    self._rows = _taken(_rows(layout, annotations), where or {}, annotations)
    self._name = named(data, annotations)
    merged = layout.merged if merged is None else merged
    self._groups = self._merged() if merged else [[r] for r in self._rows]
    self._choices = self._classes() if layout.classes else []

  def __len__(self) -> int:
    return len(self._groups)

  def __getitem__(self, index: int) -> Document:
    if not 0 <= index < len(self):
      raise IndexError(f"Sample {index} of {len(self)}.")
    samples = [self._sample(row) for row in self._groups[index]]
    first, answers = samples[0], [a for s in samples for a in s.answers]
    question = (Text(first.question),) if first.question else ()
    media = (
      Media(kind, below(self._media[kind], file), file)
      for kind, file in first.files.items()
    )
    fields = {"question": first.question, "answer": answers[0]}
    fields |= {"answers": answers, "query_media": len(first.files)}
    fields |= {"choices": self._choices} if self._choices else {}
    return Document(
      (*media, *question, Text(answers[0], target=True)),
      f"{self._name}/{index}",
      fields,
    )

  def _sample(self, number: int) -> _Sample:
    """What a row says.

    Raises:
      BadSample: for one that lacks a part, or has it of another kind.
    """
    layout, name = self._layout, f"{self._path}, row {number}"
    row = self._rows[number]
    row = row() if callable(row) else row
    if not isinstance(row, dict):
      raise BadSample(f"{name} is {_shown(row)}, expected an object.")
    try:
      row = layout.change(row, self._labels)
      answers = [a for key in layout.answers for a in _texts(row[key], key)]
      question = layout.question and _texts(row[layout.question], "question")[0]
      files = {
        kind: self._files[kind].format_map(_Plain(row)) for kind in self._media
      }
    except BadSample as error:
      raise BadSample(f"{name}: {error}") from None
    except KeyError as error:
      raise BadSample(f"{name} has no {error}: {_shown(row)}") from None
    # What a value of another kind or of another form ends in.
    except (
      AttributeError,
      IndexError,
      RecursionError,
      TypeError,
      ValueError,
    ) as e:
      raise BadSample(f"{name}: {e}: {_shown(row)}") from None
    if not answers:
      raise BadSample(f"{name} has no answer: {_shown(row)}")
    return _Sample(files, question, tuple(answers))

  def _merged(self) -> list[list[int]]:
    """Numbers of the rows of each sample; a bad row is one by itself."""
    groups: dict[Any, list[int]] = {}
    for number in self._rows:
      try:
        sample = self._sample(number)
        key: Any = (*sample.files.values(), sample.question)
      except BadSample:
        key = number
      groups.setdefault(key, []).append(number)
    return list(groups.values())

  def _classes(self) -> list[str]:
    found = set()
    for number in self._rows:
      try:
        found.update(self._sample(number).answers)
      except BadSample:
        continue
    return sorted(found)


class _Plain(dict):
  """Fields of a file's name: texts and numbers only."""

  def __getitem__(self, key):
    value = super().__getitem__(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
      raise BadSample(f"{key!r} is {_shown(value)}, expected a text or number.")
    return value


def _texts(value: Any, key: str) -> list[str]:
  """A text, or a list of them, none of which may be empty."""
  found = value if isinstance(value, list) else [value]
  texts = [text_of(text, key).strip() for text in found]
  if not all(texts):
    raise BadSample(f"{key!r} is empty")
  return texts


def _shown(value: Any) -> str:
  return printable(f"{value!r:.100}")


def _rows(layout: Layout, path: str) -> list:
  """Rows as they are, or what gives one when it is called."""
  if layout.reader in ("csv", "tsv"):
    mark = {"csv": ",", "tsv": "\t"}[layout.reader]
    column = layout.question or layout.answers[0]
    table = Table(
      *(path, mark, layout.header[0] if layout.header else column),
      header=layout.header,
    )
    return [lambda i=i: table[i] for i in range(len(table))]
  if layout.reader == "lines":
    return [{"line": line} for line in _lines(path)]
  rows = load(path, lines=layout.reader == "jsonl").content
  try:
    rows = layout.rows(rows)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} is not laid out as published ({type(error).__name__}: {error}); "
      "is it the right file?"
    ) from None
  if not isinstance(rows, list):
    raise ValueError(f"{path} is no list; is it the right file?")
  return rows


def _lines(path: str) -> list[str]:
  """Those that are neither empty nor a comment."""
  try:
    text = Path(path).read_text(encoding="utf-8-sig")
  except (OSError, ValueError) as error:
    raise ValueError(f"Cannot read {path}: {error}") from None
  lines = (line.strip() for line in text.split("\n"))
  return [line for line in lines if line and not line.startswith("#")]


def _taken(rows: list, where: Mapping[str, Any], path: str) -> dict[int, Any]:
  """Number to row; those that cannot be read stay, to be counted as bad."""
  found, known = {}, set()
  for number, row in enumerate(rows):
    fields = _fields(row) if where else None
    known.update(fields or ())
    if fields is None or all(
      k in fields and str(fields[k]) == str(v) for k, v in where.items()
    ):
      found[number] = row
  for name in where:
    if known and name not in known:
      raise ValueError(
        f"where names {name!r}, which no row of {path} has. "
        f"{nearest(name, known)}"
      )
  if not found:
    raise ValueError(f"{path} has no rows{f' where {where}' if where else ''}.")
  return found


def _fields(row: Any) -> dict[str, Any] | None:
  """Those of a row; None for one that cannot be read."""
  try:
    row = row() if callable(row) else row
  except BadSample:
    return None
  return row if isinstance(row, dict) else None


def _label_names(path: str) -> dict[str, str]:
  table = Table(path, ",", "mid")
  rows = [table[i] for i in range(len(table))]
  return {row["mid"]: row["display_name"] for row in rows}
