"""What the published sizes of Flamingo and OpenFlamingo share.

Data are looked for below $MMJAX_DATA. A config is built, counted and planned
without them; a run without them fails and names the files it looked for.
"""

import os

from configs.common import config, mesh

FREEZE = [
  ("encoder/.*", False),
  ("lm/embedding/extra", True),
  ("lm/.*", False),
  (".*", True),
]


def local(path: str) -> str:
  """A path below $MMJAX_DATA; the name stays in it while that is not set."""
  return f"{os.environ.get('MMJAX_DATA', '$MMJAX_DATA')}/{path}"


def converted(folder: str, **fields) -> dict:
  """Weights that `mmjax convert --to jax` wrote below $MMJAX_DATA."""
  return dict(name="converted", path=local(folder), **fields)


def clip(folder: str) -> dict:
  """The same of a CLIP tower, whose tokens are read before its projection."""
  return converted(folder, leave_out="projection/.*")


def paper(*, model, datasets, tokenizer, topology, init=(), **train):
  """A config whose optimizer is Flamingo's (arXiv 2204.14198 v2, B.1.2)."""
  settings = dict(
    trainable=FREEZE,
    frozen_dtype="bfloat16",
    microbatches=1,
    optimizer=dict(
      name="adamw",
      clip_norm=1.0,
      weight_decay=[("resampler/.*", 0.0), (".*", 0.1)],
      schedule=dict(name="warmup_constant", peak=1e-4, warmup=5000),
    ),
    plan=dict(steps=500_000, log_every=10, checkpoint_every=1000),
  )
  return config(
    system="flamingo",
    seed=0,
    model=dict(dtype="bfloat16", **model),
    init=dict(init),
    tokenizer=tokenizer,
    data=dict(
      seed=0,
      update="accumulate",
      max_bad_fraction=0.01,
      workers=0,
      datasets=datasets,
    ),
    train=settings | train,
    # Parameters cut over all devices of a slice; see flamingo_80b.py for more.
    mesh=mesh(fsdp=-1),
    # What `mmjax plan` plans for when it is told nothing else.
    topology=topology,
  )
