"""DisCRn: which of two things, shown by two kinds of media, is it?

  captions    "A dog barks."              "Rain falls on a roof."
  properties  loud, alive, sudden         steady, wet, calm
  question    "Which entity is an animal?"    answer 0, and why
  check       1                           answered again, the two swapped

A language model writes all of it (arXiv 2311.18799); `by_attribute` needs none
where something is known of everything. Rows are those of the published files:

  {"sample_ids": ["a", "b"], "captions": [...], "properties": [[...], [...]],
   "question": "...", "label": 1, "start_seconds": [0, 30],
   "captions_pred_audio": [...]}

The right one of row k is at place k mod 2, so that labels are balanced; the
original swaps the two of odd rows. The wording of the prompts is ours, that a
question may not name a place, and that the check shows the two in the other
order: who always names the first would agree with itself.
"""

import dataclasses
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.instruct import pairs, steps
from mmjax.data.instruct.captions import Item
from mmjax.data.instruct.journal import (
  DONE,
  Contents,
  Journal,
  Key,
  array,
  write_whole,
)
from mmjax.data.instruct.pairs import Drawing, Encode, Pair
from mmjax.data.instruct.prompts import Messages
from mmjax.data.instruct.reasons import Rejected
from mmjax.data.instruct.steps import Fields, Steps, first_line
from mmjax.endpoint import Completion

ASSETS = Path(__file__).parents[1] / "assets" / "discrn"
OUTPUT = "discrn.json"
PROPERTIES = 3
# Fields of items that a row has of both, where both have them.
_CARRIED = re.compile(r"start_seconds|captions_pred_\w+")
_ENTITY = re.compile(r"\b(?:entity|option)\s*([12])\b|\b(first|second)\b")
_PLACE = re.compile(r"\b(entity\s*[12]|first|second|former|latter)\b")
_PARTS = re.compile(
  r"(?:question:)?\s*(.*?)\s*^answer:\s*(.*?)\s*^explanation:\s*(.*)",
  re.DOTALL | re.IGNORECASE | re.MULTILINE,
)


def properties(fields: Fields, text: str) -> list[str]:
  """Three of a thing: "loud, alive, sudden" -> ["loud", "alive", "sudden"]."""
  parts = re.split(r"[,;]", first_line(text, "properties"))
  found = list(dict.fromkeys(filter(None, (part.strip() for part in parts))))
  if len(found) < PROPERTIES:
    raise Rejected("format")
  return found[:PROPERTIES]


def compared(fields: Fields, text: str) -> dict[str, Any]:
  """A question, which of the two it means (0 or 1), and why."""
  found = _PARTS.match(text.strip())
  question, mark, _ = found[1].partition("?") if found else ("", "", "")
  if not mark or len(question.split()) < 3 or "\n" in question:
    raise Rejected("format")
  if "3d" in question.lower():
    raise Rejected("medium")
  if _PLACE.search(question.lower()):
    raise Rejected("place")
  why = first_line(found[3])
  return {"question": f"{question}?", "answer": entity(found[2]), "why": why}


def entity(text: str) -> int:
  """Which of the two a text names.

  Raises:
    Rejected: when it is neither or both.
  """
  found = _ENTITY.findall(text.lower())
  named = {number or str(1 + (word == "second")) for number, word in found}
  if len(named) != 1:
    raise Rejected("entity")
  return int(named.pop()) - 1


READS = {
  "properties": properties,
  "question": compared,
  "check": lambda fields, text: entity(text),
}


@dataclasses.dataclass(frozen=True)
class Properties:
  """What is asked of every thing alone; a job is an `Item`."""

  told: Steps
  output = OUTPUT

  def outcome(self, item: Item, found: Contents, tries: int) -> str | None:
    return steps.outcome([(item.id, "properties")], found, tries)

  def next(self, item: Item, found: Contents) -> Key:
    return (item.id, "properties")

  def messages(self, item: Item, journal: Journal) -> Messages:
    key = self.next(item, journal.contents)
    return self.told.messages(key, {"caption": item.caption}, journal)

  def judge(self, item: Item, said: Completion, journal: Journal) -> dict:
    fields = {"caption": item.caption}
    return {"found": steps.judge(properties, fields, said)}

  def write(self, jobs: Sequence[Item], journal: Journal) -> None:
    """Nothing: a row needs both of a pair."""


