"""When a process counts as stuck; its end is a function here."""

import threading
import time

import pytest

from mmjax.training import watchdog
from mmjax.training.watchdog import STUCK, Patience, Watchdog


def watch(**patience):
  ended = []
  defaults = dict(times=10.0, least=0.4, first=30.0)
  dog = Watchdog(
    Patience(**(defaults | patience)),
    lambda step: f"what step {step} reads",
    end=ended.append,
  )
  return dog, ended


def wait_for(ended, seconds=20.0):
  end = time.monotonic() + seconds
  while not ended and time.monotonic() < end:
    time.sleep(0.02)
  return ended


def test_a_step_that_hangs_ends_the_process(caplog, capfd):
  dog, ended = watch()
  with dog:
    dog.starts(1)
    dog.starts(2)
    assert wait_for(ended) == [STUCK]
  assert "No sign of step 2" in caplog.text
  assert "what step 2 reads" in caplog.text
  assert "in wait_for" in capfd.readouterr().err, "the stack of this thread"


def test_steps_that_go_on_are_left_alone():
  dog, ended = watch(least=2.0)
  with dog:
    for step in range(1, 30):
      dog.starts(step)
      time.sleep(0.1)
  assert not ended


def test_what_takes_longer_is_waited_for():
  dog, ended = watch()
  with dog:
    dog.starts(1)
    with dog.patient():
      time.sleep(1.5)
    assert not ended
    assert wait_for(ended) == [STUCK]


def test_others_may_compile_for_longer():
  dog, ended = watch()
  with dog:
    dog.starts(1, fresh=True)
    time.sleep(1.0)
    assert not ended and dog.limit == 30.0
    dog.starts(2)
    dog.starts(3)
    assert dog.limit == 0.4, "the time of a fresh step is no step's time"


def test_a_first_limit_that_is_over_ends_the_process():
  dog, ended = watch(first=0.3)
  with dog:
    assert wait_for(ended) == [STUCK]


def test_slow_steps_raise_the_limit():
  dog, _ = watch(times=10.0, least=0.1)
  for step in range(1, 4):
    dog.starts(step)
    time.sleep(0.1)
  assert 0.9 < dog.limit < 10.0
  dog, _ = watch(times=10.0, least=300.0)
  dog.starts(1)
  dog.starts(2)
  assert dog.limit == 300.0


def test_it_can_be_left_at_home():
  dog, ended = watch(first=0.1, enabled=False)
  with dog:
    time.sleep(0.5)
  assert not ended


def test_a_log_that_nobody_reads_is_no_reason_to_hang(monkeypatch):
  monkeypatch.setattr(watchdog, "_LAST_WORDS", 0.2)
  hangs, ended = threading.Event(), []
  dog = Watchdog(
    Patience(first=0.2), lambda step: str(hangs.wait()), end=ended.append
  )
  with dog:
    assert wait_for(ended) == [STUCK]
    hangs.set()


def test_a_limit_of_nothing_is_refused():
  with pytest.raises(ValueError, match="more than 0"):
    Patience(least=0.0)


def test_steps_that_are_awaited_together_have_the_time_of_all():
  """Devices are given steps without a wait; then ten of them are waited for."""
  watchdog = Watchdog(Patience(times=10, least=300, first=3600), str, print)
  watchdog.starts(10)
  assert watchdog.limit == 300
  with watchdog.awaits(10):
    assert watchdog.limit == 3000
  with watchdog.awaits(100):
    assert watchdog.limit == pytest.approx(300)  # They took no time so far.
  watchdog._pace = 40.0
  with watchdog.awaits(10):
    assert watchdog.limit == 10 * 40 * 10
  fresh = Watchdog(Patience(least=300, first=3600), str, print)
  with fresh.awaits(100):
    assert fresh.limit == 3600
