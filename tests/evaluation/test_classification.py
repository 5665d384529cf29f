"""Classification scores against scikit-learn and by hand."""

import numpy as np
import pytest

from mmjax.evaluation import classification


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_roc_auc_is_scikit_learns(levels):
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(levels)
  labels = rng.integers(0, 2, 60)
  scores = rng.integers(0, levels, 60) / levels + 0.1 * (levels > 2) * labels
  expected = 100 * metrics.roc_auc_score(labels, scores)
  assert classification.roc_auc(scores, labels) == pytest.approx(expected)


def test_roc_auc_counts_ties_as_half():
  labels = np.array([0, 0, 1, 1])
  assert classification.roc_auc(np.zeros(4), labels) == 50
  assert classification.roc_auc(np.array([0, 1, 1, 2.0]), labels) == 87.5
  assert classification.roc_auc(np.array([3, 2, 1, 0.0]), labels) == 0


def test_top_k_is_scikit_learns():
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(0)
  scores, labels = rng.normal(size=(40, 6)), rng.integers(0, 6, 40)
  for k in (1, 2, 5):
    expected = 100 * metrics.top_k_accuracy_score(
      labels, scores, k=k, labels=range(6)
    )
    assert classification.top_k_accuracy(scores, labels, k) == pytest.approx(
      expected
    )


def test_top_k_ties_are_no_gift():
  labels = np.array([0, 1, 2, 3])
  assert classification.top_k_accuracy(np.zeros((4, 4)), labels, 1) == 25
  # The lower index is the better one.
  labels = np.array([0, 0, 1, 3])
  assert classification.top_k_accuracy(np.zeros((4, 4)), labels, 2) == 75


def test_per_class_accuracy_is_balanced_accuracy():
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(1)
  labels = rng.choice(4, 50, p=(0.7, 0.1, 0.1, 0.1))
  predictions = np.where(rng.random(50) < 0.5, labels, 0)
  expected = 100 * metrics.balanced_accuracy_score(labels, predictions)
  ours = classification.per_class_accuracy(predictions, labels)
  assert ours == pytest.approx(expected)


def test_exact_match():
  predictions = [" Red  Fox.", "dog", "cat", "U.S."]
  answers = ["red fox", ["hound", "dog"], "cats", "u.s"]
  assert classification.exact_match(predictions, answers) == 75


def test_ndcg_is_scikit_learns():
  metrics = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(2)
  for _ in range(5):
    relevance = rng.choice([0, 0, 0.5, 1.0], 20)
    relevance[0] = 0.5
    scores = rng.normal(size=20)
    k = np.count_nonzero(relevance)
    expected = 100 * metrics.ndcg_score([relevance], [scores], k=k)
    assert classification.ndcg(scores, relevance) == pytest.approx(expected)


def test_bad_input_is_named():
  with pytest.raises(ValueError, match="needs both"):
    classification.roc_auc(np.ones(3), np.ones(3, int))
  with pytest.raises(ValueError, match="relevant"):
    classification.ndcg(np.ones(2), np.zeros(2))
  with pytest.raises(ValueError, match="NaN"):
    classification.roc_auc(np.array([np.nan, 1]), np.array([0, 1]))
  with pytest.raises(ValueError, match="k is 3"):
    classification.top_k_accuracy(np.zeros((2, 2)), np.array([0, 1]), 3)
  with pytest.raises(ValueError, match="2 classes"):
    classification.top_k_accuracy(np.zeros((2, 2)), np.array([0, 2]))
  with pytest.raises(ValueError, match="0 predictions for 0"):
    classification.exact_match([], [])
