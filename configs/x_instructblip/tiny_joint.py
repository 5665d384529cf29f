"""A small X-InstructBLIP asked about two media at once: a shape and a picture.

Its connectors are those that were trained alone, each for its kind.

mmjax data fetch furniture data/furniture
mmjax train --config configs/x_instructblip/tiny_image.py
mmjax train --config configs/x_instructblip/tiny_shapes.py
mmjax train --config configs/x_instructblip/tiny_3d.py
mmjax train --config configs/x_instructblip/tiny_joint.py
mmjax evaluate --workdir runs/tiny_joint
"""

from configs.x_instructblip.tiny import KINDS, tiny

FOLDERS = ["data/furniture"]
BOTH = ["image", "points"]


def get_config(connects="qformer"):
  behind = "" if connects == "qformer" else f"_{connects}"
  begins = {
    part: dict(name="run", workdir=f"runs/{run}{behind}", part=part)
    for part, run in (
      ("connectors_image", "tiny_image"),
      ("connectors_points", "tiny_3d"),
    )
  }
  questions = dict(which=2.0, same=1.0)
  pairs = dict(name="item_pairs", questions=questions, kinds=BOTH)
  alone = dict(
    name="items",
    questions=dict(category=2.0, shape=1.0),
    even="category",
    size=20_000,
  )
  return tiny(
    None,
    dict(name="items", folders=FOLDERS, questions=list(questions), kinds=BOTH),
    {kind: KINDS[kind] for kind in BOTH},
    connects,
    begins=begins,
    length=64,
    steps=240,
    batch=3,
    pack=4,
    mix=dict(
      pairs=dict(source=pairs | dict(folders=FOLDERS, size=20_000), share=2),
      alone=dict(source=alone | dict(folders=FOLDERS), share=1),
    ),
  )
