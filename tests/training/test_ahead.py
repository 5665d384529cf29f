"""Batches that are read before their step."""

import pytest

from mmjax.training.ahead import AHEAD, Ahead


class Counted:
  """Batches 1, 2, ... that end, or fail."""

  def __init__(self, last, error=None):
    self.step, self._last, self._error = 0, last, error

  def __next__(self):
    if self.step == self._last:
      raise self._error or StopIteration
    self.step += 1
    return {"n": self.step}

  def get_state(self):
    return {"step": self.step}


def test_the_position_is_that_of_the_steps():
  ahead = Ahead(Counted(100), done=0, last=50)
  assert ahead.fill() == ahead.horizon == 1 + AHEAD
  assert ahead.position == {"step": 0}
  assert [ahead.take()["n"], ahead.take()["n"]] == [1, 2]
  assert ahead.position == {"step": 2}
  assert ahead.fill() == 3 + AHEAD


def test_nothing_is_read_that_no_step_needs():
  batches = Counted(100)
  ahead = Ahead(batches, done=0, last=2)
  assert ahead.fill() == 2 == batches.step
  assert ahead.error is None


@pytest.mark.parametrize(
  "error, problem",
  [
    (None, "data ended after step 2"),
    (ValueError("bad"), "bad"),
  ],
)
def test_an_end_is_known_before_its_step(error, problem):
  ahead = Ahead(Counted(2, error), done=0, last=50)
  assert ahead.fill() == 2
  assert [ahead.take()["n"], ahead.take()["n"]] == [1, 2]
  assert ahead.fill() == 2
  with pytest.raises(ValueError, match=problem):
    ahead.fail()
  assert ahead.position == {"step": 2}
