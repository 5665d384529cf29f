import json
import logging

import jax
import numpy as np
import pytest

from mmjax.data.batching import Slots
from mmjax.data.pipeline import Batches, Dataset, TooManyBadSamples
from mmjax.data.stream import Packed, Stream
from tests.data.test_stream import Numbers, encoder


def stream(count=40, seed=1, **documents):
  return Stream(Numbers(count, **documents), encoder(), seed=seed)


def batches(**options):
  sets = {"a": Dataset(stream(), 4), "b": Dataset(stream(30, 2), 2, 0.2)}
  return Batches(sets, **options)


def take(iterator, count):
  with iterator:
    return [next(iterator) for _ in range(count)]


def equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def ids(batch):
  return batch["media"]["image"]["values"][:, 0, 0, 0, 0, 0].tolist()


def test_rows_are_the_samples_of_the_stream_in_order():
  taken = take(batches(), 3)
  source = stream()
  for step, batch in enumerate(taken):
    expected = [source.record(4 * step + i) for i in range(4)]
    assert ids(batch["a"]) == expected
  assert set(taken[0]["a"]) == {
    *("tokens", "targets", "weights", "positions", "segments", "media")
  }


@pytest.mark.parametrize("update", ["accumulate", "round_robin"])
def test_hosts_together_have_the_batch_of_one(update):
  whole = take(batches(update=update), 4)
  parts = [take(batches(update=update, host=(i, 2)), 4) for i in range(2)]
  for step in range(4):
    joined = jax.tree.map(
      lambda x, y: np.concatenate([x, y]), parts[0][step], parts[1][step]
    )
    equal(joined, whole[step])


@pytest.mark.heavy
def test_workers_and_threads_change_nothing():
  whole = take(batches(), 6)
  equal(take(batches(threads=1), 6), whole)
  equal(take(batches(workers=2), 6), whole)


@pytest.mark.parametrize("update", ["accumulate", "round_robin"])
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_resume_is_exact(update, stop):
  whole = take(batches(update=update), 7)
  first = batches(update=update)
  take(first, stop)
  state = json.loads(json.dumps(first.get_state()))
  second = batches(update=update)
  next(second)
  second.set_state(state)
  equal(take(second, 7 - stop), whole[stop:])
  assert second.get_state()["seen"] == first_state(update, 7)["seen"]


def first_state(update, steps):
  iterator = batches(update=update)
  take(iterator, steps)
  return iterator.get_state()


def test_round_robin_gives_one_dataset_a_step():
  taken = take(batches(update="round_robin"), 4)
  assert [list(step) for step in taken] == [["a"], ["b"], ["a"], ["b"]]
  both = take(batches(), 2)
  equal(taken[2]["a"], both[1]["a"])


def test_weights_are_those_of_the_losses():
  assert batches().weights == {"a": 1.0, "b": 0.2}


def test_bad_samples_are_counted_and_named(caplog):
  sets = {"a": Dataset(stream(20, bad=(3,)), 5)}
  iterator = Batches(sets, max_bad_fraction=0.1)
  with caplog.at_level(logging.WARNING):
    taken = take(iterator, 4)
  assert iterator.bad == {"a": 1} and iterator.seen == {"a": 20}
  assert caplog.text.count("number 3 is broken") == 1
  empty = sum((b["a"]["segments"].sum(1) == 0).sum() for b in taken)
  assert empty == 1


def test_bad_samples_of_a_packed_row_have_a_line_each(caplog):
  slots = {"image": Slots(4, shape=(8, 8, 3))}
  packed = Packed(stream(8, bad=(1, 3)), 4, 32, slots)
  sets = {"a": Dataset(packed, 2)}
  with caplog.at_level(logging.WARNING):
    take(Batches(sets, max_bad_fraction=1.0), 1)
  assert len(caplog.messages) == 2
  for number in (1, 3):
    assert sum(f"number {number} is" in m for m in caplog.messages) == 1
  with pytest.raises(TooManyBadSamples, match="Last: .* [13] is broken. "):
    take(Batches(sets, max_bad_fraction=0.0), 1)


def test_no_budget_stops_at_the_first():
  sets = {"a": Dataset(stream(20, bad=(3,)), 5)}
  iterator = Batches(sets, max_bad_fraction=0.0)
  with pytest.raises(TooManyBadSamples, match="number 3 is broken"):
    take(iterator, 4)


def test_a_run_past_its_budget_stops():
  sets = {"a": Dataset(stream(20, bad=range(10)), 10)}
  iterator = Batches(sets, max_bad_fraction=0.02)
  with pytest.raises(TooManyBadSamples, match="max_bad_fraction=0.02"):
    take(iterator, 100)
  assert 20 < iterator.bad["a"] <= 40


def test_budget_goes_on_after_a_resume():
  sets = {"a": Dataset(stream(20, bad=range(10)), 10)}
  first = Batches(sets, max_bad_fraction=0.02)
  take(first, 3)
  second = Batches(sets, max_bad_fraction=0.02)
  second.set_state(first.get_state())
  with pytest.raises(TooManyBadSamples):
    take(second, 3)


def test_a_finite_dataset_ends():
  finite = Stream(Numbers(7), encoder(), shuffle=False, repeat=False)
  with Batches({"a": Dataset(finite, 3)}) as iterator:
    seen = [ids(batch["a"]) for batch in iterator]
  assert seen[:2] == [[0, 1, 2], [3, 4, 5]]
  # The last batch is filled up with rows that count for nothing.
  assert len(seen) == 3 and seen[2][0] == 6
  assert iterator.seen == {"a": 7}


def test_errors():
  with pytest.raises(ValueError, match="No datasets"):
    Batches({})
  with pytest.raises(ValueError, match="5 rows cannot be shared by 2"):
    next(Batches({"a": Dataset(stream(), 5)}, host=(0, 2)))
  with pytest.raises(ValueError, match="'sum'"):
    batches(update="sum")


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_budget_that_would_never_stop(fraction):
  with pytest.raises(ValueError, match="max_bad_fraction is"):
    Batches({"a": Dataset(stream(20), 5)}, max_bad_fraction=fraction)


@pytest.mark.parametrize("name", ["workers", "threads", "prefetch"])
def test_readers_that_are_less_than_none(name):
  with pytest.raises(ValueError, match=f"{name} (is )?-1"):
    Batches({"a": Dataset(stream(20), 5)}, **{name: -1})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_would_not_learn(weight):
  with pytest.raises(ValueError, match="weight of a dataset is"):
    Dataset(stream(20), 5, weight)


def test_an_empty_batch():
  with pytest.raises(ValueError, match="batch of 0 rows"):
    take(Batches({"a": Dataset(stream(20), 0)}), 1)
