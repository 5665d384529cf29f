"""BLIP-2's first stage against Hugging Face's model for retrieval."""

import jax
import numpy as np
import pytest
import torch
import transformers
from flax import linen as nn

from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.convert.read import Safetensors, read_json
from mmjax.systems import blip2
from mmjax.training.sources import load_parts
from tests.blip2.hugging_face import QFORMER, QUERIES
from tests.llava.hugging_face import VISION, normalised

TEXTS = np.array([[3, 7, 9, 0, 0], [4, 39, 6, 5, 8], [2, 2, 31, 1, 0]])


@pytest.fixture(scope="module", params=[1, 2, 4])
def pair(request, tmp_path_factory):
  """Theirs, ours with its parameters, and the folder of both."""
  folder = tmp_path_factory.mktemp("retrieval")
  reader = dict(cross_attention_frequency=request.param)
  config = transformers.Blip2Config(
    vision_config=VISION | dict(layer_norm_eps=1e-4),
    qformer_config=QFORMER | reader | dict(use_qformer_text_input=True),
    num_query_tokens=QUERIES,
    image_text_hidden_size=10,
    image_token_index=None,
  )
  torch.manual_seed(0)
  theirs = transformers.Blip2ForImageTextRetrieval(config)
  with torch.no_grad():
    for name, value in theirs.named_parameters():
      value.copy_(torch.randn_like(value) * 0.2 + ("norm" in name.lower()))
      if name.endswith("qkv.bias"):
        value[len(value) // 3 : 2 * len(value) // 3] = 0
  theirs.eval().save_pretrained(folder / "hf")
  convert(folder / "hf", folder / "jax", to="jax")
  weights = Safetensors(folder / "jax")
  params = tree.unflatten({name: weights[name] for name in weights})
  params["temperature"] = np.ones(())  # Theirs has none.
  fields = read_json(folder / "jax" / "config.json")["model"]
  return theirs, blip2.build(fields), params, folder


def inputs():
  rng = np.random.default_rng(0)
  side = VISION["image_size"]
  pixels = rng.integers(0, 256, (3, 1, 1, side, side, 3), np.uint8)
  mask = np.ones((3, 1, 1), bool)
  batch = dict(
    tokens=TEXTS,
    segments=(TEXTS > 0).astype(int),
    media=dict(image=dict(values=pixels, mask=mask)),
  )
  given = dict(
    input_ids=torch.tensor(TEXTS),
    attention_mask=torch.tensor((TEXTS > 0).astype(int)),
    pixel_values=normalised(pixels[:, 0, 0]),
  )
  return batch, given


def similarities(module, batch):
  """Of images and texts, and whether those of a row belong together."""
  x, text = module.read_media(batch), batch["segments"] > 0
  count, hidden = module.qformer.num_queries, module.qformer(x)
  images = blip2.unit(module.image_head(hidden[:, :count]))
  read = module.qformer.read(batch["tokens"], text[:, None, None, :])
  texts = blip2.unit(module.text_head(read[:, 0]))
  found = module.similarity(images, texts)
  return found, module.match(x, batch["tokens"], text)


def test_similarities_and_matches_are_equal(pair):
  theirs, module, params, _ = pair
  batch, given = inputs()
  found, matches = module.apply({"params": params}, batch, method=similarities)
  with torch.no_grad():
    compared = theirs(**given).logits_per_image.numpy()
    matched = theirs(**given, use_image_text_matching_head=True)
  np.testing.assert_allclose(found, compared, atol=1e-5)
  expected = matched.logits_per_image.numpy()
  scale = np.abs(expected).max()
  np.testing.assert_allclose(matches, expected, rtol=0, atol=1e-4 * scale)
  assert compared.std() > 0.01 and expected.std() > 0.01


def test_what_goes_back_is_what_came(pair):
  theirs, *_, folder = pair
  convert(folder / "jax", folder / "back", to="hf")
  kind = transformers.Blip2ForImageTextRetrieval
  state = kind.from_pretrained(folder / "back").state_dict()
  assert state.keys() == theirs.state_dict().keys()
  for name, value in theirs.state_dict().items():
    assert torch.equal(state[name], value), name


def test_a_training_begins_with_it(pair):
  """What theirs has not is drawn."""
  _, module, params, folder = pair
  batch, _ = inputs()
  made = jax.eval_shape(module.init, jax.random.key(0), batch)["params"]
  drawn = r"caption_head/.*|temperature"
  source = dict(name="converted", path=str(folder / "jax"), drawn=drawn)
  found = load_parts({"all": source}, nn.unbox(made))
  expected = tree.flatten(params)
  del expected["temperature"]
  assert found.keys() == expected.keys()
