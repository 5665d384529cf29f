"""Ends a process that hangs.

A machine that lives but is stuck leaves all the others waiting, and nothing
that JAX has notices it: the heartbeats go on, and a signal is not looked at
while the main thread waits for a device.
"""

import contextlib
import dataclasses
import faulthandler
import logging
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from mmjax import distributed

log = logging.getLogger(__name__)

# Exit code of a process that hung, or whose peer died; it can be started
# again, and goes on from the newest checkpoint.
STUCK = 76
# Ticks until a limit: time in which the whole process is stopped, as by
# SLURM's suspend, counts as one tick.
_TICKS = 20
# Seconds to write them.
_LAST_WORDS = 30.0


@dataclasses.dataclass(frozen=True)
class Patience:
  """How long a step may take.

  Attributes:
    times: the median step's time.
    least: seconds that any step may take.
    first: seconds for what takes longer: to restore, to compile, to save.
    enabled: False leaves the process hanging.
  """

  times: float = 10.0
  least: float = 300.0
  first: float = 3600.0
  enabled: bool = True

  def __post_init__(self):
    if min(self.times, self.least, self.first) <= 0:
      raise ValueError(f"{self}: each of the times has to be more than 0.")


class Watchdog:
  """A thread that has to hear of a step now and then."""

  def __init__(
    self,
    patience: Patience,
    describe: Callable[[int], str],
    end: Callable[[int], None] = distributed.end,
  ):
    """Does nothing until it is entered.

    Args:
      patience: see there.
      describe: what a step works on, for the log.
      end: of the process; without cleaning up, which would hang as well.
    """
    self._patience, self._describe, self._end = patience, describe, end
    self._seconds: deque[float] = deque(maxlen=100)
    self._step, self._patient, self._fresh = 0, 1, False
    self._quiet, self._fed = 0.0, time.monotonic()
    self._awaited, self._pace, self._begun = 1, 0.0, time.monotonic()
    self._lock = threading.Lock()
    self._done = threading.Event()

  def __enter__(self) -> "Watchdog":
    if self._patience.enabled:
      threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    self._done.set()

  def starts(self, step: int, *, fresh: bool = False) -> None:
    """A step begins, so the one before it did not hang.

    Args:
      step: number of it.
      fresh: whether other processes may still be compiling.
    """
    now = time.monotonic()
    with self._lock:
      if not (self._patient or self._fresh) and self._step:
        self._seconds.append(now - self._fed)
      self._step, self._patient, self._fresh = step, 0, fresh
      self._quiet, self._fed = 0.0, now

  @contextlib.contextmanager
  def patient(self) -> Iterator[None]:
    """While something is done that takes longer than a step."""
    with self._lock:
      self._quiet, self._patient = 0.0, self._patient + 1
    try:
      yield
    finally:
      with self._lock:
        self._quiet, self._patient = 0.0, self._patient - 1
        self._fed = time.monotonic()

  @contextlib.contextmanager
  def awaits(self, steps: int) -> Iterator[None]:
    """While the devices finish what was given to them without a wait.

    Args:
      steps: that they were given since the last time.
    """
    with self._lock:
      self._quiet, self._awaited = 0.0, steps
    try:
      yield
    finally:
      now = time.monotonic()
      with self._lock:
        self._pace, self._begun = (now - self._begun) / steps, now
        self._quiet, self._awaited = 0.0, 1

  @property
  def limit(self) -> float:
    """Seconds that may pass now without a sign."""
    patience = self._patience
    if self._patient or self._fresh:
      return patience.first
    usual = statistics.median(self._seconds) if self._seconds else 0.0
    least = patience.least
    if not self._pace:  # Nobody knows yet how long these steps take.
      least = max(least, min(least * self._awaited, patience.first))
    usual = max(usual, self._pace * self._awaited)
    return max(patience.times * usual, least)

  def _watch(self) -> None:
    last = time.monotonic()
    while True:
      tick = min(self.limit / _TICKS, 5.0)
      if self._done.wait(tick):
        return
      now = time.monotonic()
      with self._lock:
        self._quiet += min(now - last, 2 * tick)
        hangs = self._quiet > self.limit
      last = now
      if hangs:
        self._bite()
        return

  def _bite(self) -> None:
    # Even when nobody reads the log, and writing to it hangs too.
    timer = threading.Timer(_LAST_WORDS, self._end, (STUCK,))
    timer.daemon = True
    timer.start()
    try:
      log.critical(
        "No sign of step %d for %.0f s, the limit is %.0f s. This process "
        "hangs, or one that it waits for; it ends with code %d and can be "
        "started again. The step reads %s",
        *(self._step, self._quiet, self.limit, STUCK),
        self._describe(self._step),
      )
      for stream in (sys.stdout, sys.stderr):
        stream.flush()
      faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    finally:
      timer.cancel()
      self._end(STUCK)
