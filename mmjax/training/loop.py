"""The loop of a run: steps, metrics, checkpoints, and a clean end.

It takes any module, loss and batches, and names no system.
"""

import contextlib
import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from mmjax.checkpoints import Checkpoints, fingerprint
from mmjax.sharding import put_batch
from mmjax.training.metrics import Sums, open_writers
from mmjax.training.state import TrainState
from mmjax.typing import Batch, Params

log = logging.getLogger(__name__)

# Exit code of a run that was told to stop and can be started again: the
# EX_TEMPFAIL of sysexits.h.
REQUEUE = 75


class Preempted(SystemExit):
  """The run was told to stop, has saved, and can be resumed."""

  def __init__(self, step: int):
    super().__init__(REQUEUE)
    self.step = step


class Batches(Protocol):
  """What the loop asks of the data; see data/pipeline.py."""

  step: int

  def __next__(self) -> dict[str, Batch]: ...

  def get_state(self) -> dict[str, Any]: ...

  def set_state(self, state: Mapping[str, Any]) -> None: ...

  def close(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Plan:
  """How long a run is and what it leaves behind.

  Attributes:
    steps: of the whole run.
    log_every: steps between two lines of metrics.
    checkpoint_every: steps between two checkpoints.
    keep: checkpoints that stay.
  """

  steps: int
  log_every: int = 10
  checkpoint_every: int = 1000
  keep: int = 2

  def __post_init__(self):
    if min(dataclasses.astuple(self)) < 1:
      raise ValueError(f"{self}: each of them has to be 1 or more.")


def train(
  state: TrainState,
  where: TrainState,
  step: Callable[..., tuple[TrainState, Any]],
  batches: Batches,
  plan: Plan,
  mesh: Mesh,
  workdir: str | Path,
  *,
  monitor: Callable[[Params], Mapping[str, Any]] = lambda params: {},
  extra: Mapping[str, Callable[[int], float]] | None = None,
  begun: Callable[[int], None] = lambda step: None,
) -> TrainState:
  """Runs to the last step, from the newest checkpoint of `workdir` if any.

  Args:
    state: fresh, of `init_state`.
    where: its shardings.
    step: of `make_step`, not compiled.
    batches: resumable.
    plan: see Plan.
    mesh: where batches go.
    workdir: of checkpoints and metrics.
    monitor: trainable parameters to numbers worth a curve (gates).
    extra: functions of the step to log (the learning rate).
    begun: is told the step from which it goes on, once that is sure.

  Raises:
    Preempted: after SIGTERM or SIGINT, when everything is saved.
    ValueError: when the data ends or is too bad; everything is saved.
  """
  workdir = Path(workdir)
  frozen = fingerprint(state.frozen)
  checkpoints = Checkpoints(
    workdir / "checkpoints", every=plan.checkpoint_every, keep=plan.keep
  )
  compiled = jax.jit(step, donate_argnums=0, out_shardings=(where, None))
  with (
    contextlib.closing(batches),
    contextlib.closing(checkpoints),
    jax.set_mesh(mesh),
    _stop_signals() as stop,
  ):
    if checkpoints.latest is not None:
      state, data = checkpoints.restore(state, where, frozen)
      batches.set_state(data)
    begun(int(state.step))
    _announce(int(state.step), plan, workdir)
    interval = _Interval(monitor, extra or {}, int(state.skipped))
    writer = open_writers(workdir, plan.steps, shown=("loss",))
    with writer:
      for now in range(int(state.step) + 1, plan.steps + 1):
        with _saved(checkpoints, state, batches, frozen, now - 1):
          batch = interval.wait(batches)
        state, metrics = compiled(state, put_batch(batch, mesh))
        interval.add(metrics)
        if now % plan.log_every == 0 or now == plan.steps:
          writer.write(now, interval.take(now, state))
        last = stop.is_set() or now == plan.steps
        if now % plan.checkpoint_every == 0 or last:
          checkpoints.save(state, batches.get_state(), frozen, force=last)
        if stop.is_set() and now < plan.steps:
          checkpoints.wait()
          log.warning("Told to stop: saved step %d in %s", now, workdir)
          raise Preempted(now)
  return state


def _announce(done: int, plan: Plan, workdir: Path) -> None:
  """What comes, before the compiler is silent for a while."""
  if done >= plan.steps:
    log.info(
      "%s has its %d steps; a larger config.train.plan.steps goes on.",
      *(workdir, plan.steps),
    )
    return
  log.info(
    "%s: step %d of %d is compiled now; the first line of metrics is that of "
    "step %d. SIGTERM or Ctrl-C stops after a step and saves it.",
    *(workdir, done + 1, plan.steps),
    min((done // plan.log_every + 1) * plan.log_every, plan.steps),
  )


@contextlib.contextmanager
def _saved(
  checkpoints: Checkpoints,
  state: TrainState,
  batches: Batches,
  frozen: str,
  done: int,
) -> Iterator[None]:
  """Saves the steps that are done when there is no next batch."""
  before = batches.get_state()
  try:
    yield
  except Exception as error:
    if done:
      checkpoints.save(state, before, frozen, force=True)
      checkpoints.wait()
      log.warning("No next batch: saved step %d", done)
    if not isinstance(error, StopIteration):
      raise
    raise ValueError(
      f"The data ended after step {done}. Ask for as many steps, or let the "
      "datasets repeat (repeat=True)."
    ) from None


class _Interval:
  """What is known of the steps between two lines of metrics."""

  def __init__(
    self,
    monitor: Callable[[Params], Mapping[str, Any]],
    extra: Mapping[str, Callable[[int], float]],
    skipped: int,
  ):
    self._monitor, self._extra = jax.jit(monitor), extra
    self._skipped = skipped
    self._sums = Sums()
    self._waited, self._started = 0.0, time.monotonic()

  def wait(self, batches: Batches) -> dict[str, Batch]:
    """The next batch; the time it takes counts as waiting for data."""
    asked = time.monotonic()
    batch = next(batches)
    self._waited += time.monotonic() - asked
    return batch

  def add(self, metrics: Mapping[str, Any]) -> None:
    """A step's metrics, as (sum, count)."""
    self._sums.add(_with_total(metrics))

  def take(self, now: int, state: TrainState) -> dict[str, Any]:
    """Means since the last call, with the state's own numbers."""
    values = self._sums.take()
    values |= jax.tree.map(float, self._monitor(state.trainable))
    values |= {name: f(now) for name, f in self._extra.items()}
    values["skipped"] = skipped = int(state.skipped)
    if skipped > self._skipped:
      log.warning(
        "Step %d: %d update(s) skipped since the last line, %d of the run; "
        "their gradients were not finite, or a spike",
        *(now, skipped - self._skipped, skipped),
      )
    self._skipped = skipped
    total = max(time.monotonic() - self._started, 1e-9)
    values["input_wait"] = self._waited / total
    self._waited, self._started = 0.0, time.monotonic()
    return values


def _with_total(metrics: Mapping[str, Any]) -> dict[str, Any]:
  """Adds `loss`, the sum over all datasets of a step, for the terminal."""
  losses = [v for k, v in metrics.items() if k.endswith("/loss")]
  total = sum(x for x, _ in losses), sum(n for _, n in losses)
  return dict(metrics) | {"loss": total}


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
  """An event that SIGTERM and SIGINT set; a second SIGINT interrupts."""
  event = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield event
    return

  def handle(number, frame):
    del frame
    if event.is_set() and number == signal.SIGINT:
      raise KeyboardInterrupt
    event.set()

  signals = (signal.SIGTERM, signal.SIGINT)
  old = {s: signal.signal(s, handle) for s in signals}
  try:
    yield event
  finally:
    for s, handler in old.items():
      signal.signal(s, handler)
