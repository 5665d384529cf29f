"""InstructBLIP with Vicuna (arXiv 2305.06500), `:7b` and `:13b`.

X-InstructBLIP's images without cues, on the sets of x_instructblip/image.py
that InstructBLIP is trained on too (of its others, TextCaps has no reader
here), drawn by the root of their sizes. The Q-Former and its norm begin as
BLIP-2's first stage, and the matrix behind them is drawn; the original takes
that, too, from a BLIP-2 with Vicuna, which was not released.

Batch, steps and rate are the paper's.
"""

from configs.x_instructblip import benchmarks, common, image
from mmjax.config import lookup

STEPS = 60_000
BATCH = {"7b": 128, "13b": 64}
SETS = ("capfilt", "coco", "vqav2", "okvqa", "aokvqa", "ocr_vqa", "llava")


def get_config(size="7b"):
  batch = lookup(BATCH, size, "size")
  sets = {name: entry for name, entry in image.mix().items() if name in SETS}
  total = sum(entry["share"] for entry in sets.values())
  config = common.run(
    size,
    {"image": common.KINDS["image"]},
    mix={
      name: entry | dict(share=entry["share"] / total)
      for name, entry in sets.items()
    },
    batch=batch,
    steps=STEPS,
    init=common.blip2("image", whole=True),
    evaluate=benchmarks.evaluate("image", format="instructblip"),
  )
  config.data.datasets.instructions.prompt.format = "instructblip"
  # The cosine falls with every step.
  config.train.optimizer.schedule = dict(
    name="warmup_cosine", peak=1e-5, warmup=1000
  )
  return config
