"""Two small towers on drawn things: the paper's pretraining, in minutes.

A picture and the thing's name are a pair; colours and sides are augmented as
in Flamingo's pretraining of its vision encoder (arXiv 2204.14198 v2, B.1.3).
"""

from configs.common import config as make
from configs.common import mesh

SIDE = 64


def get_config():
  return make(
    system="contrastive",
    seed=0,
    model=dict(
      media=dict(
        name="vit",
        width=64,
        num_layers=2,
        num_heads=4,
        patch=8,
        image_size=SIDE,
      ),
      text=dict(
        name="custom_bert",
        width=64,
        num_layers=1,
        num_heads=4,
        vocab_size=1866,
        max_positions=16,
      ),
      width=64,
      dtype="float32",
    ),
    init=dict(),
    tokenizer=dict(name="drawn"),
    data=dict(
      seed=0,
      max_bad_fraction=0.01,
      datasets=dict(
        pairs=dict(
          source=dict(name="drawn", tasks=dict(caption=dict(shots=[0]))),
          prompt=dict(name="caption", length=16),
          transforms=[
            dict(name="flip"),
            dict(name="colour"),
            dict(name="square", size=SIDE),
          ],
          batch=64,
        ),
      ),
    ),
    train=dict(
      trainable=[(".*", True)],
      optimizer=dict(
        name="adamw",
        clip_norm=1.0,
        weight_decay=[(".*", 0.01)],
        schedule=dict(name="warmup_linear", peak=1e-3, warmup=20),
      ),
      plan=dict(steps=300, log_every=25, checkpoint_every=300),
    ),
    mesh=mesh(data=-1),
  )
