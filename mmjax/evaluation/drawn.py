"""Few-shot evaluation on things of the drawn set that were never seen.

Categories and subcategories are asked with 0 and more support examples of
other things; binding asks for a made-up word that the support examples give
to one of two things, drawn in another style. Every score stands beside its
controls.
"""

import dataclasses
from collections.abc import Callable, Sequence

from mmjax.config import lookup
from mmjax.data import drawn
from mmjax.data.document import Document, Media
from mmjax.data.episodes import Drawn
from mmjax.evaluation import controls as take_away
from mmjax.evaluation.answers import Generate, Result
from mmjax.evaluation.controls import Control
from mmjax.evaluation.in_context import evaluate_episodes
from mmjax.evaluation.tasks import Task

TITLES = {
  "category": {
    "title": "Category",
    "note": "One of 9 groups, written out; things never seen in training.",
  },
  "subcategory": {
    "title": "Subcategory",
    "note": "One of 97 groups, written out; things never seen in training.",
  },
  "bind": {
    "title": "Binding",
    "note": "Two made-up words are given to two pictures; then one of the two "
    "things is shown in another style. Guessing between both words is 50 %.",
  },
}
ANSWER = Task("caption", "exact", max_new_tokens=8)


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is asked of a model.

  Attributes:
    shots: numbers of support examples of categories and subcategories.
    bind_shots: support pictures of each made-up word.
    count: episodes of a task and number of shots, for each seed.
    seeds: of the episodes.
    split: which things, for query and support alike.
    controls: names of `controls.standard`.
  """

  shots: Sequence[int] = (0, 2, 4)
  bind_shots: Sequence[int] = (1,)
  count: int = 256
  seeds: Sequence[int] = (1,)
  split: str = "held_out"
  controls: Sequence[str] = (
    "none",
    "no_query",
    "wrong_query",
    "blank_support",
  )


def blank(media: Media) -> Media:
  """The white picture, known by its key as well as by its pixels."""
  del media
  return Media("image", drawn.table()[-1], "blank", {"key": drawn.blank_key()})


def evaluate_drawn(
  generate: Generate,
  setting: Setting | None = None,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
  """Results of all tasks, numbers of shots and controls.

  Args:
    generate: the model.
    setting: what is asked.
    progress: is told how many of how many documents are done.
  """
  setting = setting or Setting()
  cells = [("bind", s) for s in setting.bind_shots]
  cells += [(t, s) for t in ("category", "subcategory") for s in setting.shots]
  chosen = [_controls(setting, shots) for _, shots in cells]
  count = setting.count * len(setting.seeds)
  total = count * sum(map(len, chosen))
  results: list[Result] = []
  for (task, shots), controls in zip(cells, chosen):
    before = count * len(results)
    results += evaluate_episodes(
      ANSWER,
      _episodes(task, shots, setting),
      name=task,
      shots=shots,
      generate=generate,
      controls=controls,
      batch_size=count,
      progress=lambda done, _, before=before: progress(before + done, total),
    )
  return results


def _episodes(task: str, shots: int, setting: Setting) -> list[Document]:
  return [
    document
    for seed in setting.seeds
    for document in Drawn(
      {task: {"shots": [shots]}},
      split=setting.split,
      seed=seed,
      size=setting.count,
    )
  ]


def _controls(setting: Setting, shots: int) -> dict[str, Control]:
  known = take_away.standard(blank=blank, label=lambda d: d.metadata["answer"])
  chosen = {name: lookup(known, name, "control") for name in setting.controls}
  if not shots:
    chosen.pop("blank_support", None)
  return chosen


def table(results: Sequence[Result]) -> str:
  """Scores of all cells as plain text."""
  names = list(dict.fromkeys(r.control for r in results))
  heads = ["all media" if n == "none" else n for n in names]
  lines = ["Scores in percent, with all media and with some taken away:"]
  lines += [f"{'task':14}{'shots':>6}" + "".join(f"{h:>15}" for h in heads)]
  cells = {(r.task, r.shots, r.control): r.score for r in results}
  for task, shots in dict.fromkeys((r.task, r.shots) for r in results):
    row = f"{task:14}{shots:>6}"
    for name in names:
      score = cells.get((task, shots, name))
      row += f"{'-' if score is None else f'{score:.1f}':>15}"
    lines.append(row)
  return "\n".join(lines)
