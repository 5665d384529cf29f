"""X-InstructBLIP's 3D shapes: `:7b`, `:13b`, and `:7b_projection`.

cap3d/Cap3D_automated_Objaverse_full.csv  cap3d/points/*.ply
cap3d_qa/CAP3DQA_final.csv  cap3d_qa/points/*/*_8192.npz
"""

from configs.x_instructblip import benchmarks, common
from configs.x_instructblip.common import by_size, published
from mmjax.config import lookup

# Samples of an update, on 8 GPUs, and updates.
RUNS = {
  "7b": (16 * 8, 65_000),
  "13b": (4 * 8, 355_000),
  "7b_projection": (16 * 8, 65_000),
}


def mix():
  captions = published(
    "cap3d",
    "cap3d/Cap3D_automated_Objaverse_full.csv",
    points="cap3d/points",
  )
  questions = published(
    "cap3d_qa", "cap3d_qa/CAP3DQA_final.csv", points="cap3d_qa/points"
  )
  return common.mixture(
    cap3d=by_size(651_576, captions, "caption"),
    cap3d_qa=by_size(250_070, questions, "question"),
  )


def get_config(variant="7b"):
  batch, steps = lookup(RUNS, variant, "variant")
  init = {}
  if common.VARIANTS[variant].connector == "qformer":
    init = common.blip2("points", whole=False)
  return common.run(
    variant,
    {"points": common.KINDS["points"]},
    mix=mix(),
    batch=batch,
    steps=steps,
    init=init,
    evaluate=benchmarks.evaluate(
      "points", format=common.VARIANTS[variant].asked
    ),
  )
