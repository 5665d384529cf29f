import numpy as np
import pytest

from mmjax.data import packing


def check(tokens, media, length, slots):
  """Every sample once, no row too full; the share of places that is used."""
  rows = packing.fill(tokens, media, length, slots)
  assert sorted(i for row in rows for i in row) == list(range(len(tokens)))
  assert all(tokens[row].sum() <= length for row in rows)
  assert all(media[row].sum() <= slots for row in rows)
  return tokens.sum() / (len(rows) * length) if rows else 1.0


def instruct(rng, count, image):
  """A picture, a system text, and some hundred tokens of turns."""
  text = np.exp(rng.normal(5.3, 0.5, count))
  return (image + 40 + text).astype(int)


def test_table():
  tokens, media = np.array([5, 2, 6, 3, 4, 4]), np.zeros(6, int)
  rows = packing.fill(tokens, media, 8, 0)
  assert sorted(map(sorted, rows)) == [[0, 3], [1, 2], [4, 5]]


@pytest.mark.parametrize("seed", range(20))
def test_every_sample_is_in_one_row(seed):
  rng = np.random.default_rng(seed)
  count, length = int(rng.integers(1, 300)), int(rng.integers(2, 200))
  slots = int(rng.integers(0, 7))
  tokens = rng.integers(1, length + 1, count)
  if seed % 2:
    tokens = np.minimum(tokens, rng.integers(1, 9, count))
  check(tokens, rng.integers(0, slots + 1, count), length, slots)


@pytest.mark.parametrize(("length", "image"), [(4096, 576), (2048, 256)])
def test_rows_of_instructions_are_nearly_full(length, image):
  rng = np.random.default_rng(0)
  tokens = instruct(rng, 4096, image)
  assert check(tokens, np.ones(4096, int), length, 8) > 0.98
  # Some of them are text alone, and of any length.
  alone = rng.random(4096) < 0.1
  tokens = np.where(alone, rng.integers(20, 2048, 4096), tokens)
  assert check(tokens, np.where(alone, 0, 1), length, 8) > 0.97


def test_other_lengths():
  rng = np.random.default_rng(0)
  none = np.zeros(2000, int)
  assert check(rng.integers(1, 2049, 2000), none, 2048, 0) > 0.96
  assert check(rng.integers(5, 60, 2000), none, 2048, 0) > 0.96
  assert check(np.full(2000, 512), none, 2048, 0) == 1.0
  # As full as the media allow: 2000 of them, 7 in a row.
  rows = packing.fill(np.full(2000, 30), none + 1, 2048, 7)
  assert len(rows) == -(-2000 // 7)


def test_rows_are_a_pure_function():
  rng = np.random.default_rng(3)
  tokens, media = rng.integers(1, 90, 500), rng.integers(0, 3, 500)
  first = packing.fill(tokens, media, 100, 4)
  assert packing.fill(tokens.copy(), media.copy(), 100, 4) == first


def test_nothing_and_what_fits_no_row():
  none = np.zeros(0, int)
  assert packing.fill(none, none, 8, 1) == []
  with pytest.raises(ValueError, match="Sample 1 has 9 tokens and 0 media"):
    packing.fill(np.array([1, 9]), np.array([0, 0]), 8, 1)
  with pytest.raises(ValueError, match="Sample 0 has 1 tokens and 2 media"):
    packing.fill(np.array([1]), np.array([2]), 8, 1)
  with pytest.raises(ValueError, match="1 token or more"):
    packing.fill(np.array([0]), np.array([0]), 8, 1)
