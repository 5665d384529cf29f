import collections

import pytest

from mmjax.data import mixtures


def test_accumulate_takes_a_batch_of_each():
  for step in (0, 5):
    taken = mixtures.schedule(step, ["a", "b"], "accumulate")
    assert taken == {"a": step, "b": step}


def test_round_robin_takes_turns():
  taken = [
    mixtures.schedule(i, ["a", "b", "c"], "round_robin") for i in range(5)
  ]
  assert taken == [{"a": 0}, {"b": 0}, {"c": 0}, {"a": 1}, {"b": 1}]


@pytest.mark.parametrize("update", mixtures.UPDATES)
def test_first_batch_counts_what_came_before(update):
  names, count = ["a", "b", "c"], collections.Counter()
  for step in range(10):
    first = mixtures.first_batch(step, names, update)
    assert first == {n: count[n] for n in names}
    count.update(mixtures.schedule(step, names, update).keys())


def test_mix_keeps_proportions_and_misses_nothing():
  a, b = [f"a{i}" for i in range(300)], [f"b{i}" for i in range(100)]
  mixed = mixtures.mix([a, b], [3, 1])
  items = [mixed[i] for i in range(400)]
  assert collections.Counter(x[0] for x in items) == {"a": 300, "b": 100}
  assert len(set(items)) == 400
  assert collections.Counter(x[0] for x in items[:40])["b"] == 10


def test_errors():
  with pytest.raises(ValueError, match="'sum'"):
    mixtures.schedule(0, ["a"], "sum")
  for weight in (0, -1.0, float("nan"), float("inf")):
    with pytest.raises(ValueError, match="positive"):
      mixtures.mix([[1], [2]], [1, weight])
  with pytest.raises(ValueError, match="2 streams have 1"):
    mixtures.mix([[1], [2]], [1])
