"""LLaVA against Hugging Face's, there and back."""

import jax
import numpy as np
import pytest
import torch
import transformers

from mmjax.cli.convert import convert
from mmjax.generation.sample import Sampling, generate
from tests.llava import hugging_face as hf

TEXT = (3, 9, 4)
ROWS = {
  "an image each": [(*TEXT, 0, 7, 8), (5, 0, 6, 11, 12, 13)],
  "two images": [(*TEXT, 0, 7, 0, 8, 9), (5, 6, 0, 11, 0)],
  "no image": [(*TEXT, 7, 8), (5, 6, 11, 12, 13)],
  "some without": [(0, *TEXT, 0), TEXT],
}


@pytest.fixture(scope="module", params=hf.VARIANTS)
def pair(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp("llava")
  theirs = hf.make(request.param)
  theirs.save_pretrained(folder / "hf")
  module, params = hf.converted(folder / "hf", folder / "jax")
  return folder, theirs, module, params


@pytest.mark.parametrize("rows", ROWS)
def test_logits_are_equal(pair, rows):
  _, theirs, module, params = pair
  given, batch = hf.prompts(theirs.config, ROWS[rows])
  with torch.no_grad():
    expected = theirs(**given).logits.numpy()
  found = module.apply({"params": params}, batch).logits
  real = batch["segments"] > 0
  scale = np.abs(expected).max()
  np.testing.assert_allclose(
    np.asarray(found)[real], expected[real], atol=1e-4 * scale, rtol=0
  )


def test_what_goes_back_is_what_came(pair):
  folder, theirs, *_ = pair
  if not (folder / "back").exists():
    convert(folder / "jax", folder / "back", to="hf")
  again = transformers.LlavaForConditionalGeneration.from_pretrained(
    folder / "back"
  )
  state = again.state_dict()
  for name, value in theirs.state_dict().items():
    assert torch.equal(state[name], value), name
  given, _ = hf.prompts(theirs.config, ROWS["two images"])
  with torch.no_grad():
    assert torch.equal(again(**given).logits, theirs(**given).logits)


@pytest.mark.parametrize("rows", ROWS)
def test_32_greedy_tokens_are_equal(pair, rows):
  _, theirs, module, params = pair
  given, batch = hf.prompts(theirs.config, ROWS[rows], pad_left=True)
  theirs.generation_config.eos_token_id = None
  expected = theirs.generate(**given, do_sample=False, max_new_tokens=32)[
    :, given["input_ids"].shape[1] :
  ]
  found = jax.jit(lambda p, b: generate(module, p, b, Sampling(32)).tokens)(
    params, batch
  )
  np.testing.assert_array_equal(found, expected.numpy())


def test_large_models_are_written_in_shards_with_an_index(pair):
  folder, theirs, *_ = pair
  target = folder / "shards"
  convert(folder / "jax", target, to="hf", limit=40_000)
  assert (target / "model.safetensors.index.json").is_file()
  assert len(list(target.glob("model-*.safetensors"))) > 2
  again = transformers.LlavaForConditionalGeneration.from_pretrained(target)
  state = again.state_dict()
  for name, value in theirs.state_dict().items():
    assert torch.equal(state[name], value), name
