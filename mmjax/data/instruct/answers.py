"""Three kinds of answers, and which of them can be trained on.

A conversation, and a question that needs reasoning, are written as blocks:

  Question:
  What is the dog doing?
  ===
  Answer:
  It is sleeping on a sofa.
  ===

A detailed description is plain text; its question comes from a list.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Sequence

from mmjax.data.instruct.reasons import Rejected, check
from mmjax.endpoint import Completion

IMAGE = "<image>"
_END = re.compile(r"^[ \t]*={3,}[ \t]*$", re.MULTILINE)
_BLOCK = re.compile(r"(Question|Answer):(.*)", re.DOTALL)
_HEADER = re.compile(r"^[^\w\n]*(Question|Answer)[^\w\n]*:", re.MULTILINE)
# Who "coordinates" a team, and "boxes" on a shelf, are fine.
_SOURCE = re.compile(
  r"\bcaptions?\b|\bbounding[ -]box|\bbbox|\bbox(es)? coordinates?\b"
  r"|\b(the|these|those|their|its|given|provided) coordinates?\b"
  r"|\bcoordinates? (of|for)\b|[\[(]\s*[01]?\.\d+\s*,\s*[01]?\.\d+",
  re.IGNORECASE,
)

Turn = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of answer.

  Attributes:
    boxes: whether the model is shown boxes, and may not speak of its sources.
    read: from the text and the question to use where the text has none.
  """

  boxes: bool
  read: Callable[[str, str], list[Turn]]


def turns(kind: str, said: Completion, question: str = "") -> list[Turn]:
  """Questions and answers of what a model said.

  Args:
    kind: of KINDS.
    said: by the model.
    question: for a description, which brings none.

  Raises:
    Rejected: when they are no training data.
  """
  check(said)
  if IMAGE in said.text.lower():
    raise Rejected("placeholder")
  found = KINDS[kind].read(said.text, question)
  if not all(text for turn in found for text in turn):
    raise Rejected("empty")
  if KINDS[kind].boxes and _SOURCE.search(said.text):
    raise Rejected("source")
  return found


def write(found: Sequence[Turn]) -> str:
  """Turns as the blocks that `turns` reads."""
  return "\n".join(
    f"Question:\n{question}\n===\nAnswer:\n{answer}\n==="
    for question, answer in found
  )


def conversations(
  found: Sequence[Turn], chance: random.Random
) -> list[dict[str, str]]:
  """In LLaVA's form; the picture is before or after the first question."""
  (first, answer), *rest = found
  parts = [IMAGE, first] if chance.random() < 0.5 else [first, IMAGE]
  return [
    {"from": speaker, "value": text}
    for turn in [("\n".join(parts), answer), *rest]
    for speaker, text in zip(("human", "gpt"), turn)
  ]


def _blocks(text: str, question: str) -> list[Turn]:
  *blocks, rest = _END.split(text)
  # The last block need not be closed.
  blocks += [rest] if rest.strip() else []
  found = [_BLOCK.fullmatch(block.strip()) for block in blocks]
  if not found or not all(found):
    raise Rejected("format")
  names = tuple(match[1] for match in found)
  texts = [match[2].strip() for match in found]
  if any(_HEADER.search(part) for part in texts):
    raise Rejected("format")
  if names != ("Question", "Answer") * (len(names) // 2):
    raise Rejected("turns")
  return list(zip(texts[::2], texts[1::2]))


def _one_block(text: str, question: str) -> list[Turn]:
  found = _blocks(text, question)
  if len(found) != 1:
    raise Rejected("turns")
  return found


def _description(text: str, question: str) -> list[Turn]:
  if _HEADER.search(text) or _END.search(text):
    raise Rejected("format")
  return [(question, text.strip())]


KINDS = {
  "conversation": Kind(boxes=False, read=_blocks),
  "detail": Kind(boxes=True, read=_description),
  "reasoning": Kind(boxes=True, read=_one_block),
}
