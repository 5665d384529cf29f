"""A folder of one's own pictures: looked at, trained on, asked about."""

import json

import numpy as np
import pytest
from PIL import Image

from configs.flamingo import folder
from mmjax.cli import main

ROWS = ["file,caption", '0.png,"red, and bright"', "1.jpg,green", "2.webp,blue"]
COLOURS = ((200, 20, 20), (20, 200, 20), (20, 20, 200))


@pytest.fixture
def recipe(tmp_path):
  """The recipe with a small language model instead of SmolLM2."""
  pictures = tmp_path / "pictures"
  pictures.mkdir()
  for i, (colour, kind) in enumerate(zip(COLOURS, ("png", "jpg", "webp"))):
    pixels = np.full((40 + i, 60, 3), colour, np.uint8)
    Image.fromarray(pixels).save(pictures / f"{i}.{kind}")
  table = tmp_path / "captions.csv"
  table.write_text("\n".join(ROWS) + "\n")
  config = folder.get_config()
  config.model.lm = dict(
    name="llama",
    vocab_size=1866,
    width=32,
    num_layers=6,
    num_heads=2,
    hidden=32,
  )
  config.tokenizer = dict(name="drawn")
  del config.init["lm"]
  pairs = config.data.datasets.pairs
  pairs.source.update(folder=str(pictures), table=str(table))
  pairs.batch = 2
  config.train.trainable = [("encoder/.*", False), (".*", True)]
  config.train.plan.update(steps=2, log_every=1)
  path = tmp_path / "own.json"
  path.write_text(json.dumps(config.to_dict()))
  return path


@pytest.mark.heavy
def test_inspect_train_generate(recipe, tmp_path, capsys):
  assert main.main(["data", "inspect", "--config", str(recipe)]) == 0
  assert "red, and bright" in capsys.readouterr().out
  workdir = str(tmp_path / "run")
  train = ["train", "--config", str(recipe), "--workdir", workdir]
  assert main.main(train) == 0
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  assert np.isfinite([json.loads(line)["loss"] for line in lines]).all()
  # TensorBoard's file of the run, too.
  assert list((tmp_path / "run" / "tensorboard").glob("events*"))
  picture = str(tmp_path / "pictures" / "1.jpg")
  ask = ["generate", "--workdir", workdir, "--max-new-tokens", "4"]
  shown = ["--image", picture, "--prompt", "green", "--image", picture]
  assert main.main([*ask, *shown]) == 0
  out = tmp_path / "out"
  assert main.main(["convert", workdir, str(out), "--to", "hf"]) == 0
  assert (out / "model.safetensors").exists()


def test_a_picture_that_is_missing_is_named(recipe, tmp_path, capsys):
  (tmp_path / "pictures" / "1.jpg").unlink()
  assert main.main(["data", "inspect", "--config", str(recipe)]) == 1
  assert "1.jpg" in capsys.readouterr().out
