"""Conversations read in parts: the logits of the whole, pictures included."""

import jax
import numpy as np
import pytest

from tests.systems import conversations as c

# Three turns of four conversations; the third is written token by token.
FIRST = [(3, -1, 7, 9), (5, 6, 11, 12, 13), (-2, -3, 4), (8,)]
SECOND = [(2, -2, 6, 1), (-1, 14), (21, 22), (23, 24, 25)]
THIRD = [(31, 32, 33), (34, 35, 36), (37, 38, 39), (1, 2, 3)]
ROOM = 32


@pytest.fixture(scope="module")
def verbs():
  module, params, _ = c.model()
  given = {"params": params}

  @jax.jit
  def prefill(batch, state):
    return module.apply(given, batch, state, method="prefill")

  @jax.jit
  def decode(tokens, state, real=None):
    return module.apply(given, tokens, state, real, method="decode")

  def start():
    return module.apply(given, 4, ROOM, c.MEDIA, method="start")

  return start, prefill, decode


@pytest.fixture(scope="module")
def whole():
  """Logits of all three turns at once, without padding."""
  _, params, logits = c.model()
  rows = [[(*a, *b, *d)] for a, b, d in zip(FIRST, SECOND, THIRD)]
  batch = c.batch(rows)
  out = np.asarray(logits(params, batch))
  return [x[real] for x, real in zip(out, np.asarray(batch["segments"]) > 0)]


def turn(rows, left):
  """A turn as prompts have it: positions are the model's to find."""
  batch = c.batch([[row] for row in rows], length=12, media=2, left=left)
  return batch | dict(positions=np.full_like(batch["positions"], 77))


def ends(*turns):
  """Places of the last tokens of the turns of each row."""
  return [sum(c.size(t) for t in row) - 1 for row in zip(*turns)]


def check(found, whole, places):
  expected = np.stack([x[at] for x, at in zip(whole, places)])
  np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("left", [(False, False), (True, True), (True, False)])
def test_cached_decoding_is_the_full_forward_pass(verbs, whole, left):
  start, prefill, decode = verbs
  logits, state = prefill(turn(FIRST, left[0]), start())
  check(logits, whole, ends(FIRST))
  # Pictures of a later turn are counted from 1 again.
  logits, state = prefill(turn(SECOND, left[1]), state)
  last = ends(FIRST, SECOND)
  check(logits, whole, last)
  for i in range(3):
    logits, state = decode(np.array(THIRD)[:, i : i + 1], state)
    check(logits[:, 0], whole, [at + i + 1 for at in last])
  assert not state.overflowed


def test_answers_may_be_read_at_once_and_rows_change_places(verbs, whole):
  """As beams do, and turns of a conversation whose answer is known."""
  start, prefill, decode = verbs
  _, state = prefill(turn(FIRST, left=False), start())
  order = np.array([2, 0, 3, 1])
  state = state.rows(order)
  second = [SECOND[i] for i in order]
  _, state = prefill(turn(second, left=True), state)
  third = np.array(THIRD)[order]
  padded = np.pad(third, ((0, 0), (0, 1)), constant_values=5)
  real = np.arange(4) < np.full((4, 1), 3)
  logits, state = decode(padded, state, real)
  last = ends(FIRST, SECOND)
  for i in range(3):
    moved = [whole[row] for row in order]
    check(logits[:, i], moved, [last[row] + i + 1 for row in order])
  sizes = np.array([len(x) for x in whole])
  np.testing.assert_array_equal(state.next_position, sizes[order])


def test_a_prompt_without_slots_for_pictures_goes_on_too(verbs, whole):
  """What was read before stays seen."""
  start, prefill, decode = verbs
  _, state = prefill(turn(FIRST, left=False), start())
  text = [(1, 2, 3), (4, 5, 6), (7, 8), (9,)]
  batch = c.batch([[row] for row in text], length=12, media=0)
  found, _ = prefill(batch, state)
  _, params, logits = c.model()
  rows = [[(*a, *b)] for a, b in zip(FIRST, text)]
  expected = np.asarray(logits(params, c.batch(rows)))
  places = np.array(ends(FIRST, text))
  np.testing.assert_allclose(found, expected[range(4), places], atol=1e-4)
  blind, _ = prefill(batch, start())
  assert np.abs(blind - found)[[0, 2]].max(axis=1).min() > 1e-2


def test_a_conversation_that_outgrows_its_room_says_so(verbs):
  start, prefill, decode = verbs
  state = start()
  for _ in range(2):
    logits, state = prefill(turn(FIRST, left=True), state)
    assert np.isfinite(logits).all() and not state.overflowed
  logits, state = prefill(turn(SECOND, left=True), state)
  assert np.isnan(logits).all() and state.overflowed
