"""A small X-InstructBLIP that looks: the drawings that come with mmjax.

mmjax train --config configs/x_instructblip/tiny_image.py
mmjax evaluate --workdir runs/tiny_image
"""

from configs.x_instructblip.tiny import ENCODERS, KINDS, tiny

QUESTIONS = dict(category=2.0, style=1.0, colour=1.0)
# Of pictures that are known each is in a table of features.
KEYED = dict(name="pictures", keys=True, values=False)
# Those that are not are seen by the encoder itself.
_MODEL, _, _SOURCE = ENCODERS["pictures"]
SEES = dict(
  model=dict(encoders=dict(table=_MODEL)),
  init=dict(encoders_table=_SOURCE),
  data=dict(media=dict(image=KINDS["image"][1])),
)


def get_config(connects="qformer"):
  return tiny(
    dict(name="drawn_chat", questions=QUESTIONS, turns=[1], size=20_000),
    dict(name="drawn_chat", questions=list(QUESTIONS), count=128),
    {"image": ("table", KEYED)},
    connects,
    batch=2,
    fill=dict(length=256, media=10),
    generate=SEES,
  )
