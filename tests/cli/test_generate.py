"""A trained run asked about pictures of its user."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from configs.flamingo import demo
from mmjax import tree
from mmjax.cli import main
from mmjax.cli.generate import for_generation, generate, prompt
from mmjax.cli.train import train
from mmjax.config import build
from mmjax.data import drawn
from mmjax.data.image import Square
from mmjax.encoders import ENCODERS
from mmjax.training.drawn import drawn_features
from mmjax.training.sources import load_parts
from tests.training.child import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A tiny run; for new pictures a small ViT takes the table's place."""
  folder = tmp_path_factory.mktemp("run")
  config = tiny(1)
  config.generate = dict(
    model=dict(
      encoder=dict(
        name="vit",
        width=8,
        num_layers=1,
        num_heads=2,
        patch=16,
        image_size=32,
      )
    ),
    data=dict(
      keys=False,
      values=True,
      transforms=[dict(name="square", size=32)],
      prompt=dict(length=40, media=3),
    ),
  )
  train(config, folder)
  return folder


@pytest.fixture
def picture(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  return str(tmp_path / "a.png")


def test_parts_keep_their_order(picture):
  document = prompt([("image", picture), ("text", "a"), ("image", picture)])
  assert [type(s).__name__ for s in document.segments] == [
    "Media",
    "Text",
    "Media",
  ]


def test_command_line_answers(run, picture, capsys):
  shown = ["--image", picture, "--prompt", "Output: a cat", "--image", picture]
  arguments = ["generate", "--workdir", str(run), "--max-new-tokens", "3"]
  assert main.main([*arguments, *shown, "--prompt", "Output:"]) == 0
  first = capsys.readouterr().out.splitlines()[-1]
  config = json.loads((run / "config.json").read_text())
  parts = [("image", picture), ("text", "Output: a cat")]
  parts += [("image", picture), ("text", "Output:")]
  assert generate(config, run, parts, max_new_tokens=3) == first
  # Sampling is reproducible, and beams take the same road.
  for extra in (["--temperature", "1", "--seed", "3"], ["--num-beams", "2"]):
    told = []
    for _ in range(2):
      assert main.main([*arguments, *shown, *extra]) == 0
      told.append(capsys.readouterr().out)
    assert told[0] == told[1]


def test_words_that_the_run_cannot_read_are_named(run, picture, caplog):
  ask = ["generate", "--workdir", str(run), "--max-new-tokens", "1"]
  asked = ["--prompt", "photo cat", "--image", picture, "--prompt", "a photo"]
  assert main.main([*ask, *asked]) == 0
  assert "does not have ['photo']" in caplog.text


@pytest.mark.parametrize(
  ("parts", "message"),
  [
    (["--image", "nowhere.png"], "no image file"),
    (["--image", "README.md", "--prompt", "a"], "JPEG, PNG"),
    ([], "prompt is empty"),
    (["--prompt", "a " * 60], "tokens"),
    (["--prompt", "a", "--top-p", "0"], "top_p"),
    (["--prompt", "a", "--temperature", "-1"], "temperature"),
    (["--prompt", "a", "--temperature", "nan"], "temperature"),
    (["--prompt", "a\udcff"], "half a character"),
    (["--prompt", "a", "--config.model.lm.width=32"], "of another model"),
    (["--prompt", "a", "--num-beams", "0"], "num_beams is 0"),
    (["--prompt", "a", "--max-new-tokens", "0"], "max_new_tokens 0"),
    (["--prompt", "a", "--num-beams", "2", "--top-k", "3"], "does not sample"),
    (["--prompt", "a", "--num-beams", "2", "--top-p", ".5"], "does not sample"),
    (["--prompt", "a", "--top-k", "3"], "nothing is sampled"),
    (["--image", "benchmarks/results/flamingo_demo.png"] * 4, "4 media"),
  ],
)
def test_bad_requests_fail_in_one_line(run, parts, message, capsys):
  assert main.main(["generate", "--workdir", str(run), *parts]) == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert error.startswith("mmjax generate: ") and message in error


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_a_directory_without_a_run_says_so(verb, tmp_path, capsys):
  assert main.main([verb, "--workdir", str(tmp_path / "x")]) == 1
  assert "There is no run in" in capsys.readouterr().err
  (tmp_path / "config.json").write_text("{}")
  asked = ["--prompt", "a"] if verb == "generate" else []
  assert main.main([verb, "--workdir", str(tmp_path), *asked]) == 1
  said = capsys.readouterr().err
  assert "no 'model'" in said or "no 'evaluate'" in said


def test_unknown_changes_are_named():
  config = demo.get_config().to_dict()
  config["generate"]["models"] = {}
  with pytest.raises(ValueError, match="models"):
    for_generation(config)


def test_the_demo_sees_pixels_as_its_table():
  """A drawn picture through the encoder gives the row of the table."""
  config = for_generation(demo.get_config())
  encoder = build(ENCODERS, config["model"]["encoder"])
  keys, resize = [3, 2000, 5000], Square(96)
  images = np.stack([resize(drawn.table()[k], None) for k in keys])
  shapes = nn.unbox(jax.eval_shape(encoder.init, jax.random.key(0), images))
  loaded = load_parts(config["init"], {"encoder": shapes["params"]})
  params = tree.unflatten(loaded)["encoder"]
  seen = encoder.apply({"params": params}, images)
  rows = jax.ShapeDtypeStruct((len(drawn.table()), 9, demo.WIDTH), np.float16)
  table = drawn_features({"table": rows})["table"]
  # The table is kept in float16.
  np.testing.assert_allclose(seen, table[keys], atol=2e-2)
