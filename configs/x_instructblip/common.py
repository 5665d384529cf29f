"""What the published runs of X-InstructBLIP (arXiv 2311.18799) share.

  mmjax train --config configs/x_instructblip/image.py:7b
  mmjax train --config configs/x_instructblip/video.py:7b   begins with that run
  mmjax train --config configs/x_instructblip/audio.py:7b
  mmjax train --config configs/x_instructblip/points.py:7b
  mmjax evaluate --config configs/x_instructblip/joint.py:7b --workdir runs/all

Settings are those of LAVIS' files, which has eight GPUs. A kind of media is a
run of its own: its Q-Former, norm and projection train in float32, its encoder
and Vicuna stay as they are in bfloat16. Files are looked for below $MMJAX_DATA:
what `mmjax convert --to jax` makes of the base models in vicuna_7b_v1.1,
vicuna_13b_v1.1, eva_vit_g, beats_iter3_plus, ulip2_8k_xyz and of BLIP-2's
first stage in blip2_stage1; bert_base_uncased as it is published; and the data
sets, see each file.

The original draws one data set a step, by its share. Here every batch has
samples of all of them in these shares: in the mean the same, and no step sees
one set alone.

LAVIS' Vicuna has a row more, for padding, which is drawn and never read; ours
is Vicuna as it is.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from configs.common import config, mesh
from configs.flamingo.common import converted, local
from mmjax.lms.llama import SIZES as LLAMA


@dataclasses.dataclass(frozen=True)
class Variant:
  """A published model.

  Attributes:
    lm: size of Vicuna, of lms/llama.py.
    format: of prompts, as it is trained.
    connector: of CONNECTORS.
  """

  lm: str
  format: str
  connector: str = "qformer"

  @property
  def base(self) -> str:
    """Folder of Vicuna's weights."""
    return f"vicuna_{self.lm}_v1.1"

  @property
  def asked(self) -> str:
    """The format as it is evaluated, with a space behind every medium."""
    return f"{self.format}_asked"


VARIANTS = {
  "7b": Variant("7b", "x_instructblip"),
  # With a prefix, as the sounds' model of LAVIS' demo.
  "7b_improved": Variant("7b", "x_instructblip_7b"),
  "13b": Variant("13b", "x_instructblip"),
  "7b_projection": Variant("7b", "x_instructblip", "pooled_projection"),
}
QUERIES = 32
# Encoder to its model, the width of its features, and the folder of weights.
ENCODERS = {
  "eva": (dict(name="eva_vit", variant="g/14"), 1408, "eva_vit_g"),
  "beats": (dict(name="beats", variant="iter3+"), 768, "beats_iter3_plus"),
  "ulip2": (dict(name="ulip2", variant="8k-xyz"), 512, "ulip2_8k_xyz"),
}
# LAVIS' `clip_image_train`.
CROP = dict(name="random_crop", size=224, scale=[0.9, 1.0])
# Kind of media to its encoder and its reader. LAVIS draws the frames of a
# video at random and changes their colours (RandAugment); ours are spread over
# the clip, cropped and mirrored alike.
KINDS = {
  "image": ("eva", dict(name="pictures", transforms=[CROP])),
  "video": (
    "eva",
    dict(
      name="pictures",
      transforms=[CROP, dict(name="flip")],
      frames=5,
      fps=None,
    ),
  ),
  # 5.12 seconds a segment.
  "audio": ("beats", dict(name="sounds", frames=2, bank=512)),
  "points": ("ulip2", dict(name="points", count=8192)),
}
CONNECTORS = r"connectors_.*"
# Neither norms nor biases decay; the queries do.
DECAY = [(r".*/(bias|scale)", 0.0), (".*", 0.05)]
# Of LAVIS' names all with "attention" in them: what a Q-Former draws when it
# takes over the rest of BLIP-2's.
ATTENTION = r"layers/attention(_norm)?/.*|cross/.*"
# Tokens of a question and of an answer at most, and of what is around them.
QUESTION, ANSWER, AROUND = 128, 256, 16
# Lengths are multiples of this, so that TPUs have whole blocks.
BLOCK = 128


def reader() -> dict:
  """The tokenizer of BERT, by which the Q-Former reads: [CLS] text [SEP]."""
  return dict(
    name="file",
    path=local("bert_base_uncased"),
    added=["[DEC]"],
    bos="[CLS]",
    eos="[SEP]",
    pad="[PAD]",
  )


def connector(variant: Variant, features_width: int) -> dict:
  """A trained part: Q-Former with dropout, or the linear projection."""
  width = LLAMA[variant.lm]["width"]
  own = dict(features_width=features_width, num_queries=QUERIES)
  if variant.connector != "qformer":
    return dict(name=variant.connector, width=width, inner=768, **own)
  own |= dict(dropout=0.1, remat="none")
  return dict(name="qformer", width=width, qformer=own)


