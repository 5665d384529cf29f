"""X-InstructBLIP's videos, `:7b` and `:13b`: five frames each.

webvid/results_2M_train.csv  webvid/videos/*/*.mp4
msrvtt/train_val_videodatainfo.json  msrvtt/videos/*.mp4
msrvtt_qa/train_qa.json

All that trains comes from the run of images of the same size, runs/image_SIZE.
"""

from configs.x_instructblip import benchmarks, common
from configs.x_instructblip.common import by_size, published
from mmjax.config import lookup

# Samples of an update, on 8 GPUs, and updates. The paper notes that a thousand
# are about enough.
RUNS = {"7b": (4 * 8, 15_000), "13b": (1 * 8, 25_000)}
# As LAVIS' files set them: MSRVTT's captions by hand, others by their sizes.
SHARES = dict(webvid=0.3570, msrvtt=0.5455, msrvtt_qa=0.0975)


def mix():
  videos = dict(video="msrvtt/videos")
  msrvtt = published("msrvtt", "msrvtt/train_val_videodatainfo.json", **videos)
  sources = dict(
    webvid=published(
      "webvid", "webvid/results_2M_train.csv", video="webvid/videos"
    ),
    msrvtt=msrvtt | dict(where=dict(split="train")),
    msrvtt_qa=published("msrvtt_qa", "msrvtt_qa/train_qa.json", **videos),
  )
  tasks = dict(webvid="caption", msrvtt="caption", msrvtt_qa="question")
  sets = {
    name: (SHARES[name], by_size(1, source, tasks[name])[1])
    for name, source in sources.items()
  }
  return common.mixture(**sets)


def get_config(variant="7b"):
  batch, steps = lookup(RUNS, variant, "variant")
  image = dict(
    name="run", workdir=f"runs/image_{variant}", part="connectors_image"
  )
  return common.run(
    variant,
    {"video": common.KINDS["video"]},
    mix=mix(),
    batch=batch,
    steps=steps,
    every=1000,
    init=dict(connectors_video=image),
    evaluate=benchmarks.evaluate(
      "video", format=common.VARIANTS[variant].asked
    ),
    tensor=max(32 // batch, 1),
  )
