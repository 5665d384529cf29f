"""Questions about the files of `mmjax data fetch`, each about one file.

A document is a pure function of (seed, index): a medium, a question in one of
many wordings, its answer.

  <audio> "what kind of thing is it? short answer:"               "bass drum"*
  <points> "which of these is it: bed, lamp, stove or vase?"           "lamp"*
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmjax.config import lookup
from mmjax.data.annotations import load
from mmjax.data.document import Document, File, Media, Text
from mmjax.data.drawn_chat import chances
from mmjax.data.instructions import MEDIA, ask, fill
from mmjax.data.paths import below

TABLE = "items.jsonl"
# What of an item is asked, to its wordings. "caption" is asked for in those of
# `instructions.py`; "choice" is the name out of some.
QUESTIONS: Mapping[str, Sequence[str]] = {
  "name": ("what is it?", "what is this {medium} of?", "what is it called?"),
  "category": (
    "what kind of thing is it?",
    "which group is it of?",
    "which kind of {medium} is it?",
  ),
  "choice": ("which of these is it: {options}?", "is it {options}?"),
  "colour": ("what is its main colour?", "which colour is most of it?"),
  "shape": (
    "is it tall, low or even?",
    "how high is it for its width: tall, low or even?",
  ),
  "subcategory": ("what exactly is it?", "which subgroup is it of?"),
  "length": (
    "is it short, medium or long?",
    "how long does it last: short, medium or long?",
  ),
  "strength": ("is it struck soft or hard?", "how is it struck?"),
  "voice": (
    "is it speech or none?",
    "which voice is in it: speech or none?",
  ),
  "transcript": ("what does the voice say?", "which words are spoken?"),
  "caption": (),
}
# Values of an attribute, of which an answer can be picked by its likelihood.
_FEW = 32
_OPTIONS = 4


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of `items.jsonl`; see `real/item.py`.

  Attributes:
    values: what can be asked: name, category, caption and the attributes.
  """

  source: str
  id: str
  file: File
  kind: str
  split: str
  object: str
  values: Mapping[str, str]

  @property
  def media(self) -> Media:
    return Media(self.kind, self.file, f"{self.source}/{self.id}")


def read(folder: str) -> list[Row]:
  """The items of a set.

  Raises:
    ValueError: when it was not fetched, and for a damaged table.
  """
  path = Path(folder) / TABLE
  if not path.is_file():
    raise ValueError(
      f"There is no {path}. Get a set: mmjax data fetch NAME {folder}"
    )
  rows = []
  for row in load(str(path)).rows():
    named = ("name", "category", "caption")
    rows.append(
      Row(
        source=Path(folder).name,
        id=row.text("id"),
        file=below(folder, row.text("file")),
        kind=row.flag("kind", {kind: kind for kind in MEDIA}),
        split=row.text("split"),
        object=row.text("object"),
        values={k: row.text(k) for k in named} | row.strings("attributes"),
      )
    )
  return rows


class DrawnDocuments:
  """Documents by number, from a source of random numbers of their own.

  Attributes:
    endless: no order needs to be shuffled, every index is as good as any.
  """

  def __init__(self, seed: int, size: int | None):
    self._seed = seed
    self.endless = size is None
    self._size = 2**40 if size is None else size

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, index: int) -> Document:
    if not 0 <= index < self._size:
      raise IndexError(f"Document {index} of {self._size}.")
    return self._draw(index, np.random.default_rng([self._seed, index]))

  def _draw(self, index: int, rng: np.random.Generator) -> Document:
    raise NotImplementedError


def of_kinds(
  folders: str | Sequence[str], kinds: Sequence[str] | None
) -> list[Row]:
  """Rows of some kinds, or of all."""
  folders = [folders] if isinstance(folders, str) else folders
  for kind in kinds or ():
    lookup(MEDIA, kind, "kind of medium")
  rows = [row for folder in folders for row in read(folder)]
  found = [row for row in rows if row.kind in (kinds or MEDIA)]
  if not found:
    raise ValueError(f"{list(folders)} have nothing of {kinds}.")
  return found


