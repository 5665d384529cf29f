"""Few-shot evaluation as in Flamingo (arXiv 2204.14198, A.2 and B.1.5).

For every query, support examples are drawn from a pool and shown before it;
the model writes an answer, or the likelihood of each possible one is compared.

  results = evaluate(TASKS["vqav2"], queries, examples, generate=generate,
                     protocol=Protocol(shots=(0, 4)))

A model is two functions, so any system, and a fake one in tests, will do:

  generate(documents) -> answers            the text each goes on with
  score(documents, answers) -> Likelihoods  of every answer after each document

Zero shots show two support examples without their media where answers are
written, so that the model knows the format, and none where they are chosen.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmjax.config import lookup
from mmjax.data.document import Document
from mmjax.data.episodes import few_shot
from mmjax.evaluation import support, tasks
from mmjax.evaluation.controls import Control
from mmjax.evaluation.tasks import Record, Style, Task
from mmjax.typing import Float

SHOTS = (0, 4, 8, 16, 32)
TEXT_ONLY_EXAMPLES = 2


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


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How examples are drawn and shown.

  Attributes:
    style: name of a paper's templates and habits, see `tasks.STYLES`.
    shots: numbers of support examples.
    seeds: every result is the mean over these.
    selection: of support examples, "random" or "rices".
    pool: examples of the support pool.
    per_class: the same for a task with classes, for each of them.
    permutations: orders of the support over which likelihoods are averaged
      (6 in the paper's ensembles).
    batch_size: documents given to a model at once.
  """

  style: str = "flamingo"
  shots: Sequence[int] = SHOTS
  seeds: Sequence[int] = (0,)
  selection: str = "random"
  pool: int = support.POOL_SIZE
  per_class: int = support.PER_CLASS
  permutations: int = 1
  batch_size: int = 32

  def __post_init__(self):
    lookup(tasks.STYLES, self.style, "style")
    if self.selection not in ("random", "rices"):
      raise ValueError(
        f"selection is {self.selection!r}, expected 'random' or 'rices'."
      )
    if not self.shots or not self.seeds or min(self.shots) < 0:
      raise ValueError(
        f"shots {self.shots} and seeds {self.seeds}: expected one or more."
      )


@dataclasses.dataclass(frozen=True)
class Features:
  """Of the frozen vision encoder, one vector for each document (RICES)."""

  queries: Float[np.ndarray, "queries E"]
  examples: Float[np.ndarray, "examples E"]


@dataclasses.dataclass(frozen=True)
class Result:
  """The score of one task with one number of shots under one control.

  Attributes:
    task, metric, shots, control: what was measured.
    score: mean over the seeds, in percent.
    seeds: the score of each seed.
    records: one for each query and seed: prediction, answers, score, ...
  """

  task: str
  metric: str
  shots: int
  control: str
  score: float
  seeds: Mapping[int, float]
  records: Sequence[Record] = dataclasses.field(repr=False)

  @property
  def deviation(self) -> float:
    """Standard deviation over the seeds; 0 for one seed."""
    return statistics.pstdev(self.seeds.values())

  def summary(self) -> dict:
    """What a report shows of it."""
    values = {
      f.name: getattr(self, f.name)
      for f in dataclasses.fields(self)
      if f.name != "records"
    }
    values["seeds"] = {str(k): v for k, v in self.seeds.items()}
    return values | {"deviation": self.deviation, "count": len(self.records)}


