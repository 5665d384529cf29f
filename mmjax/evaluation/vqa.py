"""VQA accuracy: agreement with ten human answers, as VQAv2 defines it.

A prediction earns min(1, matches / 3) against the other nine annotations, for
each of the ten, averaged. Both sides are normalised first: punctuation, number
words, articles, contractions. The normalisation keeps the habits of the
official code, because published numbers depend on them:

- A mark is deleted where it touches a space or where the string holds a comma
  between digits; otherwise it becomes a space ("t-shirt" -> "t shirt").
- A full stop goes unless a digit follows; only the first 32 of them are seen.
- Contractions have one apostrophe restored ("dont" -> "don't"); one entry of
  the table works the wrong way round ("somebody'd" -> "somebodyd").

Two protocols differ in what is normalised. `always` (OpenFlamingo, VizWiz,
OK-VQA tools): prediction and annotations, fully. `disagreement` (the first
VQA release): the prediction fully, the annotations lose punctuation only, and
only when the annotators differ.
"""

import re
from collections.abc import Sequence

import numpy as np

PROTOCOLS = ("always", "disagreement")
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The official call passes a regex flag where the number of replacements goes.
_MOST_FULL_STOPS = int(re.UNICODE)

_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(i) for i, word in enumerate(_NUMBER_WORDS.split())}
_NUMBERS["none"] = "0"

# Each is found when exactly one of its apostrophes is missing.
_CONTRACTED = """
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
  hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd
  it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
  not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't
  shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
  someone'll someone's something'd something'd've something'll that's there'd
  there'd've there're there's they'd they'd've they'll they're they've 'twas
  wasn't we'd've we've weren't what'll what're what's what've when's where'd
  where's where've who'd who'd've who'll who's who've why'll why're why's
  won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
  you'll you're you've
"""


def _contractions() -> dict[str, str]:
  table = {"somebody'd": "somebodyd"}
  for word in _CONTRACTED.split():
    for at in (i for i, char in enumerate(word) if char == "'"):
      table[word[:at] + word[at + 1 :]] = word
  return table


_CONTRACTIONS = _contractions()


def strip_punctuation(text: str) -> str:
  """Deletes marks, or puts a space in their place."""
  comma = _COMMA.search(text) is not None
  result = text
  for mark in _MARKS:
    loose = comma or f"{mark} " in text or f" {mark}" in text
    result = result.replace(mark, "" if loose else " ")
  return _FULL_STOP.sub("", result, count=_MOST_FULL_STOPS)


def normalize(answer: str) -> str:
  """An answer as it is compared: `The two Dogs.` is `2 dogs`."""
  text = answer.replace("\n", " ").replace("\t", " ").strip()
  words = (_NUMBERS.get(w, w) for w in strip_punctuation(text).lower().split())
  kept = (w for w in words if w not in _ARTICLES)
  return " ".join(_CONTRACTIONS.get(w, w) for w in kept)


def accuracy(
  prediction: str, answers: Sequence[str], protocol: str = "always"
) -> float:
  """VQA accuracy of one prediction, from 0 to 1.

  An empty prediction agrees with annotations that normalise to nothing ("the",
  "."), as in the official code. Letters are compared as they are encoded: an
  accent of its own differs from an accented letter.

  Args:
    prediction: what the model answered.
    answers: the annotations, ten of them in VQAv2. Fewer than four cannot
      give 1, since three others must agree.
    protocol: which strings are normalised, "always" or "disagreement"; see
      the top of this file.
  """
  if not isinstance(prediction, str):
    raise ValueError(f"The prediction is {prediction!r}, no string.")
  if isinstance(answers, str):
    raise ValueError(f"The annotations are one string, {answers!r}, no list.")
  if not answers:
    raise ValueError(
      f"No annotation to compare {prediction!r} with. Give the answers of all "
      "annotators (ten in VQAv2), or leave the question out."
    )
  if protocol not in PROTOCOLS:
    raise ValueError(
      f"Unknown protocol {protocol!r}; expected 'always' or 'disagreement'."
    )
  if len(answers) == 1:
    raise ValueError(
      f"One annotation, {answers[0]!r}, has no others to agree with: VQA "
      "accuracy would be 0 whatever was predicted. Use exact match."
    )
  if protocol == "always":
    answers = [normalize(a) for a in answers]
  elif len(set(answers)) > 1:
    answers = [strip_punctuation(a) for a in answers]
  prediction = normalize(prediction)
  hits = np.array([a == prediction for a in answers])
  return float(np.mean(np.minimum(1.0, (hits.sum() - hits) / 3)))


def vqa_accuracy(
  predictions: Sequence[str],
  answers: Sequence[Sequence[str]],
  protocol: str = "always",
) -> float:
  """Mean VQA accuracy over questions, in percent."""
  if len(predictions) != len(answers) or not predictions:
    raise ValueError(
      f"{len(predictions)} predictions for {len(answers)} questions; expected "
      "one of each, and at least one."
    )
  scores = [accuracy(p, a, protocol) for p, a in zip(predictions, answers)]
  return 100 * float(np.mean(scores))
