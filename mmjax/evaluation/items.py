"""Questions about files that were never seen, of one kind or of two.

Every type of question is asked by itself; of few possible answers the most
likely is taken, and where there are many the answer is written. Each is asked
with its media, with another's, and with none.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from mmjax.config import lookup
from mmjax.data.document import Document
from mmjax.data.item_pairs import PAIR_QUESTIONS, PROPERTIES, ItemPairs
from mmjax.data.items import QUESTIONS, Items
from mmjax.evaluation import controls as take_away
from mmjax.evaluation.answers import Generate, Result, Score
from mmjax.evaluation.in_context import evaluate_episodes
from mmjax.evaluation.tasks import Task

WRITTEN = Task("caption", "exact", max_new_tokens=12)
# The records bring the answers to choose from.
CHOSEN = Task("caption", "exact", choices=())
CONTROLS = ("none", "wrong_query", "text_only")


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is asked of a model.

  Attributes:
    folders: of the sets.
    questions: types of QUESTIONS; with two `kinds` of PAIR_QUESTIONS.
    kinds: of media; two are asked about together.
    about: of PROPERTIES, for two kinds: every question that says something of
      them is asked of each of these by itself.
    count: questions of a type at most; each file is asked about once.
    seed: of the questions.
    split: which things.
    controls: of CONTROLS.
  """

  folders: str | Sequence[str]
  questions: Sequence[str]
  kinds: Sequence[str]
  about: Sequence[str] = ("category",)
  count: int = 256
  seed: int = 1
  split: str = "held_out"
  controls: Sequence[str] = CONTROLS

  def __post_init__(self):
    # Before the first answer, not when the turn of the wrong one comes.
    known = PAIR_QUESTIONS if self.joint else QUESTIONS
    for name in self.questions:
      lookup(known, name, "question")
    for name in self.about:
      lookup(PROPERTIES, name, "property")
    for name in self.controls:
      lookup(dict.fromkeys(CONTROLS), name, "control")
    if self.count < 2:
      raise ValueError(f"count is {self.count}, expected 2 or more.")

  @property
  def joint(self) -> bool:
    return len(self.kinds) > 1


def evaluate_items(
  generate: Generate,
  score: Score,
  setting: Setting,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
  """Results of all types of question and controls.

  Args:
    generate: the model, for answers that are written.
    score: the model, for answers that are chosen.
    setting: what is asked.
    progress: is told how many of how many documents are done.
  """
  asked = dict(_asked(setting))
  total = len(setting.controls) * sum(map(len, asked.values()))
  done, results = 0, []
  for name, documents in asked.items():
    closed = all(d.metadata["choices"] for d in documents)
    results += evaluate_episodes(
      CHOSEN if closed else WRITTEN,
      documents,
      name=name,
      generate=generate,
      score=score,
      controls=_controls(setting, documents),
      progress=lambda n, _, before=done: progress(before + n, total),
    )
    done += len(setting.controls) * len(documents)
  return results


def _asked(setting: Setting) -> Iterator[tuple[str, list[Document]]]:
  """What a result is named after, and its questions."""
  given = dict(kinds=setting.kinds, split=setting.split, seed=setting.seed)
  for name in setting.questions:
    only = (setting.folders, {name: 1.0})
    if not setting.joint:
      yield name, _spread(Items(*only, every=True, **given), setting.count)
    elif name == "same":
      source = ItemPairs(*only, size=setting.count, **given)
      yield name, _spread(source, setting.count)
    else:
      for about in setting.about:
        own = dict(about=[about], size=setting.count)
        source = ItemPairs(*only, **own, **given)
        yield f"{name}, {about}", _spread(source, setting.count)


def _spread(source: Items | ItemPairs, most: int) -> list[Document]:
  count = min(len(source), most)
  # Spread over all of them, as neighbours are alike.
  return [source[i * len(source) // count] for i in range(count)]


def _controls(
  setting: Setting, documents: Sequence[Document]
) -> Mapping[str, take_away.Control]:
  """Wrong media are those of a question with another answer, if there are.

  Where two answers are all there are, the other one would tell the right one,
  and where more than half have the same, not all find another. There media
  change places with any, and to answer by them is right wherever they have the
  same answer: of two that are as likely, every second time.
  """
  answers = [d.metadata["answer"] for d in documents]
  most = max(map(answers.count, set(answers)))
  several = len(set(answers)) > 2 and 2 * most <= len(answers)
  label = _answer if several else None
  known = take_away.standard(setting.seed, label=label)
  return {name: known[name] for name in setting.controls}


def _answer(document: Document) -> str:
  return document.metadata["answer"]
