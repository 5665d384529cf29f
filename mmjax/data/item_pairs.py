"""Questions about two files of two kinds.

  <points> <image> "do both show the same thing?"                       "yes"*
  <image> <points> "which of the two is taller for its width, the 3d model or
                    the picture?"                                   "picture"*
  <audio> <image> "is the sound of the kind loop, and the picture of the kind
                   office?"                                             "no"*

Either answer is as likely, and the text does not tell it. One medium alone is
enough for "which", as exactly one of the two is meant, and often enough for
"more" (the lowest is never taller); "same" and "both" need both. DisCRn (arXiv
2311.18799) has such questions as "which" and "more".
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmjax.config import lookup
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
    "which of the two is {said}, the {one} or the {other}?",
    "is the {one} or the {other} {said}?",
  ),
  "more": (
    "which of the two is {more}, the {one} or the {other}?",
    "is the {one} or the {other} {more}?",
  ),
  "both": (
    "is the {one} {said}, and the {other} {other_said}?",
    "are both right: the {one} is {said}, the {other} is {other_said}?",
  ),
}
# What "which" and "both" say of a thing, to how it is said.
PROPERTIES = {
  "category": "of the kind {value}",
  "shape": "{value}",
  "colour": "mostly {value}",
  "length": "{value}",
}
# Those that "more" can be about: what has more of it, and values from less up.
ORDERED = {
  "shape": ("taller for its width", ("low", "even", "tall")),
  "length": ("longer", ("short", "medium", "long")),
}


class ItemPairs(DrawnDocuments):
  """Questions about two files of two kinds."""

  def __init__(
    self,
    folders: str | Sequence[str],
    questions: Mapping[str, float],
    *,
    kinds: Sequence[str],
    about: Sequence[str] = ("category",),
    split: str = "train",
    size: int | None = None,
    seed: int = 0,
  ):
    """Reads the tables.

    Args:
      folders: of `mmjax data fetch`.
      questions: types of PAIR_QUESTIONS, and how often each comes up. "same",
        "which" and "more" are for kinds that share things or properties.
      kinds: two of them.
      about: of PROPERTIES, each as often what a question is about; "more" is
        about ORDERED ones.
      split: "train" or "held_out".
      size: how many; without it there is no end.
      seed: another seed, other documents.
    """
    super().__init__(seed, size)
    if len(set(kinds)) != 2:
      raise ValueError(f"kinds are {list(kinds)}, expected two.")
    if not about:
      raise ValueError(f"about is empty, expected some of {list(PROPERTIES)}.")
    for name in about:
      lookup(PROPERTIES, name, "property")
      if "more" in questions:
        lookup(ORDERED, name, "property that has an order")
    self._asked, self._about = list(questions), list(about)
    self._chances = chances(questions, PAIR_QUESTIONS)
    rows = of_split(of_kinds(folders, kinds), split)
    self._kinds, self._split = tuple(kinds), split
    self._of = {k: [r for r in rows if r.kind == k] for k in kinds}
    one, other = ({r.object: r for r in self._of[k]} for k in kinds)
    self._twins = [(one[key], other[key]) for key in one if key in other]
    # Property, then kind, then value to the rows that have it.
    self._known = {
      name: {kind: _by_value(self._of[kind], name) for kind in kinds}
      for name in about
    }
    self._check(folders)

  def _check(self, folders) -> None:
    """Refuses what cannot be asked of these sets."""
    names = {row.values["name"] for row, _ in self._twins}
    if "same" in self._asked and len(names) < 2:
      raise ValueError(f"{folders} have no two things as {self._kinds}.")
    for name, groups in self._known.items():
      one, other = map(set, groups.values())
      of = f"{self._kinds} of {folders}"
      if {"which", "more"} & {*self._asked} and len(one & other) < 2:
        raise ValueError(f"{of}: {name} has no two values in common.")
      if "more" in self._asked and (odd := (one | other) - {*ORDERED[name][1]}):
        raise ValueError(
          f"{of}: {name} is {sorted(odd)}, expected {ORDERED[name][1]}."
        )
      if "both" in self._asked and min(len(one), len(other)) < 2:
        raise ValueError(f"{of}: {name} has less than two values for one.")

  def _draw(self, index: int, rng: np.random.Generator) -> Document:
    question = str(rng.choice(self._asked, p=self._chances))
    yes = bool(rng.integers(2))
    make: Callable = getattr(self, f"_{question}")
    rows, fields, choices, answer = make(yes, rng)
    wording = str(rng.choice(np.array(PAIR_QUESTIONS[question])))
    kinds = [row.kind for row in rows]
    wording = fill(wording, kinds)
    for key, value in fields.items():
      wording = wording.replace(f"{{{key}}}", value)
    text = ask("question", kinds, rng, wording)
    return Document(
      (*(row.media for row in rows), Text(text), Text(answer, target=True)),
      f"item_pairs/{self._split}/{self._seed}/{index}",
      {
        "task": question,
        "answer": answer,
        "answers": [answer],
        "question": text,
        "choices": list(choices),
        "query_media": 2,
      },
    )

  def _same(self, yes: bool, rng):
    """One thing twice, or two that have other names."""
    one, other = self._twins[rng.integers(len(self._twins))]
    if not yes:
      name = one.values["name"]
      found = [r for r in self._of[other.kind] if r.values["name"] != name]
      other = found[rng.integers(len(found))]
    return _turned([one, other], rng), {}, *_yes_or_no(yes)

  def _which(self, yes: bool, rng):
    """Two that differ in a property; the first is asked for, or the second."""
    about = str(rng.choice(self._about))
    kinds, values = self._two(about, rng)
    said = _say(about, values[0] if yes else values[1])
    return self._named(about, kinds, values, yes, rng, dict(said=said))

  def _more(self, yes: bool, rng):
    """Two that differ in a property; the first has more of it, or less."""
    about = str(rng.choice(self._about))
    kinds, values = self._two(about, rng)
    more, order = ORDERED[about]
    values = sorted(values, key=order.index, reverse=yes)
    return self._named(about, kinds, values, yes, rng, dict(more=more))

  def _two(self, about: str, rng) -> tuple[list[str], list[str]]:
    """Both kinds in any order, and a value for each, not the same."""
    kinds = [self._kinds[i] for i in rng.permutation(2)]
    one, other = (self._known[about][kind] for kind in kinds)
    common = [value for value in one if value in other]
    return kinds, [str(v) for v in rng.choice(common, 2, replace=False)]

  def _named(self, about, kinds, values, yes: bool, rng, fields):
    """Things with these values, and the name of one medium as the answer."""
    rows = [_any(self._known[about][k][v], rng) for k, v in zip(kinds, values)]
    names = [MEDIA[kind][0] for kind in kinds]
    # The order in which they are named does not tell in which they come.
    one, other = _turned(names, rng)
    fields = dict(one=one, other=other) | fields
    return rows, fields, sorted(names), names[0] if yes else names[1]

  def _both(self, yes: bool, rng):
    """Two statements, of which both are right, or one is wrong.

    What is said is drawn before what is shown, so that it tells nothing.
    """
    about = str(rng.choice(self._about))
    kinds = [self._kinds[i] for i in rng.permutation(2)]
    groups = [self._known[about][kind] for kind in kinds]
    said = [str(rng.choice(list(group))) for group in groups]
    shown = list(said)
    if not yes:
      wrong = int(rng.integers(2))
      others = [value for value in groups[wrong] if value != said[wrong]]
      shown[wrong] = str(rng.choice(others))
    rows = [_any(group[value], rng) for group, value in zip(groups, shown)]
    one, other = (MEDIA[kind][0] for kind in kinds)
    one_said, other_said = (_say(about, value) for value in said)
    fields = dict(one=one, other=other, said=one_said, other_said=other_said)
    return rows, fields, *_yes_or_no(yes)


def _by_value(rows: Sequence[Row], name: str) -> dict[str, list[Row]]:
  """Values of a property, in order, to the rows; without those that lack it."""
  groups: dict[str, list[Row]] = {}
  for row in rows:
    if row.values.get(name):
      groups.setdefault(row.values[name], []).append(row)
  return {value: groups[value] for value in sorted(groups)}


def _any(rows: Sequence[Row], rng) -> Row:
  return rows[rng.integers(len(rows))]


def _say(about: str, value: str) -> str:
  return PROPERTIES[about].replace("{value}", value)


def _yes_or_no(yes: bool) -> tuple[Sequence[str], str]:
  return ("yes", "no"), "yes" if yes else "no"


def _turned(items: list, rng) -> list:
  return [items[i] for i in rng.permutation(len(items))]
