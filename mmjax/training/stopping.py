"""Where a run stops, agreed between its processes.

With every step each process says two things: up to which step it can go, as
far as its batches reach, and whether it was told to stop. A program behind the
step's takes the least over all processes, and each of them reads that two
steps later, when it has long been computed:

  step            4      5      6      7      8
  process 0     6, no  7, no  8, no
  process 1     6, no  6, yes 6, yes          (SIGTERM while 5 was prepared)
  least         6, no  6, yes
  read before                 6      7 > 6: all stop here and save step 6

No message has to travel for it, and no process can be a step further.
"""

import contextlib
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax import distributed
from mmjax.training.ahead import AHEAD
from mmjax.typing import Array, Int

log = logging.getLogger(__name__)

# Exit code of a run that was told to stop and can be started again: the
# EX_TEMPFAIL of sysexits.h.
REQUEUE = 75
# Seconds to write them.
_LAST_WORDS = 5.0


def least(says: Int[Array, "devices 2"]) -> Int[Array, "2"]:
  """What all processes agree on."""
  return says.min(axis=0)


class Horizon:
  """The last step that every process can and will do."""

  def __init__(self, mesh: Mesh, stop: "Stop"):
    """Agrees with nobody yet.

    Args:
      mesh: of the run.
      stop: set when this process is told to stop.
    """
    self._alone = jax.process_count() == 1
    self._stop, self._told = stop, False
    self._devices = mesh.devices.size
    self._sharding = NamedSharding(mesh, P(mesh.axis_names))
    everywhere = NamedSharding(mesh, P())
    self._least = jax.jit(least, out_shardings=everywhere)
    self._answers: deque[Int[Array, "2"]] = deque()
    self._limit = np.iinfo(np.int32).max

  @property
  def told(self) -> bool:
    """Whether some process was told to stop."""
    return self._told

  def begin(self, reach: int) -> None:
    """Agrees on the first steps, before there are answers of others."""
    if not self._alone:
      answer = self._least(self._put(reach, False))
      self._limit = int(np.asarray(answer)[0])

  def allows(self, step: int, reach: int) -> bool:
    """Whether all processes do this step; waits for the one two before.

    Args:
      step: the next.
      reach: the last step that this process has a batch for.
    """
    if len(self._answers) == AHEAD:
      limit, go_on = np.asarray(self._answers.popleft())
      self._limit = int(limit)
      self._told |= not go_on
    if self._alone:  # It need not wait for an answer of its own.
      self._told |= self._stop.is_set()
      return step <= reach and not self._told
    return step <= self._limit

  def tell(self, step: int, reach: int) -> None:
    """Says with a step how far this process goes; asks what all agree on."""
    if self._alone:
      return
    stop = self._told or self._stop.is_set()
    if stop:
      # As far as the others go, who have not heard of it yet.
      reach = min(reach, step + AHEAD - 1)
    answer = self._least(self._put(reach, stop))
    answer.copy_to_host_async()
    self._answers.append(answer)

  def _put(self, reach: int, stop: bool) -> Int[Array, "devices 2"]:
    value = np.array([[reach, not stop]], np.int32)
    return jax.make_array_from_callback(
      (self._devices, 2), self._sharding, lambda _: value
    )


class Stop:
  """Whether this process was told to stop.

  Before there is a step to save, SIGTERM ends it at once, with the code of a
  run that can be started again; also while the main thread is in the compiler
  or waits for other processes, where Python looks at no signal.
  """

  def __init__(self, end: Callable[[int], None] = distributed.end):
    self._told, self._saves, self._end = threading.Event(), False, end

  def is_set(self) -> bool:
    return self._told.is_set()

  def set(self) -> None:
    self._told.set()

  def saves(self) -> None:
    """From now on a step is finished and saved first."""
    self._saves = True

  def listen(self, signals: int) -> None:
    """Reads the numbers of signals from a pipe until it is closed."""
    while number := os.read(signals, 1):
      if number[0] == signal.SIGTERM and not self._saves:
        self._leave()
    os.close(signals)

  def _leave(self) -> None:
    # Even when nobody reads the log, and writing to it hangs.
    timer = threading.Timer(_LAST_WORDS, self._end, (REQUEUE,))
    timer.daemon = True
    timer.start()
    log.warning("Told to stop before there was a step to save")
    timer.cancel()
    self._end(REQUEUE)


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
  """A `Stop` for SIGTERM and SIGINT; a second SIGINT interrupts.

  Who leaves with SystemExit has saved, and says so by its code, which a further
  SIGTERM on the way out of Python does not change.
  """
  stop = Stop()
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return

  def handle(number, frame):
    del frame
    if stop.is_set() and number == signal.SIGINT:
      raise KeyboardInterrupt
    stop.set()

  reads, writes = os.pipe()
  os.set_blocking(writes, False)
  threading.Thread(target=stop.listen, args=(reads,), daemon=True).start()
  signals = (signal.SIGTERM, signal.SIGINT)
  old = {s: signal.signal(s, handle) for s in signals}
  before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
  try:
    yield stop
  except SystemExit:
    old[signal.SIGTERM] = signal.SIG_IGN
    raise
  finally:
    signal.set_wakeup_fd(before)
    os.close(writes)
    for s, handler in old.items():
      # None is a handler that was not set from Python; it cannot come back.
      signal.signal(s, handler or signal.SIG_DFL)