def model(variant: Variant, kinds: Mapping[str, Any]) -> dict:
  """`config.model` of kinds, each an (encoder, reader)."""
  names = {kind: encoder for kind, (encoder, _) in kinds.items()}
  return dict(
    lm=dict(name="llama", **LLAMA[variant.lm], norm_eps=1e-6, remat="full"),
    encoders={
      name: ENCODERS[name][0] | dict(remat="none")
      for name in set(names.values())
    },
    media={
      kind: dict(encoder=name, connector=connector(variant, ENCODERS[name][1]))
      for kind, name in names.items()
    },
    dtype="bfloat16",
  )


def dataset(
  variant: Variant,
  kinds: Mapping[str, Any],
  mix: Mapping[str, dict],
  batch: int,
) -> dict:
  """A document a row, each with room for one medium of every kind."""
  frames = sum(reader.get("frames", 1) for _, reader in kinds.values())
  length = QUERIES * frames + QUESTION + ANSWER + AROUND * len(kinds)
  return dict(
    mix=mix,
    media={kind: reader for kind, (_, reader) in kinds.items()},
    prompt=dict(
      name="cued",
      format=variant.format,
      length=-(-length // BLOCK) * BLOCK,
      media=dict.fromkeys(kinds, 1),
      media_tokens=QUERIES,
      reader_length=QUESTION if variant.connector == "qformer" else 0,
      question_length=QUESTION,
      answer_length=ANSWER,
      shuffled=True,
    ),
    batch=batch,
  )


def mixture(**sets: tuple[float, dict]) -> dict[str, dict]:
  """`mix` of data sets, each with the weight of its share."""
  total = sum(weight for weight, _ in sets.values())
  return {
    name: dict(entry, share=weight / total)
    for name, (weight, entry) in sets.items()
  }


def by_size(count: int, source: dict, task: str, **more) -> tuple[float, dict]:
  """A data set that is drawn as often as the root of its size says.

  Args:
    count: of its samples.
    source: of them.
    task: of the wordings of instructions.
    **more: `format` of its records.
  """
  filter = dict(name="instructed", task=task)
  return math.sqrt(count), dict(source=source, filter=filter, **more)


def published(data: str, annotations: str, **media: str) -> dict:
  """A data set in its own files, below $MMJAX_DATA; see data/layouts.py."""
  return dict(
    name="published",
    data=data,
    annotations=local(annotations),
    media={kind: local(folder) for kind, folder in media.items()},
  )


def blip2(kind: str, *, whole: bool) -> dict:
  """Beginnings of a kind's Q-Former and norm in BLIP-2's first stage.

  Args:
    kind: of media.
    whole: takes all of it; else attention and norm are drawn.
  """
  own, file = f"connectors_{kind}", "blip2_stage1"
  if not whole:
    found = converted(file, part="qformer", drawn=ATTENTION)
    return {f"{own}/qformer": found}
  return {
    f"{own}/{part}": converted(file, part=part)
    for part in ("qformer", "features_norm")
  }


def training(steps: int, every: int) -> dict:
  """`config.train`: of the connectors alone.

  Args:
    steps: of the run.
    every: steps of an inner epoch, after which the learning rate falls.
  """
  return dict(
    trainable=[(CONNECTORS, True), (".*", False)],
    frozen_dtype="bfloat16",
    microbatches=1,
    optimizer=dict(
      name="adamw",
      b2=0.999,
      weight_decay=DECAY,
      schedule=dict(
        name="warmup_cosine_steps",
        peak=1e-5,
        # From 1e-8.
        first=1e-3,
        warmup=1000,
        every=every,
      ),
    ),
    plan=dict(steps=steps, log_every=10, checkpoint_every=1000),
  )


def run(
  variant: str,
  kinds: Mapping[str, Any],
  *,
  mix: Mapping[str, dict],
  batch: int,
  steps: int,
  every: int = 5000,
  init: Mapping[str, Any] = {},
  evaluate: Mapping[str, Any] | None = None,
  tensor: int = 1,
):
  """A whole config.

  Args:
    variant: of VARIANTS.
    kinds: of media, each an (encoder, reader) of KINDS.
    mix: of the data.
    batch: documents of an update, of all devices.
    steps: of the run.
    every: steps of an inner epoch, after which the learning rate falls.
    init: where the connectors begin.
    evaluate: what is asked in the end.
    tensor: devices that share a row, where there are fewer rows than devices.
  """
  own = VARIANTS[variant]
  frozen = {
    f"encoders_{name}": converted(ENCODERS[name][2])
    for name in {encoder for encoder, _ in kinds.values()}
  }
  made = config(
    system="x_instructblip",
    seed=42,
    model=model(own, kinds),
    init=dict(lm=converted(own.base), **frozen, **init),
    tokenizer=dict(
      name="file",
      path=local(own.base),
      bos="<s>",
      eos="</s>",
      pad="<unk>",
      reader=reader(),
    ),
    data=dict(
      seed=42,
      max_bad_fraction=0.01,
      workers=4,
      datasets=dict(instructions=dataset(own, kinds, mix, batch)),
    ),
    train=training(steps, every),
    mesh=mesh(fsdp=-1, tensor=tensor),
    topology="v5e:4x8",
  )
  if evaluate:
    made.evaluate = dict(evaluate)
  return made
