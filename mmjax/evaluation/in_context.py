"""Few-shot evaluation as in Flamingo (arXiv 2204.14198, A.2 and B.1.5).

For every query, support examples are drawn from a pool and shown before it;
the model writes an answer, or the likelihood of each possible one is compared.

  results = evaluate(TASKS["vqav2"], queries, examples, generate=generate,
                     protocol=Protocol(shots=(0, 4)))

`evaluate_episodes` does the same for documents that hold their support already.

Zero shots show two support examples without their media where answers are
written, so that the model knows the format; where they are chosen the paper
shows none, and OpenFlamingo two (with their media, though nothing in the text
stands for them and the query sees the first of them; here without).
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmjax.config import lookup
from mmjax.data.document import Document
from mmjax.data.episodes import few_shot
from mmjax.evaluation import support, tasks
from mmjax.evaluation.answers import (
  Answerer,
  Generate,
  Result,
  Score,
  result,
)
from mmjax.evaluation.controls import Control
from mmjax.evaluation.tasks import Record, Style, Task
from mmjax.typing import Float

log = logging.getLogger(__name__)

SHOTS = (0, 4, 8, 16, 32)
TEXT_ONLY_EXAMPLES = 2


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
    if len(set(self.seeds)) < len(self.seeds):
      raise ValueError(f"seeds are {self.seeds}; one twice tells nothing new.")
    for name in ("pool", "per_class", "permutations", "batch_size"):
      if getattr(self, name) < 1:
        raise ValueError(
          f"{name} is {getattr(self, name)}, expected 1 or more."
        )


# One vector for each document, of the frozen vision encoder (RICES). Asked for
# the queries once, and for the pool of each seed.
Features = Callable[[Sequence[Document]], Float[np.ndarray, "documents E"]]


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
  _check(queries, examples, protocol, features)
  style = tasks.STYLES[protocol.style]
  ask = Answerer(task, style, generate, score, protocol.batch_size)
  run = _Run(task, queries, examples, protocol, features)
  kinds = [(s, c) for s in protocol.shots for c in controls]
  total = len(kinds) * len(protocol.seeds) * len(queries)
  results: list[Result] = []
  done = 0
  for shots, control in kinds:
    seeds: dict[int, list[Record]] = {}
    shown: list[Document] = []
    for seed in protocol.seeds:
      prompts = run.prompts(shots, seed, controls[control])
      shown += prompts[0]
      seeds[seed] = ask(prompts, lambda n, done=done: progress(done + n, total))
      done += len(queries)
    results.append(result(task, name, shots, control, seeds, shown))
  return results


def needed(
  task: Task,
  queries: Sequence[Document],
  examples: Sequence[Document],
  protocol: Protocol,
) -> list[Document]:
  """The queries and examples whose media `evaluate` will read.

  Raises:
    ValueError: for a pool with fewer examples than shots.
  """
  run = _Run(task, queries, examples, protocol, None)
  places: set[int] = set()
  for seed in protocol.seeds:
    places |= run.places(seed)
  return [*queries, *(examples[i] for i in sorted(places))]


def evaluate_episodes(
  task: Task,
  episodes: Sequence[Document],
  *,
  name: str = "",
  shots: int = 0,
  style: str = "flamingo",
  generate: Generate | None = None,
  score: Score | None = None,
  controls: Mapping[str, Control] | None = None,
  batch_size: int = 32,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
  """Results of documents that hold their support, one for every control.

  Args:
    task: how it is scored; its template writes the answers of a closed one.
    episodes: the last target of each is its answer, `metadata["answer"]`.
    name: of the task, in results.
    shots: of these episodes, in results.
    style: name of one of `tasks.STYLES`.
    generate, score, controls, progress: see `evaluate`.
    batch_size: documents given to a model at once.
  """
  if not episodes:
    raise ValueError("No episodes to evaluate.")
  controls = controls or {"none": list}
  ask = Answerer(
    task, lookup(tasks.STYLES, style, "style"), generate, score, batch_size
  )
  queries = [episode.query() for episode in episodes]
  total = len(controls) * len(queries)
  results: list[Result] = []
  for control, change in controls.items():
    done, shown = len(results) * len(queries), change(queries)
    made = ask([shown], lambda n, done=done: progress(done + n, total))
    results.append(result(task, name, shots, control, {0: made}, shown))
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
    self.protocol, self.features = protocol, features
    # By seed; over all examples, and not a pool, it could not be held.
    self._similarity: dict[int, np.ndarray] = {}
    self._described: np.ndarray | None = None
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

  def places(self, seed: int) -> set[int]:
    """Which examples are shown with their media, or compared by them."""
    pool, most = self._pool(seed), max(self.protocol.shots)
    if any(self._by_likeness(shots) for shots in self.protocol.shots):
      return {int(i) for i in pool}
    ids = [self.examples[i].id for i in pool]
    found: set[int] = set()
    # More shots contain the fewer ones, and zero shots show no media.
    for number, query in enumerate(self.queries if most else ()):
      if len(found) == len(pool):
        break
      chosen = support.random_support(
        query.id, ids, most, seed=seed, number=number
      )
      found.update(int(pool[i]) for i in chosen)
    return found

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
    text_only = self._text_only(shots)
    count = TEXT_ONLY_EXAMPLES if text_only else shots
    ids = [self.examples[i].id for i in pool]
    query = self.queries[number].id
    if self._by_likeness(shots):
      similarity = self._similar(pool, seed)[number]
      found = support.rices(query, ids, count, similarity)
    else:
      found = support.random_support(
        query, ids, count, seed=seed, number=number
      )
    return [self.examples[pool[i]] for i in found], text_only

  def _text_only(self, shots: int) -> bool:
    shown = self.style.text_only_closed or not self.task.closed
    return shots == 0 and shown

  def _by_likeness(self, shots: int) -> bool:
    alike = self.protocol.selection == "rices"
    return alike and (self.style.rices_text_only or not self._text_only(shots))

  def _similar(
    self, pool: np.ndarray, seed: int
  ) -> Float[np.ndarray, "queries pool"]:
    """How alike each query and each example of a seed's pool are."""
    if self._described is None:
      self._described = self._describe(self.queries)
    if seed not in self._similarity:
      examples = self._describe([self.examples[i] for i in pool])
      self._similarity[seed] = support.cosine(self._described, examples)
    return self._similarity[seed]

  def _describe(self, documents: Sequence[Document]) -> np.ndarray:
    found = self.features(documents)
    if found.ndim != 2 or len(found) != len(documents):
      raise ValueError(
        f"Features of {list(found.shape)} for {len(documents)} documents; "
        "expected a row for each."
      )
    if not np.isfinite(found).all():
      bad = int(np.argmin(np.isfinite(found).all(axis=1)))
      raise ValueError(
        f"The features of {documents[bad].id!r} are not finite, so nothing is "
        "like it. Are the encoder's weights?"
      )
    return found

  def _orders(self, count: int, seed: int, number: int):
    limit = self.protocol.permutations if self.task.closed else 1
    rng = np.random.default_rng([seed, 2, number])
    return support.permutations(count, limit, rng)


def _check(queries, examples, protocol, features) -> None:
  if not queries:
    raise ValueError("No queries to evaluate.")
  lacking = [e.id for e in examples if e.metadata.get("answer") == ""]
  if lacking and len(lacking) == len(examples):
    raise ValueError(
      f"None of the {len(examples)} support examples has an answer, such as "
      f"{lacking[0]!r}. Draw them from a split whose answers are public."
    )
  if lacking:
    log.warning(
      "%d of %d support examples show an empty answer, such as %r.",
      *(len(lacking), len(examples), lacking[0]),
    )
  if protocol.selection == "rices" and features is None:
    raise ValueError(
      "Selection 'rices' needs features, a function of documents; "
      "Model.features is one."
    )
