"""A small X-InstructBLIP that sees shapes: furniture as clouds of points.

mmjax data fetch furniture data/furniture
mmjax train --config configs/x_instructblip/tiny_shapes.py
mmjax train --config configs/x_instructblip/tiny_3d.py
mmjax evaluate --workdir runs/tiny_3d
"""

from configs.x_instructblip.tiny import KINDS, tiny

FOLDERS = ["data/furniture"]


def get_config(connects="qformer"):
  return tiny(
    dict(
      name="items",
      folders=FOLDERS,
      questions=dict(category=2.0, shape=1.0, caption=1.0),
      kinds=["points"],
      even="category",
      size=20_000,
    ),
    dict(
      name="items",
      folders=FOLDERS,
      questions=["category", "shape"],
      kinds=["points"],
    ),
    {"points": KINDS["points"]},
    connects,
    batch=2,
    fill=dict(length=256, media=8),
  )
