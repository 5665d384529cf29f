"""How X-InstructBLIP's data asks: one of many wordings a sample, in lower case.

  ask("question", ["audio"], rng, question="Is it a dog?")
    ->  "listen to the sound and answer: is it a dog?"

The families of wordings are the paper's (arXiv 2311.18799); the words are ours.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from mmjax.config import lookup
from mmjax.data.document import BadSample, Document, Text

# What a medium is called, and what one does with it.
MEDIA = {
  "image": ("picture", "look at"),
  "video": ("video", "watch"),
  "audio": ("sound", "listen to"),
  "points": ("3d model", "look at"),
}
WORDINGS: Mapping[str, Sequence[str]] = {
  "question": (
    "{question}",
    "q: {question} a:",
    "question: {question} answer:",
    "question: {question} short answer:",
    "{question} short answer:",
    "{question} answer in a few words.",
    "{question} the answer is",
    "answer this about the {medium}: {question}",
    "based on the given {medium}, respond to: {question}",
    "going by the {medium}, {question}",
    "here is a question about the {medium}: {question}",
    "here is a {medium}. {question}",
    "{attend} the {medium} and answer: {question}",
    "{attend} the {medium}. {question}",
    "someone asks about the {medium}: {question} you say:",
    "use what the {medium} holds to answer. {question}",
  ),
  "caption": (
    "a short description",
    "a short description:",
    "a short description of the {medium}:",
    "describe the {medium}.",
    "describe this {medium} in a sentence.",
    "describe the {medium} in a few words.",
    "give a brief account of the {medium}.",
    "in one sentence, what is in the {medium}?",
    "{attend} the {medium} and say what is there.",
    "please tell what the {medium} holds.",
    "put the {medium} into words.",
    "summarise the {medium}.",
    "the {medium} in words:",
    "what can you say about this {medium}?",
    "write a caption for the {medium}.",
  ),
  "class": (
    "classify the {medium}.",
    "give the {medium} a label.",
    "how would you label this {medium}?",
    "into which class does the {medium} fall?",
    "{attend} the {medium} and name its class.",
    "name what is in the {medium}.",
    "the {medium} is an example of",
    "this is a {medium} of",
    "what is in the {medium}?",
    "what is this {medium} of?",
    "which label fits the {medium}?",
  ),
  "entailment": (
    "does the {medium} show that {question}",
    "given the {medium}, is it true that {question}",
    "{question} does it follow from the {medium}?",
    "{question} is this right, wrong, or not to be told from the {medium}?",
    "premise: the {medium}. hypothesis: {question} which relation holds?",
  ),
}


def ask(
  task: str,
  kinds: Sequence[str],
  rng: np.random.Generator,
  question: str = "",
) -> str:
  """An instruction about media, in a wording that is drawn.

  Args:
    task: of WORDINGS.
    kinds: of the media that it is about.
    rng: draws the wording.
    question: what is asked, where the task has such.
  """
  wording = str(rng.choice(np.array(lookup(WORDINGS, task, "task"))))
  return fill(wording, kinds, question)


def fill(wording: str, kinds: Sequence[str], question: str = "") -> str:
  """A wording with its fields, in lower case and without doubled marks."""
  media = [lookup(MEDIA, kind, "kind of medium") for kind in kinds]
  fields = {
    "medium": " and the ".join(dict.fromkeys(name for name, _ in media)),
    "attend": media[0][1],
    # Last: what is in it is no field.
    "question": question.strip(),
  }
  for name, value in fields.items():
    wording = wording.replace(f"{{{name}}}", value)
  return wording.lower().replace("??", "?").strip()


@dataclasses.dataclass(frozen=True)
class Instructed:
  """Writes a document of any source as an instruction.

    <audio> "Is it loud?" "Yes"*  ->  <audio> "q: is it loud? a:" "Yes"*

  As a filter of a data set. Of several answers one is drawn; captions lose
  their marks and what is behind the 50th word.

  Attributes:
    task: of WORDINGS.
    wording: one of one's own, with {question}, {medium} and {attend}, in place
      of a drawn one: what an evaluation asks.
    seed: another seed, other wordings. They depend on it and on the document's
      id alone.
  """

  task: str
  wording: str | None = None
  seed: int = 0

  def __post_init__(self):
    lookup(WORDINGS, self.task, "task")

  def __call__(self, document: Document) -> Document:
    texts = [s for s in document.segments if isinstance(s, Text)]
    asked = " ".join(t.text.strip() for t in texts if not t.target)
    said = [t.text for t in texts if t.target]
    said = list(document.metadata.get("answers") or said)
    if not said or not document.media:
      raise BadSample(f"{document.id} has no answer, or no media to ask about.")
    # A document that is read once more is the same.
    key = zlib.crc32(document.id.encode(errors="replace"))
    rng = np.random.default_rng([self.seed, key])
    kinds = [medium.kind for medium in document.media]
    if self.wording is None:
      text = ask(self.task, kinds, rng, asked)
    else:
      text = fill(self.wording, kinds, asked)
    answer = said[int(rng.integers(len(said)))]
    if self.task == "caption":
      answer = plain_caption(answer)
    return dataclasses.replace(
      document,
      segments=(*document.media, Text(text), Text(answer, target=True)),
    )


def plain_caption(text: str) -> str:
  """`"A dog (barks)!"` -> `a dog barks`, of 50 words at most."""
  words = re.sub(r"[.!\"()*#:;~]", " ", text.lower()).split()
  return " ".join(words[:50])


def plain_question(text: str) -> str:
  """`What's in the U.S.?` -> `what's in the us?`, of 50 words at most.

  As LAVIS' `blip_question`, through which every question goes that it asks.
  """
  return " ".join(re.sub(r"[.!\"()*#:;~]", "", text.lower()).split()[:50])
