"""One model under all the names that LLaVA's weights have had."""

import json

import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import models, pre_tokenizers

from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.convert.read import Safetensors, read_json
from mmjax.convert.rules import ConversionError
from mmjax.data.image import ClipVal, Expand
from mmjax.systems import llava
from tests.data.pictures import photo
from tests.llava import hugging_face as hf

ROWS = [(3, 9, 4, 0, 7, 0, 8), (5, 0, 6, 11)]
TOWER = "model.vision_tower.vision_tower.vision_model."


def layout_a(name):
  """Of an in-memory name of transformers 5 to that of a file of 4."""
  name = name.replace("model.language_model.", "language_model.model.")
  name = name.replace("model.vision_tower.", "vision_tower.vision_model.")
  name = name.replace("model.multi_modal_projector", "multi_modal_projector")
  return "language_model." + name if name == "lm_head.weight" else name


def layout_c(name):
  return layout_a(name).replace("vision_tower.vision_model.", "vision_tower.")


def original(name):
  name = name.replace("model.language_model.", "model.")
  name = name.replace("model.vision_tower.", TOWER)
  for i, place in (("1", "0"), ("2", "2")):
    theirs = f"model.multi_modal_projector.linear_{i}"
    name = name.replace(theirs, f"model.mm_projector.{place}")
  return name


@pytest.fixture(scope="module")
def model():
  return hf.make("grouped queries")


def write(folder, state, config):
  folder.mkdir()
  state = {k: v.clone().contiguous() for k, v in state.items()}
  save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
  (folder / "config.json").write_text(json.dumps(config))
  return folder


def original_config(model, **changes):
  """As the hub's llava-v1.5 has it: LLaMA's, and LLaVA's beside it."""
  text = model.config.text_config.to_dict()
  return text | dict(
    model_type="llava",
    architectures=["LlavaLlamaForCausalLM"],
    mm_vision_tower="openai/clip-vit-large-patch14-336",
    mm_hidden_size=24,
    mm_projector_type="mlp2x_gelu",
    mm_vision_select_layer=-2,
    mm_vision_select_feature="patch",
    image_aspect_ratio="pad",
    vision_config=model.config.vision_config.to_dict(),
    **changes,
  )


def state_of(model, rename, keep=lambda name: True):
  return {
    rename(k): v for k, v in model.state_dict().items() if keep(rename(k))
  }


def parameters(folder):
  weights = Safetensors(folder)
  return {k: weights[k] for k in weights}


def test_all_layouts_are_the_same_model(model, tmp_path):
  config = model.config.to_dict()
  found = {}
  for name, rename in (("a", layout_a), ("b", str), ("c", layout_c)):
    source = write(tmp_path / name, state_of(model, rename), config)
    convert(source, tmp_path / f"jax_{name}", to="jax")
    found[name] = parameters(tmp_path / f"jax_{name}")
  source = write(
    tmp_path / "o", state_of(model, original), original_config(model)
  )
  convert(source, tmp_path / "jax_o", to="jax")
  found["o"] = parameters(tmp_path / "jax_o")
  for name in "bco":
    assert found[name].keys() == found["a"].keys()
    for path, value in found["a"].items():
      np.testing.assert_array_equal(found[name][path], value, path)


def test_what_is_written_for_hugging_face_every_version_reads(model, tmp_path):
  """Layout A, whatever came: transformers 4 draws a new tower for C."""
  source = write(
    tmp_path / "c", state_of(model, layout_c), model.config.to_dict()
  )
  convert(source, tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "hf", to="hf")
  written = load_file(tmp_path / "hf" / "model.safetensors")
  expected = state_of(model, layout_a)
  assert written.keys() == expected.keys()
  assert all(torch.equal(written[k], expected[k]) for k in expected)


