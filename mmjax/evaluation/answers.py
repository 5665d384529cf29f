"""A model's answers to few-shot documents, and what they are worth.

A model is two functions, so any system, and a fake one in tests, will do:

  generate(documents) -> answers            the text each goes on with
  score(documents, answers) -> Likelihoods  of every answer after each document
"""

import dataclasses
import json
import logging
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmjax.data.document import Document
from mmjax.evaluation import tasks
from mmjax.evaluation.tasks import Record, Style, Task
from mmjax.typing import Float

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Likelihoods:
  """Log-likelihoods of answers.

  Attributes:
    total: summed over the tokens of an answer.
    mean: the same, divided by their number.
  """

  total: Float[np.ndarray, "documents answers"]
  mean: Float[np.ndarray, "documents answers"]


Generate = Callable[[Sequence[Document]], Sequence[str]]
Score = Callable[[Sequence[Document], Sequence[str]], Likelihoods]
# Told how many documents are done.
Tell = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Answerer:
  """Asks a model.

  Attributes:
    task: what is asked.
    style: how it is cleaned and scored.
    generate: the model, where answers are written.
    score: the model, where they are chosen.
    batch_size: documents given to the model at once.
  """

  task: Task
  style: Style
  generate: Generate | None = None
  score: Score | None = None
  batch_size: int = 32

  def __post_init__(self):
    name = "score" if self.task.closed else "generate"
    if getattr(self, name) is None:
      raise ValueError(f"The task needs a {name!r} function.")

  def __call__(
    self, orders: Sequence[Sequence[Document]], tell: Tell
  ) -> list[Record]:
    """A record for each query.

    Args:
      orders: the same queries with their support in different orders, over
        which likelihoods are averaged; one order where answers are written.
      tell: of progress, in queries.
    """
    if self.task.closed:
      return self._choose(orders, tell)
    (documents,) = orders
    return self._write(documents, tell)

  def _write(self, documents: Sequence[Document], tell: Tell) -> list[Record]:
    records: list[Record] = []
    for batch in self._batches(documents):
      texts = self.generate(batch)
      if len(texts) != len(batch):
        raise ValueError(
          f"generate gave {len(texts)} answers for {len(batch)} documents."
        )
      for document, text in zip(batch, texts):
        prediction = self.style.clean(self.task, text)
        records.append(_record(document, prediction) | {"raw": text})
      tell(len(records))
    return records

  def _choose(
    self, orders: Sequence[Sequence[Document]], tell: Tell
  ) -> list[Record]:
    choices = [self._choices(document) for document in orders[0]]
    sums = [np.zeros(len(c)) for c in choices]
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, c in enumerate(choices):
      groups.setdefault(c, []).append(i)
    done = 0
    for documents in orders:
      for group, places in groups.items():
        for batch in self._batches(places):
          rows = self._score([documents[i] for i in batch], group)
          for i, row in zip(batch, rows):
            sums[i] += row / len(orders)
          done += len(batch)
          tell(done // len(orders))
    return [
      _record(document, c[int(np.argmax(row))])
      | {"choices": list(c), "scores": [float(x) for x in row]}
      for document, c, row in zip(orders[0], choices, sums)
    ]

  def _choices(self, document: Document) -> tuple[str, ...]:
    found = self.task.choices or tuple(document.metadata.get("choices", ()))
    if not found:
      raise ValueError(
        f"Neither the task nor the record {document.id!r} has choices."
      )
    return found

  def _score(
    self, batch: Sequence[Document], choices: Sequence[str]
  ) -> np.ndarray:
    template = self.style.template(self.task)
    replies = [template.reply({"answer": choice}) for choice in choices]
    found = self.score(batch, replies)
    rows = found.mean if self.style.mean_per_token else found.total
    if rows.shape != (len(batch), len(choices)):
      raise ValueError(
        f"score gave likelihoods of shape {rows.shape} for {len(batch)} "
        f"documents and {len(choices)} answers."
      )
    if np.isnan(rows).any():
      first = int(np.isnan(rows).any(axis=1).argmax())
      raise ValueError(
        f"The likelihoods of {list(choices)[:5]} after {batch[first].id!r} "
        "hold NaN, so none is the best. Are the model's weights finite?"
      )
    return rows

  def _batches(self, items: Sequence) -> Iterable[Sequence]:
    for start in range(0, len(items), self.batch_size):
      yield items[start : start + self.batch_size]


@dataclasses.dataclass(frozen=True)
class Result:
  """The score of one task with one number of shots under one control.

  Attributes:
    task, metric, shots, control: what was measured.
    score: mean over the seeds, in percent; NaN where no answer is public.
    seeds: the score of each seed.
    records: one for each query and seed: prediction, answers, score, ...
    prompts: the document of each record, its control applied.
  """

  task: str
  metric: str
  shots: int
  control: str
  score: float
  seeds: Mapping[int, float]
  records: Sequence[Record] = dataclasses.field(repr=False)
  prompts: Sequence[Document] = dataclasses.field(repr=False)

  @property
  def deviation(self) -> float:
    """Standard deviation over the seeds; 0 for one seed."""
    return statistics.pstdev(self.seeds.values())

  def summary(self) -> dict:
    """What a report shows of it."""
    values = {
      f.name: getattr(self, f.name)
      for f in dataclasses.fields(self)
      if f.name not in ("records", "prompts")
    }
    values["seeds"] = {str(k): v for k, v in self.seeds.items()}
    return values | {"deviation": self.deviation, "count": len(self.records)}


def result(
  task: Task,
  name: str,
  shots: int,
  control: str,
  seeds: Mapping[int, Sequence[Record]],
  prompts: Sequence[Document],
) -> Result:
  """The records of every seed, scored; `prompts` in the order of all."""
  scores: dict[int, float] = {}
  records: list[Record] = []
  for seed, made in seeds.items():
    scores[seed], each = _scored(task, made)
    each = each or [None] * len(made)
    about = {"task": name, "shots": shots, "seed": seed, "control": control}
    records += [r | about | {"score": s} for r, s in zip(made, each)]
  mean = statistics.fmean(scores.values())
  return Result(
    name, task.metric, shots, control, mean, scores, records, prompts
  )


def _scored(
  task: Task, records: Sequence[Record]
) -> tuple[float, list[float] | None]:
  """The score of records; NaN where no answer is public (a test set).

  A question that is there twice counts twice.

  Raises:
    ValueError: when some have answers and some have not.
  """
  twice = [k for k, n in Counter(r["id"] for r in records).items() if n > 1]
  if twice:
    _LOG.warning("%d questions count more than once: %s", len(twice), twice[:3])
  if task.metric not in tasks.WITHOUT_ANSWERS:
    lacking = [r["id"] for r in records if not r["answers"]]
    if len(lacking) == len(records):
      _LOG.warning("No answers to score against; the score is NaN.")
      return math.nan, None
    if lacking:
      raise ValueError(
        f"{len(lacking)} of {len(records)} records have no answers: "
        f"{lacking[:3]}."
      )
  return tasks.METRICS[task.metric](records)


def write_records(results: Sequence[Result], path: str | Path) -> None:
  """All records as JSON lines."""
  with Path(path).open("w", encoding="utf-8") as file:
    for each in results:
      for record in each.records:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _record(document: Document, prediction: str) -> Record:
  record = {
    "id": document.id,
    "prediction": prediction,
    "answers": tasks.answers(document.metadata),
  }
  kept = ("support", "relevance", "raw_answers", "clip")
  metadata = document.metadata
  return record | {k: metadata[k] for k in kept if k in metadata}
