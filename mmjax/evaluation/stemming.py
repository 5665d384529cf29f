"""OK-VQA's stemming, learnt from its annotations.

Its annotators' answers were stemmed before they were counted ("riding
horses" became "ride horse"), so what a model writes must be stemmed alike. An
annotation holds an answer both ways, `raw_answer` and `answer`, and these
pairs are the stemmer:

  riding -> ride    horses -> horse    christmas -> christmas

A word that no annotator used loses a plural's or a participle's ending where
the rest is a stem of the annotations; else it stays as it is.

OpenFlamingo comes to nearly the same with a tagger, WordNet and a table of
exceptions made by looking at these pairs; the models that needs are not in
any package, so scores can differ from its own in words that are rare.
"""

import collections
from collections.abc import Iterable

# (ending, what stands in its place), tried in this order.
_ENDINGS = (
  ("ies", "y"),
  ("ing", "e"),
  ("ing", ""),
  ("es", ""),
  ("s", ""),
)


class Stemmer:
  """Answers as OK-VQA's annotations have them.

  Attributes:
    words: from a word to its stem.
    stems: all of them.
  """

  def __init__(self, pairs: Iterable[tuple[str, str]]):
    """Learns from answers before and after stemming.

    Of two stems of one word the more frequent one is taken, and of equally
    frequent ones the first in the alphabet. Pairs of different numbers of
    words say nothing about a word and are passed over.

    Raises:
      ValueError: when no pair says anything.
    """
    counts = collections.defaultdict(collections.Counter)
    for raw, stemmed in pairs:
      before, after = raw.lower().split(), stemmed.lower().split()
      if len(before) == len(after):
        for word, stem in zip(before, after):
          counts[word][stem] += 1
    if not counts:
      raise ValueError(
        "No stems: expected pairs of OK-VQA's `raw_answer` and `answer`."
      )
    self.words = {
      word: min(found, key=lambda stem: (-found[stem], stem))
      for word, found in counts.items()
    }
    self.stems = frozenset(self.words.values())

  def __call__(self, text: str) -> str:
    """An answer, every word of it stemmed."""
    return " ".join(map(self._stem, text.lower().split()))

  def _stem(self, word: str) -> str:
    if word in self.words:
      return self.words[word]
    found = (stem for stem in _shortened(word) if stem in self.stems)
    return next(found, word)


def _shortened(word: str) -> Iterable[str]:
  """What a word may be a form of."""
  for ending, instead in _ENDINGS:
    rest = word.removesuffix(ending)
    if rest == word or len(rest) < 2:
      continue
    yield rest + instead
    if ending == "ing" and not instead and rest[-1] == rest[-2]:
      yield rest[:-1]  # "running" is of "run".
