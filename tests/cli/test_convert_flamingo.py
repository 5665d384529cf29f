"""OpenFlamingo's checkpoints, and dumps of whole models, to ours and back."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mmjax import tree
from mmjax.cli import main as cli
from mmjax.cli.convert import convert
from mmjax.convert.read import Safetensors
from mmjax.systems.flamingo import build
from tests import original_flamingo as original
from tests.golden.file import read

ARRAYS = Path(__file__).parents[1] / "golden" / "arrays"
FAMILY = dict(to="jax", family="open_flamingo")


@pytest.fixture(scope="module")
def models():
  return {name: original.whole(name) for name in original.LMS}


def dump(model, folder, rename=lambda key: key, drop=r"(?!)"):
  """A state dict as torch saves it, beside its language model's config.json.

  The config.json still says how many tokens there were before some were added.
  """
  folder.mkdir()
  state = {
    rename(key): value
    for key, value in model.state_dict().items()
    if not re.match(drop, key)
  }
  torch.save(state, folder / "checkpoint.pt")
  config = model.lang_encoder.config.to_dict()
  config |= dict(vocab_size=config["vocab_size"] - 2)
  (folder / "config.json").write_text(json.dumps(config, default=str))
  return state


def canonical(state):
  """Names of a live model without the second ones."""
  twice = r"lang_encoder\.(old_decoder_blocks|gated_cross_attn_layers)\."
  return {k: v for k, v in state.items() if not re.match(twice, k)}


def there_and_back(folder):
  convert(folder / "checkpoint.pt", folder / "jax", **FAMILY)
  convert(folder / "jax", folder / "back", to="hf")
  return load_file(folder / "back" / "model.safetensors")


def assert_equal_bits(back, state):
  assert back.keys() == state.keys()
  for key, value in state.items():
    assert back[key].shape == tuple(value.shape), key
    assert back[key].tobytes() == value.numpy().tobytes(), key


@pytest.mark.parametrize("name", original.LMS)
def test_a_whole_model_there_and_back(name, models, tmp_path):
  state = dump(models[name], tmp_path / "dump")
  back = there_and_back(tmp_path / "dump")
  expected = canonical(state)
  if name not in ("llama", "gpt_neox"):
    del expected["lang_encoder.lm_head.weight"]  # Tied.
  assert_equal_bits(back, expected)
  parts = {path.split("/")[0] for path in Safetensors(tmp_path / "dump/jax")}
  assert parts == {"lm", "encoder", "resampler", "blocks"}


@pytest.mark.parametrize("name", ["llama_tied", "mpt"])
def test_a_whole_model_computes_the_same_here(name, models, tmp_path):
  model = models[name]
  dump(model, tmp_path / "dump")
  convert(tmp_path / "dump/checkpoint.pt", tmp_path / "jax", **FAMILY)
  params = tree.unflatten(load_file(tmp_path / "jax/model.safetensors"))
  settings = json.loads((tmp_path / "jax/config.json").read_text())["model"]
  module = build(
    dict(
      # What open_clip does with tokens since 2.23.
      encoder=dict(name="vit", norm_tokens=True) | settings["encoder"],
      resampler=dict(name="perceiver") | settings["resampler"],
      lm=dict(name=settings["lm"]) | settings["language_model"],
      xattn={k: v for k, v in settings["block"].items() if k != "width"}
      | dict(every=2, first=1),
    )
  )
  random = np.random.RandomState(0)
  pixels = random.randint(0, 256, (2, 2, 1, 28, 28, 3), np.uint8)
  tokens = random.randint(0, original.END, (2, 12))
  tokens[0, [1, 7]] = tokens[1, [0, 3]] = original.IMAGE
  batch = dict(
    tokens=jnp.asarray(tokens),
    positions=jnp.broadcast_to(jnp.arange(12), (2, 12)),
    segments=jnp.ones((2, 12), jnp.int32),
    media=dict(
      image=dict(
        values=jnp.asarray(pixels),
        mask=jnp.ones((2, 2, 1), bool),
        index=jnp.cumsum(jnp.asarray(tokens) == original.IMAGE, axis=1),
      )
    ),
  )
  ours = jax.jit(module.apply)({"params": params}, batch).logits

  mean, std = (np.array(x, np.float32) for x in original.NORMALISE)
  images = torch.tensor((pixels / 255 - mean) / std).float()
  with torch.no_grad():
    theirs = model(
      images.permute(0, 1, 2, 5, 3, 4),
      torch.tensor(tokens),
      attention_mask=torch.ones(2, 12),
    ).logits.numpy()
  assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def wrapped(key):
  """As FSDP, checkpointing and DDP name it."""
  for part in ("decoder_layer", "gated_cross_attn_layer"):
    key = key.replace(f"{part}.", f"{part}._checkpoint_wrapped_module.")
  key = re.sub(r"(layers|blocks)\.(\d+)\.", r"\1.\2._fsdp_wrapped_module.", key)
  key = re.sub(r"^(perceiver|lang_encoder)\.", r"\1._fsdp_wrapped_module.", key)
  return f"module.{key}"


def test_wrappers_leave_no_trace(models, tmp_path):
  dump(models["gpt_neox"], tmp_path / "dump", wrapped)
  back = there_and_back(tmp_path / "dump")
  assert_equal_bits(back, canonical(models["gpt_neox"].state_dict()))


@pytest.mark.parametrize("name", ["llama", "mpt"])
def test_a_dump_with_the_second_names_only(name, models, tmp_path):
  """What saves each shared tensor once may keep either name."""
  first = re.escape(f"lang_encoder.{original.LAYERS[name]}.")
  state = dump(models[name], tmp_path / "dump", drop=first)
  if name == "mpt":
    del state["lang_encoder.lm_head.weight"]
  assert_equal_bits(there_and_back(tmp_path / "dump"), state)


def test_version_1_files(models, tmp_path):
  """LLaMA; blocks by both names, no frozen weights, DDP's prefix."""
  frozen = r"vision_encoder|.*decoder_layer\.|.*old_decoder_blocks|.*lm_head"
  frozen += r"|.*model\.norm"
  model = models["llama"]
  dump(model, tmp_path / "dump", lambda key: f"module.{key}", frozen)
  (tmp_path / "dump/config.json").unlink()
  back = there_and_back(tmp_path / "dump")
  state = canonical(model.state_dict())
  assert_equal_bits(
    back, {k: v for k, v in state.items() if not re.match(frozen, k)}
  )


