"""DisCRn files as documents: two media, a question, which of them it is.

  image: <a.jpg>  3d: <b.ply>  "which of the two options is alive?"  "first"*

As in the evaluation of X-InstructBLIP (arXiv 2311.18799): the question speaks
of options, media come in either order, and connectors read "a short
description" in place of the question (`instruction` in the metadata).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.config import lookup
from mmjax.data.annotations import Field, load
from mmjax.data.document import KINDS, BadSample, Document, Media, Text
from mmjax.data.paths import below

PLACES = ("first", "second")
INSTRUCTION = "a short description"
FILES = {
  "image": "{sample_id}.jpg",
  "video": "{sample_id}.mp4",
  "audio": "{sample_id}.wav",
  "points": "{sample_id}.ply",
}
# What a kind is called in the official files' fields, and in prompts.
_FIELDS, _CUES = {"points": "pc"}, {"points": "3d"}
_OPTIONS = "which of the two options"
# The longer beginnings come first. "Which one's" is more than a beginning.
_WHICH = re.compile(
  r"\bwhich (?>(of (the|these) (two )?(entities|options|objects|things|scenes|"
  r"sounds|two)|(entity|option|object|thing|scene|image|audio|one))\b)(?!['’])",
  re.IGNORECASE,
)
# Else the kind would be an answer.
_KINDS = re.compile(r"\b(image|audio)\b", re.IGNORECASE)


def reworded(question: str) -> str:
  """A question that speaks of two options, and of no image and no audio.

  "Which entity is alive?"      ->  "which of the two options is alive?"
  "which of the two is a dog?"  ->  "which of the two options is a dog?"
  "Who is alive?"               ->  "which of the two options: Who is alive?"
  "which audio is louder"       ->  "which of the two options is louder?"
  """
  found, count = _WHICH.subn(_OPTIONS, question.strip(), count=1)
  found = _KINDS.sub("object", found).rstrip("?") + "?"
  return found if count else f"{_OPTIONS}: {found}"


class Discrn:
  """A DisCRn file and the folders of its media, one of each kind.

  The media of rows 2 and 3 of every four come in the other order, so that
  neither kind nor place tells the label.
  """

  def __init__(
    self,
    annotations: str,
    folders: Mapping[str, str],
    files: Mapping[str, str] | None = None,
    by_caption: bool = False,
  ):
    """Reads the rows.

    Args:
      annotations: a JSON list of rows, see `instruct.discrn`.
      folders: of two kinds of media.
      files: how a medium of a kind is called, with {sample_id} and
        {start_seconds}; what is not named is as in FILES.
      by_caption: shows the captions `captions_pred_{kind}` (of points `_pc`)
        in place of the media, as the paper's baseline does.
    """
    for kind in folders:
      lookup(dict.fromkeys(KINDS), kind, "kind of medium")
    if len(folders) != 2:
      raise ValueError(
        f"folders has the kinds {list(folders)}; expected two, one a medium."
      )
    for folder in folders.values():
      if not by_caption and not Path(folder).is_dir():
        raise ValueError(f"There is no folder of media {folder}.")
    for kind in files or {}:
      lookup(folders, kind, "kind of medium in files")
    self._path, self._folders = annotations, dict(folders)
    self._files, self._by_caption = {**FILES, **(files or {})}, by_caption
    rows = load(annotations).rows()
    if not rows:
      raise ValueError(f"{annotations} has no rows.")
    self._rows = [self._row(row.content, i) for i, row in enumerate(rows)]

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Document:
    if not 0 <= index < len(self._rows):
      raise IndexError(f"Row {index} of {len(self._rows)}.")
    row = self._rows[index]
    fields = {k: v for k, v in row.items() if k not in ("names", "shown")}
    segments: list[Text | Media] = []
    for kind, name in zip(row["kinds"], row["names"]):
      if not self._by_caption:
        segments.append(self._media(kind, name, index))
    if self._by_caption:
      fields["question"] = f"{row['shown']} {row['question']}"
    segments.append(Text(fields["question"]))
    segments.append(Text(row["answer"], target=True))
    name = f"discrn/{Path(self._path).stem}/{index}"
    return Document(tuple(segments), name, fields)

  def _media(self, kind: str, name: str, index: int) -> Media:
    file = below(self._folders[kind], name)
    if not Path(file.path).is_file():
      raise BadSample(
        f"{self._path}, row {index}: there is no {file.path}. The source's "
        f"`files` say what {kind} is called, here {self._files[kind]!r}."
      )
    return Media(kind, file, name)

  def _row(self, content: Any, index: int) -> dict[str, Any]:
    place = f"{self._path}, row {index}"
    row = Field(content, place)
    label, question = row.id("label"), row.text("question")
    if label not in (0, 1):
      raise ValueError(f"{place}: label is {label!r}, expected 0 or 1.")
    if not question:
      raise ValueError(f"{place}: question is empty; remove the row.")
    kinds = list(self._folders)
    if index // 2 % 2:
      kinds.reverse()
    return {
      "question": reworded(question),
      "answer": PLACES[label],
      "answers": [PLACES[label]],
      "label": label,
      "kinds": kinds,
      "captions": row.texts("captions"),
      "instruction": INSTRUCTION,
      "names": self._names(row, kinds, place),
      "shown": _shown(row, kinds, place) if self._by_caption else "",
    }

  def _names(self, row: Field, kinds: Sequence[str], place: str) -> list[str]:
    ids = _two(row.values("sample_ids"), "sample_ids", place)
    starts: Sequence[Any] = ("", "")
    if "start_seconds" in row:
      starts = _two(row.values("start_seconds"), "start_seconds", place)
    names = []
    for kind, sample, start in zip(kinds, ids, starts):
      if isinstance(start, float) and start.is_integer():
        start = int(start)
      fields = {"sample_id": sample, "start_seconds": start}
      try:
        names.append(self._files[kind].format_map(fields))
      except (LookupError, AttributeError, ValueError) as error:
        raise ValueError(
          f"files[{kind!r}] is {self._files[kind]!r}, which cannot be filled "
          f"with {list(fields)} ({error})."
        ) from None
    return names


def _shown(row: Field, kinds: Sequence[str], place: str) -> str:
  """The captions in place of the media: "image: a dog. audio: a horn." """
  parts = []
  for i, kind in enumerate(kinds):
    name = f"captions_pred_{_FIELDS.get(kind, kind)}"
    caption = _two(row.texts(name), name, place)[i]
    parts.append(f"{_CUES.get(kind, kind)}: {caption}")
  return " ".join(parts)


def _two(values: Sequence[Any], name: str, place: str) -> Sequence[Any]:
  plain = all(type(x) in (str, int, float) and str(x).strip() for x in values)
  if len(values) != 2 or not plain:
    raise ValueError(
      f"{place}: {name} is {str(values)[:80]}; expected two numbers, or texts "
      "that are not empty."
    )
  return values
