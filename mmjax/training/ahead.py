"""Batches that are read before their step.

So a process knows two steps before that its data end, in time to tell the
others; and the position that a checkpoint keeps is that of the steps done,
not of the batches read.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from mmjax.typing import Batch

# Steps between reading a batch and its step. One is too few: the device would
# be idle while the processes agree.
AHEAD = 2


class Batches(Protocol):
  """What the loop asks of the data; see data/pipeline.py."""

  step: int

  def __next__(self) -> dict[str, Batch]: ...

  def get_state(self) -> dict[str, Any]: ...

  def set_state(self, state: Mapping[str, Any]) -> None: ...

  def describe(self, step: int) -> str: ...

  def close(self) -> None: ...


class Ahead:
  """Reads batches ahead of their steps.

  Attributes:
    error: why there is no further batch, once that is known.
    position: in the data, after the batches that were taken.
  """

  def __init__(self, batches: Batches, done: int, last: int):
    """Nothing is read yet.

    Args:
      batches: at step `done`.
      done: steps that are done.
      last: step of the run.
    """
    self._batches, self._last = batches, last
    self._taken = done
    self._queue: deque[tuple[dict[str, Batch], dict[str, Any]]] = deque()
    self.error: Exception | None = None
    self.position = batches.get_state()

  @property
  def horizon(self) -> int:
    """The last step whose batch is there."""
    return self._taken + len(self._queue)

  def fill(self) -> int:
    """Reads until the next batch and those after it are there.

    Returns:
      the horizon.
    """
    while self.error is None and len(self._queue) <= AHEAD:
      if self.horizon == self._last:
        break
      try:
        batch = next(self._batches)
      except Exception as error:
        self.error = error
      else:
        self._queue.append((batch, self._batches.get_state()))
    return self.horizon

  def take(self) -> dict[str, Batch]:
    """The batch of the next step."""
    batch, self.position = self._queue.popleft()
    self._taken += 1
    return batch

  def fail(self) -> None:
    """Raises why there is no batch for the next step."""
    if isinstance(self.error, StopIteration):
      raise ValueError(
        f"The data ended after step {self._taken}. Ask for as many steps, or "
        "let the datasets repeat (repeat=True)."
      )
    if self.error is not None:
      raise self.error