def test_a_tied_head_that_outlives_its_table(models, tmp_path):
  """What the original saves of a frozen MPT: parameters have one name each."""
  state = canonical(models["mpt"].state_dict())
  kept = {
    key: value
    for key, value in state.items()
    if re.match(r"perceiver|.*gated_cross_attn|.*lm_head", key)
  }
  (tmp_path / "dump").mkdir()
  torch.save(kept, tmp_path / "dump/checkpoint.pt")
  assert_equal_bits(there_and_back(tmp_path / "dump"), kept)
  assert "lm/embedding/table" in Safetensors(tmp_path / "dump/jax")


@pytest.mark.parametrize("name", ["opt", "gpt_neox"])
def test_what_saving_leaves_of_frozen_layers(name, models, tmp_path):
  """Buffers, and a tied head, stand beside the trained tensors."""
  model = models[name]
  layer = f"lang_encoder.{original.LAYERS[name]}.0.decoder_layer"
  trained = {
    key: value
    for key, value in canonical(model.state_dict()).items()
    if re.match(r"perceiver|.*gated_cross_attn|.*embed_(tokens|in)\.", key)
  }
  left = {
    f"{layer}.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
    f"{layer}.attention.masked_bias": torch.tensor(-1e9),
    f"{layer}.attention.rotary_emb.inv_freq": torch.ones(4),
  }
  if name == "opt":
    left["lang_encoder.lm_head.weight"] = trained[
      "lang_encoder.model.decoder.embed_tokens.weight"
    ]
  (tmp_path / "dump").mkdir()
  torch.save(trained | left, tmp_path / "dump/checkpoint.pt")
  assert_equal_bits(there_and_back(tmp_path / "dump"), trained)


