"""BLIP-2's second stage (arXiv 2301.12597): what a frozen OPT makes of queries.

`:opt_2.7b` and `:opt_6.7b`, on the data of the first stage, whose Q-Former (in
blip2_stage1, as `mmjax convert --to jax` wrote it) leaves out all that is for
text. opt_2.7b and opt_6.7b are there too.

A caption goes on from "a photo of", with which the released models are asked
for one, and ends with a line; in LAVIS' second stage nothing stands before it.
Batch, steps and the floor of the rate are the paper's.
"""

from configs.blip2 import stage1
from configs.common import config, mesh
from configs.flamingo.common import converted, local
from mmjax.config import lookup
from mmjax.lms.opt import SIZES

BATCH, STEPS, EPOCHS = 1920, 80_000, 10
QUERIES = 32
CONNECTORS = r"connectors_.*"
TEXT = r"embedding/.*|position_table/.*|layers/text_mlp(_norm)?/.*"
CAPTION = dict(name="instructed", task="caption", wording="a photo of")


def model(size):
  width = lookup(SIZES, size, "size of OPT")["width"]
  qformer = dict(features_width=1408, vocab_size=0, dropout=0.1, remat="none")
  return dict(
    lm=dict(name="opt", **SIZES[size], remat="full"),
    encoders=dict(eva=dict(name="eva_vit", variant="g/14", remat="none")),
    media=dict(
      image=dict(
        encoder="eva",
        connector=dict(name="qformer", width=width, qformer=qformer),
      )
    ),
    dtype="bfloat16",
  )


def get_config(variant="opt_2.7b"):
  first = "connectors_image"
  return config(
    system="x_instructblip",
    seed=42,
    model=model(variant.removeprefix("opt_")),
    init={
      "lm": converted(variant),
      "encoders_eva": converted("eva_vit_g"),
      f"{first}/features_norm": converted("blip2_stage1", part="features_norm"),
      f"{first}/qformer": converted(
        "blip2_stage1", part="qformer", leave_out=TEXT
      ),
    },
    # A line break, as byte-level tokenizers write it, ends a caption.
    tokenizer=dict(
      name="file", path=local(variant), bos="</s>", eos="Ċ", pad="<pad>"
    ),
    data=dict(
      seed=42,
      max_bad_fraction=0.01,
      workers=4,
      datasets=dict(
        captions=dict(
          mix={
            name: entry | dict(filter=CAPTION)
            for name, entry in stage1.mix().items()
          },
          prompt=dict(
            name="cued",
            format="instructblip",
            length=QUERIES + 48,
            media=dict(image=1),
            media_tokens=QUERIES,
            question_length=16,
            answer_length=32,
            before_answer=" ",
          ),
          media=dict(image=dict(name="pictures", transforms=stage1.TRANSFORMS)),
          batch=BATCH,
        )
      ),
    ),
    train=dict(
      trainable=[(CONNECTORS, True), (".*", False)],
      frozen_dtype="bfloat16",
      microbatches=1,
      optimizer=stage1.adamw(warmup=2000, every=STEPS // EPOCHS, final=0.5),
      plan=dict(steps=STEPS, log_every=10, checkpoint_every=1000),
    ),
    mesh=mesh(fsdp=-1),
    topology="v5p:4x4x4",
  )
