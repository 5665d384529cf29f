"""OpenFlamingo's models (arXiv 2308.01390, Table 1) and their recipe.

LAION-2B captions and MMC4, both as tars below $MMJAX_DATA, with 64 and 32
samples on each of 64 GPUs. Half of the documents with one image are left out;
the original draws them anew each time, here they are always the same. The 4B
models kept the rows of their two new tokens frozen and random. Vision weights
are CLIP ViT-L/14 of OpenAI, read without the last norm, as the released models
were trained.
"""

from configs.flamingo import common
from mmjax.connectors import gated_attention, perceiver
from mmjax.lms import gpt_neox, mpt

MPT_1B = dict(name="mpt", **mpt.SIZES["1b"])
MPT_7B = dict(name="mpt", **mpt.SIZES["7b"])
INCITE = dict(name="gpt_neox", **gpt_neox.SIZES["incite_3b"])
# Language model, layers a block, whether the new rows train.
SIZES = {
  "3B": (MPT_1B, 1, True),
  "3B-I": (MPT_1B, 1, True),
  "4B": (INCITE, 2, False),
  "4B-I": (INCITE, 2, False),
  "9B": (MPT_7B, 4, True),
}


def dataset(path, *, prompt, **fields):
  return dict(
    source=dict(name="tar", paths=[common.local(path)]),
    prompt=dict(name="open_flamingo", **prompt),
    transforms=[dict(name="flip"), dict(name="clip_val", size=224)],
    **fields,
  )


def get_config(size="3B"):
  lm, every, train_rows = SIZES[size]
  config = common.paper(
    model=dict(
      encoder=dict(name="clip_vit", variant="L/14"),
      resampler=dict(name="perceiver", width=1024, **perceiver.OPEN_FLAMINGO),
      lm=dict(**lm, extra_tokens=2),
      xattn=dict(every=every, first=every - 1, **gated_attention.OPEN_FLAMINGO),
    ),
    tokenizer=dict(
      name="file",
      path=common.local("tokenizer.json"),
      added=["<|endofchunk|>", "<image>"],
    ),
    datasets=dict(
      laion=dataset(
        "laion/*.tar",
        format=dict(name="pairs"),
        prompt=dict(length=32, media=1),
        batch=4096,
        weight=0.2,
      ),
      mmc4=dataset(
        "mmc4/*.tar",
        format=dict(
          name="mmc4", min_similarity=0.24, max_images=6, keep_single=0.5
        ),
        prompt=dict(length=256, media=6),
        batch=2048,
      ),
    ),
  )
  if not train_rows:
    config.train.trainable = [
      ("(encoder|lm)/.*", False),
      (".*", True),
    ]
  config.train.optimizer.weight_decay = [("blocks/.*", 0.1), (".*", 0.0)]
  config.train.optimizer.schedule.warmup = 1875
  config.train.plan.steps = 29_300
  return config
