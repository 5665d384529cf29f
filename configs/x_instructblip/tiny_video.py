"""A small X-InstructBLIP that watches: moving drawings.

mmjax data fetch animated data/animated
mmjax train --config configs/x_instructblip/tiny_video.py
mmjax evaluate --workdir runs/tiny_video
"""

from configs.x_instructblip.tiny import KINDS, tiny

FOLDERS = ["data/animated"]


def get_config(connects="qformer"):
  return tiny(
    dict(
      name="items",
      folders=FOLDERS,
      questions=dict(category=2.0, colour=1.0, caption=1.0),
      kinds=["video"],
      even="category",
      size=20_000,
    ),
    dict(
      name="items",
      folders=FOLDERS,
      questions=["category", "colour"],
      kinds=["video"],
    ),
    {"video": KINDS["video"]},
    connects,
    batch=2,
    fill=dict(length=256, media=24),
  )
