"""Published configs of X-InstructBLIP, BLIP-2 and InstructBLIP fit together.

The small ones are in test_x_instructblip_tiny.py.
"""

import dataclasses
import importlib
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import configs
from configs.x_instructblip.common import ATTENTION
from mmjax import tree
from mmjax.cli import configs as files
from mmjax.data import build as data
from mmjax.systems import SYSTEMS
from mmjax.text.prompts.cued import FORMATS
from mmjax.training.recipe import make_recipe

ROOT = Path(configs.__path__[0])
LINEAR = ("7b", "13b", "7b_projection")
# What each config takes as its argument.
ARGUMENTS = {
  "x_instructblip/image": (*LINEAR, "7b_improved"),
  "x_instructblip/audio": (*LINEAR, "7b_improved"),
  "x_instructblip/points": LINEAR,
  "x_instructblip/video": ("7b", "13b"),
  "x_instructblip/joint": ("7b", "13b", "7b_released", "13b_released"),
  "blip2/stage1": ("",),
  "blip2/stage2": ("opt_2.7b", "opt_6.7b"),
  "instructblip/vicuna": ("7b", "13b"),
}
VARIANTS = [
  f"{file}.py:{name}".removesuffix(":")
  for file, names in ARGUMENTS.items()
  for name in names
]


def load(name):
  return files.load(ROOT / name)


@pytest.fixture(scope="module")
def recipe_of():
  """The recipe of a config and its batch; nothing is read and nothing drawn."""
  known = {}

  def make(name):
    if name not in known:
      config = data.plain(load(name))
      module = SYSTEMS[config["system"]].build(config["model"])
      (batches,) = data.abstract_batches(config["data"])
      (batch,) = batches.values()
      steps = config["train"]["plan"]["steps"]
      known[name] = make_recipe(config["train"], module, batch, steps), batch
    return known[name]

  return make


def test_every_config_is_tried():
  folders = ("x_instructblip", "blip2", "instructblip")
  found = {
    f"{folder}/{file.stem}"
    for folder in folders
    for file in (ROOT / folder).glob("[!_]*.py")
    if not file.stem.startswith("tiny")
    and hasattr(
      importlib.import_module(f"configs.{folder}.{file.stem}"), "get_config"
    )
  }
  # That of a folder is in tests/blip2/test_run.py.
  assert found == ARGUMENTS.keys() | {"instructblip/released"}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_config_builds(name, recipe_of):
  config, (recipe, batch) = load(name), recipe_of(name)
  # What does not train comes from somewhere, and nothing goes nowhere.
  for path, trains in recipe.mask.items():
    assert trains or path.startswith(tuple(f"{k}/" for k in config.init)), path
  for part in config.init:
    assert any(path.startswith(f"{part}/") for path in recipe.mask), part
  if config.system == "blip2":
    return
  # The prompt leaves as many places as the model has tokens for a frame.
  (dataset,) = config.data.datasets.values()
  for kind, media in batch["media"].items():
    tokens = jax.eval_shape(
      lambda params, media, kind=kind: recipe.module.apply(
        {"params": params}, media, kind, method="media_tokens"
      ),
      *(recipe.shapes, media),
    )
    assert dataset.prompt.media_tokens == tokens.shape[2]


@pytest.mark.parametrize("name", VARIANTS)
def test_connectors_train_and_most_of_them_decays(name, recipe_of):
  config, (recipe, _) = load(name), recipe_of(name)
  assert config.train.frozen_dtype == "bfloat16"
  for path, trains in recipe.mask.items():
    frozen = path.startswith(("lm/", "encoder"))
    assert trains != frozen, path
  trainable, _ = tree.split(recipe.shapes, recipe.mask)
  rates = tree.match(trainable, config.train.optimizer.weight_decay)
  # Of a tensor of one layer and of all heads together, LAVIS' rule.
  spared = {path for path, rate in rates.items() if not rate}
  assert {path.split("/")[-1] for path in rates.keys() - spared} == {
    "kernel",
    *({"queries", "table"} if "projection" not in name else ()),
  } - ({"table"} if "stage2" in name else set())
  assert all(rates[path] == 0.05 for path in rates.keys() - spared)