@pytest.mark.parametrize("tower", ["within", "beside"])
def test_the_original_becomes_hugging_faces(model, tmp_path, tower):
  """With a row for the image's token, which no text of the original has."""
  keep = (
    (lambda name: True)
    if tower == "within"
    else (lambda name: "vision_tower" not in name)
  )
  source = write(
    tmp_path / "o", state_of(model, original, keep), original_config(model)
  )
  clip = transformers.CLIPVisionModel(model.config.vision_config)
  clip.load_state_dict(model.model.vision_tower.state_dict())
  clip.save_pretrained(tmp_path / "clip")
  given = {} if tower == "within" else dict(tower=tmp_path / "clip")
  convert(source, tmp_path / "jax", to="jax", **given)
  convert(tmp_path / "jax", tmp_path / "hf", to="hf", layout="hf")
  again = transformers.LlavaForConditionalGeneration.from_pretrained(
    tmp_path / "hf"
  ).eval()
  assert again.config.image_token_id == 96
  assert again.config.text_config.vocab_size == 128
  given, _ = hf.prompts(model.config, ROWS)
  moved = given | dict(input_ids=given["input_ids"].clone())
  moved["input_ids"][given["input_ids"] == hf.IMAGE] = 96
  with torch.no_grad():
    expected = model(**given).logits
    found = again(**moved).logits[..., : expected.shape[-1]]
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_original_goes_back_as_it_came(model, tmp_path):
  for name, keep in (
    ("whole", lambda n: True),
    ("no_tower", lambda n: "vision_tower" not in n),
    ("projector", lambda n: "mm_projector" in n),
  ):
    state = state_of(model, original, keep)
    config = original_config(model)
    source = write(tmp_path / name, state, config)
    convert(source, tmp_path / f"jax_{name}", to="jax", family="llava")
    back = tmp_path / f"back_{name}"
    convert(tmp_path / f"jax_{name}", back, to="hf")
    written = load_file(back / "model.safetensors")
    assert written.keys() == state.keys()
    assert all(torch.equal(written[k], state[k]) for k in state)
    if name == "whole":
      again = read_json(back / "config.json")
      assert again["architectures"] == ["LlavaLlamaForCausalLM"]
      assert again["mm_vision_select_layer"] == -2


def test_hugging_faces_becomes_the_original(model, tmp_path):
  model.save_pretrained(tmp_path / "hf")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "o", to="hf", layout="original")
  written = load_file(tmp_path / "o" / "model.safetensors")
  expected = state_of(model, original)
  assert written.keys() == expected.keys()
  assert all(torch.equal(written[k], expected[k]) for k in expected)
  config = read_json(tmp_path / "o" / "config.json")
  assert config["mm_projector_type"] == "mlp2x_gelu"
  assert "text_config" not in config


