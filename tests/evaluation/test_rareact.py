"""RareAct's mWAP against scikit-learn's average precision."""

import numpy as np
import pytest

from mmjax.evaluation import tasks
from mmjax.evaluation.rareact import Clip, mwap, weighted_average_precision

metrics = pytest.importorskip("sklearn.metrics")
WORDS = [("cut", "laptop"), ("cut", "shoe"), ("hammer", "shoe"), ("eat", "hat")]


@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_average_precision_is_scikit_learns(levels):
  rng = np.random.default_rng(levels)
  positive = rng.random(50) < 0.3
  scores = rng.integers(0, levels, 50) / levels
  weights = 1 / rng.integers(1, 6, 50)
  expected = metrics.average_precision_score(
    positive, scores, sample_weight=weights
  )
  ours = weighted_average_precision(scores, positive, weights)
  assert ours == pytest.approx(expected, abs=1e-12)


def made(seed, count=120):
  """Clips of a few videos, each annotated for one class, and their scores."""
  rng = np.random.default_rng(seed)
  clips = []
  for _ in range(count):
    c = int(rng.integers(len(WORDS)))
    video = f"v{rng.integers(12)}"
    clips.append(Clip(video, c, *WORDS[c], int(rng.integers(5))))
  return rng.integers(0, 9, (count, len(WORDS))) / 9, clips


def slow(scores, clips):
  """The definition, class by class and group by group, in the open."""
  found = []
  for c, (verb, noun) in enumerate(WORDS):
    own = [i for i, x in enumerate(clips) if x.class_id == c]
    others = [
      i for i, x in enumerate(clips) if x.class_id != c and x.label == 1
    ]
    near = {i for i in others if clips[i].verb == verb or clips[i].noun == noun}
    groups = [
      [i for i in own if clips[i].label == 1],
      [i for i in own if clips[i].label > 1] + sorted(near),
      [i for i in own if clips[i].label == 0]
      + [i for i in others if i not in near],
    ]
    weights = [
      1 / sum(clips[j].video == clips[i].video for j in group)
      for group in groups
      for i in group
    ]
    rows = [i for group in groups for i in group]
    labels = [1] * len(groups[0]) + [0] * (len(rows) - len(groups[0]))
    found.append(
      100
      * metrics.average_precision_score(
        labels, scores[rows, c], sample_weight=weights
      )
    )
  return found


@pytest.mark.parametrize("seed", range(3))
def test_mwap_is_the_mean_over_classes(seed):
  scores, clips = made(seed)
  mean, each = mwap(scores, clips)
  expected = slow(scores, clips)
  assert list(each) == sorted(each, key=list(each).index)
  np.testing.assert_allclose([each[c] for c in range(4)], expected, rtol=1e-12)
  assert mean == pytest.approx(np.mean(expected))
  records = [
    {"scores": list(row), "clip": vars(clip)}
    for row, clip in zip(scores, clips)
  ]
  assert tasks.METRICS["mwap"](records) == (mean, None)


def test_mwap_by_hand():
  # The positive ranks second of three: a hard negative above, an easy below.
  clips = [
    Clip("a", 0, "cut", "laptop", 1),
    Clip("b", 0, "cut", "laptop", 2),
    Clip("c", 0, "cut", "laptop", 0),
  ]
  scores = np.array([[0.5], [0.9], [0.1]])
  assert mwap(scores, clips) == (50, {0: 50})
  # Three clips of one video weigh as much as one.
  clips += [Clip("b", 0, "cut", "laptop", 3)] * 2
  scores = np.concatenate([scores, [[0.9], [0.9]]])
  assert mwap(scores, clips)[0] == pytest.approx(50)


def test_classes_without_positives_are_left_out():
  clips = [Clip("a", 0, "cut", "laptop", 1), Clip("b", 1, "eat", "hat", 0)]
  assert mwap(np.ones((2, 2)), clips) == (100, {0: 100})


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda s, c: (s[1:], c), "for 120 clips"),
    (lambda s, c: (s[:, 0], c), "expected a row"),
    (lambda s, c: (s[:0], []), "at least one"),
    (lambda s, c: (s[:, :3], c), "below 3"),
    (lambda s, c: (s * np.nan, c), "NaN"),
    (lambda s, c: (s, [Clip("v", 0, "cut", "hat", 1), *c[1:]]), "elsewhere"),
    (lambda s, c: (s, [Clip("v", 0, *WORDS[0], 7), *c[1:]]), "0 to 4"),
    (
      lambda s, c: (
        np.ones((2, 2)),
        [Clip("v", 0, *WORDS[0], 1), Clip("v", 1, *WORDS[0], 1)],
      ),
      "same verb and noun",
    ),
    (
      lambda s, c: (
        s,
        [Clip(x.video, x.class_id, x.verb, x.noun, 0) for x in c],
      ),
      "No clip is positive",
    ),
  ],
)
def test_bad_input_is_named(change, message):
  with pytest.raises(ValueError, match=message):
    mwap(*change(*made(0)))
