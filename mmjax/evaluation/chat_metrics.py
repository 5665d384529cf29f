"""Metrics of benchmarks that are asked as a chat, as their authors count.

A metric takes records (`prediction`, `answers`, and what else the metadata of
a task's source hold) and gives scores by name, the most quoted one first, in
percent, and what each record is worth. An answer that could not be read has
the prediction None and is wrong.
"""

import collections
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.evaluation import caption, discrn, tasks, vqa

Record = dict[str, Any]
Scores = dict[str, float]
Metric = Callable[[Sequence[Record]], tuple[Scores, list[float]]]


def _hits(records: Sequence[Record]) -> list[float]:
  return [100.0 * (r["prediction"] == r["answers"][0]) for r in records]


def _mean(values: Iterable[float]) -> float:
  return float(np.mean(list(values)))


def _vqa(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  each = [100 * vqa.accuracy(r["prediction"], r["answers"]) for r in records]
  return {"accuracy": _mean(each)}, each


def _exact(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  each = _hits(records)
  return {"accuracy": _mean(each)}, each


def _normalized(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  """Exact match with any answer, both written as VQA compares them.

  The original of X-InstructBLIP writes only the prediction so: what is
  answered with "two", which it makes a 2, cannot be right there.
  """
  said = [vqa.normalize(r["prediction"]) for r in records]
  hits = [
    100.0 * (text in map(vqa.normalize, r["answers"]))
    for text, r in zip(said, records)
  ]
  raw = [100.0 * (text in r["answers"]) for text, r in zip(said, records)]
  return {"accuracy": _mean(hits), "original": _mean(raw)}, hits


def _pope(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  """Of every split, "yes" being what is looked for; the mean F1 of all."""
  splits = _groups(records, "split")
  each = {name: _detection(part) for name, part in splits.items()}
  scores = {"f1": _mean(found["f1"] for found in each.values())}
  for name, found in each.items():
    scores |= {f"{name}/{key}": value for key, value in found.items()}
  return scores, _hits(records)


def _detection(records: Sequence[Record]) -> Scores:
  """A ratio of nothing is 0: a model that never says yes is no good at it."""
  said = np.array([r["prediction"] == "yes" for r in records])
  true = np.array([r["answers"][0] == "yes" for r in records])
  both = int((said & true).sum())
  precision = both / max(int(said.sum()), 1)
  recall = both / max(int(true.sum()), 1)
  f1 = 2 * precision * recall / (precision + recall) if both else 0.0
  accuracy = float((said == true).mean())
  return {
    "f1": 100 * f1,
    "accuracy": 100 * accuracy,
    "precision": 100 * precision,
    "recall": 100 * recall,
    "yes": 100 * float(said.mean()),
  }


MME_SUMS = {
  "perception": (
    *("existence", "count", "position", "color", "posters", "celebrity"),
    *("scene", "landmark", "artwork", "OCR"),
  ),
  "cognition": (
    *("commonsense_reasoning", "numerical_calculation"),
    *("text_translation", "code_reasoning"),
  ),
}


def _mme(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  """Accuracy and accuracy+ of every category, 200 together; their sums.

  Accuracy+ asks for both answers about a picture. One of which a limit has
  left a single question does not count there; without any other it is 0.
  """
  parts: Scores = {}
  totals: Scores = {}
  for name, part in _groups(records, "category").items():
    right = _groups(part, "picture")
    pairs = [_hits(pair) for pair in right.values() if len(pair) > 1]
    plus = _mean(100.0 * all(pair) for pair in pairs) if pairs else 0.0
    accuracy = _mean(_hits(part))
    totals[name] = accuracy + plus
    parts |= {
      name: totals[name],
      f"{name}/accuracy": accuracy,
      f"{name}/accuracy+": plus,
    }
  sums = {
    kind: sum(totals[name] for name in names if name in totals)
    for kind, names in MME_SUMS.items()
    if totals.keys() & set(names)
  }
  return sums | parts, _hits(records)


# As in table 4 of arXiv 2209.09513: a question with a text and a picture is in
# both of TXT and IMG, one with neither is in NO.
_SCIENCEQA: Mapping[str, Callable[[Record], bool]] = {
  "average": lambda r: True,
  "NAT": lambda r: r["subject"] == "natural science",
  "SOC": lambda r: r["subject"] == "social science",
  "LAN": lambda r: r["subject"] == "language science",
  "TXT": lambda r: r["has_text"],
  "IMG": lambda r: r["has_image"],
  "NO": lambda r: not (r["has_text"] or r["has_image"]),
  "G1-6": lambda r: r["grade"] in {f"grade{i}" for i in range(1, 7)},
  "G7-12": lambda r: r["grade"] in {f"grade{i}" for i in range(7, 13)},
}


def _scienceqa(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  """Accuracy of all and of every part that has questions."""
  hits = _hits(records)
  scores = {}
  for name, is_in in _SCIENCEQA.items():
    part = [hit for hit, record in zip(hits, records) if is_in(record)]
    if part:
      scores[name] = _mean(part)
  return scores, hits


def _discrn(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  """By the strict rule, then by the original's; how often which is named.

  An answer that names both is right by the original's rule alone.
  """
  _need(records, "kinds")
  found = [discrn.named(r["prediction"], r["kinds"]) for r in records]
  hits = [100.0 * (n == {r["label"]}) for n, r in zip(found, records)]
  scores = {
    "accuracy": _mean(hits),
    "original": _mean(
      100.0 * discrn.original(r["prediction"], r["kinds"], r["label"])
      for r in records
    ),
    "both": _mean(100.0 * (len(n) == 2) for n in found),
    "neither": _mean(100.0 * (not n) for n in found),
  }
  return scores, hits


def _caption(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  """CIDEr, BLEU and ROUGE-L of all, the CIDEr of each."""
  scores = caption.score(
    [r["prediction"] for r in records], [r["answers"] for r in records]
  )
  _, each = tasks.METRICS["cider"](records)
  return scores, each


def _mentions(records: Sequence[Record]) -> tuple[Scores, list[float]]:
  """Whether a text has an answer in it: as whole words, and as any part.

  The original of X-InstructBLIP counts any part: "a bus" is in "a busy road".
  """
  hits = [
    100.0 * any(_has_words(r["prediction"], a) for a in r["answers"])
    for r in records
  ]
  parts = [
    100.0 * any(a.lower() in r["prediction"].lower() for a in r["answers"])
    for r in records
  ]
  return {"accuracy": _mean(hits), "original": _mean(parts)}, hits


def _has_words(text: str, answer: str) -> bool:
  pattern = rf"(?<!\w){re.escape(answer.lower())}(?!\w)"
  return re.search(pattern, text.lower()) is not None


def _groups(records: Sequence[Record], key: str) -> dict[str, list[Record]]:
  """Records by what their metadata hold, in the order they come.

  Raises:
    ValueError: for records of another benchmark.
  """
  _need(records, key)
  groups = collections.defaultdict(list)
  for record in records:
    groups[record[key]].append(record)
  return dict(groups)


def _need(records: Sequence[Record], key: str) -> None:
  """What records have to hold.

  Raises:
    ValueError: for records of another benchmark.
  """
  for record in records:
    if key not in record:
      raise ValueError(
        f"{record['id']!r} has no {key!r} to be scored by, only "
        f"{sorted(record)}; is the source that of the task?"
      )


METRICS: Mapping[str, Metric] = {
  "vqa": _vqa,
  "exact": _exact,
  "normalized": _normalized,
  "pope": _pope,
  "mme": _mme,
  "scienceqa": _scienceqa,
  "discrn": _discrn,
  "caption": _caption,
  "mentions": _mentions,
}
