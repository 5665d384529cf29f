"""Questions about two files of two kinds.

  <points> <image> "do both show the same thing?"                       "yes"*
  <audio> <image> "is the sound of the kind loop, and the picture of the kind
                   office?"                                             "no"*

Either answer is as likely, and neither the text nor one medium alone tells it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmjax.data.document import Document, Text
from mmjax.data.drawn_chat import chances
from mmjax.data.instructions import MEDIA, ask, fill
from mmjax.data.items import DrawnDocuments, Row, of_kinds, of_split

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


class ItemPairs(DrawnDocuments):
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
    self._chances = chances(questions, PAIR_QUESTIONS)
    rows = of_split(of_kinds(folders, kinds), split)
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