def evaluate(
  task: Task,
  queries: Sequence[Document],
  examples: Sequence[Document],
  *,
  name: str = "",
  protocol: Protocol | None = None,
  generate: Generate | None = None,
  score: Score | None = None,
  features: Features | None = None,
  controls: Mapping[str, Control] | None = None,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
  """Results for every number of shots and every control.

  Args:
    task: how it is asked and scored.
    queries: records of the evaluation split.
    examples: records that support is drawn from, of the training split.
    name: of the task, in results.
    protocol: how examples are drawn and shown.
    generate: the model, where answers are written.
    score: the model, where they are chosen.
    features: for RICES.
    controls: by name, see `controls.standard`; without them, "none".
    progress: told how many documents of how many are done.
  """
  protocol = protocol or Protocol()
  controls = controls or {"none": list}
  _check(task, queries, examples, protocol, generate, score, features)
  run = _Run(task, queries, examples, protocol, features)
  kinds = [(s, c) for s in protocol.shots for c in controls]
  total = len(kinds) * len(protocol.seeds) * len(queries)
  results: list[Result] = []
  for shots, control in kinds:
    seeds: dict[int, float] = {}
    records: list[Record] = []
    for seed in protocol.seeds:
      done = len(results) * len(protocol.seeds) * len(queries) + len(records)
      made = run.answer(
        run.prompts(shots, seed, controls[control]),
        score if task.closed else generate,
        lambda count, done=done: progress(done + count, total),
      )
      seeds[seed], each = tasks.METRICS[task.metric](made)
      about = {"task": name, "shots": shots, "seed": seed, "control": control}
      each = each or [None] * len(made)
      records += [r | about | {"score": s} for r, s in zip(made, each)]
    mean = statistics.fmean(seeds.values())
    results.append(
      Result(name, task.metric, shots, control, mean, seeds, records)
    )
  return results


class _Run:
  """One task under one protocol."""

  def __init__(
    self,
    task: Task,
    queries: Sequence[Document],
    examples: Sequence[Document],
    protocol: Protocol,
    features: Features | None,
  ):
    self.task, self.queries, self.examples = task, queries, examples
    self.protocol = protocol
    if protocol.selection == "rices":
      self.similarity = support.cosine(features.queries, features.examples)
    self.style: Style = tasks.STYLES[protocol.style]

  def prompts(
    self, shots: int, seed: int, control: Control
  ) -> list[list[Document]]:
    """For each order of the support, one document a query."""
    orders: list[list[Document]] = []
    pool = self._pool(seed)
    for number, query in enumerate(self.queries):
      chosen, text_only = self._support(number, pool, shots, seed)
      for k, order in enumerate(self._orders(len(chosen), seed, number)):
        if k == len(orders):
          orders.append([])
        shown = [chosen[i] for i in order]
        orders[k].append(self._prompt(query, shown, text_only))
    return [control(documents) for documents in orders]

  def _prompt(
    self, query: Document, shown: Sequence[Document], text_only: bool
  ) -> Document:
    known = {"answer": "", "query_media": len(query.media)}
    query = dataclasses.replace(query, metadata=known | dict(query.metadata))
    template = self.style.template(self.task)
    prompt = few_shot(query, shown, template, text_only=text_only).query()
    ids = [example.id for example in shown]
    return dataclasses.replace(
      prompt, metadata=dict(prompt.metadata) | {"support": ids}
    )

  def _pool(self, seed: int) -> np.ndarray:
    labels = None
    if self.task.by_class:
      labels = [str(e.metadata["answer"]) for e in self.examples]
    return support.draw_pool(
      [e.id for e in self.examples],
      seed=seed,
      size=self.protocol.pool,
      labels=labels,
      per_class=self.protocol.per_class,
    )

  def _support(
    self, number: int, pool: np.ndarray, shots: int, seed: int
  ) -> tuple[list[Document], bool]:
    text_only = shots == 0 and not self.task.closed
    count = TEXT_ONLY_EXAMPLES if text_only else shots
    ids = [self.examples[i].id for i in pool]
    query = self.queries[number].id
    if self.protocol.selection == "rices" and not text_only:
      found = support.rices(
        query,
        ids,
        count,
        self.similarity[number][pool],
      )
    else:
      found = support.random_support(
        query, ids, count, seed=seed, number=number
      )
    return [self.examples[pool[i]] for i in found], text_only

  def _orders(self, count: int, seed: int, number: int):
    limit = self.protocol.permutations if self.task.closed else 1
    rng = np.random.default_rng([seed, 2, number])
    return support.permutations(count, limit, rng)

  def answer(self, prompts, model, tell) -> list[Record]:
    """A record for each query; `model` is `score` for a closed-ended task."""
    made = self._choose if self.task.closed else self._write
    return made(prompts, model, tell)

  def _write(self, prompts, generate: Generate, tell) -> list[Record]:
    (documents,) = prompts
    records: list[Record] = []
    for batch in _batches(documents, self.protocol.batch_size):
      texts = generate(batch)
      if len(texts) != len(batch):
        raise ValueError(
          f"generate gave {len(texts)} answers for {len(batch)} documents."
        )
      for document, text in zip(batch, texts):
        prediction = self.style.clean(self.task, text)
        records.append(_record(document, prediction) | {"raw": text})
      tell(len(records))
    return records

  def _choose(self, prompts, score: Score, tell) -> list[Record]:
    template, choices = self.style.template(self.task), self.task.choices
    replies = [template.reply({"answer": choice}) for choice in choices]
    sums = np.zeros((len(self.queries), len(choices)))
    done = 0
    for documents in prompts:
      rows = []
      for batch in _batches(documents, self.protocol.batch_size):
        found = score(batch, replies)
        rows.append(found.mean if self.style.mean_per_token else found.total)
        done += len(batch)
        tell(done // len(prompts))
      sums += np.concatenate(rows)
    sums /= len(prompts)
    return [
      _record(document, choices[int(np.argmax(row))])
      | {"choices": list(choices), "scores": [float(x) for x in row]}
      for document, row in zip(prompts[0], sums)
    ]


def _record(document: Document, prediction: str) -> Record:
  return {
    "id": document.id,
    "prediction": prediction,
    "answers": tasks.answers(document.metadata),
    "support": document.metadata["support"],
  }


def write_records(results: Sequence[Result], path: str | Path) -> None:
  """All records as JSON lines."""
  with Path(path).open("w", encoding="utf-8") as file:
    for result in results:
      for record in result.records:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _batches(documents: Sequence[Document], size: int):
  for start in range(0, len(documents), size):
    yield documents[start : start + size]


def _check(
  task, queries, examples, protocol, generate, score, features
) -> None:
  if not queries:
    raise ValueError("No queries to evaluate.")
  needed, given = ("score", score) if task.closed else ("generate", generate)
  if given is None:
    raise ValueError(f"The task needs a {needed!r} function.")
  if protocol.selection == "rices":
    if features is None:
      raise ValueError("Selection 'rices' needs the features of all documents.")
    shapes = features.queries.shape, features.examples.shape
    if (len(features.queries), len(features.examples)) != (
      len(queries),
      len(examples),
    ):
      raise ValueError(
        f"Features of shapes {shapes} for {len(queries)} queries and "
        f"{len(examples)} examples; expected a row for each."
      )
