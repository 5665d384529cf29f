"""How long a checkpoint keeps a run from its steps.

  python -m benchmarks.checkpoints

Trains a stack of 216 M parameters with AdamW for a few steps by the loop of
all runs, and reads from its goodput.jsonl what saving took of the main thread:
the checksums of all arrays, their copy to host memory, and the start of the
write, which then goes on behind the steps. Needs 12 GB of memory and 6 GB of
disk; writes benchmarks/results/checkpoints.md.
"""

import os
import platform
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from mmjax import tree
from mmjax.sharding import make_mesh
from mmjax.training import goodput, loop
from mmjax.training.state import TrainState
from mmjax.training.step import make_step

LAYERS, WIDTH, HIDDEN = 24, 1060, 4240
SAVES, INTERVAL = 4, loop.Plan(1).checkpoint_every
RESULT = Path(__file__).parent / "results" / "checkpoints.md"


class Waiting:
  """Random rows; waits until the save before is on disk, as it will be at the
  default interval."""

  def __init__(self, directory: Path):
    self.step, self._directory = 0, directory

  def __next__(self):
    # Batches are read two steps ahead.
    while self.step > 2 and not (self._directory / str(self.step - 2)).exists():
      time.sleep(0.05)
    self.step += 1
    rows = np.random.default_rng(self.step).standard_normal((8, WIDTH))
    return {"rows": {"x": rows.astype(np.float32)}}

  def get_state(self):
    return {"step": self.step}

  def set_state(self, state):
    self.step = state["step"]

  def describe(self, step):
    return f"rows of step {step}"

  def close(self):
    pass


def loss(params, batch):
  def layer(x, weights):
    up, down = weights
    return x + jnp.tanh(x @ up) @ down, None

  x, _ = jax.lax.scan(layer, batch["x"], (params["up"], params["down"]))
  return {"loss": ((x - batch["x"]).var() * 8, jnp.float32(8))}


def make_state(mesh):
  keys = jax.random.split(jax.random.key(0))
  shapes = {"up": (LAYERS, WIDTH, HIDDEN), "down": (LAYERS, HIDDEN, WIDTH)}
  trainable = {
    name: 0.02 * jax.random.normal(key, shape)
    for key, (name, shape) in zip(keys, shapes.items())
  }
  tx = optax.adamw(1e-4)
  step, skipped = (jnp.zeros((), jnp.int32) for _ in range(2))
  state = TrainState(
    step, trainable, {}, tx.init(trainable), skipped, jnp.zeros(())
  )
  where = jax.tree.map(lambda _: jax.NamedSharding(mesh, P()), state)
  return jax.device_put(state, where), where, tx


def measure(workdir: Path) -> tuple[int, list[float], list[float]]:
  """Parameters, seconds of each step, and seconds that each save blocked."""
  mesh = make_mesh({"data": -1})
  state, where, tx = make_state(mesh)
  count = tree.count(state.trainable)
  run = loop.Run(
    make_step(loss, tx, {"rows": 1.0}),
    Waiting(workdir / "checkpoints"),
    # The last two batches are read early, and the last save is waited for, so
    # these do not count.
    loop.Plan(SAVES + 3, log_every=1, checkpoint_every=1, keep=1),
    mesh,
    workdir,
    clock=goodput.Goodput(workdir),
  )
  loop.train(state, where, run)
  lines = goodput.read(workdir)
  # The first step compiles, and the first save its checksums.
  steps = [
    x["step_s"] for x in lines if x.get("step", 0) > 1 and "input_s" in x
  ]
  saves = [x["checkpoint_s"] for x in lines if "checkpoint_s" in x]
  return count, steps, saves[:SAVES]


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    count, steps, saves = measure(Path(folder))
  step, first, usual = np.median(steps), saves[0], np.median(saves[1:])
  share = usual / (usual + INTERVAL * step)
  where = f"{jax.device_count()} device(s) of {jax.devices()[0].device_kind}"
  text = f"""# What a checkpoint costs

`python -m benchmarks.checkpoints`, {platform.machine()} with {where},
jax {jax.__version__}: {count / 1e6:.0f} M parameters with AdamW, that is
{count * 12 / 1e9:.1f} GB a checkpoint. Load average {os.getloadavg()[0]:.0f}
on {os.cpu_count()} cores; checksums and copies use one of them.

| | seconds |
|---|---|
| a step | {step:.2f} |
| a save blocks the steps, median of {len(saves) - 1} | {usual:.2f} |
| the first save, which compiles the checksums | {first:.2f} |

At the default interval of {INTERVAL} steps that is **{share:.3%}** of the run.
It stays below 1 % down to steps of {99 * usual / INTERVAL * 1000:.0f} ms.
"""
  RESULT.write_text(text)
  print(text)


if __name__ == "__main__":
  main()
