"""Where the time went, from the lines of several starts."""

import json
import time
import types

import pytest

from mmjax.training import goodput, loop
from mmjax.training.goodput import Goodput


def test_a_clock_always_runs_for_one_kind(tmp_path, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(goodput.time, "monotonic", lambda: now[0])

  def pass_by(seconds):
    now[0] += seconds

  clock = Goodput(tmp_path)
  pass_by(5)
  clock.start(0)
  pass_by(3)
  clock.was("input", 3)
  with clock.spent("checkpoint"):
    with clock.spent("compile"):
      pass_by(20)
    pass_by(2)
  pass_by(4)
  clock.write(1)
  seconds = goodput.summary(goodput.read(tmp_path))
  assert seconds == {
    "restart": 5,
    "input": 3,
    "compile": 20,
    "step": 4,
    "checkpoint": 2,
    "lost": 0,
    "away": 0,
  }


def lines(*found):
  return [dict(time=float(time), **line) for time, line in found]


def test_steps_that_are_done_again_are_lost():
  seconds = goodput.summary(
    lines(
      (0, dict(start=0)),
      (10, dict(step=0, restart_s=10.0)),
      (20, dict(step=5, step_s=6.0, input_s=2.0, compile_s=2.0)),
      (21, dict(step=5, checkpoint_s=1.0)),
      (31, dict(step=10, step_s=9.0, input_s=1.0)),
      # Killed; it goes on from step 5, after a minute in the queue.
      (91, dict(start=5)),
      (96, dict(step=5, restart_s=5.0)),
      (106, dict(step=10, step_s=9.0, input_s=1.0)),
      # Killed again, and step 5 was all that could be restored.
      (106, dict(start=5)),
      (116, dict(step=10, step_s=10.0)),
    )
  )
  assert seconds == pytest.approx(
    {
      "step": 16.0,
      "input": 2.0,
      "compile": 2.0,
      "checkpoint": 1.0,
      "restart": 15.0,
      "lost": 20.0,
      "away": 60.0,
    }
  )
  assert sum(seconds.values()) == 116


def test_a_part_of_a_line_is_lost():
  seconds = goodput.summary(
    lines(
      (0, dict(start=0)),
      (10, dict(step=10, step_s=10.0)),
      (10, dict(start=4)),
      (16, dict(step=10, step_s=6.0)),
    )
  )
  assert seconds["lost"] == 6.0 and seconds["step"] == 10.0


def test_the_table_shows_shares():
  seconds = dict.fromkeys((*goodput.KINDS, "lost", "away"), 0.0)
  text = goodput.table(seconds | {"step": 75.0, "lost": 25.0})
  assert "75.00%" in text and "steps done again" in text
  assert "100.00%" in text.splitlines()[-1]


def test_a_line_that_was_cut_off_is_left_out(tmp_path, caplog):
  whole = json.dumps({"time": 1.0, "start": 0})
  (tmp_path / goodput.FILE).write_text(f'{whole}\n{{"time": 2.0, "st')
  assert goodput.read(tmp_path) == [{"time": 1.0, "start": 0.0}]
  assert "line 2" in caplog.text


@pytest.mark.parametrize("ready", [True, False])
def test_reading_is_a_wait_when_the_devices_have_nothing_to_do(ready):
  """Behind a step that is still being computed it costs nothing."""
  clock = Goodput(None)
  clock.start(0)
  steps = loop._Steps(
    run=types.SimpleNamespace(clock=clock),
    ahead=types.SimpleNamespace(fill=lambda: time.sleep(0.05) or 7),
    **dict.fromkeys(("compiled", "horizon", "stop", "interval")),
    **dict.fromkeys(("save", "watchdog", "writer")),
  )
  step = types.SimpleNamespace(is_ready=lambda: ready)
  assert steps._read(types.SimpleNamespace(step=step)) == 7
  clock._turn("step")
  assert (steps.waited >= 0.05) == (clock._seconds["input"] >= 0.05) == ready
  assert (clock._seconds["step"] >= 0.05) != ready