def test_version_1_has_a_linear_layer_and_hugging_face_the_same_answers(
  model, tmp_path
):
  """There the layer is the first of two, and nothing is between them."""
  state = state_of(model, original, lambda n: "mm_projector" not in n)
  torch.manual_seed(3)
  weight = torch.randn(32, 24) * 0.2
  state["model.mm_projector.weight"] = weight
  state["model.mm_projector.bias"] = torch.randn(32)
  config = original_config(model) | dict(mm_projector_type="linear")
  source = write(tmp_path / "o", state, config)
  convert(source, tmp_path / "jax", to="jax")
  fields = read_json(tmp_path / "jax" / "config.json")["model"]
  module = llava.build(hf.model_config(fields))
  params = tree.unflatten(parameters(tmp_path / "jax"))
  _, batch = hf.prompts(model.config, ROWS)
  expected = module.apply({"params": params}, batch).logits
  convert(tmp_path / "jax", tmp_path / "hf", to="hf", layout="hf")
  again = transformers.LlavaForConditionalGeneration.from_pretrained(
    tmp_path / "hf"
  ).eval()
  given, _ = hf.prompts(model.config, ROWS)
  given["input_ids"][given["input_ids"] == hf.IMAGE] = 96
  with torch.no_grad():
    found = again(**given).logits[..., : expected.shape[-1]].numpy()
  real = batch["segments"] > 0
  np.testing.assert_allclose(found[real], expected[real], atol=1e-4)
  convert(tmp_path / "hf", tmp_path / "jax_again", to="jax")
  module, params = (
    hf.model_config(read_json(tmp_path / "jax_again" / "config.json")["model"]),
    tree.unflatten(parameters(tmp_path / "jax_again")),
  )
  module = llava.build(module)
  batch["tokens"] = np.where(batch["tokens"] == hf.IMAGE, 96, batch["tokens"])
  again = jax.jit(module.apply)({"params": params}, batch).logits
  np.testing.assert_allclose(again[..., :96][real], expected[real], atol=1e-4)


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(architectures=["LlavaForConditionalGeneration"]), "other layout"),
    (dict(mm_projector_type="mlp3x_gelu"), "2 linear layers"),
    (dict(mm_vision_select_layer=9), "expected one layer of 3"),
    (dict(mm_vision_select_layer=[-2, -1]), "expected one layer"),
  ],
)
def test_what_does_not_fit_is_told(model, tmp_path, changes, message):
  config = original_config(model) | changes
  source = write(tmp_path / "o", state_of(model, original), config)
  with pytest.raises(ValueError, match=message):
    convert(source, tmp_path / "jax", to="jax")


def test_what_is_lacking_is_told(model, tmp_path):
  state = state_of(model, original, lambda n: "vision_tower" not in n)
  source = write(tmp_path / "o", state, original_config(model))
  convert(source, tmp_path / "jax", to="jax")
  with pytest.raises(ValueError, match="has no encoder"):
    convert(tmp_path / "jax", tmp_path / "hf", to="hf", layout="hf")
  state.pop("model.mm_projector.2.weight")
  lacking = write(tmp_path / "l", state, original_config(model))
  with pytest.raises((ValueError, ConversionError), match="projector"):
    convert(lacking, tmp_path / "jax_l", to="jax")


def words(folder, image=False):
  """A tokenizer of 96 ids, the last of them an image's where it is wanted."""
  special = ["<unk>", "<s>", "</s>", *(["<image>"] if image else [])]
  names = [f"w{i}" for i in range(96 - len(special))] + special
  vocabulary = {name: i for i, name in enumerate(names)}
  backend = tokenizers.Tokenizer(
    models.WordLevel(vocabulary, unk_token="<unk>")
  )
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  backend.add_special_tokens(special)
  backend.save(str(folder / "tokenizer.json"))
  settings = dict(
    tokenizer_class="PreTrainedTokenizerFast",
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
  )
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_a_folder_of_the_original_works_with_hugging_faces_classes(
  model, tmp_path, aspect
):
  """`from_pretrained` of model and processor, with no further step."""
  config = original_config(model) | dict(image_aspect_ratio=aspect)
  source = write(tmp_path / "o", state_of(model, original), config)
  words(source)
  convert(source, tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "hf", to="hf", layout="hf")
  processor = transformers.AutoProcessor.from_pretrained(
    tmp_path / "hf", backend="pil"
  )
  again = transformers.LlavaForConditionalGeneration.from_pretrained(
    tmp_path / "hf"
  ).eval()
  wide = photo(40, 20, 0)
  given = processor(
    images=[Image.fromarray(wide)], text="w3 <image> w4", return_tensors="pt"
  )
  assert given["input_ids"].tolist() == [[3, *[96] * 16, 4]]
  with torch.no_grad():
    assert torch.isfinite(again(**given).logits).all()
  chain = [Expand(), ClipVal(16)] if aspect == "pad" else [ClipVal(16)]
  ours = wide
  for transform in chain:
    ours = transform(ours, None)
  expected = hf.normalised(ours[None])
  np.testing.assert_allclose(given["pixel_values"], expected, atol=0.02)
