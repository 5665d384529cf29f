"""What is known of the steps between two lines of metrics."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mmjax.training.metrics import Sums
from mmjax.training.state import TrainState
from mmjax.typing import Params

log = logging.getLogger(__name__)


class Interval:
  """Collects the metrics of steps, and makes a line of them."""

  def __init__(
    self,
    monitor: Callable[[Params], Mapping[str, Any]],
    extra: Mapping[str, Callable[[int], float]],
    skipped: int,
  ):
    """Begins now.

    Args:
      monitor: trainable parameters to numbers worth a curve.
      extra: functions of the step to log.
      skipped: updates of the run that were dropped so far.
    """
    self._monitor, self._extra = jax.jit(monitor), extra
    self._skipped = skipped
    self._sums = Sums()
    self._dropped: list[tuple[int, Any]] = []
    self._waited, self._started = 0.0, time.monotonic()

  def add(self, step: int, metrics: Mapping[str, Any]) -> None:
    """A step's metrics, as (sum, count)."""
    metrics = dict(metrics)
    self._dropped.append((step, metrics.pop("dropped", False)))
    self._sums.add(_with_total(metrics))

  def take(self, now: int, state: TrainState, waited: float) -> dict[str, Any]:
    """Means since the last call, with the state's own numbers.

    Args:
      now: the step that was done last.
      state: after it.
      waited: seconds for data, since the run began.
    """
    values = self._sums.take()
    values |= jax.tree.map(float, self._monitor(state.trainable))
    values |= {name: f(now) for name, f in self._extra.items()}
    values["skipped"] = skipped = int(state.skipped)
    if skipped > self._skipped:
      log.warning(
        "Step %d: %d update(s) skipped since the last line, %d of the run; "
        "their gradients were not finite, or a spike. They are those of "
        "step(s) %s: `mmjax data replay` shows what a step read",
        *(now, skipped - self._skipped, skipped, self._which()),
      )
    self._skipped, self._dropped = skipped, []
    total = max(time.monotonic() - self._started, 1e-9)
    values["input_wait"] = (waited - self._waited) / total
    self._waited, self._started = waited, time.monotonic()
    return values

  def _which(self) -> str:
    steps = [step for step, dropped in self._dropped if np.asarray(dropped)]
    more = f" and {len(steps) - 20} more" if len(steps) > 20 else ""
    return ", ".join(map(str, steps[:20])) + more


def _with_total(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """Adds `loss`, the sum over all datasets of a step, for the terminal."""
  losses = [v for k, v in metrics.items() if k.endswith("/loss")]
  total = sum(x for x, _ in losses), sum(n for _, n in losses)
  return dict(metrics) | {"loss": total}
