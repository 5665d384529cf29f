"""How the papers ask: one template a task, fields in braces.

The answer is kept apart from the question, so that it can be learned, scored
or left out. Spaces stand as in the papers: Flamingo has one after the colon,
OpenFlamingo has none.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Template:
  """A question and an answer, as text with fields.

  Attributes:
    question: for example "Question: {question} Answer:".
    answer: for example " {answer}".
    after: what follows a support example, after the end of its chunk.
  """

  question: str
  answer: str = " {answer}"
  after: str = ""

  def ask(self, fields: Mapping[str, Any]) -> str:
    return _fill(self.question, fields)

  def reply(self, fields: Mapping[str, Any]) -> str:
    return _fill(self.answer, fields)


def _fill(template: str, fields: Mapping[str, Any]) -> str:
  try:
    return template.format_map(fields)
  except KeyError as error:
    raise ValueError(
      f"Template {template!r} needs {error}, the record has {sorted(fields)}."
    ) from None


FLAMINGO = {
  "caption": Template("Output:"),
  "classification": Template("Output:"),
  "vqa": Template("Question: {question} Answer:"),
  "visdial": Template("{dialogue}Question: {question} Answer:"),
  "hateful_memes": Template(
    'is an image with written: "{text}" on it. Is it hateful? Answer:'
  ),
  "rareact": Template("Caption: a person", " {answer}"),
}

OPEN_FLAMINGO = {
  "caption": Template("Output:", "{answer}", after="\n"),
  "classification": Template("Output:", "{answer}"),
  "vqa": Template("Question:{question} Short answer:", "{answer}", after="\n"),
  "hateful_memes": Template(
    "is an image with: '{text}' written on it. Is it hateful? Answer:",
    "{answer}",
  ),
}

TEMPLATES = {"flamingo": FLAMINGO, "open_flamingo": OPEN_FLAMINGO}
