"""A run that compiles in a moment: `python -m tests.training.toy DIR OPTIONS`.

A line is fitted to numbers that come through the pipeline of all runs. Every
process writes the rows that it read to rows-PROCESS.txt, and at the end prints
the hash of the state.
"""

import dataclasses
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from mmjax import checkpoints, distributed
from mmjax.cli import main
from mmjax.data.pipeline import Batches, Dataset
from mmjax.sharding import BATCH, make_mesh
from mmjax.training import loop
from mmjax.training.goodput import Goodput
from mmjax.training.state import TrainState
from mmjax.training.step import make_step
from mmjax.training.watchdog import Patience
from tests.training.child import fingerprint

WIDTH = 4


@dataclasses.dataclass
class Numbers:
  """Sample i is drawn from i; there are `last`, and each takes a while."""

  last: int = 10**6
  slow: float = 0.0

  def __len__(self):
    return self.last

  def __getitem__(self, i):
    time.sleep(self.slow)
    x = np.random.default_rng(i).standard_normal(WIDTH).astype(np.float32)
    skipped = dict(samples=1, bad=0, filtered=0, why="", records=f"n:{i}")
    skipped = {k: np.array(v) for k, v in skipped.items()}
    return {"x": x, "y": x.sum(keepdims=True), "row": i, "skipped": skipped}


class Told(Batches):
  """Writes down what is read, and does what a test asks for at a step."""

  def __init__(self, *args, workdir: Path, at: dict, **kwargs):
    super().__init__(*args, **kwargs)
    path = workdir / f"rows-{jax.process_index()}.txt"
    self._file, self._at, self._workdir = path.open("a"), at, workdir

  def __next__(self):
    batch = super().__next__()
    rows = batch["numbers"].pop("row")
    self._file.write(json.dumps([self.step, rows.tolist()]) + "\n")
    self._file.flush()
    print("step", self.step, flush=True)
    for name, step in self._at.items():
      if step == self.step:
        getattr(self, name)()
    return batch

  def hang(self):
    time.sleep(10**6)

  def fail(self):
    raise ValueError("this process cannot go on")

  def saved(self):
    """Waits for a checkpoint, so that there is something to go on from."""
    while not any(p.name == "5" for p in self._workdir.glob("checkpoints/*")):
      time.sleep(0.01)

  def kill(self):
    """Once in a directory, so that a launcher's next start goes on."""
    mark = self._workdir / "killed"
    self.saved()
    if not mark.exists():
      mark.touch()
      os.kill(os.getpid(), signal.SIGKILL)

  def die(self):
    """In the middle of the first save."""
    while not any(self._workdir.glob("checkpoints/5.*tmp*")):
      time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

  def fill(self):
    """The disk takes no file of more than this, as if it were full."""
    self.saved()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, -1))

  def free(self):
    """Room again, when the save that met the full disk has come to its end."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < 3:
      found = sorted(self._workdir.glob("*/1*/**/*"))
      if found != before:
        before, since = found, time.monotonic()
      time.sleep(0.05)
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))

  def term(self):
    os.kill(os.getpid(), signal.SIGTERM)


def loss(params, batch):
  error = batch["x"] @ params["w"] + params["b"] - batch["y"]
  return {"loss": ((error**2).sum(), jnp.float32(error.shape[0]))}


def long_loss(params, batch):
  """The same, after half a minute in the compiler."""
  x = batch["x"] @ jnp.tile(params["w"], (1, WIDTH))
  for i in range(400):
    x = jnp.sin(x * (1 + i)) @ (x.T @ x)
  value, count = loss(params, batch)["loss"]
  return {"loss": (value + 0 * x.sum(), count)}


def spread(x, sharding):
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, sharding, lambda i: x[i])


def make_state(mesh, width: int, cut: bool):
  trainable = {"w": jnp.full((WIDTH, 1), 0.5), "b": jnp.zeros(1)}
  if width:  # Something that takes a while to save, and does not shrink.
    pad = np.random.default_rng(0).standard_normal((width, 1024))
    trainable["pad"] = jnp.asarray(pad, jnp.float32)
  zero, tx = jnp.zeros((), jnp.int32), optax.adam(0.01)
  state = TrainState(
    zero, trainable, {}, tx.init(trainable), zero, jnp.zeros(())
  )
  where = jax.tree.map(lambda _: jax.NamedSharding(mesh, P()), state)
  if cut:  # Each process has its share of what is large, and saves it.
    rows = jax.NamedSharding(mesh, P(BATCH))
    for params in (where.trainable, *where.opt_state[0][1:]):
      params["pad"] = rows
  state = jax.tree.map(spread, state, where)
  return state, where, tx


def train(
  workdir: Path,
  steps: int = 20,
  every: int = 5,
  batch: int = 8,
  workers: int = 0,
  slow: float = 0.0,
  last: int = 10**6,
  width: int = 0,
  cut: bool = False,
  watchdog: dict | None = None,
  at: dict | None = None,
  stalls: str = "",
  damaged: str = "",
) -> None:
  distributed.start()
  workdir.mkdir(parents=True, exist_ok=True)
  mesh = make_mesh({"data": -1})
  batches = Told(
    {"numbers": Dataset(Numbers(last, slow), batch)},
    host=distributed.readers(mesh, BATCH),
    workers=workers,
    workdir=workdir,
    at=at or {},
  )
  state, where, tx = make_state(mesh, width, cut)
  if stalls == "restore":
    checkpoints._read = stall
  if damaged:
    checkpoints._read = misread(damaged)
  run = loop.Run(
    make_step(long_loss if stalls == "compile" else loss, tx, batches.weights),
    batches,
    loop.Plan(steps, log_every=1, checkpoint_every=every),
    mesh,
    workdir,
    patience=Patience(**(watchdog or {})),
    clock=Goodput(workdir if distributed.is_first() else None),
  )
  state = loop.train(state, where, run)
  adam, params = state.opt_state[0], state.trainable
  parts = [[x["w"], x["b"]] for x in (params, adam.mu, adam.nu)]
  print("weights", np.ravel(params["w"]).tolist())
  print("hash", fingerprint(parts), flush=True)


def misread(how: str):
  """Reads as from a disk that gives this process other bytes of step 20."""
  read = checkpoints._read
  if how == "unseen":
    checkpoints.ocp.CheckpointManager.all_steps = lambda *_: []
    return read

  def misread(directory, abstract):
    found = read(directory, abstract)
    if directory.name != "20":
      return found
    if how == "unreadable":
      raise ValueError("these bytes are no checkpoint")
    trainable = found.state["trainable"]
    (device,) = trainable["b"].addressable_shards
    other = jax.device_put(device.data + 1, device.device)
    trainable["b"] = jax.make_array_from_single_device_arrays(
      other.shape, trainable["b"].sharding, [other]
    )
    return found

  return misread


def stall(*_):
  print("restoring", flush=True)
  time.sleep(10**6)


if __name__ == "__main__":
  workdir, options = Path(sys.argv[1]), json.loads(sys.argv[2])
  # As the command does it, exit codes and last lines included.
  main.VERBS["train"] = lambda args: train(workdir, **options)
  sys.exit(main.main(["train"]))
