"""BLIP-2's first stage (arXiv 2301.12597): a Q-Former beside EVA's ViT-g.

129 million pictures: BLIP's lists as in x_instructblip/image.py, blip/cc3m.json
with cc3m/*, and laion115m/*.tar. eva_vit_g as `mmjax convert --to jax` wrote
it, bert_base_uncased as it is published; all below $MMJAX_DATA.

Rates are those of LAVIS' file, which has 100 samples on each of 16 GPUs for
ten epochs; the number of updates is the paper's. LAVIS' caption head begins as
BERT's, ours is drawn.
"""

from configs.common import config, mesh
from configs.flamingo.common import converted, local
from configs.x_instructblip.common import mixture, published, reader

BATCH, STEPS, EPOCHS = 100 * 16, 250_000, 10
# No temperature decays either.
DECAY = [(r"(.*/)?(bias|scale|temperature)", 0.0), (".*", 0.05)]
# LAVIS' `blip_image_train`.
TRANSFORMS = [
  dict(name="random_crop", size=224, scale=[0.5, 1.0]),
  dict(name="flip"),
]
# Name, folder and samples of BLIP's lists.
LISTS = {
  "coco": ("coco_karpathy_train", "coco", 566_747),
  "vg": ("vg_caption", "vg", 821_774),
  "cc3m": ("cc3m", "cc3m", 2_900_000),
  "cc12m": ("cc12m", "cc12m", 6_029_862),
  "sbu": ("sbu", "sbu", 859_739),
}


def mix():
  """All samples alike."""
  sets = {
    name: (
      count,
      dict(source=published("blip", f"blip/{file}.json", image=folder)),
    )
    for name, (file, folder, count) in LISTS.items()
  }
  laion = dict(name="tar", paths=[local("laion115m/*.tar")])
  pairs = dict(source=laion, format=dict(name="pairs"))
  return mixture(laion=(115_000_000, pairs), **sets)


def adamw(*, warmup, every, final):
  """AdamW of both stages: a rise from 1e-6 to 1e-4, then a cosine."""
  return dict(
    name="adamw",
    b2=0.98,
    weight_decay=DECAY,
    schedule=dict(
      name="warmup_cosine_steps",
      peak=1e-4,
      first=1e-2,
      final=final,
      warmup=warmup,
      every=every,
    ),
  )


def get_config():
  return config(
    system="blip2",
    seed=42,
    model=dict(
      qformer=dict(features_width=1408, dropout=0.1, remat="none"),
      encoder=dict(name="eva_vit", variant="g/14", remat="none"),
      dtype="bfloat16",
    ),
    init=dict(
      encoder=converted("eva_vit_g"),
      qformer=dict(name="bert_qformer", path=local("bert_base_uncased")),
    ),
    tokenizer=reader(),
    data=dict(
      seed=42,
      max_bad_fraction=0.01,
      workers=4,
      datasets=dict(
        captions=dict(
          mix=mix(),
          prompt=dict(name="caption", length=32),
          transforms=TRANSFORMS,
          batch=BATCH,
        )
      ),
    ),
    train=dict(
      trainable=[("encoder/.*", False), (".*", True)],
      frozen_dtype="bfloat16",
      microbatches=1,
      optimizer=adamw(warmup=5000, every=STEPS // EPOCHS, final=0.1),
      plan=dict(steps=STEPS, log_every=10, checkpoint_every=1000),
    ),
    mesh=mesh(fsdp=-1),
    topology="v5p:4x4x4",
  )
