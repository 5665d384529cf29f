"""BLIP-2 and InstructBLIP of Hugging Face and LAVIS, from files to files."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import InstructBlipForConditionalGeneration

from mmjax.cli.convert import convert
from mmjax.convert.read import Safetensors
from tests.blip2 import hugging_face as hf


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp("saved") / "hf"
  hf.make("grouped queries").save_pretrained(folder)
  return folder


@pytest.fixture
def folder(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / "hf")


def edit(folder, **changes):
  path = folder / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same(one, other):
  assert one.keys() == other.keys()
  for name, value in one.items():
    assert value.dtype == other[name].dtype, name
    assert value.shape == other[name].shape, name
    assert value.tobytes() == other[name].tobytes(), name


def in_a_base(name: str) -> str:
  """As a module that has a base would call it."""
  if name.startswith("language_model.lm_head"):
    return name.removeprefix("language_model.")
  return "model." + name.replace("language_model.model.", "language_model.")


def without_root(name: str) -> str:
  return name.replace("language_model.model.", "language_model.")


@pytest.mark.parametrize("rename", [in_a_base, without_root])
def test_other_names_of_the_same_tensors(rename, saved, folder, tmp_path):
  weights = load_file(folder / "model.safetensors")
  buffers = {
    "qformer.embeddings.position_ids": np.arange(12)[None],
    "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4),
  }
  renamed = {rename(k): x for k, x in weights.items()} | buffers
  save_file(renamed, folder / "model.safetensors")
  convert(folder, tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  same(weights, load_file(tmp_path / "back" / "model.safetensors"))


def test_files_of_processor_and_both_tokenizers_go_along(folder, tmp_path):
  (folder / "qformer_tokenizer").mkdir()
  names = ("processor_config.json", "qformer_tokenizer/vocab.txt")
  for name in names:
    (folder / name).write_text(name)
  convert(folder, tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  for name in names:
    assert (tmp_path / "back" / name).read_text() == name
  shutil.rmtree(tmp_path / "jax")
  shutil.move(folder / "qformer_tokenizer", tmp_path / "elsewhere")
  (folder / "qformer_tokenizer").symlink_to(tmp_path / "elsewhere")
  convert(folder, tmp_path / "jax", to="jax")
  assert not (tmp_path / "jax" / "qformer_tokenizer").exists()


def test_settings_that_transformers_4_leaves_out(folder, tmp_path):
  """It saves of a nested config only what is not its default."""
  path = folder / "config.json"
  content = json.loads(path.read_text())
  same_as_default = ("hidden_act", "layer_norm_eps", "qkv_bias")
  for part in ("vision_config", "qformer_config"):
    for key in same_as_default:
      content[part].pop(key, None)
  content["text_config"].pop("rope_parameters")
  content["text_config"] |= dict(rope_theta=10000.0, rope_scaling=None)
  content.pop("image_token_index")
  path.write_text(json.dumps(content))
  convert(folder, tmp_path / "jax", to="jax")
  shown = json.loads((tmp_path / "jax" / "config.json").read_text())["model"]
  assert shown["media"]["image"]["connector"]["qformer"]["norm_eps"] == 1e-12
  assert shown["encoders"]["eva"]["norm_eps"] == 1e-6
  assert shown["media_token"] is None
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "back")


def test_a_vocabulary_that_config_json_has_wrong(folder, tmp_path, caplog):
  """Some repositories say 30,522 for a table of 30,523 rows."""
  path = folder / "config.json"
  content = json.loads(path.read_text())
  content["qformer_config"]["vocab_size"] = 40
  path.write_text(json.dumps(content))
  convert(folder, tmp_path / "jax", to="jax")
  assert "has 41 rows, config.json says 40" in caplog.text
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  InstructBlipForConditionalGeneration.from_pretrained(tmp_path / "back")


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(text_config=dict(model_type="t5")), "language model is 't5'"),
    (
      dict(text_config=hf.OPT | dict(word_embed_proj_dim=16)),
      "embeddings are 16 wide",
    ),
    (
      dict(architectures=["Blip2VisionModelWithProjection"]),
      "VisionModelWithProjection",
    ),
    (dict(architectures=None, model_type="x"), "x"),
    (dict(architectures=5), "are no instructblip"),
    (dict(architectures=[["Blip2"]]), "Unknown architecture"),
    (dict(num_query_tokens=4), "does not become"),
    (dict(num_query_tokens=True), "not a size"),
    (dict(image_token_index=96), "a row of the 96"),
    (dict(qformer_config=dict(hidden_act="relu")), "hidden_act"),
    (dict(vision_config=dict(image_size=[24, 24])), "not a size"),
    (dict(vision_config=dict(num_hidden_layers=10**9)), "only"),
  ],
)
def test_what_is_refused(changes, message, folder, tmp_path):
  content = json.loads((folder / "config.json").read_text())
  merged = {
    key: content[key] | value if isinstance(value, dict) else value
    for key, value in changes.items()
  }
  edit(folder, **merged)
  with pytest.raises(ValueError, match=message):
    convert(folder, tmp_path / "jax", to="jax")
  assert not (tmp_path / "jax").exists()


def test_out_to_lavis_and_in_again(folder, tmp_path, caplog):
  """Without the language model, and the part of the biases that is zero."""
  convert(folder, tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "lavis", to="hf", layout="original")
  assert "eps 1e-06; LAVIS takes 1e-05" in caplog.text
  theirs, lavis = Safetensors(folder), Safetensors(tmp_path / "lavis")
  assert not any("llm_model" in name or "lm_head" in name for name in lavis)
  bias = theirs["vision_model.encoder.layers.1.self_attn.qkv.bias"]
  for i, part in enumerate(("q_bias", None, "v_bias")):
    own = bias[24 * i : 24 * i + 24]
    found = lavis[f"visual_encoder.blocks.1.attn.{part}"] if part else 0
    np.testing.assert_array_equal(own, found)
  for name, other in {
    "ln_vision.weight": "vision_model.post_layernorm.weight",
    "llm_proj.bias": "language_projection.bias",
    "query_tokens": "query_tokens",
    "Qformer.bert.encoder.layer.2.crossattention.self.key.weight": (
      "qformer.encoder.layer.2.crossattention.attention.key.weight"
    ),
    "Qformer.bert.embeddings.LayerNorm.bias": (
      "qformer.embeddings.layernorm.bias"
    ),
  }.items():
    np.testing.assert_array_equal(lavis[name], theirs[other])
  source = tmp_path / "lavis"
  convert(source, tmp_path / "again", to="jax", family="instructblip")
  ours, again = Safetensors(tmp_path / "jax"), Safetensors(tmp_path / "again")
  assert set(again) == {k for k in ours if not k.startswith("lm/")}
  assert all(again[k].tobytes() == ours[k].tobytes() for k in again)
  shown = json.loads((tmp_path / "again" / "config.json").read_text())["model"]
  before = json.loads((tmp_path / "jax" / "config.json").read_text())["model"]
  connector = before["media"]["image"]["connector"]
  wanted = connector | dict(features_norm_eps=1e-5)
  wanted["qformer"].pop("norm_eps")
  assert shown["media"]["image"]["connector"] == wanted
  with pytest.raises(ValueError, match="no language model"):
    convert(tmp_path / "again", tmp_path / "x", to="hf", layout="hf")


def test_a_bias_of_keys_does_not_go_out_to_lavis(folder, tmp_path):
  weights = load_file(folder / "model.safetensors")
  weights["vision_model.encoder.layers.2.self_attn.qkv.bias"][24] = -0.5
  save_file(weights, folder / "model.safetensors")
  convert(folder, tmp_path / "jax", to="jax")
  with pytest.raises(ValueError, match="bias with numbers up to 0.5"):
    convert(tmp_path / "jax", tmp_path / "x", to="hf", layout="original")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  same(weights, load_file(tmp_path / "back" / "model.safetensors"))
