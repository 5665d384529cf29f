"""X-InstructBLIP's sounds: `:7b`, `:13b`, `:7b_improved`, `:7b_projection`.

audiocaps/train.csv  audiocaps/audio/*.flac  audiocaps_qa/train.csv
wavcaps/json_files/*/*_final.json  wavcaps/{AudioSet_SL,BBC_Sound_Effects,
FreeSound,SoundBible}/*.flac
audioset/balanced_train_segments.csv  audioset/class_labels_indices.csv
audioset/balanced/*.wav
"""

from configs.flamingo.common import local
from configs.x_instructblip import benchmarks, common
from configs.x_instructblip.common import by_size, published
from mmjax.config import lookup

# Samples of an update, on 8 GPUs, and updates. The 13B model went on after
# 300,000. LAVIS' linear projection has 4 samples a GPU.
RUNS = {
  "7b": (8 * 8, 65_000),
  "7b_improved": (8 * 8, 65_000),
  "13b": (2 * 8, 300_000),
  "7b_projection": (4 * 8, 65_000),
}
WAVCAPS = 297_341
# Files of WavCaps and the sounds that each has, of 403,050 in all. LAVIS has
# WAVCAPS of them.
PARTS = {
  "AudioSet_SL": ("as", 108_317),
  "BBC_Sound_Effects": ("bbc", 31_201),
  "FreeSound": ("fsd", 262_300),
  "SoundBible": ("sb", 1_232),
}


def wavcaps():
  """Its parts, which share its weight by their sizes."""
  total = sum(count for _, count in PARTS.values())
  found = {}
  for folder, (name, count) in PARTS.items():
    file = f"wavcaps/json_files/{folder}/{name}_final.json"
    source = published("wavcaps", file, audio=f"wavcaps/{folder}")
    weight, entry = by_size(WAVCAPS, source, "caption")
    found[f"wavcaps_{name}"] = weight * count / total, entry
  return found


def mix():
  clips = dict(audio="audiocaps/audio")
  audioset = published(
    "audioset",
    "audioset/balanced_train_segments.csv",
    audio="audioset/balanced",
  ) | dict(labels=local("audioset/class_labels_indices.csv"))
  audiocaps = published("audiocaps", "audiocaps/train.csv", **clips)
  return common.mixture(
    audiocaps=by_size(38_701, audiocaps, "caption"),
    audiocaps_qa=by_size(
      24_158,
      published("audiocaps_qa", "audiocaps_qa/train.csv", **clips),
      "question",
    ),
    audioset=by_size(14_141, audioset, "class"),
    **wavcaps(),
  )


def get_config(variant="7b"):
  batch, steps = lookup(RUNS, variant, "variant")
  init = {}
  if common.VARIANTS[variant].connector == "qformer":
    init = common.blip2("audio", whole=False)
  return common.run(
    variant,
    {"audio": common.KINDS["audio"]},
    mix=mix(),
    batch=batch,
    steps=steps,
    init=init,
    evaluate=benchmarks.evaluate(
      "audio", format=common.VARIANTS[variant].asked
    ),
    tensor=max(32 // batch, 1),
  )
