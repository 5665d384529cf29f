"""The papers' tasks as a config names them, on a trained model.

  evaluate = dict(
    name="in_context",
    protocol=dict(shots=[0, 4], selection="rices"),
    controls=["none", "no_query"],
    tasks=dict(
      vqav2=dict(
        queries=dict(name="vqa", questions=..., annotations=..., images=...),
        support=dict(name="vqa", questions=..., annotations=..., images=...),
        count=2048,
      ),
    ),
    model=dict(num_beams=3), prompt=dict(length=2000, media=33),
  )

A task is called by its name in `tasks.TASKS`, or anything else with `task`.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from mmjax.config import call, lookup
from mmjax.data import build as data
from mmjax.data.document import BadSample, Document, File, Media, printable
from mmjax.data.stream import Encoder
from mmjax.evaluation import controls as take_away
from mmjax.evaluation import in_context
from mmjax.evaluation.answers import Result
from mmjax.evaluation.in_context import Protocol
from mmjax.evaluation.model import Model
from mmjax.evaluation.tasks import STYLES, TASKS, Task

log = logging.getLogger(__name__)

READERS = 4
# Of a task in an error; the log names all.
_NAMED = 3
_REMEDY = (
  "Without them a score would be that of another task: repair the files or "
  "fetch them again, or leave the task out of config.evaluate.tasks."
)


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """A task with its records.

  Attributes:
    task: how it is asked and scored.
    queries: what is asked.
    support: what examples are drawn from.
  """

  task: Task
  queries: Sequence[Document]
  support: Sequence[Document]


def evaluate_tasks(
  model: Model,
  tasks: Mapping[str, Mapping[str, Any]],
  *,
  protocol: Mapping[str, Any] | None = None,
  controls: Sequence[str] = ("none",),
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
  """Results of all tasks, numbers of shots and controls.

  All pictures are read once before the first question: one that cannot be
  read is no reason to drop a question, which would change the score.

  Args:
    model: answers, as long as a task's answers may get.
    tasks: by name, see `benchmark`.
    protocol: fields of in_context.Protocol.
    controls: names of `controls.standard`.
    progress: is told how many of how many documents are done.

  Raises:
    ValueError: for pictures that cannot be read, by task and file.
  """
  if not tasks:
    raise ValueError("config.evaluate names no tasks.")
  rules = call(Protocol, protocol or {})
  known = take_away.standard(label=lambda d: d.metadata["answer"])
  chosen = {name: lookup(known, name, "control") for name in controls}
  found = {name: call(benchmark, t, name=name) for name, t in tasks.items()}
  check_pictures(found, rules, model.encoder)
  runs = len(rules.shots) * len(rules.seeds) * len(chosen)
  total = runs * sum(len(each.queries) for each in found.values())
  results, before = [], 0
  for name, each in found.items():
    results += _answered(
      name,
      each,
      model,
      protocol=rules,
      controls=chosen,
      progress=lambda done, _, before=before: progress(before + done, total),
    )
    before += runs * len(each.queries)
  return results


def _answered(
  name: str, each: Benchmark, model: Model, **rules: Any
) -> list[Result]:
  """Results of a task, answered as its papers do; `rules` of `evaluate`."""
  own = dataclasses.replace(
    model,
    max_new_tokens=each.task.max_new_tokens,
    score_end=STYLES[rules["protocol"].style].score_end,
  )
  with _naming(name):
    return in_context.evaluate(
      each.task,
      each.queries,
      each.support,
      name=name,
      generate=own.generate,
      score=own.score,
      features=own.features,
      **rules,
    )


def benchmark(
  queries: Mapping[str, Any],
  support: Mapping[str, Any],
  name: str = "",
  task: str | None = None,
  count: int | None = None,
  max_new_tokens: int | None = None,
) -> Benchmark:
  """A task and its records, as a config has them.

  Args:
    queries: source of the evaluated split, of `data.tasks.TASKS`.
    support: source of the training split.
    name: under which the results stand.
    task: of `tasks.TASKS`; `name` where it is left out.
    count: of the queries, drawn at random, always the same; None is all.
    max_new_tokens: of an answer; None is the task's own.

  Raises:
    ValueError: for a picture whose name leads out of its folder, too.
  """
  kind = lookup(TASKS, task or name, "task")
  if max_new_tokens is not None:
    kind = dataclasses.replace(kind, max_new_tokens=max_new_tokens)
  if count is not None and count < 1:
    raise ValueError(f"Task {name!r} asks {count} queries; expected 1 or more.")
  asked, shown = data.documents(queries), data.documents(support)
  order = np.random.default_rng(0).permutation(len(asked))
  numbers = sorted(order[: len(asked) if count is None else count])
  with _naming(name):
    return Benchmark(
      kind,
      [asked[int(i)] for i in numbers],
      [shown[i] for i in range(len(shown))],
    )


def check_pictures(
  benchmarks: Mapping[str, Benchmark], protocol: Protocol, encoder: Encoder
) -> None:
  """Reads every picture that will be asked about or shown, once.

  Raises:
    ValueError: for those that cannot be read, of all tasks; the log names each.
  """
  told = []
  for name, each in benchmarks.items():
    documents = in_context.needed(
      each.task, each.queries, each.support, protocol
    )
    # Many questions ask about one picture.
    media = {_key(m): (m, d.id) for d in documents for m in d.media}
    log.info("Reading the %d pictures of task %r once.", len(media), name)
    with futures.ThreadPoolExecutor(READERS) as pool:
      reasons = pool.map(lambda x: _problem(encoder, *x), media.values())
      bad = [reason for reason in reasons if reason]
    for reason in bad:
      log.warning("Task %r: %s", name, reason)
    if bad:
      first = " ".join(bad[:_NAMED]) + " ..." * (len(bad) > _NAMED)
      told.append(f"{len(bad)} of {len(media)} of task {name!r} ({first})")
  if told:
    raise ValueError(
      "Nothing was evaluated, because pictures cannot be read: "
      f"{', '.join(told)}. {_REMEDY}"
    )


def _key(media: Media) -> str | int:
  payload = media.payload
  return payload.path if isinstance(payload, File) else id(payload)


def _problem(encoder: Encoder, media: Media, name: str) -> str:
  try:
    encoder.check(media, name)
  except BadSample as error:
    return printable(str(error))
  return ""


@contextlib.contextmanager
def _naming(task: str) -> Iterator[None]:
  """Says of which task a picture is that cannot be read."""
  try:
    yield
  except BadSample as error:
    raise ValueError(f"Task {task!r}: {error} {_REMEDY}") from error
