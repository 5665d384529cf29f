"""Few-shot documents: of the drawn set, and of any task's records.

A document of the drawn set is a pure function of (seed, index), so there are
as many as one likes, in random access.

  <noto rocket> "Question: what name? Answer:" " dovak"
  <noto apple>  "Question: what name? Answer:" " wuggin"
  <fluent apple> "Question: what name? Answer:" " wuggin"*
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.config import lookup
from mmjax.data import drawn
from mmjax.data.document import Document, Media, Text, join
from mmjax.text.prompts.templates import Template

TASKS = {
  "caption": Template("Output:"),
  "category": Template("Question: what kind? Answer:"),
  "subcategory": Template("Question: which group? Answer:"),
  "bind": Template("Question: what name? Answer:"),
}


@dataclasses.dataclass(frozen=True)
class Task:
  """One kind of episode.

  Attributes:
    name: of TASKS.
    weight: how often, relative to the others.
    shots: numbers of support examples, one is drawn; for "bind", of each
      word.
    learn_support: whether the answers of support examples are learned. Those
      of "bind" cannot be known before they are given.
    ways: how many words "bind" gives.
    queries: how often "bind" asks, each time for one of the words and with its
      answer learned.
    contrast: the things of "bind" differ in "any" way or in "category".
    same_style: how often the query of "bind" is the picture of its support,
      and not the same thing in another style.
  """

  name: str
  weight: float = 1.0
  shots: Sequence[int] = (0,)
  learn_support: bool = False
  ways: int = 2
  queries: int = 1
  contrast: str = "any"
  same_style: float = 0.0

  def __post_init__(self):
    lookup(TASKS, self.name, "task")
    if self.name == "bind" and min(self.shots) < 1:
      raise ValueError("'bind' needs shots of at least 1.")
    if self.contrast not in ("any", "category"):
      raise ValueError(
        f"contrast is {self.contrast!r}, expected 'any' or 'category'."
      )


class Drawn:
  """Documents of the drawn set, as a source.

  Attributes:
    endless: no order needs to be shuffled, every index is as good as any.
  """

  def __init__(
    self,
    tasks: Mapping[str, Mapping[str, Any]],
    *,
    split: str = "train",
    seed: int = 0,
    size: int | None = None,
  ):
    """Makes the source.

    Args:
      tasks: name to the fields of its `Task`.
      split: which concepts, for query and support alike.
      seed: another seed, other documents.
      size: how many documents; without it there is no end.
    """
    if not tasks:
      raise ValueError(f"No tasks. Known: {', '.join(TASKS)}.")
    self.tasks = [Task(name, **fields) for name, fields in tasks.items()]
    weights = np.array([task.weight for task in self.tasks], np.float64)
    self._chances = weights / weights.sum()
    self._concepts = drawn.concepts(split)
    self._split, self._seed = split, seed
    self.endless = size is None
    self._size = 2**40 if size is None else size

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, index: int) -> Document:
    if not 0 <= index < self._size:
      raise IndexError(f"Document {index} of {self._size}.")
    rng = np.random.default_rng([self._seed, index])
    task = self.tasks[rng.choice(len(self.tasks), p=self._chances)]
    shots = int(rng.choice(np.asarray(task.shots)))
    make = _bind if task.name == "bind" else _classify
    pairs = make(task, shots, self._concepts, rng)
    first = len(pairs) - (task.queries if task.name == "bind" else 1)
    parts = [
      _example(task, picture, answer, i >= first or task.learn_support)
      for i, (picture, answer) in enumerate(pairs)
    ]
    answer = pairs[-1][1]
    return join(
      parts,
      id=f"drawn/{self._split}/{self._seed}/{index}",
      metadata={
        "task": task.name,
        "shots": shots,
        "answer": answer,
        "choices": sorted({a for _, a in pairs}),
      },
    )


Picture = tuple[drawn.Concept, str]


def _classify(
  task: Task,
  shots: int,
  concepts: Sequence[drawn.Concept],
  rng: np.random.Generator,
) -> list[tuple[Picture, str]]:
  """`shots` + 1 different things, each with its name or group."""
  field = "name" if task.name == "caption" else task.name
  chosen = rng.choice(len(concepts), size=shots + 1, replace=False)
  styles = rng.choice(drawn.STYLES, size=shots + 1)
  return [
    ((concepts[i], str(style)), getattr(concepts[i], field))
    for i, style in zip(chosen, styles)
  ]


def _bind(
  task: Task,
  shots: int,
  concepts: Sequence[drawn.Concept],
  rng: np.random.Generator,
) -> list[tuple[Picture, str]]:
  """Things with made-up words, shuffled; then some of them once more."""
  chosen: list[drawn.Concept] = []
  for i in rng.permutation(len(concepts)):
    known = {c.category for c in chosen}
    if task.contrast == "any" or concepts[i].category not in known:
      chosen.append(concepts[i])
    if len(chosen) == task.ways:
      break
  words = rng.choice(drawn.words(), size=len(chosen), replace=False)
  styles = [str(s) for s in rng.permutation(drawn.STYLES)]
  others = styles[1:]
  unseen = [styles[0], *others[shots:]]
  if rng.random() < task.same_style:
    others = unseen = styles[:1]
  support = [
    ((concept, others[shot % len(others)]), str(word))
    for concept, word in zip(chosen, words)
    for shot in range(shots)
  ]
  support = [support[i] for i in rng.permutation(len(support))]
  asked = rng.integers(len(chosen), size=task.queries)
  queries = [
    ((chosen[i], unseen[k % len(unseen)]), str(words[i]))
    for k, i in enumerate(asked)
  ]
  return [*support, *queries]


def _example(
  task: Task, picture: Picture, answer: str, learn: bool
) -> Document:
  template, fields = TASKS[task.name], {"answer": answer}
  return Document(
    (
      _media(picture),
      Text(template.ask(fields)),
      Text(template.reply(fields), target=learn),
    )
  )


def _media(picture: Picture) -> Media:
  concept, style = picture
  return Media(
    "image",
    drawn.image(concept, style),
    f"{style}/{concept.id}",
    {"key": drawn.key(concept, style)},
  )


def ask(document: Document, template: Template, learn: bool = True) -> Document:
  """A task's record, written with a template.

  <image>, {question: "What is it?", answer: "a cat"}
  ->  <image> "Question: What is it? Answer:" " a cat"*
  """
  fields = document.metadata
  return dataclasses.replace(
    document,
    segments=(
      *document.media,
      Text(template.ask(fields)),
      Text(template.reply(fields), target=learn),
    ),
  )


def few_shot(
  query: Document,
  support: Sequence[Document],
  template: Template,
  text_only: bool = False,
) -> Document:
  """Support examples, then the query with its answer as the only target.

  Args:
    query: what is asked; `few_shot(...).query()` leaves its answer out.
    support: in the order they are shown.
    template: of the task.
    text_only: support examples lose their media (the zero-shot prompt of the
      paper, which keeps two of them to show the format).
  """
  parts = []
  for example in support:
    part = ask(example, template, learn=False)
    segments = part.segments[len(example.media) * text_only :]
    end = dataclasses.replace(segments[-1], end=True)
    after = (Text(template.after),) if template.after else ()
    parts.append(
      dataclasses.replace(part, segments=(*segments[:-1], end, *after))
    )
  segments = [s for part in parts for s in part.segments]
  last = ask(query, template)
  return dataclasses.replace(last, segments=(*segments, *last.segments))
