"""Questions about the files of `mmjax data fetch`, about one or about two.

A document is a pure function of (seed, index): media, a question in one of
many wordings, its answer.

  Items       <audio> "what kind of thing is it? short answer:"  "bass drum"*
              <points> "which of these is it: bed, lamp, stove or vase?" "lamp"*
  ItemPairs   <points> <image> "do both show the same thing?"    "yes"*
              <audio> <image> "is the sound a loop, and the picture an
                               animal?"                          "no"*

Of what is asked in pairs, either answer is as likely and no medium alone
tells it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmjax.config import lookup
from mmjax.data.annotations import load
from mmjax.data.document import Document, File, Media, Text
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
  "skin_tone": ("which skin tone has it?", "how dark is the skin?"),
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
PAIR_QUESTIONS: Mapping[str, Sequence[str]] = {
  "same": (
    "do both show the same thing?",
    "are the {medium} of one and the same thing?",
  ),
  "which": (
    "which of the two is of the kind {category}, the first or the second?",
    "is the first or the second of the kind {category}?",
  ),
  "both": (
    "is the {one} of the kind {category}, and the {other} of the kind "
    "{other_category}?",
    "are both right: {one} of {category}, {other} of {other_category}?",
  ),
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


class _Drawn:
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


def _chances(questions: Mapping[str, float], known: Mapping) -> np.ndarray:
  if not questions:
    raise ValueError(f"No questions. Known: {', '.join(known)}.")
  for name in questions:
    lookup(known, name, "question")
  weights = np.array(list(questions.values()), np.float64)
  if not (weights.min() >= 0 and weights.sum() > 0):
    raise ValueError(
      f"questions are {dict(questions)}: expected weights that are not "
      "negative, and one above 0."
    )
  return weights / weights.sum()


def _chosen(folders: str | Sequence[str], kinds, split: str) -> list[Row]:
  """Rows of a split and of some kinds."""
  folders = [folders] if isinstance(folders, str) else folders
  rows = [row for folder in folders for row in read(folder)]
  splits = {row.split: None for row in rows}
  lookup(splits, split, "split")
  for kind in kinds or ():
    lookup(MEDIA, kind, "kind of medium")
  found = [r for r in rows if r.split == split and r.kind in (kinds or MEDIA)]
  if not found:
    raise ValueError(f"{list(folders)} have nothing of {kinds} in {split!r}.")
  return found


class Items(_Drawn):
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
      every: each question about each file once, in place of draws without end.
      seed: another seed, other documents.
    """
    self._chances = _chances(questions, QUESTIONS)
    rows = _chosen(folders, kinds, split)
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
    self._values = {
      question: sorted({row.values.get(question, "") for row in found})
      for question, found in self._rows.items()
    }
    self._names: dict[tuple[str, str], list[str]] = {}
    for row in rows:
      known = self._names.setdefault((row.source, row.kind), [])
      known += [row.values["name"]] * (row.values["name"] not in known)
    self._split = split
    super().__init__(seed, len(self._every) if every else None)

  def _draw(self, index: int, rng: np.random.Generator) -> Document:
    if not self.endless:
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


