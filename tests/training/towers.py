"""A small run: `python -m tests.training.towers WORKDIR CHANGES`.

Prints the hash of the trained parameters and the optimizer's state at the
end, and "step N" before every batch, which takes a moment, so that a test can
stop the run between two steps.
"""

import json
import sys
import time

from jax.experimental import multihost_utils

from configs.contrastive.tiny import get_config
from mmjax import preflight
from mmjax.cli import main
from mmjax.cli import train as verb
from mmjax.data.pipeline import Batches
from tests.training.child import fingerprint


def config(
  workdir: str, steps: int = 30, every: int = 5, batch: int = 8, **changes
):
  """Two towers of a layer on drawn things."""
  config = get_config()
  config.model.media.update(width=8, num_layers=1, num_heads=2, image_size=16)
  config.model.text.update(width=8, num_heads=2)
  config.model.width = 8
  pairs = config.data.datasets.pairs
  pairs.transforms = [dict(name="flip"), dict(name="square", size=16)]
  pairs.batch = batch
  config.train.plan = dict(steps=steps, log_every=5, checkpoint_every=every)
  config.update(changes)
  return config


def tell_steps(seconds: float) -> None:
  """Lets the data speak, and take their time."""
  following = Batches.__next__

  def slow(batches):
    print("step", batches.step + 1, flush=True)
    time.sleep(seconds)
    batch = following(batches)
    print("reads", batches.step, json.dumps(batches.records(batches.step)))
    return batch

  Batches.__next__ = slow


def run(workdir: str, changes: dict) -> int:
  tell_steps(changes.pop("slow", 0.0))
  preflight._SEEN_WITHIN = changes.pop("patience", 60.0)

  def train(args):
    state = verb.train(config(workdir, **changes), workdir)
    saved = state.trainable, state.opt_state
    whole = multihost_utils.process_allgather(saved, tiled=True)
    print("hash", fingerprint(whole), flush=True)

  # As the command does it, exit codes and last lines included.
  main.VERBS["train"] = train
  return main.main(["train", "--workdir", workdir])


if __name__ == "__main__":
  sys.exit(run(sys.argv[1], json.loads(sys.argv[2])))
