"""A small run in a process of its own: `python -m tests.training.child DIR`.

Prints the hash of the trained parameters at the end.
"""

import hashlib
import sys

import jax
import numpy as np

from configs.flamingo.demo import get_config
from mmjax.cli.train import train


def tiny(steps: int, **mesh):
  """The demo's config, shrunk; its pictures are zeros, its text is real."""
  config = get_config()
  config.init = {}
  config.model.encoder.update(tokens=2, width=8)
  config.model.resampler.update(width=8, head_dim=4, hidden=16, depth=1)
  config.model.lm.update(width=16, num_layers=2, hidden=16, num_heads=2)
  config.model.xattn.hidden = 16
  for dataset in config.data.datasets.values():
    dataset.batch = 8
  config.train.optimizer.schedule = dict(
    name="warmup_constant", peak=1e-2, warmup=2
  )
  config.train.plan.update(steps=steps, log_every=1, checkpoint_every=10)
  config.mesh = mesh or dict(data=1)
  return config


def fingerprint(params) -> str:
  """Of every bit of a tree."""
  digest = hashlib.sha256()
  for path, value in jax.tree_util.tree_leaves_with_path(params):
    digest.update(str(path).encode())
    digest.update(np.asarray(value).tobytes())
  return digest.hexdigest()


def main(workdir: str, steps: str) -> None:
  state = train(tiny(int(steps)), workdir)
  print("hash", fingerprint(state.trainable), flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
