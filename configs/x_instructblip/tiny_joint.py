"""A small X-InstructBLIP asked about two media at once: a shape and a picture.

A small DisCRn: which of the two is taller for its width? A third of what it
learns from is about one of them alone.

mmjax data fetch furniture data/furniture
mmjax train --config configs/x_instructblip/tiny_shapes.py
mmjax train --config configs/x_instructblip/tiny_joint.py
mmjax evaluate --workdir runs/tiny_joint
"""

from configs.x_instructblip.tiny import KINDS, tiny

FOLDERS = ["data/furniture"]
BOTH = ["image", "points"]


def get_config(connects="qformer"):
  asked = dict(kinds=BOTH, about=["shape"])
  pairs = dict(name="item_pairs", questions=dict(more=1.0), **asked)
  alone = dict(name="items", questions=dict(shape=1.0), even="shape")
  source = dict(folders=FOLDERS, size=20_000)
  return tiny(
    None,
    dict(name="items", folders=FOLDERS, questions=["more"], **asked),
    {kind: KINDS[kind] for kind in BOTH},
    connects,
    length=68,
    batch=2,
    pack=4,
    mix=dict(
      pairs=dict(source=pairs | source, share=2),
      alone=dict(source=alone | source, share=1),
    ),
  )