@pytest.mark.parametrize(
  "name, count",
  [
    ("x_instructblip/image.py:7b", 188_837_376),
    ("x_instructblip/video.py:7b", 188_837_376),
    ("x_instructblip/audio.py:7b", 182_937_856),
    ("x_instructblip/points.py:7b", 180_578_048),
    ("x_instructblip/joint.py:7b", 741_190_656),
    ("x_instructblip/image.py:13b", 189_624_832),
    # The norm, and two matrices with their biases.
    ("x_instructblip/image.py:7b_projection", 2816 + 34_627_584 + 3_149_824),
    ("x_instructblip/audio.py:7b_projection", 1536 + 18_898_944 + 3_149_824),
    ("x_instructblip/points.py:7b_projection", 1024 + 12_607_488 + 3_149_824),
    ("instructblip/vicuna.py:7b", 188_837_376),
    # The body with BERT's head, queries, norm, three matrices and a number.
    (
      "blip2/stage1.py",
      186_282_811 + 24_576 + 2816 + 2 * (768 * 256 + 256) + 2 * 768 + 2 + 1,
    ),
    (
      "blip2/stage2.py:opt_2.7b",
      105_137_664 + 24_576 + 2816 + 768 * 2560 + 2560,
    ),
  ],
)
def test_what_trains_is_as_large_as_published(name, count, recipe_of):
  recipe, _ = recipe_of(name)
  trainable, _ = tree.split(recipe.shapes, recipe.mask)
  assert tree.count(trainable) == count


# Documents of an update, tokens of a row, frames of each kind.
SHAPES = {
  "x_instructblip/image.py:7b": (64, 512, dict(image=1)),
  "x_instructblip/audio.py:7b": (64, 512, dict(audio=2)),
  "x_instructblip/points.py:7b": (128, 512, dict(points=1)),
  "x_instructblip/video.py:7b": (32, 640, dict(video=5)),
  "x_instructblip/image.py:13b": (64, 512, dict(image=1)),
  "x_instructblip/audio.py:13b": (16, 512, dict(audio=2)),
  "x_instructblip/points.py:13b": (32, 512, dict(points=1)),
  "x_instructblip/video.py:13b": (8, 640, dict(video=5)),
  "x_instructblip/joint.py:7b": (
    *(32, 640),
    dict(image=1, video=2, audio=2, points=1),
  ),
  "instructblip/vicuna.py:7b": (128, 512, dict(image=1)),
  "blip2/stage2.py:opt_2.7b": (1920, 80, dict(image=1)),
}
VALUES = dict(
  image=(1, 224, 224, 3),
  video=(1, 224, 224, 3),
  audio=(1, 82_160),
  points=(1, 8192, 3),
)


@pytest.mark.parametrize("name", SHAPES)
def test_batches(name, recipe_of):
  rows, length, frames = SHAPES[name]
  _, batch = recipe_of(name)
  assert batch["tokens"].shape == (rows, length)
  assert batch["media"].keys() == frames.keys()
  for kind, media in batch["media"].items():
    assert media["values"].shape == (rows, frames[kind], *VALUES[kind])
    text = media["text"].shape if "text" in media else None
    reads = "stage2" not in name
    assert text == ((rows, frames[kind], 128) if reads else None)
  # What an answer and a question may have, with all that is around them.
  prompt = next(iter(load(name).data.datasets.values())).prompt
  room = length - 32 * sum(frames.values())
  assert room >= prompt.question_length + prompt.answer_length


