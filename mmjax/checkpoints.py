"""Checkpoints of a run; the only file that talks to Orbax.

A checkpoint is one composite: the trainable state and the position in the
data. Frozen parameters are not in it: they come from their source again, and
a fingerprint tells when that source has changed.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmjax import tree
from mmjax.training.state import TrainState
from mmjax.typing import Params, PyTree

log = logging.getLogger(__name__)


class Checkpoints:
  """Saves and restores the states of one run, in the background.

  Attributes:
    directory: of the run's checkpoints.
  """

  def __init__(self, directory: str | Path, *, every: int, keep: int = 2):
    """Opens or makes the directory.

    Args:
      directory: absolute or relative; made absolute.
      every: steps between checkpoints.
      keep: how many of the newest stay.
    """
    self.directory = Path(directory).absolute()
    options = ocp.CheckpointManagerOptions(
      save_interval_steps=every, max_to_keep=keep, create=True
    )
    self._manager = ocp.CheckpointManager(self.directory, options=options)

  @property
  def latest(self) -> int | None:
    """Step of the newest complete checkpoint."""
    return self._manager.latest_step()

  def save(
    self,
    state: TrainState,
    data: Mapping[str, Any],
    frozen: str,
    *,
    force: bool = False,
  ) -> bool:
    """Saves when the interval says so, or when forced.

    Args:
      state: of the run.
      data: position in the data, JSON.
      frozen: `fingerprint` of the frozen parameters.
      force: saves now.

    Returns:
      whether a save was started.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return False
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state.saved()),
      data=ocp.args.JsonSave(
        {
          "data": dict(data),
          "frozen": frozen,
          "trainable": fingerprint(state.trainable),
        }
      ),
    )
    return self._manager.save(step, args=items, force=force)

  def restore(
    self, state: TrainState, where: TrainState, frozen: str
  ) -> tuple[TrainState, dict[str, Any]]:
    """The newest checkpoint, put where `where` says.

    Args:
      state: a fresh state, which gives shapes and the frozen part.
      where: shardings; they may differ from those of the saving run.
      frozen: `fingerprint` of the frozen part now.

    Raises:
      ValueError: when there is no checkpoint, when it is damaged or of another
        model, or the frozen part has changed.
    """
    step = self.latest
    if step is None:
      raise ValueError(f"No checkpoint in {self.directory}.")
    abstract = jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      state.saved(),
      where.saved(),
    )
    items = _read(self._manager, self.directory, step, abstract)
    if items.data["frozen"] != frozen:
      raise ValueError(
        f"The frozen parameters differ from those of {self.directory} (now "
        f"{frozen}, then {items.data['frozen']}). Give the same source, or "
        "start in a new workdir."
      )
    log.info("Restored step %d of %s", step, self.directory)
    return state.replace(**items.state), items.data["data"]

  def wait(self) -> None:
    """Until everything that was started is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and ends the background threads."""
    self.wait()
    self._manager.close()


def load_trainable(directory: str | Path, step: int | None = None) -> Params:
  """The trainable parameters of a run as NumPy arrays, for evaluation."""
  directory = Path(directory).absolute()
  if not directory.is_dir():
    raise ValueError(f"{directory} is no directory of checkpoints.")
  with ocp.CheckpointManager(directory) as manager:
    step = manager.latest_step() if step is None else step
    if step is None:
      raise ValueError(f"No checkpoint in {directory}.")
    items = _read(manager, directory, step)
  return jax.tree.map(np.asarray, items.state["trainable"])


def _read(
  manager: ocp.CheckpointManager,
  directory: Path,
  step: int,
  abstract: PyTree | None = None,
):
  """The items of a checkpoint, whose parameters have the bits they had."""
  args = ocp.args.Composite(
    state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore()
  )
  try:
    items = manager.restore(step, args=args)
    then = items.data.get("trainable")
    if then not in (None, fingerprint(items.state["trainable"])):
      raise ValueError("its parameters are not those that were saved.")
  # Damaged files end in errors of many kinds, some of them bare Exceptions.
  except Exception as error:
    older = [s for s in manager.all_steps() if s < step]
    rest = f"go on from step {max(older)}" if older else "begin again"
    first = str(error).strip().partition("\n")[0]
    raise ValueError(
      f"Step {step} in {directory} cannot be restored. When it is of another "
      "model or optimizer, go on with its config, or choose a new workdir; "
      f"when it is damaged, move {directory / str(step)} away to {rest}. "
      f"{first:.300}"
    ) from error
  return items


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
    place = jax.lax.iota(np.uint32, bits.size).reshape(bits.shape)
    return (bits * (2 * place + 1)).sum(dtype=np.uint32)

  return [one(x) for x in arrays]
