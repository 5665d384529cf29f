"""Caption scores against the official scorers on the same strings."""

import math
import random

import numpy as np
import pytest

from mmjax.evaluation import caption

WORDS = "a man woman dog rides on the red blue horse wave near two hats"


def _corpus(seed: int, images: int = 12):
  rng = random.Random(seed)

  def sentence():
    return " ".join(rng.choices(WORDS.split(), k=rng.randint(1, 12)))

  references = [
    [sentence() for _ in range(rng.randint(1, 5))] for _ in range(images)
  ]
  predictions = [
    rng.choice([sentence(), rng.choice(refs), ""]) for refs in references
  ]
  return predictions, references


def _official(scorer, predictions, references):
  truth = dict(enumerate(references))
  given = {i: [p] for i, p in enumerate(predictions)}
  return scorer.compute_score(truth, given)


@pytest.mark.parametrize("seed", range(4))
def test_cider_d_is_the_official_cider(seed):
  module = pytest.importorskip("pycocoevalcap.cider.cider")
  corpus = _corpus(seed)
  mean, scores = _official(module.Cider(), *corpus)
  ours, per_image = caption.cider_d(*corpus)
  assert ours == pytest.approx(mean, abs=1e-9) and mean > 0
  np.testing.assert_allclose(per_image, scores, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_the_official_bleu(seed):
  module = pytest.importorskip("pycocoevalcap.bleu.bleu")
  corpus = _corpus(seed)
  scores, _ = _official(module.Bleu(4), *corpus)
  np.testing.assert_allclose(caption.bleu(*corpus), scores, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_rouge_l_is_the_official_rouge(seed):
  module = pytest.importorskip("pycocoevalcap.rouge.rouge")
  corpus = _corpus(seed)
  mean, scores = _official(module.Rouge(), *corpus)
  ours, per_image = caption.rouge_l(*corpus)
  assert ours == pytest.approx(mean, abs=1e-12)
  np.testing.assert_allclose(per_image, scores, atol=1e-12)


def test_cider_by_hand():
  # Every word is in one of two documents, so its weight is log 2 throughout
  # and each similarity is a plain cosine of counts.
  predictions = ["red red dog", "b"]
  references = [["red dog"], ["b"]]
  one = 3 / math.sqrt(5 * 2)
  two = 1 / math.sqrt(2)  # "red red", "red dog" against "red dog"
  _, scores = caption.cider(predictions, references)
  assert scores[0] == pytest.approx(10 * (one + two) / 4)
  assert scores[1] == pytest.approx(10 / 4)
  clipped = (2 / math.sqrt(10) + two) / 4 * math.exp(-1 / 72)
  _, scores = caption.cider_d(predictions, references)
  assert scores[0] == pytest.approx(10 * clipped)


def test_bleu_by_hand():
  # 3 of 4 words, 1 of 3 pairs; the closest reference has five words.
  scores = caption.bleu(["a b c x"], [["a b y c z", "q r s t u v"]])
  penalty = math.exp(1 - 5 / 4)
  assert scores[0] == pytest.approx(penalty * 3 / 4)
  assert scores[1] == pytest.approx(penalty * math.sqrt(3 / 4 / 3))
  assert scores[3] < 1e-3


def test_rouge_by_hand():
  mean, _ = caption.rouge_l(["a b c d"], [["a c", "x b d y z"]])
  precision, recall = 2 / 4, 1.0
  assert mean == pytest.approx(
    2.44 * precision * recall / (recall + 1.44 * precision)
  )


def test_score_tokenizes_and_is_in_percent():
  captions = ["A dog's ball.", "Two cats (asleep)!"]
  perfect = caption.score(captions, [[c.lower()] for c in captions])
  assert list(perfect) == [
    "CIDEr",
    "BLEU-1",
    "BLEU-2",
    "BLEU-3",
    "BLEU-4",
    "ROUGE-L",
  ]
  assert perfect["BLEU-4"] == pytest.approx(100)
  assert perfect["CIDEr"] == pytest.approx(1000)
  wrong = caption.score(captions, [["red sky"], ["green sea"]])
  assert max(wrong.values()) < 1e-3


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="1 captions for 2"):
    caption.bleu(["a"], [["a"], ["b"]])
  with pytest.raises(ValueError, match=r"image\(s\) \[1\]"):
    caption.cider_d(["a", "b"], [["a"], []])
  with pytest.raises(ValueError, match="one string"):
    caption.rouge_l(["a"], ["a"])
