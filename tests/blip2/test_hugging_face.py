"""BLIP-2 and InstructBLIP against Hugging Face's, there and back."""

import functools
import json

import jax
import numpy as np
import pytest
import torch
import transformers

from mmjax.cli.convert import convert
from mmjax.generation.sample import Sampling, generate
from tests.blip2 import hugging_face as hf

ROWS = [(0, 3, 9, 4, 7, 8), (5, 6, 0, 11)]
INSTRUCTIONS = [(3, 7, 9), (4, 39, 6, 5, 8)]


@pytest.fixture(scope="module", params=hf.VARIANTS)
def pair(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp("blip2")
  theirs = hf.make(request.param)
  theirs.save_pretrained(folder / "hf")
  module, params = hf.converted(folder / "hf", folder / "jax")
  return folder, theirs, module, params


def test_logits_are_equal(pair):
  """Padding of the text, and of the instruction, changes nothing."""
  _, theirs, module, params = pair
  given, batch = hf.prompts(theirs, ROWS, INSTRUCTIONS)
  with torch.no_grad():
    expected = theirs(**given).logits.numpy()
  run = jax.jit(lambda p, b: module.apply({"params": p}, b).logits)
  found = np.asarray(run(params, batch))
  real = batch["segments"] > 0
  scale = np.abs(expected).max()
  close = functools.partial(np.testing.assert_allclose, rtol=0)
  close(found[real], expected[real], atol=1e-4 * scale)
  if "qformer_input_ids" in given:
    other = dict(given, qformer_input_ids=given["qformer_input_ids"] + 1)
    with torch.no_grad():
      assert np.abs(theirs(**other).logits.numpy() - expected).max() > 1e-3
  if "video" in batch["media"]:
    for i in range(2):
      close(run(params, hf.row(batch, i))[0], found[i], atol=1e-5 * scale)


def test_what_goes_back_is_what_came(pair):
  """With what config.json said beyond our settings, and without it."""
  folder, theirs, *_ = pair
  settings = folder / "jax" / "config.json"
  content = json.loads(settings.read_text())
  for name in ("back", "bare"):
    convert(folder / "jax", folder / name, to="hf", limit=40_000)
    assert (folder / name / "model.safetensors.index.json").is_file()
    again = type(theirs).from_pretrained(folder / name).eval()
    state = again.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
      assert torch.equal(state[key], value), key
    given, _ = hf.prompts(theirs, ROWS, INSTRUCTIONS)
    with torch.no_grad():
      assert torch.equal(again(**given).logits, theirs(**given).logits)
    settings.write_text(json.dumps(content | {"hugging_face": {}}))
  settings.write_text(json.dumps(content))


def test_32_greedy_tokens_are_equal(pair):
  _, theirs, module, params = pair
  given, batch = hf.prompts(theirs, ROWS, INSTRUCTIONS, pad_left=True)
  theirs.language_model.generation_config.eos_token_id = None
  expected = theirs.generate(**given, do_sample=False, max_new_tokens=32)
  found = jax.jit(lambda p, b: generate(module, p, b, Sampling(32)).tokens)(
    params, batch
  )
  np.testing.assert_array_equal(found, expected[:, -32:].numpy())


def test_classes_are_told_by_their_architecture(pair):
  folder, theirs, *_ = pair
  content = json.loads((folder / "jax" / "config.json").read_text())
  assert content["family"] == "instructblip"
  (kind,) = content["model"]["media"]
  assert kind == ("video" if "Video" in type(theirs).__name__ else "image")
  connector = content["model"]["media"][kind]["connector"]
  assert connector["features_norm_eps"] == (
    theirs.config.vision_config.layer_norm_eps
  )
  assert transformers.AutoConfig.from_pretrained(folder / "hf").model_type == (
    theirs.config.model_type
  )
