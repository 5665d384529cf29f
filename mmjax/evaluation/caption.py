"""Scores of captions against references: CIDEr, BLEU and ROUGE-L.

Every score takes tokenized strings: words joined by single spaces, as
`ptb.caption` makes them; `score` does both steps. Definitions are those of the
COCO caption code:

- `cider_d` is what that code reports as "CIDEr", and what papers quote: counts
  clipped to the reference and a Gaussian penalty on the length difference.
  `cider` is the measure of the CIDEr paper, without the two.
- `bleu` is corpus BLEU with the reference length closest to each prediction.
- `rouge_l` is the F-measure (beta 1.2) of the longest common subsequence, its
  precision and recall each the best over the references.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmjax.evaluation import ptb

MAX_N = 4
_NONE_RIGHT = 1e-15  # keeps a product defined when no n-gram is right
_NONE_GIVEN = 1e-9  # keeps a ratio defined when a prediction is empty
_ROUGE_BETA = 1.2
_CIDER_SIGMA = 6.0

References = Sequence[Sequence[str]]


def score(
  predictions: Sequence[str], references: References
) -> dict[str, float]:
  """All scores of raw captions, in percent.

  Args:
    predictions: one caption an image.
    references: the reference captions of each image.

  Returns:
    CIDEr, BLEU-1 to BLEU-4 and ROUGE-L, times 100 as papers print them.
  """
  _check(predictions, references)
  predictions = [ptb.caption(p) for p in predictions]
  references = [[ptb.caption(r) for r in refs] for refs in references]
  names = [f"BLEU-{n}" for n in range(1, MAX_N + 1)]
  scores = {"CIDEr": cider_d(predictions, references)[0]}
  scores |= dict(zip(names, bleu(predictions, references)))
  scores["ROUGE-L"] = rouge_l(predictions, references)[0]
  return {name: 100 * float(value) for name, value in scores.items()}


def ngrams(text: str) -> Counter:
  """How often each n-gram of one to four words occurs."""
  words = text.split()
  return Counter(
    tuple(words[i : i + n])
    for n in range(1, MAX_N + 1)
    for i in range(len(words) - n + 1)
  )


def bleu(predictions: Sequence[str], references: References) -> list[float]:
  """Corpus BLEU-1 to BLEU-4, from 0 to 1."""
  _check(predictions, references)
  right, given = np.zeros(MAX_N), np.zeros(MAX_N)
  length = reference_length = 0
  for prediction, refs in zip(predictions, references):
    counts = ngrams(prediction)
    allowed: Counter = Counter()
    for ref in refs:
      allowed |= ngrams(ref)
    for gram, count in (counts & allowed).items():
      right[len(gram) - 1] += count
    for gram, count in counts.items():
      given[len(gram) - 1] += count
    words = len(prediction.split())
    lengths = [len(ref.split()) for ref in refs]
    length += words
    reference_length += min(lengths, key=lambda n: (abs(n - words), n))
  precision = (right + _NONE_RIGHT) / (given + _NONE_GIVEN)
  scores = np.cumprod(precision) ** (1 / np.arange(1, MAX_N + 1))
  ratio = (length + _NONE_RIGHT) / (reference_length + _NONE_GIVEN)
  return list(scores * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0))


def rouge_l(
  predictions: Sequence[str], references: References
) -> tuple[float, np.ndarray]:
  """ROUGE-L, from 0 to 1: the mean, and the score of each image."""
  _check(predictions, references)
  scores = np.array(
    [_rouge_one(p, refs) for p, refs in zip(predictions, references)]
  )
  return float(scores.mean()), scores


def _rouge_one(prediction: str, references: Sequence[str]) -> float:
  # Splitting at single spaces gives an empty caption one empty word, so the
  # ratios below are always defined.
  words = prediction.split(" ")
  others = [ref.split(" ") for ref in references]
  common = [_common_subsequence(words, other) for other in others]
  precision = max(common) / len(words)
  recall = max(c / len(other) for c, other in zip(common, others))
  if not precision:
    return 0.0
  weight = _ROUGE_BETA**2
  return (1 + weight) * precision * recall / (recall + weight * precision)


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
  """Length of the longest common subsequence."""
  best = [0] * (len(right) + 1)
  for word in left:
    diagonal = 0
    for j, other in enumerate(right, start=1):
      above = best[j]
      best[j] = diagonal + 1 if word == other else max(above, best[j - 1])
      diagonal = above
  return best[-1]


def cider_d(
  predictions: Sequence[str], references: References
) -> tuple[float, np.ndarray]:
  """CIDEr-D, from 0 to 10: the mean, and the score of each image.

  A word that is in the references of every image weighs nothing, so that the
  score of a single image is 0.
  """
  return _cider(predictions, references, clipped=True)


def cider(
  predictions: Sequence[str], references: References
) -> tuple[float, np.ndarray]:
  """CIDEr of the paper, from 0 to 10: the mean, and the score of each image.

  The paper does not clip counts, has no penalty on length, and does not scale
  by ten; the last is done here too, so that the two measures share a scale.
  """
  return _cider(predictions, references, clipped=False)


def _cider(
  predictions: Sequence[str], references: References, clipped: bool
) -> tuple[float, np.ndarray]:
  _check(predictions, references)
  counted = [[ngrams(ref) for ref in refs] for refs in references]
  documents: Counter = Counter()
  for refs in counted:
    documents.update(set().union(*refs))
  total = math.log(len(references))
  scores = np.zeros(len(predictions))
  for i, (prediction, refs) in enumerate(zip(predictions, counted)):
    vector = _Weighted(ngrams(prediction), documents, total)
    others = [_Weighted(ref, documents, total) for ref in refs]
    scores[i] = 10 * np.mean([vector.similarity(o, clipped) for o in others])
  return float(scores.mean()), scores


class _Weighted:
  """n-gram counts times inverse document frequency, one vector for each n."""

  def __init__(self, counts: Counter, documents: Counter, total: float):
    self.weights = {
      gram: count * (total - math.log(max(1, documents[gram])))
      for gram, count in counts.items()
    }
    self.norms = np.zeros(MAX_N)
    for gram, weight in self.weights.items():
      self.norms[len(gram) - 1] += weight**2
    self.norms = np.sqrt(self.norms)
    # The official code takes the number of word pairs for the length.
    self.length = sum(n for gram, n in counts.items() if len(gram) == 2)

  def similarity(self, other: "_Weighted", clipped: bool) -> float:
    """Mean over n of the cosine; clipped and with the length penalty if so."""
    products = np.zeros(MAX_N)
    for gram, weight in self.weights.items():
      theirs = other.weights.get(gram, 0.0)
      mine = min(weight, theirs) if clipped else weight
      products[len(gram) - 1] += mine * theirs
    scale = self.norms * other.norms
    cosine = np.divide(products, scale, out=products, where=scale != 0)
    if clipped:
      delta = self.length - other.length
      cosine *= math.exp(-(delta**2) / (2 * _CIDER_SIGMA**2))
    return float(cosine.mean())


def _check(predictions: Sequence[str], references: References) -> None:
  if len(predictions) != len(references) or not len(predictions):
    raise ValueError(
      f"{len(predictions)} captions for {len(references)} images; expected "
      "one of each, and at least one."
    )
  if empty := [i for i, refs in enumerate(references) if not len(refs)]:
    raise ValueError(f"No reference caption for the image(s) {empty[:5]}.")
  if any(isinstance(refs, str) for refs in references):
    raise ValueError(
      "The references of an image are one string; expected a list of strings."
    )
  texts = [*predictions, *(ref for refs in references for ref in refs)]
  if other := [text for text in texts if not isinstance(text, str)]:
    raise ValueError(f"A caption is {other[0]!r}, no string.")
