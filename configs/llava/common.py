"""What the published stages of LLaVA share.

  mmjax train --config configs/llava/pretrain.py:7b     stage 1, the projector
  mmjax train --config configs/llava/finetune.py:7b     stage 2, and the LM
  mmjax train --config configs/llava/finetune_lora.py:7b

Sizes are those of LLaVA-1.5 (arXiv 2310.03744), "7b" and "13b", and of LLaVA
(arXiv 2304.08485), "v1_7b" and "v1_13b". Files are looked for below
$MMJAX_DATA: what `mmjax convert --to jax` makes of the base models in
vicuna_7b_v1.5, vicuna_13b_v1.5, vicuna_7b_v1.3, vicuna_13b_v1.3,
clip_vit_l14_336 and clip_vit_l14; the data sets by the names that they are
published under.

They are for v5p:4x4x4, where a device has room to keep what matrix products
gave for the backward pass (`remat="dots"`). With less, --config.model.lm.remat
is `full`, or --config.train.microbatches more than 1: benchmarks/plans.py has
what v5e:4x8, eight H200 and one of them need. The batches stay those of the
papers.
"""

import dataclasses

from configs.common import config, mesh
from configs.flamingo.common import clip, converted, local
from mmjax.lms.llama import SIZES as LLAMA


@dataclasses.dataclass(frozen=True)
class Size:
  """A published model.

  Attributes:
    lm: size of the language model, of lms/llama.py.
    base: folder of its weights.
    eps: of its norms.
    variant: of CLIP, and the folder of its weights.
    tokens: of an image.
    depth: linear layers of the projector.
    pad: pictures are padded to a square in stage 2.
    legacy: of the tokenizer, see text/prompts/chat.py.
    peak: learning rate of stage 1.
    batches: of both stages.
    epochs: of stage 2.
    published: its name in evaluation/published.py.
    data: of both stages: a JSON, the folder of its pictures, its records.
  """

  lm: str
  base: str
  eps: float
  variant: tuple[str, str]
  tokens: int
  depth: int
  pad: bool
  legacy: bool
  peak: float
  batches: tuple[int, int]
  epochs: int
  published: str
  data: tuple[tuple[str, str, int], tuple[str, str, int]]


_V1 = dict(
  eps=1e-6,
  variant=("L/14", "clip_vit_l14"),
  tokens=256,
  depth=1,
  pad=False,
  legacy=True,
  peak=2e-3,
  batches=(128, 32),
  epochs=3,
  data=(
    ("CC3M-595K/chat.json", "CC3M-595K/images", 595_375),
    ("llava_instruct_150k.json", "coco/train2017", 157_712),
  ),
)
# The mix of 665K: LLaVA 157,712, ShareGPT 40,688 (text alone), VQAv2 82,783,
# GQA 72,140, OKVQA 8,998, OCR-VQA 80,000, A-OKVQA 66,160, TextCaps 21,953,
# RefCOCO 48,447, VG 86,417.
_V15 = dict(
  eps=1e-5,
  variant=("L/14-336", "clip_vit_l14_336"),
  tokens=576,
  depth=2,
  pad=True,
  legacy=False,
  peak=1e-3,
  batches=(256, 128),
  epochs=1,
  data=(
    ("blip_laion_cc_sbu_558k.json", "LLaVA-Pretrain/images", 558_128),
    ("llava_v1_5_mix665k.json", ".", 665_298),
  ),
)
SIZES = {
  "7b": Size("7b", "vicuna_7b_v1.5", published="LLaVA-1.5-7B", **_V15),
  "13b": Size("13b", "vicuna_13b_v1.5", published="LLaVA-1.5-13B", **_V15),
  "v1_7b": Size("7b", "vicuna_7b_v1.3", published="LLaVA-7B", **_V1),
  "v1_13b": Size("13b", "vicuna_13b_v1.3", published="LLaVA-13B", **_V1),
}
CONNECTOR = r"connector/.*"
# Of the steps.
WARMUP = 0.03


def side(size: Size) -> int:
  """Of a picture, in pixels."""
  return 14 * round(size.tokens**0.5)


def model(size: Size, **lm) -> dict:
  """`config.model`; `lm` are further settings of the language model."""
  width = LLAMA[size.lm]["width"]
  return dict(
    encoder=dict(
      name="clip_vit", variant=size.variant[0], output_layer=-2, remat="none"
    ),
    connector=dict(name="projection", width=width, depth=size.depth),
    lm=dict(
      name="llama", **LLAMA[size.lm], norm_eps=size.eps, remat="dots", **lm
    ),
    dtype="bfloat16",
  )


def dataset(size: Size, stage: int, *, template, length, pad) -> dict:
  """Conversations of a stage, one a row, as the original trains."""
  records, images, _ = size.data[stage - 1]
  expand = [dict(name="expand")] if pad else []
  return dict(
    source=dict(name="json", paths=[local(records)]),
    format=dict(name="conversations", folder=local(images), missing="error"),
    prompt=dict(
      name="chat",
      template=template,
      length=length,
      media=1,
      media_tokens=size.tokens,
      loss="token",
      legacy=size.legacy,
    ),
    transforms=[*expand, dict(name="clip_val", size=side(size))],
    batch=size.batches[stage - 1],
  )


def steps(size: Size, stage: int, epochs: int = 1) -> int:
  """Updates of a stage; the last batch of an epoch is not a whole one."""
  return epochs * -(-size.data[stage - 1][2] // size.batches[stage - 1])


def stage(*, size, model, datasets, trainable, steps, peak, init, **optimizer):
  """A whole config: AdamW, a warm-up of 3 %, a cosine to 0, no decay."""
  return config(
    system="llava",
    seed=0,
    model=model,
    init=dict(encoder=clip(size.variant[1]), lm=converted(size.base), **init),
    tokenizer=dict(
      name="file", path=local(size.base), bos="<s>", eos="</s>", pad="<unk>"
    ),
    data=dict(
      seed=0,
      update="accumulate",
      max_bad_fraction=0.01,
      workers=4,
      datasets=datasets,
    ),
    train=dict(
      trainable=trainable,
      frozen_dtype="bfloat16",
      microbatches=1,
      optimizer=dict(
        name="adamw",
        b2=0.999,
        clip_norm=1.0,
        schedule=dict(
          name="warmup_cosine", peak=peak, warmup=round(WARMUP * steps)
        ),
        **optimizer,
      ),
      plan=dict(steps=steps, log_every=1, checkpoint_every=500),
    ),
    mesh=mesh(fsdp=-1),
    topology="v5p:4x4x4",
  )
