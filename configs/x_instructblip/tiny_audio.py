"""A small X-InstructBLIP that hears: prompts of a telephone, and samples.

mmjax data fetch speech data/speech
mmjax data fetch sounds data/sounds
mmjax train --config configs/x_instructblip/tiny_audio.py
mmjax evaluate --workdir runs/tiny_audio
"""

from configs.x_instructblip.tiny import KINDS, tiny

FOLDERS = ["data/speech", "data/sounds"]


def get_config(connects="qformer"):
  kinds = {"audio": KINDS["audio"]}
  return tiny(
    dict(
      name="items",
      folders=FOLDERS,
      questions=dict(category=2.0, length=0.5, voice=0.5, caption=0.5),
      kinds=["audio"],
      size=20_000,
    ),
    dict(
      name="items",
      folders=FOLDERS,
      questions=["category", "length", "voice"],
      kinds=["audio"],
    ),
    kinds,
    connects,
    batch=2,
    fill=dict(length=256, media=12),
  )
