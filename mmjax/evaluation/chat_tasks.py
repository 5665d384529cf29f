"""Benchmarks that are asked as a chat: how, and what becomes of an answer.

A record is a Document of `mmjax.data.chat_tasks` or `mmjax.data.tasks`; its
pictures come first, then the question with a sentence that asks for a form of
answer. Those sentences are LLaVA-1.5's (arXiv 2310.03744, A.2); a model that
was trained without them needs others, which a config gives as `ask`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping

from mmjax.config import lookup
from mmjax.data.document import Document, Text
from mmjax.data.instructions import plain_question
from mmjax.evaluation.chat_metrics import METRICS
from mmjax.text.prompts.templates import Template

_SHORT = "{question}\nAnswer the question using a single word or phrase."
_LETTER = (
  "{question}\nAnswer with the option's letter from the given choices directly."
)
_VIZWIZ = (
  "{question}\nWhen the provided information is insufficient, respond with "
  "'Unanswerable'.\nAnswer the question using a single word or phrase."
)

_COMPARE = (
  "question: {question} name the first or the second of the two. answer:"
)

# What a text says, or None when it cannot be told.
Parse = Callable[[str], str | None]


def as_it_is(text: str) -> str:
  return text.strip()


def plain(text: str) -> str:
  """Lower case, without full stops at its end, as GQA compares."""
  return text.strip().rstrip(".").lower()


def yes_or_no(text: str) -> str:
  """POPE's: "no" where the first sentence denies, else "yes"."""
  words = text.split(".")[0].replace(",", "").split(" ")
  return "no" if {"No", "not", "no"} & set(words) else "yes"


def begins_yes_or_no(text: str) -> str | None:
  """MME's: what the first four letters hold, None for neither."""
  start = text.strip().lower()[:4]
  return next((word for word in ("yes", "no") if word in start), None)


def letter(text: str) -> str | None:
  """ScienceQA's: "B", "B. an apple", or one "The answer is B." of a text."""
  text = text.strip()
  if re.fullmatch("[A-Z]", text):
    return text
  if re.match(r"[A-Z]\. ", text):
    return text[0]
  found = re.findall(r"The answer is ([A-Z])\.", text)
  return found[0] if len(found) == 1 else None


def or_unanswerable(text: str) -> str:
  """LAVIS' for VizWiz: what says nothing says that there is no answer."""
  return text if text.strip() else "unanswerable"


PARSERS: Mapping[str, Parse] = {
  "as_it_is": as_it_is,
  "or_unanswerable": or_unanswerable,
  "plain": plain,
  "yes_or_no": yes_or_no,
  "begins_yes_or_no": begins_yes_or_no,
  "letter": letter,
}


@dataclasses.dataclass(frozen=True)
class ChatTask:
  """How a task is asked and scored; decoding is that of the model.

  Attributes:
    ask: the text after the pictures, with the fields of a record's metadata in
      braces.
    metric: name of one of `chat_metrics.METRICS`, or "judge".
    parse: name of one of PARSERS.
    max_new_tokens: how long an answer may get.
    candidate: how each of a record's `choices` is written, with {answer} in
      it; the likeliest of them is the answer. None: the answer is written.
    rule: of a judge, a file of `mmjax/evaluation/assets/`.
    capitalize: the first line of the question has one capital letter, its
      first, as in LLaVA's files of TextVQA and VizWiz.
    plain: the question is in lower case and almost without punctuation, as
      LAVIS asks it; see `plain_question`.
  """

  ask: str
  metric: str
  parse: str = "as_it_is"
  max_new_tokens: int = 128
  candidate: str | None = None
  rule: str = ""
  capitalize: bool = False
  plain: bool = False

  def __post_init__(self):
    lookup({**METRICS, "judge": None}, self.metric, "metric")
    lookup(PARSERS, self.parse, "parser")
    # Without it all choices would be one text, and the first the likeliest.
    if self.candidate is not None and "{answer}" not in self.candidate:
      raise ValueError(
        f"candidate is {self.candidate!r}; expected a text with {{answer}} in "
        "it, in place of which each choice is written."
      )

  @property
  def judged(self) -> bool:
    return self.metric == "judge"

  def query(self, document: Document) -> Document:
    """A record as it is asked.

    <image>, {question: "What is it?"}
    ->  <image> "What is it?\\nAnswer the question using a single word ..."
    """
    fields = dict(document.metadata)
    if self.capitalize and "question" in fields:
      first, *rest = fields["question"].split("\n")
      fields["question"] = "\n".join([first.capitalize(), *rest])
    if self.plain and "question" in fields:
      fields["question"] = plain_question(fields["question"])
    text = Template(self.ask).ask(fields)
    return dataclasses.replace(document, segments=(*document.media, Text(text)))


_VQA = ChatTask(_SHORT, "vqa")
_DESCRIBE = "a short description"
_BENCH = ChatTask(
  "{question}", "judge", max_new_tokens=1024, rule="judge_coco.txt"
)
CHAT_TASKS: Mapping[str, ChatTask] = {
  "captions": ChatTask(_DESCRIBE, "caption"),
  "classes": ChatTask("what is it?", "exact", candidate="{answer}"),
  "mentions": ChatTask(_DESCRIBE, "mentions"),
  "short_answers": ChatTask(_SHORT, "normalized"),
  "vqav2": _VQA,
  "textvqa": dataclasses.replace(_VQA, capitalize=True),
  "vizwiz": dataclasses.replace(_VQA, ask=_VIZWIZ, capitalize=True),
  "discrn": ChatTask(_COMPARE, "discrn", max_new_tokens=10),
  "gqa": ChatTask(_SHORT, "exact", "plain"),
  "pope": ChatTask(_SHORT, "pope", "yes_or_no"),
  "mme": ChatTask(_SHORT, "mme", "begins_yes_or_no"),
  # Long enough for the reasons of a model that gives them first.
  "scienceqa": ChatTask(_LETTER, "scienceqa", "letter", max_new_tokens=1024),
  "llava_bench_coco": _BENCH,
  "llava_bench_wild": dataclasses.replace(_BENCH, rule="judge_wild.txt"),
}
