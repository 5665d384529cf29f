"""RareAct's measure: mean weighted average precision (arXiv 2008.01018).

Clips are ranked by their score for each class, a pair of a verb and a noun.
What counts as negative for a class is told by the annotation of a clip:

  0  neither verb nor noun      2, 3, 4  one of the two, or both but apart
  1  positive for its own class, and negative for every other one: hard when
     that class has the same verb or the same noun, easy when it has neither

A clip weighs one over the number of clips of its video among the positives,
the hard or the easy negatives of the class, so that long videos do not count
for more. The mean is over the classes that have positives.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from mmjax.typing import Float

_NEGATIVE, _POSITIVE = 0, 1
_LABELS = range(5)


@dataclasses.dataclass(frozen=True)
class Clip:
  """A row of RareAct's annotations.

  Attributes:
    video: which the clip is cut from.
    class_id: of the verb and noun it was annotated for; a column of scores.
    verb, noun: the class.
    label: 0 to 4, see the module.
  """

  video: str
  class_id: int
  verb: str
  noun: str
  label: int


def mwap(
  scores: Float[np.ndarray, "clips classes"], clips: Sequence[Clip]
) -> tuple[float, dict[int, float]]:
  """mWAP in percent, and that of each class with positives.

  Args:
    scores: of every clip for every class, higher is likelier.
    clips: their annotations, in the order of the rows.
  """
  scores = np.asarray(scores, np.float64)
  classes = _check(scores, clips)
  each = {}
  for class_id in classes:
    rows, positive, weights = _ranked(class_id, classes, clips)
    if positive.any():
      each[class_id] = 100 * weighted_average_precision(
        scores[rows, class_id], positive, weights
      )
  if not each:
    raise ValueError("No clip is positive; average precision is not defined.")
  return float(np.mean(list(each.values()))), each


def weighted_average_precision(
  scores: Float[np.ndarray, "clips"],
  positive: np.ndarray,
  weights: Float[np.ndarray, "clips"],
) -> float:
  """Area under the steps of precision over recall, from 0 to 1.

  Clips of equal score enter the ranking together.
  """
  values, place = np.unique(-np.asarray(scores), return_inverse=True)
  total = np.cumsum(np.bincount(place, weights, len(values)))
  right = np.cumsum(np.bincount(place, weights * positive, len(values)))
  recall = np.diff(right / right[-1], prepend=0.0)
  return float(recall @ (right / total))


def _ranked(
  class_id: int, classes: dict[int, tuple[str, str]], clips: Sequence[Clip]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The clips that a class ranks: rows, which are positive, weights."""
  groups = list(_groups(class_id, classes[class_id], clips))
  counts = collections.Counter((clips[row].video, kind) for row, kind in groups)
  return (
    np.array([row for row, _ in groups]),
    np.array([kind == "positive" for _, kind in groups]),
    np.array([1 / counts[clips[row].video, kind] for row, kind in groups]),
  )


def _groups(
  class_id: int, words: tuple[str, str], clips: Sequence[Clip]
) -> Iterator[tuple[int, str]]:
  """(row, kind) of every clip that counts for a class."""
  for row, clip in enumerate(clips):
    if clip.class_id == class_id:
      kinds = {_POSITIVE: "positive", _NEGATIVE: "easy"}
      yield row, kinds.get(clip.label, "hard")
    elif clip.label == _POSITIVE:
      shared = clip.verb == words[0] or clip.noun == words[1]
      yield row, "hard" if shared else "easy"


def _check(scores, clips: Sequence[Clip]) -> dict[int, tuple[str, str]]:
  """The classes, once everything about them fits."""
  if scores.ndim != 2 or len(scores) != len(clips) or not len(clips):
    raise ValueError(
      f"Scores of shape {scores.shape} for {len(clips)} clips; expected a row "
      "of all classes for each, and at least one."
    )
  if np.isnan(scores).any():
    raise ValueError("The scores hold NaN; an order of them is not defined.")
  classes: dict[int, tuple[str, str]] = {}
  for clip in clips:
    if clip.label not in _LABELS or not 0 <= clip.class_id < scores.shape[1]:
      raise ValueError(
        f"{clip}: expected a label of 0 to 4 and a class_id below "
        f"{scores.shape[1]}, the number of columns."
      )
    words = classes.setdefault(clip.class_id, (clip.verb, clip.noun))
    if words != (clip.verb, clip.noun):
      raise ValueError(f"{clip}: its class is {words} elsewhere.")
  if len(set(classes.values())) < len(classes):
    raise ValueError("Two class_ids have the same verb and noun.")
  return classes
