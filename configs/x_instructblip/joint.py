"""X-InstructBLIP with all four kinds of media, to evaluate or to train on.

  mmjax evaluate --config configs/x_instructblip/joint.py:7b --workdir runs/all
  mmjax train --config configs/x_instructblip/joint.py:7b

`:7b` and `:13b` put together what was trained in runs/image_7b, runs/video_7b,
runs/audio_7b and runs/points_7b; `:7b_released` and `:13b_released` what
`mmjax convert` made of LAVIS' files in x_instructblip_7b_image, ... The paper
never trains kinds together. How it is done here is ours: a little of each,
and questions about videos with their sound, at the rate of the kinds' own runs.

music_avqa/avqa-train.json  music_avqa/{videos,audio}/*
and what the kinds' own files name
"""

from configs.flamingo.common import converted
from configs.x_instructblip import (
  audio,
  benchmarks,
  common,
  image,
  points,
  video,
)
from configs.x_instructblip.common import by_size, published
from mmjax.config import lookup

# Two frames, where a video comes with the two segments of its sound.
FRAMES = 2
BATCH, STEPS = 4 * 8, 5_000


def mix():
  music = published(
    "music_avqa",
    "music_avqa/avqa-train.json",
    video="music_avqa/videos",
    audio="music_avqa/audio",
  )
  found = {
    "music_avqa": (1.0, by_size(1, music, "question")[1]),
    **{
      name: (1.0, {k: v for k, v in own.mix()[name].items() if k != "share"})
      for name, own in {
        "vqav2": image,
        "coco": image,
        "audiocaps": audio,
        "audiocaps_qa": audio,
        "cap3d": points,
        "cap3d_qa": points,
        "msrvtt": video,
        "msrvtt_qa": video,
      }.items()
    },
  }
  return common.mixture(**found)


def kinds():
  encoder, reader = common.KINDS["video"]
  video = encoder, reader | dict(frames=FRAMES)
  return common.KINDS | {"video": video}


def _init(size, is_released):
  found = {}
  for kind in common.KINDS:
    part = f"connectors_{kind}"
    if is_released:
      found[part] = converted(f"x_instructblip_{size}_{kind}", part=part)
    else:
      workdir = f"runs/{kind}_{size}"
      found[part] = dict(name="run", workdir=workdir, part=part)
  return found


def get_config(variant="7b"):
  size = variant.removesuffix("_released")
  lookup(dict.fromkeys(("7b", "13b")), size, "variant")
  return common.run(
    size,
    kinds(),
    mix=mix(),
    batch=BATCH,
    steps=STEPS,
    every=1000,
    init=_init(size, size != variant),
    evaluate=benchmarks.evaluate(
      *common.KINDS, format=common.VARIANTS[size].asked
    ),
  )
