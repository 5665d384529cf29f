"""From Hugging Face, trained, and back: the same logits on both sides."""

import json

import jax
import numpy as np
import pytest
import torch
from flax import linen as nn
from PIL import Image

from configs.instructblip import released
from mmjax import tree
from mmjax.checkpoints import load_trainable
from mmjax.cli.convert import convert
from mmjax.cli.evaluate import load_model
from mmjax.cli.train import train
from mmjax.systems import x_instructblip
from mmjax.training.sources import load_parts
from tests.blip2 import hugging_face as hf
from tests.cli.test_released_blip import processor
from tests.data.pictures import photo

ROWS = [(0, 3, 9, 4, 7, 8), (5, 6, 0, 11)]
INSTRUCTIONS = [(3, 7, 9), (4, 39, 6, 5, 8)]


@pytest.fixture(scope="module", params=["BLIP-2, OPT", "grouped queries"])
def made(request, tmp_path_factory):
  """Hugging Face's model, the config of a run that starts with it, the run."""
  folder = tmp_path_factory.mktemp("run")
  theirs = hf.make(request.param)
  theirs.save_pretrained(folder / "hf")
  instructed = "Instruct" in type(theirs).__name__
  processor("image", instructed).save_pretrained(folder / "hf")
  convert(folder / "hf", folder / "jax", to="jax")
  rows = []
  for i in range(4):
    Image.fromarray(photo(24, 20, i)).save(folder / f"{i}.png")
    rows.append(
      dict(id=f"{i}", image=f"{i}.png", question=f"w{i}", answer="w9")
    )
  (folder / "qa.json").write_text(json.dumps(rows))
  with pytest.MonkeyPatch.context() as patch:
    # Of a job of several processes none knows the others yet.
    patch.setattr(jax, "default_backend", None)
    config = released.get_config(str(folder / "jax"))
  questions = config.data.datasets.questions
  questions.source.paths = str(folder / "qa.json")
  questions.format.folder = str(folder)
  questions.batch = 2
  config.train.plan = dict(steps=2, log_every=1, checkpoint_every=2)
  config.train.optimizer.schedule = dict(
    name="warmup_constant", peak=0.05, warmup=0
  )
  assert config.model.dtype == config.train.frozen_dtype == "bfloat16"
  assert "dtype" not in config.init.all
  config.model.dtype = config.train.frozen_dtype = "float32"
  config.mesh.fsdp, config.mesh.data = 1, 1
  train(config, folder / "run")
  return theirs, config, folder


def test_logits_after_training_are_the_same_there(made):
  theirs, config, folder = made
  convert(folder / "run", folder / "trained", to="hf", layout="hf")
  again = type(theirs).from_pretrained(folder / "trained").eval()
  given, batch = hf.prompts(again, ROWS, INSTRUCTIONS)
  module = x_instructblip.build(config.to_dict()["model"])
  shapes = jax.eval_shape(module.init, jax.random.key(0), batch)["params"]
  loaded = load_parts(config.init.to_dict(), nn.unbox(shapes))
  trained = tree.flatten(load_trainable(folder / "run" / "checkpoints"))
  assert all(path.startswith("connectors_image/") for path in trained)
  loaded = {path: np.asarray(value) for path, value in loaded.items()}
  params = tree.unflatten(loaded | trained)
  found = np.asarray(module.apply({"params": params}, batch).logits)
  with torch.no_grad():
    expected = again(**given).logits.numpy()
    before = theirs(**given).logits.numpy()
  real, scale = batch["segments"] > 0, np.abs(expected).max()
  np.testing.assert_allclose(
    found[real], expected[real], rtol=0, atol=1e-4 * scale
  )
  assert np.abs(before - expected)[real].max() > 0.1 * scale
  assert again.config.image_token_index == hf.MEDIA
  assert (folder / "trained" / "preprocessor_config.json").is_file() or (
    folder / "trained" / "processor_config.json"
  ).is_file()


def test_what_is_asked_has_the_numbers_that_were_trained_with(made):
  """Frozen parts as the training held them, the trained ones in float32."""
  _, config, folder = made
  config = config.to_dict()
  config["train"]["frozen_dtype"] = "bfloat16"
  found = tree.flatten(load_model(config, folder / "run").params)
  for path, value in found.items():
    trains = path.startswith("connectors_")
    assert value.dtype == ("float32" if trains else "bfloat16"), path