def test_two_names_of_one_tensor_must_agree(models, tmp_path):
  model = models["llama"]
  state = {k: v.clone() for k, v in model.state_dict().items()}
  state["lang_encoder.old_decoder_blocks.2.mlp.up_proj.weight"][0, 0] += 1
  dump(model, tmp_path / "dump")
  torch.save(state, tmp_path / "dump/checkpoint.pt")
  with pytest.raises(ValueError, match=r"old_decoder_blocks\.2.*differ"):
    convert(tmp_path / "dump/checkpoint.pt", tmp_path / "jax", **FAMILY)
  assert not (tmp_path / "jax").exists()


def test_a_whole_model_needs_its_settings(models, tmp_path, capsys):
  dump(models["llama"], tmp_path / "dump")
  config = tmp_path / "llama.json"
  (tmp_path / "dump/config.json").rename(config)
  source, target = str(tmp_path / "dump/checkpoint.pt"), str(tmp_path / "jax")
  arguments = ["convert", source, target, "--to", "jax"]
  arguments += ["--family", "open_flamingo"]
  assert cli.main(arguments) == 1
  said = capsys.readouterr().err
  assert "--settings FILE" in said and said.count("\n") == 1
  assert cli.main([*arguments, "--settings", str(config)]) == 0
  shown = json.loads(config.read_text())
  config.write_text(json.dumps(shown | dict(model_type="opt")))
  with pytest.raises(ValueError, match="holds a llama .* is of 'opt'"):
    convert(source, tmp_path / "other", settings=config, **FAMILY)
  config.write_text(json.dumps(shown | dict(num_hidden_layers=3)))
  with pytest.raises(ValueError, match="beyond the model's number of layers"):
    convert(source, tmp_path / "other", settings=config, **FAMILY)


def test_settings_are_for_one_direction(models, tmp_path):
  dump(models["opt"], tmp_path / "dump")
  convert(tmp_path / "dump/checkpoint.pt", tmp_path / "jax", **FAMILY)
  with pytest.raises(ValueError, match="for --to jax only"):
    convert(
      tmp_path / "jax", tmp_path / "b", to="hf", settings=tmp_path / "c.json"
    )


def trained(name):
  """What a checkpoint of a whole original model keeps when it is saved."""
  weights = read(ARRAYS / "open_flamingo" / f"{name}.safetensors").weights
  ends = ("embed_tokens.weight", "wte.weight", "embed_in.weight")
  return {
    key: torch.tensor(value)
    for key, value in weights.items()
    if "gated_cross_attn" in key
    or key.startswith("perceiver.")
    or key.endswith(ends)
  }


def test_other_numbers_of_heads_are_named(tmp_path, capsys):
  torch.save(trained("model_opt_writes_images"), tmp_path / "c.pt")
  arguments = ["--to", "jax", "--family", "open_flamingo"]
  target = str(tmp_path / "jax")
  assert cli.main(["convert", str(tmp_path / "c.pt"), target, *arguments]) == 1
  assert "5 rows, which do not part into 8 heads" in capsys.readouterr().err


@pytest.mark.parametrize(
  "name", ["llama_every2", "opt_every1", "mpt_every4", "neox_every2"]
)
def test_open_flamingo_there_and_back(name, tmp_path):
  kept = trained(f"model_{name}")
  wrapped = {f"module.{key}": value for key, value in kept.items()}
  torch.save({"model_state_dict": wrapped, "epoch": 3}, tmp_path / "c.pt")
  arguments = ["--to", "jax", "--family", "open_flamingo"]
  arguments += ["--part", "model_state_dict"]
  folder = str(tmp_path / "jax")
  assert cli.main(["convert", str(tmp_path / "c.pt"), folder, *arguments]) == 0
  convert(folder, tmp_path / "back", to="hf")
  back = load_file(tmp_path / "back" / "model.safetensors")
  assert back.keys() == kept.keys()
  for key, value in kept.items():
    np.testing.assert_array_equal(back[key], value.numpy(), err_msg=key)


def test_open_flamingo_wants_its_parts(tmp_path):
  torch.save({"perceiver.latents": torch.zeros(2, 3)}, tmp_path / "c.pt")
  with pytest.raises(ValueError, match="No language model"):
    convert(
      tmp_path / "c.pt", tmp_path / "jax", to="jax", family="open_flamingo"
    )