@pytest.mark.parametrize(
  "name, every, epochs",
  [
    ("x_instructblip/image.py:7b", 5000, 13),
    ("x_instructblip/image.py:13b", 5000, 150),
    ("x_instructblip/video.py:7b", 1000, 15),
    ("x_instructblip/points.py:13b", 5000, 71),
  ],
)
def test_rates(name, every, epochs, recipe_of):
  recipe, _ = recipe_of(name)

  def cosine(epoch):
    return 0.5e-5 * (1 + math.cos(math.pi * epoch / epochs))

  expected = {0: 1e-8, 500: 0.5e-5 + 0.5e-8, 1000: cosine(every // 1000 // 5)}
  expected |= {2 * every - 1: cosine(1), 2 * every: cosine(2)}
  expected[every * epochs - 1] = cosine(epochs - 1)
  if every > 1000:
    expected |= {1000: 1e-5, every - 1: 1e-5}
  else:
    expected |= {999: 1e-8 + 0.999 * (1e-5 - 1e-8), 1000: cosine(1)}
  found = [float(recipe.schedule(step)) for step in expected]
  # Near its end the cosine has the precision of the peak.
  np.testing.assert_allclose(
    found, list(expected.values()), rtol=1e-5, atol=1e-12
  )


# Of a mixture, rounded: how often LAVIS draws each set.
MIXES = {
  "image": dict(
    cc12m=0.1944,
    capfilt=0.2948,
    coco=0.0596,
    vg=0.0718,
    sbu=0.0734,
    vg_qa=0.0950,
    vqav2=0.0642,
    ocr_vqa=0.0792,
    okvqa=0.0075,
    aokvqa=0.0103,
    llava=0.0497,
  ),
  "audio": dict(
    audiocaps=0.1936, audiocaps_qa=0.1529, wavcaps=0.5365, audioset=0.1170
  ),
  "points": dict(cap3d=0.6175, cap3d_qa=0.3825),
  "video": dict(webvid=0.3570, msrvtt=0.5455, msrvtt_qa=0.0975),
}


@pytest.mark.parametrize("kind", MIXES)
def test_mixtures(kind):
  mix = load(f"x_instructblip/{kind}.py:7b").data.datasets.instructions.mix
  assert sum(entry.share for entry in mix.values()) == pytest.approx(1)
  found = dict.fromkeys(MIXES[kind], 0.0)
  for name, entry in mix.items():
    found[name if name in found else name.rpartition("_")[0]] += entry.share
  assert found == pytest.approx(MIXES[kind], abs=6e-5)


def test_other_mixtures_sum_up():
  for name in VARIANTS:
    for dataset in load(name).data.datasets.values():
      shares = [entry.share for entry in dataset.mix.values()]
      assert sum(shares) == pytest.approx(1)


ASKED = [name for name in VARIANTS if name.startswith("x_instructblip/")]


@pytest.mark.parametrize("name", ASKED)
def test_prompts_are_those_of_lavis(name):
  """With a space behind each medium where it is asked, and none in training."""
  config = load(name)
  trained = FORMATS[config.data.datasets.instructions.prompt.format]
  asked = FORMATS[config.evaluate.prompt.format]
  around = ("USER: ", "\nASSISTANT:") if "improved" in name else ("", "")
  assert (trained.prefix, trained.postfix) == around
  assert trained.space == "" and asked == dataclasses.replace(
    trained, space=" "
  )
  model = config.evaluate.model
  assert (model.num_beams, model.repetition_penalty) == (5, 1.5)


@pytest.mark.parametrize("name", ["image.py:8b", "audio.py:", "joint.py:7c"])
def test_an_unknown_variant_is_named(name):
  with pytest.raises(ValueError, match="Unknown variant .* Did you|Known"):
    load(f"x_instructblip/{name}")


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_a_run_begins_where_another_ended(size, recipe_of):
  expected = files.workdir(f"image.py:{size}")
  video = load(f"x_instructblip/video.py:{size}").init
  assert Path(video.connectors_video.workdir) == expected
  joint = load(f"x_instructblip/joint.py:{size}").init
  for kind in ("image", "audio", "points", "video"):
    begin = joint[f"connectors_{kind}"]
    assert Path(begin.workdir) == files.workdir(f"{kind}.py:{size}")
    trained, _ = recipe_of(f"x_instructblip/{kind}.py:{size}")
    assert any(path.startswith(f"{begin.part}/") for path in trained.mask)


def test_what_stays_random_of_a_qformer(recipe_of):
  """Names with "attention" in LAVIS: of both kinds, with norm and output."""
  recipe, _ = recipe_of("x_instructblip/audio.py:7b")
  head = "connectors_audio/qformer/"
  drawn = {
    path.removeprefix(head).split("/")[0]
    for path in recipe.mask
    if re.fullmatch(f"{head}({ATTENTION})", path)
  }
  assert drawn == {"layers", "cross"}
  kept = {
    "/".join(path.removeprefix(head).split("/")[:2])
    for path in recipe.mask
    if path.startswith(head) and not re.fullmatch(f"{head}({ATTENTION})", path)
  }
  mlps = {f"layers/{kind}_mlp" for kind in ("text", "query")}
  assert kept == mlps | {f"{name}_norm" for name in mlps} | {
    *("embedding/table", "position_table/table", "queries"),
    *("norm/scale", "norm/bias"),
  }
  for kind in ("image", "audio", "points"):
    init = load(f"x_instructblip/{kind}.py:13b").init
    assert init[f"connectors_{kind}/qformer"].drawn == ATTENTION
    assert f"connectors_{kind}/features_norm" not in init
  whole = load("x_instructblip/image.py:7b").init
  assert "drawn" not in whole["connectors_image/qformer"]
  assert "connectors_image/features_norm" in whole
