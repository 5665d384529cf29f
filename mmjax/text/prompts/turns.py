"""Who speaks when in a document: questions and their answers.

A run of segments that are no targets is a turn of the user, a run of targets
one of the assistant.
"""

import dataclasses

from mmjax.text.prompts.base import Segments, merged

KINDS = ("image",)


@dataclasses.dataclass(frozen=True)
class Turn:
  """A question, as texts and numbers of media, and its answer.

  Attributes:
    question: texts, and the media among them by their place in the document.
    answer: None where it is still to come.
  """

  question: tuple[str | int, ...]
  answer: str | None = None


def read_turns(document: Segments) -> list[Turn]:
  """The turns of a document.

  Raises:
    ValueError: for an answer to nothing.
  """
  turns: list[Turn] = []
  question: list[str | int] = []
  media = 0
  for segment in merged(document, KINDS):
    if not isinstance(segment, tuple):
      question.append(media)
      media += 1
      continue
    text, target, _ = segment
    if not target:
      question.append(text)
    elif question:
      turns.append(Turn(tuple(question), text))
      question = []
    else:
      raise ValueError(
        f"Conversation {document.id!r} has an answer, {text[:40]!r}, before "
        "any question."
      )
  if question:
    turns.append(Turn(tuple(question)))
  if not turns:
    raise ValueError(f"Conversation {document.id!r} is empty.")
  return turns
