"""Questions and answers from captions alone, as X-InstructBLIP makes them.

  caption   "A wooden chair with a long back."
  answer    "wooden"                                a word or phrase of it
  question  "What kind of chair is it?"
  check     "a wooden one"                          answered from the caption

Kept is what passes: the answer is in the caption, the question does not have
it, both are of a sensible length, and a second answer, which is told nothing
of the first, agrees. Two texts are the same above a partial ratio of 90 (arXiv
2311.18799). Captions of 3D models lose their colours before.

All but the order of steps and the two ratios is ours: the wording, the filters
for leaks and lengths, and that an answer may be asked for again.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.instruct import steps
from mmjax.data.instruct.agreement import SAME, agree, plain
from mmjax.data.instruct.captions import Item
from mmjax.data.instruct.journal import (
  DONE,
  Contents,
  Journal,
  Key,
  array,
  write_whole,
)
from mmjax.data.instruct.plan import Estimate
from mmjax.data.instruct.prompts import Messages
from mmjax.data.instruct.reasons import Rejected
from mmjax.data.instruct.steps import Fields, Read, Steps, first_line
from mmjax.endpoint import Completion

ASSETS = Path(__file__).parents[1] / "assets" / "qa"
# A text without a colour may need other ones of these.
_SMALL = frozenset({"a", "an", "the", "and", "of", "with"})


@dataclasses.dataclass(frozen=True)
class Limits:
  """What is kept.

  Attributes:
    caption_words: of a caption at least, its colours gone.
    answer_words: at most.
    question_words: at least, and at most.
    same: partial ratio above which two texts are the same, in percent.
  """

  caption_words: int = 1
  answer_words: int = 5
  question_words: tuple[int, int] = (3, 30)
  same: float = SAME

  def __post_init__(self):
    least, most = self.question_words
    if min(self.caption_words, self.answer_words, least) < 1 or most < least:
      raise ValueError(f"{self}: expected 1 word or more, and least first.")
    if not 0 <= self.same < 100:
      raise ValueError(f"same is {self.same}; expected 0 or more, below 100.")


def without_colours(limits: Limits, fields: Fields, text: str) -> str:
  """The caption that an answer gives back without its colours."""
  found = first_line(text, "caption", "without colours")
  old = {*plain(fields["caption"]).split(), *_SMALL}
  if not old.issuperset(plain(found).split()):
    raise Rejected("changed")
  if len(found.split()) < limits.caption_words:
    raise Rejected("short")
  return found


def proposed(limits: Limits, fields: Fields, text: str) -> str:
  """A word or phrase of the caption."""
  found = first_line(text, "answer", "word or phrase")
  if len(found.split()) > limits.answer_words:
    raise Rejected("long")
  # A text that holds all of the caption would agree with it, too.
  if len(plain(found)) > len(plain(fields["caption"])):
    raise Rejected("absent")
  if not agree(found, fields["caption"], limits.same):
    raise Rejected("absent")
  return found


def asked(limits: Limits, fields: Fields, text: str) -> str:
  """A question up to its mark, without its answer in it."""
  found, mark, _ = first_line(text, "question").partition("?")
  if not mark or not found.strip():
    raise Rejected("format")
  least, most = limits.question_words
  if not least <= len(found.split()) <= most:
    raise Rejected("long" if len(found.split()) > most else "format")
  if f" {plain(fields['answer'])} " in f" {plain(found)} ":
    raise Rejected("leak")
  return f"{found}?"


def checked(limits: Limits, fields: Fields, text: str) -> str:
  """A second answer; whether it is the first is for who knows that one."""
  return first_line(text, "answer")


@dataclasses.dataclass(frozen=True)
class Questions:
  """How a caption becomes a question and an answer; a job is an `Item`.

  Attributes:
    items: all of a file; what is done of them is written, in their order.
    told: what is said at every step.
    limits: what is kept.
    colourless: whether captions lose their colours first.
  """

  items: Sequence[Item]
  told: Steps
  limits: Limits = Limits()
  colourless: bool = False
  output = "qa.json"

  @property
  def names(self) -> tuple[str, ...]:
    """Of the steps."""
    return ("colours",) * self.colourless + ("answer", "question", "check")

  def keys(self, item: Item) -> list[Key]:
    return [(item.id, name) for name in self.names]

  def outcome(self, item: Item, found: Contents, tries: int) -> str | None:
    words = len(item.caption.split())
    if not self.colourless and words < self.limits.caption_words:
      return "short"
    return steps.outcome(self.keys(item), found, tries)

  def next(self, item: Item, found: Contents) -> Key:
    return next(key for key in self.keys(item) if key not in found.done)

  def messages(self, item: Item, journal: Journal) -> Messages:
    key = self.next(item, journal.contents)
    return self.told.messages(key, self.fields(item, journal), journal)

  def judge(
    self, item: Item, said: Completion, journal: Journal
  ) -> dict[str, str]:
    _, name = self.next(item, journal.contents)
    fields = self.fields(item, journal)
    found = steps.judge(reads(self.limits)[name], fields, said)
    if name == "check" and not agree(found, fields["answer"], self.limits.same):
      raise Rejected("disagrees")
    return {"found": found}

  def fields(self, item: Item, journal: Journal) -> dict[str, str]:
    """The caption, without its colours where they are gone, and what is known.

    {"caption": "A wooden chair.", "answer": "wooden", "question": "Of what?"}
    """
    lines = {x["kind"]: x["found"] for x in journal.lines(self.keys(item))}
    caption = lines.pop("colours", item.caption)
    return {"caption": caption, **lines}

  def write(self, jobs: Sequence[Item], journal: Journal) -> None:
    """A row for each question: the item's own, with `question`, `answer`."""
    rows = (
      {**item.row, **self._found(item, journal)}
      for item in self.items
      if self.outcome(item, journal.contents, 1) == DONE
    )
    write_whole(journal.folder / self.output, array(rows))

  def _found(self, item: Item, journal: Journal) -> dict[str, str]:
    fields = self.fields(item, journal)
    return {k: fields[k] for k in ("caption", "question", "answer")}

  def estimate(
    self, jobs: Sequence[Item], found: Contents
  ) -> dict[str, Estimate]:
    """Tokens of what jobs still ask for."""
    wanted = {
      name: [
        {"caption": item.caption}
        for item in jobs
        if (item.id, name) not in found.done
      ]
      for name in self.names
    }
    return self.told.estimate(wanted)


def reads(limits: Limits) -> Mapping[str, Read]:
  """How answers to each step are read."""
  return {
    name: functools.partial(read, limits)
    for name, read in {
      "colours": without_colours,
      "answer": proposed,
      "question": asked,
      "check": checked,
    }.items()
  }


def load(folder: str | Path | None = None) -> Steps:
  """What is said, from a folder like ASSETS, or that one.

  Raises:
    ValueError: when a file is missing or is not as it should be.
  """
  return steps.load(folder or ASSETS, ASSETS, reads(Limits()))


def settings(recipe: Questions) -> dict[str, Any]:
  """What of it the answers of a folder have in common."""
  limits = dataclasses.asdict(recipe.limits)
  return {
    "recipe": "qa",
    "prompts": recipe.told.digest,
    "colourless": recipe.colourless,
    **limits,
    # As it is read back.
    "question_words": list(recipe.limits.question_words),
  }
