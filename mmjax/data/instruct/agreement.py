"""How alike two texts are where the shorter fits the longer best."""

import re
import string

# Above this, X-InstructBLIP takes two texts for the same.
SAME = 90.0
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_MARKS = str.maketrans(dict.fromkeys(string.punctuation, " "))


def plain(text: str) -> str:
  """Lower case, without articles and punctuation.

  "The (red) Chair." -> "red chair"
  """
  text = text.lower().translate(_NO_MARKS)
  return " ".join(_ARTICLES.sub(" ", text).split())


def agree(a: str, b: str, least: float = SAME) -> bool:
  """Whether one text is in the other, but for some letters.

  Texts of articles and marks alone agree with nothing.
  """
  a, b = plain(a), plain(b)
  return bool(a and b) and partial_ratio(a, b) > least


def partial_ratio(a: str, b: str) -> float:
  """In percent, as `fuzz.partial_ratio` of RapidFuzz.

  The best of 2 · common / (both lengths) over all windows of the longer text
  that are as long as the shorter, and the shorter ones at its ends; common is
  the length of the longest common subsequence.

  "chair", "a red chair" -> 100.0
  """
  if len(a) > len(b):
    a, b = b, a
  if not a:
    return 0.0 if b else 100.0
  best = _best_window(a, b)
  return max(best, _best_window(b, a)) if len(a) == len(b) else best


def _best_window(short: str, long: str) -> float:
  places: dict[str, int] = {}
  for i, letter in enumerate(short):
    places[letter] = places.get(letter, 0) | 1 << i
  best = 0.0
  for start in range(1 - len(short), len(long)):
    window = long[max(start, 0) : start + len(short)]
    common = _common(places, len(short), window)
    best = max(best, 200 * common / (len(short) + len(window)))
  return best


def _common(places: dict[str, int], size: int, text: str) -> int:
  """Length of the longest common subsequence (Hyyrö's bits).

  Args:
    places: of each letter of one text, a bit for each.
    size: of that text.
    text: the other.
  """
  every = (1 << size) - 1
  free = every
  for letter in text:
    taken = free & places.get(letter, 0)
    free = (free + taken | free - taken) & every
  return size - free.bit_count()