def of_split(rows: Sequence[Row], split: str) -> list[Row]:
  lookup({row.split: None for row in rows}, split, "split")
  return [row for row in rows if row.split == split]


class Items(DrawnDocuments):
  """Questions about one file each."""

  def __init__(
    self,
    folders: str | Sequence[str],
    questions: Mapping[str, float],
    *,
    kinds: Sequence[str] | None = None,
    split: str = "train",
    even: str = "",
    every: bool = False,
    size: int | None = None,
    seed: int = 0,
  ):
    """Reads the tables.

    Args:
      folders: of `mmjax data fetch`.
      questions: types of QUESTIONS, and how often each comes up.
      kinds: of media; None is all.
      split: "train" or "held_out".
      even: "category", "name" or an attribute, of which every value comes up
        as often as any other.
      every: each question about each file once, in place of draws.
      size: how many draws; without it there is no end.
      seed: another seed, other documents.
    """
    self._chances = chances(questions, QUESTIONS)
    known = of_kinds(folders, kinds)
    rows = of_split(known, split)
    self._rows = {
      question: [row for row in rows if _asks(question, row)]
      for question in questions
    }
    for question, found in self._rows.items():
      if not found:
        raise ValueError(f"No item of {folders} has a {question!r}.")
    self._every = [(q, r) for q, found in self._rows.items() for r in found]
    self._groups = {
      question: _grouped(found, even) for question, found in self._rows.items()
    }
    # Of both splits: what is picked from does not tell what was held out.
    self._values = {
      question: sorted({row.values.get(question, "") for row in known} - {""})
      for question in questions
    }
    self._names: dict[tuple[str, str], list[str]] = {}
    for row in rows:
      known = self._names.setdefault((row.source, row.kind), [])
      known += [row.values["name"]] * (row.values["name"] not in known)
    self._split = split
    self._once = every
    super().__init__(seed, len(self._every) if every else size)

  def _draw(self, index: int, rng: np.random.Generator) -> Document:
    if self._once:
      question, row = self._every[index]
    else:
      question = str(rng.choice(list(self._rows), p=self._chances))
      groups = self._groups[question]
      group = groups[rng.integers(len(groups))]
      row = group[rng.integers(len(group))]
    answer = row.values["name" if question == "choice" else question]
    choices = self._choices(question, row, rng)
    text = _wording(question, row.kind, choices, rng)
    metadata = {
      "task": question,
      "answer": answer,
      "answers": [answer],
      "question": text,
      "choices": choices,
      "query_media": 1,
    }
    return Document(
      (row.media, Text(text), Text(answer, target=True)),
      f"items/{self._split}/{self._seed}/{index}",
      metadata,
    )

  def _choices(self, question: str, row: Row, rng) -> list[str]:
    """Answers to pick from; none where there are too many."""
    if question != "choice":
      values = self._values[question]
      return values if len(values) <= _FEW else []
    name = row.values["name"]
    known = self._names[row.source, row.kind]
    others = [other for other in known if other != name]
    count = min(_OPTIONS - 1, len(others))
    options = [name, *rng.choice(others, count, replace=False).tolist()]
    return [options[i] for i in rng.permutation(len(options))]


def _asks(question: str, row: Row) -> bool:
  return question == "choice" or bool(row.values.get(question))


def _grouped(rows: Sequence[Row], even: str) -> list[list[Row]]:
  """Rows by a value, in its order; all together where none is named."""
  groups: dict[str, list[Row]] = {}
  for row in rows:
    if even and even not in row.values:
      raise ValueError(
        f"even is {even!r}, which {row.source}/{row.id} has not; it has "
        f"{', '.join(row.values)}."
      )
    groups.setdefault(row.values.get(even, ""), []).append(row)
  return [groups[key] for key in sorted(groups)]


def _wording(question: str, kind: str, choices: Sequence[str], rng) -> str:
  if question == "caption":
    return ask("caption", [kind], rng)
  wording = str(rng.choice(np.array(QUESTIONS[question])))
  options = " or ".join(filter(None, [", ".join(choices[:-1]), *choices[-1:]]))
  asked = fill(wording.replace("{options}", options), [kind])
  return ask("question", [kind], rng, asked)