class ItemPairs(_Drawn):
  """Questions about two files of two kinds."""

  def __init__(
    self,
    folders: str | Sequence[str],
    questions: Mapping[str, float],
    *,
    kinds: Sequence[str],
    split: str = "train",
    size: int | None = None,
    seed: int = 0,
  ):
    """Reads the tables.

    Args:
      folders: of `mmjax data fetch`.
      questions: types of PAIR_QUESTIONS, and how often each comes up. "same"
        and "which" are for kinds that show the same things.
      kinds: two of them.
      split: "train" or "held_out".
      size: how many; without it there is no end.
      seed: another seed, other documents.
    """
    super().__init__(seed, size)
    if len(set(kinds)) != 2:
      raise ValueError(f"kinds are {list(kinds)}, expected two.")
    self._asked = list(questions)
    self._chances = _chances(questions, PAIR_QUESTIONS)
    rows = _chosen(folders, kinds, split)
    self._kinds, self._split = tuple(kinds), split
    self._of = {k: [r for r in rows if r.kind == k] for k in kinds}
    one, other = ({r.object: r for r in self._of[k]} for k in kinds)
    self._twins = [(one[key], other[key]) for key in one if key in other]
    groups = [set(self._categories(kind)) for kind in kinds]
    names = {row.values["name"] for row, _ in self._twins}
    if "same" in questions and len(names) < 2:
      raise ValueError(f"{folders} have no two things as {list(kinds)}.")
    if "which" in questions and len(groups[0] & groups[1]) < 2:
      raise ValueError(f"{kinds} of {folders} have no categories in common.")
    if "both" in questions and min(map(len, groups)) < 2:
      raise ValueError(f"{kinds} of {folders}: one has a single category.")

  def _draw(self, index: int, rng: np.random.Generator) -> Document:
    question = str(rng.choice(self._asked, p=self._chances))
    yes = bool(rng.integers(2))
    make: Callable = getattr(self, f"_{question}")
    rows, fields, answers = make(yes, rng)
    answer = answers[0] if yes else answers[1]
    wording = str(rng.choice(np.array(PAIR_QUESTIONS[question])))
    for key, value in fields.items():
      wording = wording.replace(f"{{{key}}}", value)
    kinds = [row.kind for row in rows]
    text = ask("question", kinds, rng, fill(wording, kinds))
    return Document(
      (*(row.media for row in rows), Text(text), Text(answer, target=True)),
      f"item_pairs/{self._split}/{self._seed}/{index}",
      {
        "task": question,
        "answer": answer,
        "answers": [answer],
        "question": text,
        "choices": list(answers),
        "query_media": 2,
      },
    )

  def _pick(self, kind: str, rng, accept: Callable[[Row], bool]) -> Row:
    """Any row that is accepted, all as likely."""
    found = [row for row in self._of[kind] if accept(row)]
    return found[rng.integers(len(found))]

  def _same(self, yes: bool, rng):
    """One thing twice, or two that have other names."""
    i = int(rng.integers(len(self._twins)))
    one, other = self._twins[i]
    if not yes:
      name = one.values["name"]
      other = self._pick(other.kind, rng, lambda r: r.values["name"] != name)
    return _turned([one, other], rng), {}, ("yes", "no")

  def _which(self, yes: bool, rng):
    """Two of different categories; the first is asked for, or the second."""
    kinds = [self._kinds[i] for i in rng.permutation(2)]
    one, other = map(self._categories, kinds)
    common = [category for category in one if category in other]
    picked = [str(c) for c in rng.choice(common, 2, replace=False)]
    rows = [self._of_category(k, c, rng) for k, c in zip(kinds, picked)]
    asked = picked[0] if yes else picked[1]
    return rows, {"category": asked}, ("first", "second")

  def _both(self, yes: bool, rng):
    """Two statements, of which both are right, or one is wrong.

    What is said is drawn before what is shown, so that it tells nothing.
    """
    kinds = [self._kinds[i] for i in rng.permutation(2)]
    said = [str(rng.choice(self._categories(kind))) for kind in kinds]
    shown = list(said)
    if not yes:
      wrong = int(rng.integers(2))
      others = [c for c in self._categories(kinds[wrong]) if c != said[wrong]]
      shown[wrong] = str(rng.choice(others))
    rows = [self._of_category(k, c, rng) for k, c in zip(kinds, shown)]
    one, other = (MEDIA[kind][0] for kind in kinds)
    fields = dict(
      one=one, other=other, category=said[0], other_category=said[1]
    )
    return rows, fields, ("yes", "no")

  def _categories(self, kind: str) -> list[str]:
    return sorted({row.values["category"] for row in self._of[kind]})

  def _of_category(self, kind: str, category: str, rng) -> Row:
    return self._pick(kind, rng, lambda r: r.values["category"] == category)


def _turned(rows: list[Row], rng) -> list[Row]:
  return [rows[i] for i in rng.permutation(len(rows))]
