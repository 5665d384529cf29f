"""Which two things make a pair."""

import numpy as np
import pytest

from mmjax.data.instruct.captions import Item
from mmjax.data.instruct.pairs import Drawing, draw, tf_idf

CAPTIONS = [
  "a red wooden chair",
  "a wooden chair with arms",
  "a dog barks at night",
  "a dog barks",
  "a violin plays",
]
ITEMS = [
  Item(f"i{k}", text, {"id": f"i{k}"}) for k, text in enumerate(CAPTIONS)
]


def ids(pairs):
  return [(pair.first.id, pair.second.id) for pair in pairs]


def test_tf_idf():
  rows = tf_idf(["a dog", "a cat", "", "A dog!"]).toarray()
  cosines = rows @ rows.T
  np.testing.assert_allclose(np.diag(cosines), [1, 1, 0, 1])
  assert cosines[0, 3] == pytest.approx(1) and 0 < cosines[0, 1] < 0.5
  # By hand: "a" is in three of four texts, "dog" in two.
  a, dog = 1 + np.log(5 / 4), 1 + np.log(5 / 3)
  expected = np.array([a, 0, dog]) / np.hypot(a, dog)
  np.testing.assert_allclose(rows[0], expected)


def test_the_most_alike_is_taken_whatever_the_order():
  expected = [
    *(("i0", "i1"), ("i1", "i0"), ("i2", "i3"), ("i3", "i2")),
  ]
  drawing = Drawing(among=1)
  found = ids(draw(ITEMS, tf_idf, drawing))
  assert found[:4] == expected and len(found) == 5
  assert ids(draw(ITEMS[::-1], tf_idf, drawing)) == found


def test_the_seed_decides():
  found = {
    seed: ids(draw(ITEMS, tf_idf, Drawing(3, 2, seed))) for seed in range(5)
  }
  assert found[0] == ids(draw(ITEMS, tf_idf, Drawing(3, 2, 0)))
  assert len(set(map(str, found.values()))) > 1
  for every in found.values():
    assert all(a != b for a, b in every)


def test_equal_captions_make_no_pair():
  same = [Item(str(k), "A dog.", {}) for k in range(2)]
  other = Item("9", "a cat", {})
  assert ids(draw([*same, other], tf_idf, Drawing())) in (
    [("0", "9"), ("1", "9"), ("9", "0")],
    [("0", "9"), ("1", "9"), ("9", "1")],
  )
  for items in (same, same[:1]):
    with pytest.raises(ValueError, match="make no pair"):
      draw(items, tf_idf, Drawing())


def test_a_drawing_of_nothing_is_refused():
  with pytest.raises(ValueError, match="expected 1 or more"):
    Drawing(others=0)
