"""Accuracy, mean per-class accuracy, area under the ROC curve, and NDCG."""

from collections.abc import Sequence

import numpy as np

from mmjax.typing import Float, Int


def exact_match(
  predictions: Sequence[str], answers: Sequence[str | Sequence[str]]
) -> float:
  """Percent of predictions that equal an accepted answer.

  Case, outer white space and a final full stop do not count.
  """
  _same_length(predictions, answers)
  hits = [is_match(p, a) for p, a in zip(predictions, answers)]
  return 100 * float(np.mean(hits))


def is_match(prediction: str, answer: str | Sequence[str]) -> bool:
  """Whether a prediction equals the answer, or one of several."""
  accepted = [answer] if isinstance(answer, str) else answer
  if not accepted:
    raise ValueError(f"No answer to compare {prediction!r} with.")
  return _plain(prediction) in {_plain(a) for a in accepted}


def _plain(text: str) -> str:
  return " ".join(text.lower().split()).removesuffix(".").rstrip()


def top_k_accuracy(
  scores: Float[np.ndarray, "examples classes"],
  labels: Int[np.ndarray, "examples"],
  k: int = 1,
) -> float:
  """Percent of examples whose label is among the k best scores.

  Of equal scores the lower class index is the better one, so that a model that
  scores all classes alike is right only where the label is below k.
  """
  scores, labels = _scored(scores, labels)
  if not 1 <= k <= scores.shape[1]:
    raise ValueError(f"k is {k}; expected 1 to {scores.shape[1]} classes.")
  best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
  return 100 * float(np.mean(np.any(best == labels[:, None], axis=1)))


def per_class_accuracy(
  predictions: Int[np.ndarray, "examples"], labels: Int[np.ndarray, "examples"]
) -> float:
  """Accuracy of each class that has examples, averaged, in percent."""
  _same_length(predictions, labels)
  predictions, labels = np.asarray(predictions), np.asarray(labels)
  hits = predictions == labels
  return 100 * float(np.mean([hits[labels == c].mean() for c in set(labels)]))


def roc_auc(
  scores: Float[np.ndarray, "examples"], labels: Int[np.ndarray, "examples"]
) -> float:
  """Percent of (positive, negative) pairs in the right order; a tie is half.

  Args:
    scores: higher means more likely positive.
    labels: 1 for positive, 0 for negative.
  """
  _same_length(scores, labels)
  scores, labels = _ordered(scores), np.asarray(labels)
  if not np.isin(labels, (0, 1)).all():
    raise ValueError(f"Labels {np.unique(labels)[:5]}; expected 0 and 1.")
  positive = labels.astype(bool)
  if positive.all() or not positive.any():
    raise ValueError(
      f"All {len(positive)} examples have the label {int(positive[0])}; the "
      "area under the ROC curve needs both."
    )
  _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
  rank = (np.cumsum(size) - (size - 1) / 2)[group]
  n = int(positive.sum())
  above = rank[positive].sum() - n * (n + 1) / 2
  return 100 * float(above / (n * (len(scores) - n)))


def ndcg(
  scores: Float[np.ndarray, "answers"], relevance: Float[np.ndarray, "answers"]
) -> float:
  """Normalised discounted gain of one ranking, in percent (VisDial).

  As many ranks count as there are relevant answers. Of equal scores the
  earlier answer ranks higher.

  Args:
    scores: of the candidate answers, higher is better.
    relevance: of each, 0 or more.
  """
  _same_length(scores, relevance)
  scores, relevance = _ordered(scores), np.asarray(relevance, np.float64)
  if not np.all(np.isfinite(relevance) & (relevance >= 0)):
    raise ValueError("A relevance is negative or not finite.")
  ranks = np.count_nonzero(relevance > 0)
  if not ranks:
    raise ValueError("No candidate answer is relevant; NDCG is not defined.")
  discount = 1 / np.log2(np.arange(ranks) + 2)
  order = np.argsort(-scores, kind="stable")[:ranks]
  best = np.sort(relevance)[::-1][:ranks]
  return 100 * float((relevance[order] @ discount) / (best @ discount))


def _scored(scores, labels) -> tuple[np.ndarray, np.ndarray]:
  _same_length(scores, labels)
  scores, labels = _ordered(scores), np.asarray(labels)
  if scores.ndim != 2:
    raise ValueError(
      f"Scores of shape {scores.shape}; expected [examples, classes]."
    )
  if labels.min() < 0 or labels.max() >= scores.shape[1]:
    raise ValueError(
      f"Labels from {labels.min()} to {labels.max()} for "
      f"{scores.shape[1]} classes."
    )
  return scores, labels


def _ordered(scores) -> np.ndarray:
  scores = np.asarray(scores, np.float64)
  if np.isnan(scores).any():
    raise ValueError("The scores hold NaN; an order of them is not defined.")
  return scores


def _same_length(given, expected) -> None:
  if len(given) != len(expected) or not len(given):
    raise ValueError(
      f"{len(given)} predictions for {len(expected)} examples; expected one "
      "of each, and at least one."
    )
