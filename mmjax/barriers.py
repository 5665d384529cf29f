"""Where the processes of a job wait while a checkpoint is written.

Orbax's own barriers wait twenty minutes for a process that could not write its
part, and cannot be used again afterwards. At these a process that failed says
so as it comes, and those that wait for it fail as well:

  process 0    written --> waits ................ fails, too --> the end
  process 1    disk full --> the end, says why --------------->  the end
"""

import collections
import sys
import threading
import time

import jax
from jax._src import distributed as runtime

# Seconds between two looks at whether another process has failed.
_LOOK = 2.0
_ROOT = "mmjax/save"


class Barriers:
  """The barriers of one save after the other; called from any thread."""

  def __init__(self):
    self._save = 0
    self._met: collections.Counter[str] = collections.Counter()
    self._lock = threading.Lock()

  def begin(self) -> None:
    """Another save begins, on all processes, when the one before is over."""
    with self._lock:
      self._save += 1
      self._met.clear()
    if jax.process_count() > 1 and jax.process_index() == 0:
      # All have seen the end of this one: they came to the one after it.
      _client().key_value_delete(f"{_ROOT}/{self._save - 2}/")

  def __call__(self, *, key: str, timeout_ms: int) -> None:
    """Waits until all processes have come to a barrier as often.

    A process comes with the error that it is about to end with, if any.

    Args:
      key: name of it.
      timeout_ms: milliseconds that it waits at most.

    Raises:
      OSError: when another process has failed, and this one has not.
      TimeoutError: when not all have come in time.
    """
    if jax.process_count() == 1:
      return
    with self._lock:
      self._met[key] += 1
      root = f"{_ROOT}/{self._save}"
      place = f"{root}/{self._met[key]}/{key}"
    error = sys.exc_info()[1]
    come = _client().key_value_increment(f"{place}/come", 1)
    if come == jax.process_count():
      _client().key_value_set(f"{place}/all", "here")
    if error is not None:
      why = f"process {jax.process_index()}: {short(error)}"
      _client().key_value_set(f"{root}/failed", why, allow_overwrite=True)
    end = time.monotonic() + timeout_ms / 1000
    while not _told(f"{place}/all"):
      why = None if error else _now(f"{root}/failed")
      if why is not None:
        raise OSError(why)
      if time.monotonic() > end:
        raise TimeoutError(
          f"Not all processes came to {key} in {timeout_ms / 1000:.0f} s."
        )


def short(error: BaseException) -> str:
  """The first line of an error; of a long one, both ends."""
  text = str(error).strip().partition("\n")[0] or type(error).__name__
  text = text.partition(" See full TensorStore")[0]
  return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"


def _client():
  return runtime.global_state.client


def _told(key: str) -> bool:
  """Whether a key is set, or will be in a moment."""
  try:
    _client().blocking_key_value_get(key, int(_LOOK * 1000))
  except jax.errors.JaxRuntimeError as error:
    if "DEADLINE_EXCEEDED" not in str(error):
      raise
    return False
  return True


def _now(key: str) -> str | None:
  try:
    return _client().key_value_try_get(key)
  except jax.errors.JaxRuntimeError as error:
    if "NOT_FOUND" not in str(error):
      raise
    return None
