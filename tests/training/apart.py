"""A process whose batches hold media of other kinds than those of its peers.

`python -m tests.training.apart WORKDIR`: a tiny Flamingo of pixels does three
steps; in each, a process has text alone, or images, or videos.
"""

import sys

import jax
import numpy as np

from mmjax.cli import main
from mmjax.cli import train as verb
from mmjax.data.pipeline import Batches
from tests.training.child import fingerprint, tiny

# Media and frames of each that a row has.
KINDS = {"text": (0, 0), "image": (2, 1), "video": (1, 2)}


def keep(medium: dict, kind: str) -> None:
  """Leaves media of one kind in a batch, and room for the others."""
  media, frames = KINDS[kind]
  medium["mask"] = np.zeros_like(medium["mask"])
  medium["mask"][:, :media, :frames] = True
  medium["values"][:, :, 1] = medium["values"][:, :, 0, ::-1]
  medium["values"][~medium["mask"]] = 0
  medium["index"] = np.minimum(medium["index"], media)


def take_turns() -> None:
  """Changes the kind of a process with every step."""
  following = Batches.__next__

  def changed(batches):
    batch = following(batches)
    turn = (batches.step + jax.process_index()) % len(KINDS)
    kind = list(KINDS)[turn]
    for part in batch.values():
      keep(part["media"]["image"], kind)
    print("step", batches.step, kind, flush=True)
    return batch

  Batches.__next__ = changed


def config():
  """The tiny Flamingo, with an encoder of pixels and two frames a medium."""
  config = tiny(3, data=-1)
  del config.data.datasets.questions
  config.model.encoder = dict(
    name="vit", width=8, num_layers=1, num_heads=2, patch=8, image_size=16
  )
  config.model.resampler.max_frames = 2
  config.data.datasets.episodes.update(
    keys=False,
    values=True,
    frames=2,
    transforms=[dict(name="square", size=16)],
  )
  return config


def run(workdir: str) -> int:
  take_turns()

  def train(args):
    state = verb.train(config(), workdir)
    assert not int(state.skipped)
    print("hash", fingerprint(state.trainable), flush=True)

  main.VERBS["train"] = train
  return main.main(["train"])


if __name__ == "__main__":
  sys.exit(run(sys.argv[1]))
