"""The tasks of the papers as data: how each is asked, cleaned and scored.

A record of a task is a Document whose metadata holds what its template names
(`question`, `text`, ...), `answer` (what a support example shows) and
`answers` (what counts as right; without it, `answer`).
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.config import lookup
from mmjax.evaluation import caption, classification, rareact, stemming, vqa
from mmjax.text.prompts.templates import TEMPLATES, Template

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
  """How a task is asked and scored.

  Attributes:
    template: name of a template of the style.
    metric: name of one of METRICS.
    choices: the answers a closed-ended task chooses from by their
      likelihood; none of them: each record brings its own as `choices`. None:
      the model writes its answer.
    by_class: support pools hold as many examples of every class.
    max_new_tokens: how long a written answer may get; whoever makes the
      `generate` function reads it here.
  """

  template: str
  metric: str
  choices: tuple[str, ...] | None = None
  by_class: bool = False
  max_new_tokens: int = 20

  def __post_init__(self):
    lookup(METRICS, self.metric, "metric")

  @property
  def closed(self) -> bool:
    return self.choices is not None


@dataclasses.dataclass(frozen=True)
class Cleaning:
  """What becomes of a written answer.

  Attributes:
    cut: it ends before the first of these, words of a prompt that the model
      goes on with when it does not stop.
    until: and before this.
    remove: characters that are deleted.
  """

  cut: tuple[str, ...]
  until: str = ""
  remove: str = ""

  def __call__(self, text: str) -> str:
    text = re.split("|".join(map(re.escape, self.cut)), text, maxsplit=1)[0]
    if self.until:
      text = text.split(self.until, 1)[0]
    return "".join(c for c in text if c not in self.remove).strip()


@dataclasses.dataclass(frozen=True)
class Style:
  """One paper's way to evaluate.

  Attributes:
    templates: by name.
    cleaning: by name of a template; "" is for all others.
    mean_per_token: whether the likelihood of an answer is divided by its
      number of tokens.
    score_end: whether the token that ends an answer is one of them.
    text_only_closed: whether zero shots show text-only examples where answers
      are chosen, and not only where they are written.
    rices_text_only: whether RICES chooses the text-only examples of zero shots
      too, whose media only their choice tells of; else they are random.
  """

  templates: Mapping[str, Template]
  cleaning: Mapping[str, Cleaning]
  mean_per_token: bool
  score_end: bool
  text_only_closed: bool
  rices_text_only: bool

  def template(self, task: Task) -> Template:
    return lookup(self.templates, task.template, "template")

  def clean(self, task: Task, text: str) -> str:
    clean = self.cleaning.get(task.template, self.cleaning[""])
    return clean(text)


_MARKS = ("<EOC>", "<|endofchunk|>", "<image>")
STYLES = {
  "flamingo": Style(
    TEMPLATES["flamingo"],
    {"": Cleaning((*_MARKS, "Output:", "Question:", "Answer:", "Caption:"))},
    mean_per_token=False,
    score_end=True,
    text_only_closed=False,
    rices_text_only=False,
  ),
  "open_flamingo": Style(
    TEMPLATES["open_flamingo"],
    {
      "": Cleaning((*_MARKS, "Output"), remove='"'),
      "vqa": Cleaning((*_MARKS, "Question", "Answer", "Short"), until=", "),
    },
    mean_per_token=True,
    score_end=False,
    text_only_closed=True,
    rices_text_only=True,
  ),
}


def dialogue(opening: str, turns: Sequence[tuple[str, str]]) -> str:
  """The `dialogue` field of VisDial: a caption, then the turns so far.

  dialogue("a dog", [("is it big?", "no")])
  ->  "a dog Question: is it big? Answer: no "
  """
  parts = [opening, *(f"Question: {q} Answer: {a}" for q, a in turns)]
  return "".join(f"{part} " for part in parts if part)


def answers(metadata: Mapping[str, Any]) -> list[str]:
  """What counts as right for a record; nothing where it is not public."""
  answer = metadata.get("answer")
  return list(metadata.get("answers") or ([answer] if answer else []))


Metric = Callable[[Sequence[Record]], tuple[float, list[float] | None]]


def _vqa(records: Sequence[Record]) -> tuple[float, list[float]]:
  scores = [100 * vqa.accuracy(r["prediction"], r["answers"]) for r in records]
  return float(np.mean(scores)), scores


def _okvqa(records: Sequence[Record]) -> tuple[float, list[float]]:
  """VQA accuracy of stemmed predictions; the annotations are stemmed."""
  if lacking := [r["id"] for r in records if "raw_answers" not in r]:
    raise ValueError(
      f"No `raw_answers` in the metadata of {lacking[:3]}, from which OK-VQA's "
      'stems are learnt. Score other annotations with the metric "vqa".'
    )
  pairs = [zip(r["raw_answers"], r["answers"]) for r in records]
  stem = stemming.Stemmer(itertools.chain.from_iterable(pairs))
  return _vqa([r | {"prediction": stem(r["prediction"])} for r in records])


def _mwap(records: Sequence[Record]) -> tuple[float, None]:
  """RareAct: scores of all classes for clips described by `clip`."""
  clips = [rareact.Clip(**r["clip"]) for r in records]
  return rareact.mwap(np.array([r["scores"] for r in records]), clips)[0], None


def _exact(records: Sequence[Record]) -> tuple[float, list[float]]:
  hits = [
    100.0 * classification.is_match(r["prediction"], r["answers"])
    for r in records
  ]
  return float(np.mean(hits)), hits


def _ivqa(records: Sequence[Record]) -> tuple[float, list[float]]:
  """Half for an answer of one of iVQA's five annotators, all for two.

  Yang et al., Just Ask (arXiv 2012.00451), section 5.
  """
  scores = []
  for record in records:
    agree = sum(
      classification.is_match(record["prediction"], [answer])
      for answer in record["answers"]
    )
    scores.append(100.0 * min(agree / 2, 1.0))
  return float(np.mean(scores)), scores


def _cider(records: Sequence[Record]) -> tuple[float, list[float]]:
  predictions = [caption.ptb.caption(r["prediction"]) for r in records]
  references = [[caption.ptb.caption(a) for a in r["answers"]] for r in records]
  mean, scores = caption.cider_d(predictions, references)
  return 100 * mean, [100 * float(s) for s in scores]


def _labels(records: Sequence[Record]) -> np.ndarray:
  """Which of its choices each record's answer is.

  Raises:
    ValueError: when it is none of them.
  """
  for record in records:
    if record["answers"][0] not in record["choices"]:
      raise ValueError(
        f"The answer of {record['id']!r} is {record['answers'][0]!r}, none of "
        f"the choices {record['choices'][:5]}."
      )
  return np.array([r["choices"].index(r["answers"][0]) for r in records])


def _auc(records: Sequence[Record]) -> tuple[float, None]:
  """Of two choices, the second is the positive one."""
  scores = [r["scores"][1] - r["scores"][0] for r in records]
  labels = _labels(records)
  return classification.roc_auc(np.array(scores), labels), None


def _per_class(records: Sequence[Record]) -> tuple[float, list[float]]:
  _, hits = _exact(records)
  labels = np.array([r["answers"][0] for r in records])
  means = [np.mean(np.array(hits)[labels == c]) for c in sorted(set(labels))]
  return float(np.mean(means)), hits


def _ndcg(records: Sequence[Record]) -> tuple[float, list[float]]:
  """Ranking of the choices against their `relevance` (VisDial)."""
  scores = [
    classification.ndcg(np.array(r["scores"]), np.array(r["relevance"]))
    for r in records
  ]
  return float(np.mean(scores)), scores


def _top_1_and_5(records: Sequence[Record]) -> tuple[float, list[float]]:
  """Mean of top-1 and top-5 accuracy (Kinetics)."""
  scores = np.array([r["scores"] for r in records])
  labels = _labels(records)
  one, five = (classification.top_k_accuracy(scores, labels, k) for k in (1, 5))
  return (one + five) / 2, _exact(records)[1]


METRICS: Mapping[str, Metric] = {
  "vqa": _vqa,
  "exact": _exact,
  "ivqa": _ivqa,
  "cider": _cider,
  "auc": _auc,
  "per_class": _per_class,
  "top_1_and_5": _top_1_and_5,
  "ndcg": _ndcg,
  "okvqa": _okvqa,
  "mwap": _mwap,
}
# Those that look at something else than a record's answers.
WITHOUT_ANSWERS = frozenset({"ndcg", "mwap"})

_CAPTION = Task("caption", "cider")
_VQA = Task("vqa", "vqa", max_new_tokens=5)
_VIDEO_QA = Task("vqa", "exact", max_new_tokens=5)
TASKS: Mapping[str, Task] = {
  "coco": _CAPTION,
  "flickr30k": _CAPTION,
  "vatex": _CAPTION,
  "youcook2": _CAPTION,
  "vqav2": _VQA,
  "okvqa": dataclasses.replace(_VQA, metric="okvqa"),
  "vizwiz": _VQA,
  "textvqa": dataclasses.replace(_VQA, max_new_tokens=10),
  "msvdqa": _VIDEO_QA,
  "msrvttqa": _VIDEO_QA,
  "ivqa": dataclasses.replace(_VIDEO_QA, metric="ivqa"),
  "hateful_memes": Task("hateful_memes", "auc", choices=("no", "yes")),
  "visdial": Task("visdial", "ndcg", choices=()),
  "star": Task("vqa", "exact", choices=()),
}


def classes(
  names: Sequence[str],
  metric: str = "exact",
  template: str = "classification",
) -> Task:
  """A task that chooses among class names (ImageNet, Kinetics, RareAct)."""
  if len(set(names)) < max(len(names), 2):
    raise ValueError(
      f"{len(names)} class names, {len(set(names))} different ones; expected "
      "at least two, all different."
    )
  return Task(template, metric, choices=tuple(names), by_class=True)


# Best published results with fine-tuning, of the paper's five DEV sets.
STATE_OF_THE_ART = {
  "coco": 143.3,
  "okvqa": 54.4,
  "vqav2": 80.2,
  "msvdqa": 47.9,
  "vatex": 76.3,
}


def overall_score(scores: Mapping[str, float]) -> float:
  """The paper's one number: mean of score over state of the art, in percent.

  Args:
    scores: of the five DEV sets, by name of STATE_OF_THE_ART.
  """
  if scores.keys() != STATE_OF_THE_ART.keys():
    raise ValueError(
      f"Scores of {sorted(scores)}; expected {sorted(STATE_OF_THE_ART)}."
    )
  parts = [scores[name] / best for name, best in STATE_OF_THE_ART.items()]
  return 100 * float(np.mean(parts))
