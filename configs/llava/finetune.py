"""LLaVA's second stage: projector and language model learn to converse.

The projector comes from a run of the first stage in runs/pretrain_SIZE. With
"7b_packed" and "13b_packed" as many conversations share a row of 4096 as fit:
32 rows have about 149 of them, whose loss is the same as without others.

Where there are 32 rows, two of the 64 devices of v5p:4x4x4 share one, each half
of its text (`mesh.sequence`); sharing matrices would make them wait for memory.
"""

from configs.llava import benchmarks, common

# Of a row, with as many images as four fifths of it hold.
PACKED = dict(length=4096, media=6)
# Of a packed update, and of one of the first LLaVA.
ROWS = 32
# Conversations that such a row holds, see benchmarks/results/packing.md.
A_ROW = 4.65


def get_config(size="7b"):
  name = size.removesuffix("_packed")
  is_packed, size = name != size, common.SIZES[name]
  chats = common.dataset(
    size, 2, template="vicuna_v1", length=2048, pad=size.pad
  )
  steps = common.steps(size, 2, size.epochs)
  if is_packed:
    chats |= dict(fill=PACKED, batch=ROWS)
    steps = round(size.data[1][2] * size.epochs / (ROWS * A_ROW))
  config = common.stage(
    size=size,
    model=common.model(size),
    datasets=dict(chats=chats),
    trainable=[("encoder/.*", False), (".*", True)],
    steps=steps,
    peak=2e-5,
    init=dict(
      connector=dict(
        name="run", workdir=f"runs/pretrain_{name}", part="connector"
      )
    ),
  )
  config.evaluate = benchmarks.evaluate(size.published)
  if chats["batch"] == ROWS:
    config.mesh.sequence = 2
  return config
