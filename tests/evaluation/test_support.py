"""Which examples a prompt shows."""

import functools
from collections import Counter

import numpy as np
import pytest

from mmjax.evaluation import in_context, support
from mmjax.evaluation.in_context import Protocol
from tests.evaluation.seeing import EXAMPLES, NAMES, QUERIES, TASK, Seeing


def test_support_is_a_function_of_seed_and_query():
  def shown(seeds, queries=QUERIES, batch_size=32):
    results = in_context.evaluate(
      TASK,
      queries,
      EXAMPLES,
      generate=Seeing().generate,
      protocol=Protocol(shots=(2, 4), seeds=seeds, batch_size=batch_size),
    )
    return [[r["support"] for r in result.records] for result in results]

  two, four = shown((0,))
  assert [s[:2] for s in four] == two
  assert shown((0,), batch_size=3) == [two, four]
  assert shown((0,), QUERIES[:3]) == [two[:3], four[:3]]
  assert shown((1,)) != [two, four]
  assert len({tuple(s) for s in four}) > 4


def test_a_query_is_never_its_own_support():
  model = Seeing()
  results = in_context.evaluate(
    TASK,
    EXAMPLES[:5],
    EXAMPLES[:5],
    generate=model.generate,
    protocol=Protocol(shots=(4,)),
  )
  for record in results[0].records:
    assert record["id"] not in record["support"]
  with pytest.raises(ValueError, match="5 shots from a pool of 4"):
    in_context.evaluate(
      TASK,
      EXAMPLES[:5],
      EXAMPLES[:5],
      generate=model.generate,
      protocol=Protocol(shots=(5,)),
    )


def looked_up(*tables):
  """Features of documents by their ids, and the ids it was asked for."""
  rows = {d.id: row for documents, x in tables for d, row in zip(documents, x)}
  asked = []

  def features(documents):
    asked.append([d.id for d in documents])
    return np.stack([rows[d.id] for d in documents])

  return features, asked


def test_rices_shows_the_most_similar_last():
  angle = np.linspace(0, np.pi / 2, len(EXAMPLES))
  features, _ = looked_up(
    (QUERIES, np.tile([[3.0, 0.0]], (len(QUERIES), 1))),
    (EXAMPLES, np.stack([np.cos(angle), np.sin(angle)], axis=1) * 7),
  )
  results = in_context.evaluate(
    TASK,
    QUERIES,
    EXAMPLES,
    generate=Seeing().generate,
    protocol=Protocol(shots=(3,), selection="rices"),
    features=features,
  )
  for record in results[0].records:
    assert record["support"] == ["train/2", "train/1", "train/0"]


@pytest.mark.parametrize("style", ["flamingo", "open_flamingo"])
def test_a_style_says_whether_zero_shots_are_alike(style):
  angle = np.linspace(0, np.pi / 2, len(EXAMPLES))
  features, _ = looked_up(
    (QUERIES, np.tile([[3.0, 0.0]], (len(QUERIES), 1))),
    (EXAMPLES, np.stack([np.cos(angle), np.sin(angle)], axis=1)),
  )
  (result,) = in_context.evaluate(
    TASK,
    QUERIES,
    EXAMPLES,
    generate=Seeing().generate,
    protocol=Protocol(style=style, shots=(0,), selection="rices"),
    features=features,
  )
  assert all(len(prompt.media) == 1 for prompt in result.prompts)
  shown = [record["support"] for record in result.records]
  alike = [["train/1", "train/0"]] * len(QUERIES)
  assert (shown == alike) == (style == "open_flamingo")


def test_rices_looks_in_the_pool_only_and_not_at_the_query():
  angle = np.linspace(0, 1, len(EXAMPLES)) ** 1.5  # No two alike.
  vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
  features, asked = looked_up((EXAMPLES, vectors))
  results = in_context.evaluate(
    TASK,
    EXAMPLES,
    EXAMPLES,
    generate=Seeing().generate,
    protocol=Protocol(shots=(2, 1), selection="rices", pool=10),
    features=features,
  )
  pool = support.draw_pool([e.id for e in EXAMPLES], seed=0, size=10)
  # Once, whatever the number of shots.
  assert asked == [[e.id for e in EXAMPLES], [EXAMPLES[i].id for i in pool]]
  assert len(set(pool)) == 10 and pool.max() >= 10
  for number, record in enumerate(results[0].records):
    others = [i for i in pool if i != number]
    near = sorted(others, key=lambda i, n=number: abs(angle[i] - angle[n]))
    assert record["support"] == [f"train/{i}" for i in near[1::-1]]


def test_features_of_nothing_are_like_nothing():
  vectors = np.array([[3.0, 4.0], [0.0, 0.0], [-4.0, 3.0]])
  found = support.cosine(vectors, vectors)
  np.testing.assert_allclose(found, np.diag([1, 0, 1]), atol=1e-6)


def test_a_pool_has_as_many_of_every_class():
  labels = [NAMES[i % 4] for i in range(40)]
  ids = [str(i) for i in range(40)]
  draw = functools.partial(support.draw_pool, ids, labels=labels, per_class=3)
  pool = draw(seed=0)
  assert Counter(labels[i] for i in pool) == dict.fromkeys(NAMES, 3)
  assert list(pool) == sorted(set(pool)) and list(pool) != list(draw(seed=1))
