"""The tiny two towers: learned on drawn things, asked for held-out ones."""

import functools

import numpy as np
import pytest
from flax import linen as nn

from mmjax.cli import configs
from mmjax.cli import main as cli
from mmjax.cli.evaluate import load_params
from mmjax.data import build as data
from mmjax.data import drawn
from mmjax.data.batching import Clip, Slots, pad, stack
from mmjax.data.document import Document, Media, Text
from mmjax.data.image import Square
from mmjax.evaluation.classification import top_k_accuracy
from mmjax.systems import contrastive
from mmjax.text.prompts import Caption
from mmjax.text.tokenizer import drawn as drawn_tokenizer
from mmjax.training.metrics import read_jsonl
from mmjax.training.state import abstract_params, trainable_mask
from tests import eight_devices

CONFIG = "configs/contrastive/tiny.py"
PICTURE = Media("image", drawn.table()[0])
SQUARE = [dict(name="square", size=32)]
TRANSFORMS = [dict(name="flip"), dict(name="colour"), *SQUARE]


def test_every_pattern_matches():
  config = configs.load(CONFIG)
  tokenizer = drawn_tokenizer()
  with data.batches(config.data, tokenizer) as batches:
    batch = next(batches)["pairs"]
  module = contrastive.build(config.model.to_dict())
  shapes = nn.unbox(abstract_params(module, batch))
  assert all(trainable_mask(shapes, config.train.trainable).values())
  image = batch["media"]["image"]
  assert image["mask"].all() and image["values"].std() > 10
  assert config.model.text.vocab_size == tokenizer.vocab_size


def test_a_caption_is_the_target_alone():
  tokenizer = drawn_tokenizer()
  prompt = Caption(tokenizer, length=4)
  texts = (Text("Output:"), Text(" red apple", target=True))
  written = prompt.write(Document((PICTURE, *texts)))
  assert written.media == (0,) and not written.weights.any()
  text = tokenizer.decode(written.tokens, special=True)
  assert text.split() == ["<s>", "red", "apple", "</s>"]
  # A tower knows by its end that it has read all of a text.
  cut = Caption(tokenizer, length=3).write(Document((PICTURE, *texts)))
  assert tokenizer.decode(cut.tokens, special=True).split() == [
    *("<s>", "red", "</s>")
  ]
  with pytest.raises(ValueError, match="need 3"):
    Caption(tokenizer, length=2)
  with pytest.raises(
    ValueError, match="2 media of the kind 'image'; a pair has 1"
  ):
    prompt.write(Document((PICTURE, PICTURE, *texts)))
  with pytest.raises(ValueError, match="a pair has 1"):
    Caption(tokenizer, media=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run of `mmjax train`: its config and its folder."""
  workdir = tmp_path_factory.mktemp("run")
  changes = {
    "model.media.image_size": 32,
    "data.datasets.pairs.batch": 48,
    "data.datasets.pairs.transforms": TRANSFORMS,
    "train.plan.steps": 150,
    "train.plan.log_every": 25,
    "train.plan.checkpoint_every": 150,
    "train.optimizer.schedule.peak": 2e-3,
    "mesh.data": 1,
  }
  arguments = [f"--config.{key}={value}" for key, value in changes.items()]
  where = ["--config", CONFIG, "--workdir", str(workdir)]
  assert cli.main(["train", *where, *arguments]) == 0
  changed = [argument.removeprefix("--config.") for argument in arguments]
  return configs.load(CONFIG, changed).to_dict(), workdir


@pytest.mark.long
def test_held_out_things_are_found_by_name(run):
  """Among all held-out things in a style; none was seen in any style."""
  config, workdir = run
  module = contrastive.build(config["model"])
  tokenizer = drawn_tokenizer()
  with data.batches(config["data"], tokenizer) as batches:
    example = next(batches)["pairs"]
  params = load_params(config, module, example, workdir)
  prompt, square = Caption(tokenizer, length=16), Square(32)
  things = drawn.concepts("held_out")
  names = [
    pad(
      prompt.write(Document((PICTURE, Text(thing.name, target=True)))),
      [Clip(None)],
      ["image"],
      16,
      {"image": Slots(1, values=False)},
    )
    for thing in things
  ]
  names = stack(names)
  pictures = np.stack([square(drawn.image(t, "noto"), None) for t in things])
  apply = functools.partial(module.apply, {"params": params})
  images = apply(pictures, method="embed_media")
  fields = [names[key] for key in ("tokens", "positions", "segments")]
  texts = apply(*fields, method="embed_texts")
  scores, labels = images @ texts.T, np.arange(len(things))
  chance = 100 / len(things)
  assert top_k_accuracy(scores, labels, 10) > 3 * 10 * chance
  assert top_k_accuracy(scores.T, labels, 10) > 3 * 10 * chance


SCRIPT = """
import sys
import jax
from mmjax.cli import configs, train as verb

make = verb.make_mesh
for count in (1, 8):
  devices = jax.devices()[:count]
  verb.make_mesh = lambda sizes: make(sizes, devices)
  config = configs.load(sys.argv[2], sys.argv[3:])
  verb.train(config, f"{sys.argv[1]}/{count}")
"""


@pytest.mark.long
def test_eight_devices_give_the_losses_of_one(tmp_path):
  """The candidates of a pair are those of all devices."""
  changes = [
    *("model.media.image_size=32", f"data.datasets.pairs.transforms={SQUARE}"),
    *("data.datasets.pairs.batch=16", "train.plan.steps=3"),
    *("train.plan.log_every=1", "mesh.data=-1"),
  ]
  eight_devices.run(SCRIPT, str(tmp_path), CONFIG, *changes)
  one, eight = (
    read_jsonl(tmp_path / count / "metrics.jsonl") for count in ("1", "8")
  )
  assert len(one) == 3
  for a, b in zip(one, eight, strict=True):
    for key in ("pairs/loss", "pairs/media_to_text", "grad_norm"):
      assert a[key] == pytest.approx(b[key], rel=2e-4), key
  # Of 16 candidates; of the 2 that a device holds it would be 1.4.
  assert one[0]["pairs/loss"] > 2 * np.log(8)
