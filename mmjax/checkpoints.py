"""Checkpoints of a run; the only file that talks to Orbax.

A checkpoint is one composite: the trainable state, and a note with the
position in the data and a checksum of every array. Frozen parameters are not
in it: they come from their source again, and a fingerprint tells when that
source has changed.

A checkpoint that cannot be read, or whose arrays are not those that were
saved, is damaged: the run goes on from the one before, says so, and the
damaged one is kept beside the others.
"""

import dataclasses
import hashlib
import itertools
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from mmjax import distributed, tree
from mmjax.barriers import Barriers, short
from mmjax.training.state import TrainState
from mmjax.typing import Params, PyTree

log = logging.getLogger(__name__)

# Seconds, and checkpoints that a restart looks at.
_SEEN_WITHIN, _MOST = 60.0, 100
# Not the checkpoint's fault: it may be whole.
_ELSEWHERE = (MemoryError, PermissionError, jax.errors.JaxRuntimeError)


@dataclasses.dataclass(frozen=True)
class _Found:
  """A checkpoint that was read.

  Attributes:
    state: its arrays.
    note: what was saved beside them.
  """

  state: Any
  note: Mapping[str, Any]


class Checkpoints:
  """Saves and restores the states of one run, in the background.

  Attributes:
    directory: of the run's checkpoints.
  """

  def __init__(self, directory: str | Path, *, keep: int = 2):
    """Opens or makes the directory.

    Args:
      directory: absolute or relative; made absolute.
      keep: how many of the newest stay.
    """
    self.directory = Path(directory).absolute()
    self._barriers = Barriers()
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      create=True,
      async_options=ocp.AsyncOptions(barrier_sync_fn=self._barriers),
    )
    self._manager = ocp.CheckpointManager(self.directory, options=options)

  @property
  def latest(self) -> int | None:
    """Step of the newest complete checkpoint."""
    return self._manager.latest_step()

  def agreed(self) -> list[int]:
    """Complete checkpoints that the first process sees, newest first."""
    own = sorted(self._manager.all_steps(), reverse=True)
    steps = json.loads(distributed.gather(json.dumps(own[:_MOST]))[0])
    # A network file system may show them to others only after a while.
    end = time.monotonic() + _SEEN_WITHIN
    paths = [self.directory / str(step) for step in steps]
    while not all(p.exists() for p in paths) and time.monotonic() < end:
      time.sleep(0.5)
    return steps

  def save(
    self,
    state: TrainState,
    data: Mapping[str, Any],
    frozen: str,
    *,
    wait: bool = False,
  ) -> bool:
    """Saves in the background, or waits until all is on disk.

    A save in the background that fails is reported by the next one, and the
    run goes on: the checkpoints before it stay.

    Args:
      state: of the run.
      data: position in the data, JSON.
      frozen: `fingerprint` of the frozen parameters.
      wait: for this one.

    Returns:
      whether a save was started.

    Raises:
      OSError: when this one fails and is waited for.
    """
    step = int(state.step)
    self._settle()
    started = step not in self._manager.all_steps()
    if started:
      saved = state.saved()
      note = {"data": dict(data), "frozen": frozen, "arrays": checksums(saved)}
      items = ocp.args.Composite(
        state=ocp.args.StandardSave(saved), data=ocp.args.JsonSave(note)
      )
      self._barriers.begin()
      try:
        self._manager.save(step, args=items, force=True)
      except Exception as error:
        if jax.process_count() > 1:  # The others are not where this one is.
          raise
        self._failed(error)
    if wait:
      self._settle()
      if step not in self._manager.all_steps():
        raise OSError(
          f"Step {step} could not be saved in {self.directory}; the log says "
          f"why. The newest checkpoint is that of step {self.latest}."
        )
    return started

  def _settle(self) -> None:
    """Waits for the last save; one that failed is reported and forgotten."""
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      self._failed(error)

  def _failed(self, error: Exception) -> None:
    if distributed.is_first():  # What is there of it takes room.
      for part in self.directory.glob("*.orbax-checkpoint-tmp"):
        shutil.rmtree(part, ignore_errors=True)
    self._manager.reload()
    log.error(
      "A checkpoint could not be saved: %s. The run goes on; the newest "
      "checkpoint is that of step %s.",
      *(short(error), self.latest),
    )

  def restore(
    self, state: TrainState, where: TrainState, frozen: str
  ) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint that is whole, put where `where` says.

    Args:
      state: a fresh state, which gives shapes and the frozen part.
      where: shardings; they may differ from those of the saving run.
      frozen: `fingerprint` of the frozen part now.

    Raises:
      ValueError: when there is no checkpoint, when all are damaged, when it
        is of another model, or the frozen part has changed.
    """
    steps = self.agreed()
    if not steps:
      raise ValueError(f"No checkpoint in {self.directory}.")
    abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      state.saved(),
      where.saved(),
    )
    damaged: dict[int, str] = {}
    for step in steps:
      found, damaged[step] = _attempt(self.directory / str(step), abstract)
      if not damaged[step]:
        break
      log.error(
        "Step %d in %s is damaged: %s", step, *(self.directory, damaged[step])
      )
    else:
      raise ValueError(
        f"Every checkpoint in {self.directory} is damaged. Move the directory "
        f"away to begin again. Step {step}: {damaged[step]}"
      )
    del damaged[step]
    if found.note["frozen"] != frozen:
      raise ValueError(
        f"The frozen parameters differ from those of {self.directory} (now "
        f"{frozen}, then {found.note['frozen']}). Give the same source, or "
        "start in a new workdir."
      )
    self._set_aside(damaged, step)
    log.info("Restored step %d of %s", step, self.directory)
    return state.replace(**found.state), dict(found.note["data"])

  def _set_aside(self, damaged: Mapping[int, str], step: int) -> None:
    """Moves damaged checkpoints out of the way, and keeps them."""
    if not damaged:
      return
    aside = self.directory.with_name(f"{self.directory.name}-damaged")
    distributed.wait("all have read")
    if distributed.is_first():
      aside.mkdir(exist_ok=True)
      for bad in map(str, damaged):
        (self.directory / bad).rename(_free(aside / bad))
    distributed.wait("the damaged are moved")
    self._manager.reload()
    log.error(
      "GOES BACK TO STEP %d: the checkpoint(s) of %s were damaged; they are "
      "kept in %s. Look after the disk.",
      *(step, ", ".join(map(str, damaged)), aside),
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind, error, trace) -> None:
    # A save waits for all processes, and for the dead until JAX aborts it.
    if not isinstance(error, Exception) or not distributed.is_lost(error):
      self.close()

  def close(self) -> None:
    """Waits, and ends the background threads."""
    self._settle()
    self._manager.close()


def _free(path: Path) -> Path:
  """The path, or `path-1` and so on where it is taken."""
  names = (path.with_name(f"{path.name}-{n}") for n in itertools.count(1))
  return next(p for p in itertools.chain([path], names) if not p.exists())


def load_trainable(directory: str | Path, step: int | None = None) -> Params:
  """The trainable parameters of a run as NumPy arrays, for evaluation."""
  directory = Path(directory).absolute()
  if not directory.is_dir():
    raise ValueError(f"{directory} is no directory of checkpoints.")
  with ocp.CheckpointManager(directory) as manager:
    steps = manager.all_steps()
  step = max(steps, default=None) if step is None else step
  if step is None:
    raise ValueError(f"No checkpoint in {directory}.")
  found, problem = _attempt(directory / str(step))
  if problem:
    older = [s for s in steps if s < step]
    rest = f"use step {max(older)}" if older else "begin again"
    raise ValueError(
      f"Step {step} in {directory} is damaged: {problem} Move "
      f"{directory / str(step)} away to {rest}."
    )
  return jax.tree.map(np.asarray, found.state["trainable"])


def _attempt(
  directory: Path, abstract: PyTree | None = None
) -> tuple[_Found | None, str]:
  """A checkpoint, or what is wrong with it on any process.

  Not through the manager: its restore waits for the other processes, for ever
  when a file is damaged that only one of them reads.
  """
  found, problem = None, ""
  try:
    found = _read(directory, abstract)
  except (_OtherModel, *_ELSEWHERE):
    raise
  # Damaged files end in errors of many kinds, some of them bare Exceptions.
  except Exception as error:
    problem = short(error)
  if not (problem := _first(problem)):
    now, then = checksums(found.state), found.note["arrays"]
    wrong = sorted(path for path in now if now[path] != then.get(path))
    if wrong:
      more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
      problem = f"{', '.join(wrong[:3])}{more} are not what was saved."
    # Each has looked at its own copies of what several hold.
    problem = _first(problem)
  return found, problem


def _first(problem: str) -> str:
  """The first problem that any process has."""
  problems = distributed.gather(problem, room=512)
  return next(filter(None, problems), "")


def _read(directory: Path, abstract: PyTree | None) -> _Found:
  note = ocp.JsonCheckpointHandler().restore(directory / "data")
  if "arrays" not in note:
    raise _OtherModel(
      f"{directory} has no checksums: an earlier mmjax wrote it. Choose a new "
      "workdir, or go on with that version."
    )
  handler = ocp.StandardCheckpointHandler()
  if abstract is not None:
    _check_model(directory, note["arrays"], abstract)
  else:  # Where it was saved may have been other devices than are here.
    here = SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
      handler.metadata(directory / "state").tree,
    )
  state = handler.restore(
    directory / "state", args=ocp.args.StandardRestore(abstract)
  )
  return _Found(state, note)


class _OtherModel(ValueError):
  """The checkpoint may be whole, but is not of this run."""


def _check_model(
  directory: Path, then: Mapping[str, str], abstract: PyTree
) -> None:
  """What is there has the names, shapes and dtypes of what is wanted."""
  wanted = {path: _kind(x) for path, x in _arrays(abstract).items()}
  saved = {path: text.rpartition(" ")[0] for path, text in then.items()}
  if wanted == saved:
    return
  path = min(p for p in wanted | saved if wanted.get(p) != saved.get(p))
  raise _OtherModel(
    f"{directory} is of another model or optimizer: {path} is "
    f"{saved.get(path, 'not in it')} there, and "
    f"{wanted.get(path, 'not in it')} in this run. Go on with its config, or "
    "choose a new workdir."
  )


def checksums(saved: PyTree) -> dict[str, str]:
  """Shape, dtype and a sum of the bits of every array, by path."""
  flat = _arrays(saved)
  sums = _bit_sums(list(flat.values()))
  return {
    path: f"{_kind(x)} {int(total)}"
    for (path, x), total in zip(flat.items(), sums)
  }


def _kind(x: Any) -> str:
  return f"{tuple(x.shape)} {x.dtype}"


def _arrays(saved: PyTree) -> dict[str, Any]:
  """Arrays by path; the same for a state and for what is read of one."""
  leaves = jax.tree_util.tree_leaves_with_path(saved)
  return {_name(path): x for path, x in leaves}


def _name(path) -> str:
  """Of an array: an optimizer's tuples and fields are dicts when read."""
  keys = (
    getattr(k, "key", getattr(k, "name", getattr(k, "idx", None))) for k in path
  )
  return "/".join(map(str, keys))


def fingerprint(params: Params) -> str:
  """A hash over names, shapes, dtypes and a sum of every array's bits.

  Cheap for any size and sharding: only one number an array leaves its device.
  The order in which a tree was put together plays no part.
  """
  flat = dict(sorted(tree.flatten(params).items()))
  if not flat:
    return "none"
  sums = _bit_sums(list(flat.values()))
  digest = hashlib.sha256()
  for (path, value), total in zip(flat.items(), sums):
    digest.update(f"{path} {value.shape} {value.dtype} {int(total)}".encode())
  return digest.hexdigest()[:16]


@jax.jit
def _bit_sums(arrays):
  def one(x):
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, kind).astype(np.uint32)
    # The index in the flat array, of dims, so that shards stay where they are.
    place, stride = np.uint32(0), 1
    for dim in reversed(range(bits.ndim)):
      iota = jax.lax.broadcasted_iota(np.uint32, bits.shape, dim)
      place = place + iota * np.uint32(stride % 2**32)
      stride *= bits.shape[dim]
    return (bits * (2 * place + 1)).sum(dtype=np.uint32)

  return [one(x) for x in arrays]
