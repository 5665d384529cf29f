"""The loop of a run: steps, metrics, checkpoints, and a clean end.

It takes any module, loss and batches, and names no system. Every process of a
job runs it, and all of them do the same steps; see `stopping`.
"""

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from jax.sharding import Mesh

from mmjax import distributed
from mmjax.checkpoints import Checkpoints, fingerprint
from mmjax.sharding import put_batch
from mmjax.training.ahead import AHEAD, Ahead, Batches
from mmjax.training.goodput import Goodput
from mmjax.training.interval import Interval
from mmjax.training.metrics import MultiWriter, open_writers
from mmjax.training.state import TrainState
from mmjax.training.stopping import REQUEUE, Horizon, Stop, stop_signals
from mmjax.training.watchdog import Patience, Watchdog
from mmjax.typing import Params

log = logging.getLogger(__name__)


class Preempted(SystemExit):
  """The run was told to stop, has saved, and can be resumed."""

  def __init__(self, step: int):
    super().__init__(REQUEUE)
    self.step = step


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


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run is made of, besides its state.

  Attributes:
    step: of `make_step`, not compiled.
    batches: resumable.
    plan: see Plan.
    mesh: where batches go.
    workdir: of checkpoints and metrics.
    patience: of the watchdog.
    clock: of goodput; it runs since the process began.
    monitor: trainable parameters to numbers worth a curve (gates).
    extra: functions of the step to log (the learning rate).
    begun: is told the step from which it goes on, once that is sure.
    stop: of `stop_signals`, for who listens to signals already.
  """

  step: Callable[..., tuple[TrainState, Any]]
  batches: Batches
  plan: Plan
  mesh: Mesh
  workdir: Path
  patience: Patience = Patience()
  clock: Goodput = dataclasses.field(default_factory=lambda: Goodput(None))
  monitor: Callable[[Params], Mapping[str, Any]] = lambda params: {}
  extra: Mapping[str, Callable[[int], float]] = dataclasses.field(
    default_factory=dict
  )
  begun: Callable[[int], None] = lambda step: None
  stop: Stop | None = None


def train(state: TrainState, where: TrainState, run: Run) -> TrainState:
  """Runs to the last step, from the newest checkpoint of `workdir` if any.

  Args:
    state: fresh, of `init_state`.
    where: its shardings.
    run: all the rest.

  Raises:
    Preempted: after SIGTERM or SIGINT, when everything is saved.
    ValueError: when the data ends or is too bad; everything is saved.
  """
  with (
    contextlib.closing(run.batches),
    Checkpoints(run.workdir / "checkpoints", keep=run.plan.keep) as checkpoints,
    jax.set_mesh(run.mesh),
    contextlib.nullcontext(run.stop) if run.stop else stop_signals() as stop,
    Watchdog(run.patience, run.batches.describe) as watchdog,
    run.clock,
  ):
    frozen = fingerprint(state.frozen)
    if checkpoints.agreed():
      state, data = checkpoints.restore(state, where, frozen)
      run.batches.set_state(data)
    done, plan = int(state.step), run.plan
    run.begun(done)
    _announce(done, plan, run.workdir)
    with _writers(run.workdir, plan) as writer:
      steps = _Steps(
        run=run,
        compiled=jax.jit(
          run.step, donate_argnums=0, out_shardings=(where, None)
        ),
        ahead=Ahead(run.batches, done, plan.steps),
        horizon=Horizon(run.mesh, stop),
        stop=stop,
        interval=Interval(run.monitor, run.extra, int(state.skipped)),
        save=functools.partial(checkpoints.save, frozen=frozen),
        watchdog=watchdog,
        writer=writer,
      )
      return steps.to_the_end(state)


def _takes_turns(mesh: Mesh) -> bool:
  """Whether only one program at a time may run on these devices.

  Those of a CPU share its threads, and processes the connections between
  them. Two programs in which devices wait for each other would take the
  threads that the other needs, or hear what was meant for it.
  """
  return mesh.devices.size > 1 and mesh.devices.flat[0].platform == "cpu"


@contextlib.contextmanager
def _writers(workdir: Path, plan: Plan):
  """Those of the first process; the others have none."""
  if not distributed.is_first():
    yield MultiWriter([])
    return
  with open_writers(workdir, plan.steps, shown=("loss",)) as writer:
    yield writer


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


@dataclasses.dataclass
class _Steps:
  """The steps of a run, and the order in which its parts act.

  Attributes:
    run: see there.
    compiled: the step; it waits for the compiler when it is first called.
    ahead: of batches.
    horizon: up to which all processes go.
    stop: is told when there is a step to save.
    interval: of metrics.
    save: a state and its position in the data.
    watchdog: is told of every step.
    writer: of metrics.
    known: names of datasets for whose batches there is a program.
    fresh: the step until which others may still be compiling one.
    waited: seconds for data, since the run began.
  """

  run: Run
  compiled: Callable
  ahead: Ahead
  horizon: Horizon
  stop: Stop
  interval: Interval
  save: Callable[..., bool]
  watchdog: Watchdog
  writer: MultiWriter
  known: set[tuple[str, ...]] = dataclasses.field(default_factory=set)
  fresh: int = 0
  waited: float = 0.0

  def to_the_end(self, state: TrainState) -> TrainState:
    """Does the steps that are left."""
    done, log_every = int(state.step), self.run.plan.log_every
    self.run.clock.start(done)
    with self.watchdog.patient():
      self.horizon.begin(self._read(state))
    for now in range(done + 1, self.run.plan.steps + 1):
      self.watchdog.starts(now, fresh=now <= self.fresh)
      if not self.horizon.allows(now, self._read(state)):
        self._stop(now - 1, state)
      state = self._do(now, state)
      last = now == self.run.plan.steps
      if last or now % log_every == 0:
        given = now - max(done, (now - 1) // log_every * log_every)
        with self.watchdog.awaits(given):
          values = self.interval.take(now, state, self.waited)
        self.writer.write(now, values)
        self.run.clock.write(now)
      if last or now % self.run.plan.checkpoint_every == 0:
        self._save(now, state, wait=last)
    return state

  def _read(self, state: TrainState) -> int:
    """Reads ahead; a wait is what the devices have nothing to do meanwhile."""
    begun = time.monotonic()
    horizon = self.ahead.fill()
    if state.step.is_ready():
      waited = time.monotonic() - begun
      self.waited += waited
      self.run.clock.was("input", waited)
    return horizon

  def _do(self, now: int, state: TrainState) -> TrainState:
    """One step; the first of its kind waits for the compiler."""
    batch = self.ahead.take()
    kind = tuple(sorted(batch))
    batch = put_batch(batch, self.run.mesh)
    with contextlib.ExitStack() as stack:
      if kind not in self.known:
        self.known.add(kind)
        self.fresh = now + AHEAD
        stack.enter_context(self.run.clock.spent("compile"))
        stack.enter_context(self.watchdog.patient())
        self.compiled.lower(state, batch).compile()
        # Processes of a step wait for each other for half a minute only,
        # where they meet in other groups than before.
        distributed.wait("has compiled")
      state, metrics = self.compiled(state, batch)
    self.stop.saves()
    if _takes_turns(self.run.mesh):
      jax.block_until_ready(state.step)
    self.horizon.tell(now, self.ahead.horizon)
    self.interval.add(now, metrics)
    return state

  def _save(self, now: int, state: TrainState, wait: bool = False) -> None:
    with self.run.clock.spent("checkpoint"), self.watchdog.patient():
      self.save(state, self.ahead.position, wait=wait)
    self.run.clock.write(now)

  def _stop(self, done: int, state: TrainState) -> NoReturn:
    """Saves the steps that are done, and says why there is no other."""
    if done:
      self._save(done, state, wait=True)
    if self.horizon.told:
      log.warning("Told to stop: saved step %d", done)
      raise Preempted(done)
    log.warning("No next batch: saved step %d", done)
    self.ahead.fail()
    raise ValueError(
      f"Another process has no batch for step {done + 1}; its log says why."
    )