@dataclasses.dataclass(frozen=True)
class Comparisons:
  """What is asked of two things whose properties are known; a job is a `Pair`.

  Attributes:
    pairs: all of a data set; what is done of them is written, in their order.
    told: what is said at every step.
  """

  pairs: Sequence[Pair]
  told: Steps
  output = OUTPUT

  def keys(self, pair: Pair) -> list[Key]:
    return [(pair.id, "question"), (pair.id, "check")]

  def outcome(self, pair: Pair, found: Contents, tries: int) -> str | None:
    known = [(item.id, "properties") in found.done for item in pair.items]
    if not all(known):
      return "unknown"
    return steps.outcome(self.keys(pair), found, tries)

  def next(self, pair: Pair, found: Contents) -> Key:
    return next(key for key in self.keys(pair) if key not in found.done)

  def messages(self, pair: Pair, journal: Journal) -> Messages:
    key = self.next(pair, journal.contents)
    return self.told.messages(key, self._fields(pair, key, journal), journal)

  def judge(self, pair: Pair, said: Completion, journal: Journal) -> dict:
    _, name = key = self.next(pair, journal.contents)
    fields = self._fields(pair, key, journal)
    found = steps.judge(READS[name], fields, said)
    # The check shows the other one at this place.
    if name == "check" and found == self._asked(pair, journal)["answer"]:
      raise Rejected("disagrees")
    return {"found": found}

  def write(self, jobs: Sequence[Pair], journal: Journal) -> None:
    """The rows of the data set."""
    write_whole(journal.folder / self.output, array(self._rows(journal)))

  def _rows(self, journal: Journal) -> Iterator[dict[str, Any]]:
    place = 0
    for pair in self.pairs:
      if self.outcome(pair, journal.contents, 1) != DONE:
        continue
      asked, known = self._asked(pair, journal), self._known(pair, journal)
      swapped = asked["answer"] != place
      why = _swap(asked["why"]) if swapped else asked["why"]
      about = row(pair, known, asked["question"], place, swapped)
      yield {**about, "explanation": why}
      place = 1 - place

  def _known(self, pair: Pair, journal: Journal) -> list[list[str]]:
    """The properties of both."""
    keys = [(item.id, "properties") for item in pair.items]
    return [line["found"] for line in journal.lines(keys)]

  def _asked(self, pair: Pair, journal: Journal) -> dict[str, Any]:
    """The question and its answer, or nothing yet."""
    lines = journal.lines([(pair.id, "question")])
    return next(lines, {"found": {}})["found"]

  def _fields(self, pair: Pair, key: Key, journal: Journal) -> dict[str, str]:
    """What a request says of both, which a check shows in the other order."""
    both = list(zip(pair.items, self._known(pair, journal)))
    if key == (pair.id, "check"):
      both.reverse()
    fields = {}
    for number, (item, found) in enumerate(both, 1):
      fields[f"caption_{number}"] = item.caption
      fields[f"properties_{number}"] = ", ".join(found)
    asked = self._asked(pair, journal)
    return {**fields, "question": asked.get("question", "")}


def by_attribute(
  items: Sequence[Item],
  attribute: str,
  questions: Sequence[str],
  encode: Encode,
  drawing: Drawing,
) -> list[dict[str, Any]]:
  """Rows that need no language model: what is asked about is known.

  {"category": "dog"}, {"category": "car"}  ->  "which of the two is a dog?"

  Args:
    items: with the attribute in their rows.
    attribute: the name of a text of a row, or of its `attributes`.
    questions: with {value} or {a_value} in them, of which one is drawn.
    encode: captions, for their similarity.
    drawing: of pairs.

  Raises:
    ValueError: for an item without the attribute, or where all have the same.
  """
  values = {item.id: _value(item, attribute) for item in items}
  found = []
  for k, pair in enumerate(
    pairs.draw(items, encode, drawing, lambda item: values[item.id].lower())
  ):
    # Always about the first, which the label then puts into its place.
    value, chance = values[pair.first.id], random.Random(f"{drawing.seed}/{k}")
    article = "an" if value[0].lower() in "aeiou" else "a"
    fields = {"value": value, "a_value": f"{article} {value}"}
    question = chance.choice(questions).format_map(fields)
    known = [[values[item.id]] for item in pair.items]
    found.append(row(pair, known, question, k % 2, swapped=k % 2 == 1))
  return found


def row(
  pair: Pair,
  known: Sequence[Sequence[str]],
  question: str,
  label: int,
  swapped: bool,
) -> dict[str, Any]:
  """A row of the published form; `swapped` puts the second one first."""
  order = (1, 0) if swapped else (0, 1)
  both = [pair.items[i] for i in order]
  names = [n for n in both[0].row if _CARRIED.fullmatch(n)]
  return {
    "sample_ids": [item.row["id"] for item in both],
    "captions": [item.caption for item in both],
    "properties": [list(known[i]) for i in order],
    "question": question,
    "label": label,
    **{n: [x.row[n] for x in both] for n in names if n in both[1].row},
  }


def questions(path: Path = ASSETS / "templates.txt") -> list[str]:
  """Questions for `by_attribute`, a line each.

  Raises:
    ValueError: for a file without any, or a line with other fields.
  """
  try:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    found = [line.strip() for line in lines if line.strip()]
    for line in found:
      if line.format_map({"value": "x", "a_value": "a x"}) == line:
        raise ValueError(f"{line!r} has neither {{value}} nor {{a_value}}")
  except (OSError, ValueError, LookupError, AttributeError) as error:
    raise ValueError(f"Cannot read questions {path}: {error}.") from None
  if not found:
    raise ValueError(f"{path} has no question.")
  return found


def load(folder: str | Path | None = None) -> Steps:
  """What is said, from a folder like ASSETS, or that one.

  Raises:
    ValueError: when a file is missing or is not as it should be.
  """
  return steps.load(folder or ASSETS, ASSETS, READS)


def _value(item: Item, attribute: str) -> str:
  """Of a row, or of its `attributes` as in a table of `mmjax data fetch`."""
  attributes = item.row.get("attributes")
  attributes = attributes if isinstance(attributes, dict) else {}
  known = {**attributes, **item.row}
  value = known.get(attribute)
  if not isinstance(value, str) or not value.strip():
    texts = [name for name, value in known.items() if isinstance(value, str)]
    raise ValueError(
      f"{item.id!r} has the {attribute} {str(value)[:40]!r}; expected a text. "
      f"Its row has {sorted(texts)}."
    )
  return value.strip()


def _swap(text: str) -> str:
  """'entity 1 is bigger' -> 'entity 2 is bigger', and the other way round."""

  def other(match: re.Match) -> str:
    found = match[0]
    swaps = {"1": "2", "2": "1", "first": "second", "second": "first"}
    for old, new in swaps.items():
      if found.lower().endswith(old):
        return found[: -len(old)] + new
    return found

  return re.sub(_ENTITY.pattern, other, text, flags=re.IGNORECASE)
