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

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.config import call, lookup
from mmjax.data import build as data
from mmjax.data.document import Document
from mmjax.data.sources import Source
from mmjax.evaluation import controls as take_away
from mmjax.evaluation import in_context, pictures
from mmjax.evaluation.answers import Generate, Result
from mmjax.evaluation.in_context import Protocol
from mmjax.evaluation.model import Model
from mmjax.evaluation.tasks import STYLES, TASKS, Task

# A model and the name of a task to what writes the answers, of which some may
# be known already.
Remember = Callable[[Model, str], Generate]


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
  remember: Remember = lambda model, name: model.generate,
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
    remember: what writes answers for a model and task; see `ledger`.
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
  shown = {
    name: in_context.needed(each.task, each.queries, each.support, rules)
    for name, each in found.items()
  }
  pictures.check({n: (model.encoder, own) for n, own in shown.items()})
  runs = len(rules.shots) * len(rules.seeds) * len(chosen)
  total = runs * sum(len(each.queries) for each in found.values())
  results, before = [], 0
  for name, each in found.items():
    results += _answered(
      name,
      each,
      model,
      remember,
      protocol=rules,
      controls=chosen,
      progress=lambda done, _, before=before: progress(before + done, total),
    )
    before += runs * len(each.queries)
  return results


def _answered(
  name: str, each: Benchmark, model: Model, remember: Remember, **rules: Any
) -> list[Result]:
  """Results of a task, answered as its papers do; `rules` of `evaluate`."""
  own = dataclasses.replace(
    model,
    max_new_tokens=each.task.max_new_tokens,
    score_end=STYLES[rules["protocol"].style].score_end,
  )
  with pictures.naming(name):
    return in_context.evaluate(
      each.task,
      each.queries,
      each.support,
      name=name,
      generate=remember(own, name),
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
  asked, shown = data.documents(queries), data.documents(support)
  with pictures.naming(name):
    return Benchmark(
      kind, drawn(asked, count, name), [shown[i] for i in range(len(shown))]
    )


def drawn(source: Source, count: int | None, name: str) -> list[Document]:
  """So many documents of a source, always the same; None is all of them.

  Fewer are among those of a greater count.
  """
  if count is not None and count < 1:
    raise ValueError(f"Task {name!r} asks {count} queries; expected 1 or more.")
  order = np.random.default_rng(0).permutation(len(source))
  return [source[int(i)] for i in sorted(order[:count])]
