"""Captions that cover a language's things evenly (LLaVA, arXiv 2304.08485).

CC3M's 3.3M captions became 595K so. Of the noun phrases of all captions,

  in fewer than 3 captions    nothing is done for it
  in 3 to 100                 all its captions are taken
  in more                     a random 100 of its captions are taken

from the rarest to the most frequent. A caption is taken once, whatever number
of its phrases ask for it, and the 100 are drawn from all that have the phrase;
so the order of the walk does not change what is taken.

Not said in the paper and chosen here: a phrase that a caption has twice counts
once, and phrases are compared in lower case. spaCy finds them, as there;
`word_runs` is a rule of thumb for machines without it, and takes others.
"""

import array
import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mmjax.typing import Bool

Extractor = Callable[[Iterable[str]], Iterator[Iterable[str]]]

# Captions that spaCy takes at a time.
_BATCH = 1000
# Where a run of words ends: articles, prepositions, conjunctions, pronouns,
# auxiliaries, and what captions say often that is no thing.
_STOPS = """
a an the this that these those some any each every all both no of in on at by
for with from to into onto over under above below between behind near next
beside around through during before after against along across up down off out
about as like than and or but nor so yet if while when where because who whom
whose which what it its it's he his him she her they their them we our us you
your i my me is are was were be been being am has have had having do does did
can could will would shall should may might must not there here very too also
just only then
"""
_BREAKS = frozenset(_STOPS.split())
# Words of a run; a longer one is no phrase that comes again.
_LONGEST = 4


@dataclasses.dataclass(frozen=True)
class Selection:
  """What is taken, and how it came about.

  Attributes:
    taken: of every caption, whether it is.
    phrases: different ones.
    rare: of those, how many are in too few captions.
    frequent: how many are in so many that some were drawn.
    without: captions that have no phrase.
  """

  taken: Bool[np.ndarray, "caption"]
  phrases: int
  rare: int
  frequent: int
  without: int


def select(
  phrases: Iterable[Iterable[str]],
  seed: int = 0,
  least: int = 3,
  most: int = 100,
) -> Selection:
  """Captions by their noun phrases.

  Phrases are kept as numbers of 64 bits, 12 bytes for each that a caption has.

  Args:
    phrases: of each caption, in the order of the captions.
    seed: of the captions that are drawn.
    least: captions that a phrase is in at least.
    most: captions that are taken for a phrase.
  """
  if least < 1 or most < 1 or seed < 0:
    raise ValueError(
      f"least is {least}, most {most} and seed {seed}; expected 1, 1 and 0, or "
      "more."
    )
  key, owner, count, without = _pairs(phrases)
  # Captions of a phrase stand together, in their order.
  order = np.argsort(key, kind="stable")
  key, owner = key[order], owner[order]
  first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
  sizes = np.diff(np.append(first, len(key)))
  taken = np.zeros(count, bool)
  some = (sizes >= least) & (sizes <= most)
  taken[owner[np.repeat(some, sizes)]] = True
  frequent = np.flatnonzero((sizes >= least) & (sizes > most))
  for i in frequent:
    chosen = _draw(int(key[first[i]]), int(sizes[i]), most, seed)
    taken[owner[first[i] + chosen]] = True
  rare = int((sizes < least).sum())
  return Selection(taken, len(sizes), rare, len(frequent), without)


def _pairs(
  phrases: Iterable[Iterable[str]],
) -> tuple[np.ndarray, np.ndarray, int, int]:
  """Every phrase of every caption.

  Returns:
    the phrases as numbers, their captions, how many captions there are, and
    how many of them have no phrase.
  """
  keys, owners, count, without = array.array("Q"), array.array("I"), 0, 0
  for found in phrases:
    own = {_key(phrase) for phrase in found}
    keys.extend(own)
    owners.extend([count] * len(own))
    count, without = count + 1, without + (not own)
  key, owner = (np.array(x, x.typecode) for x in (keys, owners))
  return key, owner, count, without


def _key(phrase: str) -> int:
  text = phrase.lower().encode(errors="replace")
  return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _draw(key: int, count: int, most: int, seed: int) -> np.ndarray:
  """Which of a phrase's captions are taken; other phrases do not matter."""
  rng = np.random.default_rng([seed, key])
  return rng.choice(count, most, replace=False)


def word_runs(captions: Iterable[str]) -> Iterator[list[str]]:
  """Runs of words between articles, prepositions, pronouns and the like.

  No word's kind is looked up, so verbs get in; a stand-in for noun phrases.

    "a brown dog runs on the wet grass"  ->  "brown dog runs", "wet grass"
  """
  for caption in captions:
    runs: list[str] = []
    for part in re.findall(r"[\w'\- ]+", caption.lower()):
      run: list[str] = []
      for word in [*part.split(), "the"]:
        if word not in _BREAKS:
          run.append(word)
        elif run:
          if len(run) <= _LONGEST:
            runs.append(" ".join(run))
          run = []
    yield runs


def spacy_chunks(model: str = "en_core_web_sm") -> Extractor:
  """spaCy's noun chunks, by a model that is installed.

  Raises:
    ImportError: without spaCy or the model.
    ValueError: for a model that does not parse.
  """
  try:
    import spacy
  except ImportError as error:
    raise ImportError(
      "Noun phrases need spaCy: pip install spacy. Without it, there is "
      "phrases='runs', which takes other captions."
    ) from error
  try:
    # Chunks need the parser and what tags words for it.
    language = spacy.load(model, exclude=["ner", "lemmatizer"])
  except OSError as error:
    raise ImportError(
      f"spaCy has no model {model!r}: python -m spacy download {model}. "
      "Without one, there is phrases='runs', which takes other captions."
    ) from error
  if not language.has_pipe("parser"):
    raise ValueError(
      f"spaCy's model {model!r} has no parser, only {language.pipe_names}; its "
      "noun chunks need one. Take en_core_web_sm."
    )

  def extract(captions: Iterable[str]) -> Iterator[list[str]]:
    for document in language.pipe(captions, batch_size=_BATCH):
      yield [chunk.text for chunk in document.noun_chunks]

  return extract


# By the name that a command gives; each takes the name of a spaCy model.
EXTRACTORS: dict[str, Callable[[str], Extractor]] = {
  "spacy": spacy_chunks,
  "runs": lambda model: word_runs,
}
