"""Questions about drawn things that were never seen, one at a time.

Every type of question is asked by itself, in its first wording, with the
picture, with another document's, with a white one and with none.
"""

import dataclasses
from collections.abc import Callable, Sequence

from mmjax.config import lookup
from mmjax.data.drawn_chat import QUESTIONS, DrawnChat
from mmjax.evaluation import controls as take_away
from mmjax.evaluation.answers import Generate, Result
from mmjax.evaluation.drawn import ANSWER, blank
from mmjax.evaluation.in_context import evaluate_episodes


@dataclasses.dataclass(frozen=True)
class Setting:
  """What is asked of a model.

  Attributes:
    questions: types of QUESTIONS.
    count: questions of a type.
    seed: of the questions.
    split: which things.
    controls: names of `controls.standard`.
  """

  questions: Sequence[str] = tuple(QUESTIONS)
  count: int = 256
  seed: int = 1
  split: str = "held_out"
  controls: Sequence[str] = ("none", "wrong_query", "no_query", "text_only")

  def __post_init__(self):
    # Before the first answer, not when the turn of the wrong one comes.
    for name in self.questions:
      lookup(QUESTIONS, name, "question")
    for name in self.controls:
      lookup(take_away.standard(), name, "control")


def evaluate_chat(
  generate: Generate,
  setting: Setting | None = None,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Result]:
  """Results of all types of question and controls.

  Args:
    generate: the model.
    setting: what is asked.
    progress: is told how many of how many documents are done.
  """
  setting = setting or Setting()
  known = take_away.standard(blank=blank)
  controls = {name: known[name] for name in setting.controls}
  each = setting.count * len(controls)
  results: list[Result] = []
  for number, name in enumerate(setting.questions):
    results += evaluate_episodes(
      ANSWER,
      _questions(name, setting),
      name=name,
      generate=generate,
      controls=controls,
      batch_size=setting.count,
      progress=lambda done, _, before=number * each: progress(
        before + done, each * len(setting.questions)
      ),
    )
  return results


def _questions(name: str, setting: Setting):
  source = DrawnChat(
    {name: 1.0},
    turns=(1,),
    split=setting.split,
    seed=setting.seed,
    size=setting.count,
    wordings=1,
  )
  return [source[i] for i in range(len(source))]
