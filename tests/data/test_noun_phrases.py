import builtins
import collections
import random
import sys
import types

import numpy as np
import pytest

from mmjax.data import noun_phrases
from mmjax.data.noun_phrases import Selection, select, spacy_chunks, word_runs


def walk(captions, seed, least, most):
  """The paper's sentence, a phrase after the other."""
  counts = collections.Counter(
    phrase for found in captions for phrase in {p.lower() for p in found}
  )
  pool = []
  for phrase, count in sorted(counts.items(), key=lambda item: item[1]):
    if count < least:
      continue
    having = [
      i
      for i, found in enumerate(captions)
      if phrase in {p.lower() for p in found}
    ]
    if count > most:
      key = noun_phrases._key(phrase)
      drawn = noun_phrases._draw(key, count, most, seed)
      assert len(set(drawn.tolist())) == most
      having = [having[i] for i in drawn]
    pool += [i for i in having if i not in pool]
  return pool


@pytest.mark.parametrize("seed", range(12))
def test_selection_is_the_walk_from_rare_to_frequent(seed):
  rng = random.Random(seed)
  words = [f"Thing {i}" for i in range(40)]
  weights = [1 / (1 + i) for i in range(40)]
  captions = [
    rng.choices(words, weights, k=rng.randrange(4)) for _ in range(300)
  ]
  least, most = rng.choice([(3, 20), (1, 5), (5, 3), (3, 100)])
  found = select(captions, seed, least, most)
  expected = walk(captions, seed, least, most)
  assert np.flatnonzero(found.taken).tolist() == sorted(expected)
  counts = collections.Counter(p for c in captions for p in set(c))
  assert found.phrases == len(counts)
  assert found.rare == sum(n < least for n in counts.values())
  assert found.frequent == sum(n > most and n >= least for n in counts.values())
  assert found.without == sum(not c for c in captions)


def test_rare_phrases_and_the_cut():
  captions = [["rare"]] * 2 + [["some"]] * 3 + [["dog"]] * 150 + [[]]
  taken = select(captions).taken
  assert not taken[:2].any() and taken[2:5].all() and not taken[-1]
  assert taken[5:-1].sum() == 100


def test_another_seed_draws_others():
  captions = [["dog"]] * 500
  first = select(captions, 0).taken
  np.testing.assert_array_equal(select(captions, 0).taken, first)
  assert (select(captions, 1).taken != first).any()
  # Other phrases change nothing of the draw.
  more = [[*found, f"number {i}"] for i, found in enumerate(captions)]
  np.testing.assert_array_equal(select(more, 0).taken, first)


def test_nothing_and_senseless_limits():
  assert len(select([]).taken) == 0
  assert not select([[], []]).taken.any()
  for limits in (dict(least=0), dict(most=0), dict(seed=-1)):
    with pytest.raises(ValueError, match="expected 1, 1 and 0, or more"):
      select([["a"]], **limits)


def test_runs_of_words():
  found = word_runs(
    [
      "a brown dog runs on the wet grass",
      "The Eiffel Tower, seen from above .",
      "",
      "one two three four five six",
    ]
  )
  assert list(found) == [
    ["brown dog runs", "wet grass"],
    ["eiffel tower", "seen"],
    [],
    [],
  ]


def test_without_spacy(monkeypatch):
  known = builtins.__import__

  def refuse(name, *args, **kwargs):
    if name == "spacy":
      raise ImportError("No module named 'spacy'")
    return known(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", refuse)
  with pytest.raises(ImportError, match="pip install spacy.*phrases='runs'"):
    spacy_chunks()


def test_spacy_of_a_model(monkeypatch):
  """What is asked of spaCy, by a stand-in for it."""

  class Language:
    pipe_names = ["tagger", "parser"]

    def has_pipe(self, name):
      return name in self.pipe_names

    def pipe(self, texts, batch_size):
      for text in texts:
        chunks = [types.SimpleNamespace(text=t) for t in text.split(" | ")]
        yield types.SimpleNamespace(noun_chunks=iter(chunks))

  def load(model, exclude):
    if model != "en_core_web_sm":
      raise OSError(f"[E050] Can't find model '{model}'")
    assert "parser" not in exclude
    return Language()

  monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load))
  assert list(spacy_chunks()(["A dog | grass"])) == [["A dog", "grass"]]
  with pytest.raises(ImportError, match="spacy download nowhere"):
    spacy_chunks("nowhere")
  monkeypatch.setattr(Language, "pipe_names", ["tagger"])
  with pytest.raises(ValueError, match="no parser, only .'tagger'"):
    spacy_chunks()


def test_a_selection_says_what_it_is():
  found = select([["a"]] * 3)
  assert isinstance(found, Selection) and found.taken.all()
