"""Weights from Hugging Face's folders to ours and back."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from mmjax import tree
from mmjax.cli import main as cli
from mmjax.cli.convert import convert
from mmjax.cli.families import FAMILIES
from mmjax.convert.read import Safetensors

COMMON = dict(
  vocab_size=53, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
)
MODELS = {
  "llama": lambda: transformers.LlamaConfig(
    **COMMON, intermediate_size=48, num_key_value_heads=2, rope_theta=5e4
  ),
  "llama_tied": lambda: transformers.LlamaConfig(
    **COMMON, intermediate_size=48, tie_word_embeddings=True
  ),
  "opt": lambda: transformers.OPTConfig(
    **COMMON, ffn_dim=64, max_position_embeddings=20, word_embed_proj_dim=16
  ),
  "mpt": lambda: transformers.MptConfig(
    vocab_size=53, d_model=32, n_layers=2, n_heads=4
  ),
  "gpt_neox": lambda: transformers.GPTNeoXConfig(
    **COMMON, intermediate_size=64, rotary_pct=0.5
  ),
  "gpt_neox_tied": lambda: transformers.GPTNeoXConfig(
    **COMMON, intermediate_size=64, rotary_pct=0.5, tie_word_embeddings=True
  ),
}


def make(name, folder, dtype=torch.float32):
  """A small random model of Hugging Face, saved."""
  torch.manual_seed(0)
  config = MODELS[name]()
  model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
  model.save_pretrained(folder)
  return model


def logits(model):
  ids = torch.arange(24).reshape(2, 12)
  with torch.no_grad():
    return model(ids).logits


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name, tmp_path):
  model = make(name, tmp_path / "hf")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax", limit=20_000)
  convert(tmp_path / "jax", tmp_path / "back", to="hf", limit=20_000)

  before, after = Safetensors(tmp_path / "hf"), Safetensors(tmp_path / "back")
  assert before.keys() == after.keys()
  for key in before:
    assert before[key].tobytes() == after[key].tobytes(), key
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
  for key, value in model.state_dict().items():
    assert torch.equal(value, again.state_dict()[key]), key
  assert torch.equal(logits(model), logits(again.eval()))
  assert len(list((tmp_path / "jax").glob("*.safetensors"))) > 1


@pytest.mark.parametrize("name", MODELS)
def test_settings_of_ours_are_enough_to_load_it(name, tmp_path):
  """A folder of ours that never was a config.json of Hugging Face."""
  model = make(name, tmp_path / "hf")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  path = tmp_path / "jax" / "config.json"
  ours = json.loads(path.read_text())
  path.write_text(json.dumps({k: ours[k] for k in ("family", "model")}))
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
  assert torch.equal(logits(model), logits(again.eval()))


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_our_side_computes_the_same(name, tmp_path):
  model = make(name, tmp_path / "hf")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  settings = json.loads((tmp_path / "jax" / "config.json").read_text())
  module = FAMILIES[settings["family"]].module(settings["model"])
  params = tree.unflatten(load_file(tmp_path / "jax" / "model.safetensors"))
  tokens = jnp.arange(24).reshape(2, 12)
  places = jnp.broadcast_to(jnp.arange(12), (2, 12))
  ours, _ = jax.jit(module.apply)(
    {"params": params}, tokens, places, jnp.ones_like(tokens)
  )
  theirs = logits(model).numpy()
  assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_dtypes_stay(tmp_path):
  make("llama", tmp_path / "hf", torch.bfloat16)
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  ours = Safetensors(tmp_path / "jax")
  assert {ours.dtype(k) for k in ours} == {np.dtype(ml_dtypes.bfloat16)}
  first = load_file(tmp_path / "hf" / "model.safetensors")
  last = load_file(tmp_path / "back" / "model.safetensors")
  assert first.keys() == last.keys()
  for key, value in first.items():
    assert value.tobytes() == last[key].tobytes(), key


def test_pytorch_files_and_their_tied_copies(tmp_path):
  model = make("llama_tied", tmp_path / "hf")
  (tmp_path / "hf" / "model.safetensors").unlink()
  torch.save(model.state_dict(), tmp_path / "hf" / "pytorch_model.bin")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  assert "head/table" not in Safetensors(tmp_path / "jax")

  state = {k: v.clone() for k, v in model.state_dict().items()}
  state["lm_head.weight"][0, 0] += 1
  torch.save(state, tmp_path / "hf" / "pytorch_model.bin")
  with pytest.raises(ValueError, match="they differ"):
    convert(tmp_path / "hf", tmp_path / "other", to="jax")


TIED = {
  "llama_tied": ("model.embed_tokens.weight", "lm_head.weight"),
  "opt": ("model.decoder.embed_tokens.weight", "lm_head.weight"),
  "mpt": ("transformer.wte.weight", "lm_head.weight"),
  "gpt_neox_tied": ("gpt_neox.embed_in.weight", "embed_out.weight"),
}


@pytest.mark.parametrize("name", TIED)
def test_a_tied_table_under_the_name_of_its_head(name, tmp_path):
  """safetensors' save_model keeps one name of two, the first by alphabet."""
  model = make(name, tmp_path / "hf")
  path = tmp_path / "hf" / "model.safetensors"
  table, head = TIED[name]
  state = load_file(path)
  twice = state | {head: state[table]}
  save_file(twice, path)
  convert(tmp_path / "hf", tmp_path / "twice", to="jax")
  alone = {k: v for k, v in twice.items() if k != table}
  save_file(alone, path)
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  for key, value in load_file(tmp_path / "jax" / "model.safetensors").items():
    other = Safetensors(tmp_path / "twice")[key]
    assert value.tobytes() == other.tobytes(), key
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  back = load_file(tmp_path / "back" / "model.safetensors")
  assert back.keys() == alone.keys()
  assert all(back[k].tobytes() == v.tobytes() for k, v in alone.items())
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
  assert torch.equal(logits(model), logits(again.eval()))


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "v1.ckpt"])
def test_a_folder_that_is_called_like_a_file(name, saved, tmp_path):
  shutil.copytree(saved, tmp_path / name)
  convert(tmp_path / name, tmp_path / "jax", to="jax")
  convert(saved, tmp_path / "other", to="jax")
  ours, theirs = (
    (tmp_path / folder / "model.safetensors").read_bytes()
    for folder in ("jax", "other")
  )
  assert ours == theirs


def test_mosaic_gpt_keeps_its_names_and_settings(tmp_path):
  """The language model of OpenFlamingo-3B, older than MPT's names."""
  model = make("mpt", tmp_path / "hf")
  renamed = {"norm_1": "ln_1", "norm_2": "ln_2", "norm_f": "ln_f"}
  renamed |= {"ffn.up_proj": "mlp.mlp_up", "ffn.down_proj": "mlp.mlp_down"}
  state = {}
  for key, value in model.state_dict().items():
    for new, old in renamed.items():
      key = key.replace(new, old)
    if key != "lm_head.weight":
      state[key] = value.numpy()
  for i in range(2):
    for name in ("q_ln", "k_ln"):
      key = f"transformer.blocks.{i}.attn.{name}.weight"
      state[key] = np.full(32, i + 1, np.float32)
  config = dict(
    model_type="mosaic_gpt",
    alibi=True,
    alibi_bias_max=8,
    attn_clip_qkv=None,
    attn_qk_ln=True,
    attn_impl="torch",
    auto_map={"AutoConfig": "configuration_mosaic_gpt.MosaicGPTConfig"},
    d_model=32,
    embedding_fraction=1.0,
    logit_scale=None,
    mlp_ratio=4,
    n_heads=4,
    n_layers=2,
    no_bias=True,
    prefix_lm=False,
    softmax_scale=None,
    vocab_size=53,
  )
  save_file(state, tmp_path / "hf" / "model.safetensors")
  (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  ours = json.loads((tmp_path / "jax" / "config.json").read_text())
  assert ours["family"] == "mpt" and ours["model"]["qk_norm"] is True
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  back = load_file(tmp_path / "back" / "model.safetensors")
  assert back.keys() == state.keys()
  assert all(back[k].tobytes() == v.tobytes() for k, v in state.items())
  assert json.loads((tmp_path / "back" / "config.json").read_text()) == config


def test_nested_settings_beyond_ours_stay(tmp_path):
  """Dropout inside of attn_config, which no weight and no logit tells."""
  make("mpt", tmp_path / "hf")
  path = tmp_path / "hf" / "config.json"
  config = json.loads(path.read_text())
  config["attn_config"] |= dict(attn_pdrop=0.5)
  path.write_text(json.dumps(config))
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  assert json.loads((tmp_path / "back" / "config.json").read_text()) == config


def test_opt_saved_without_its_head(tmp_path):
  model = make("opt", tmp_path / "hf")
  state = {
    key.removeprefix("model."): value.numpy()
    for key, value in model.state_dict().items()
    if key != "lm_head.weight"
  }
  save_file(state, tmp_path / "hf" / "model.safetensors")
  convert(tmp_path / "hf", tmp_path / "jax", to="jax")
  convert(tmp_path / "jax", tmp_path / "back", to="hf")
  again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
  assert torch.equal(logits(model), logits(again.eval()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp("saved")
  make("llama", folder / "hf")
  return folder / "hf"


@pytest.fixture
def folder(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / "hf")


def edit(folder, **changes):
  path = folder / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_unmatched_name_is_listed(folder, tmp_path, capsys):
  weights = load_file(folder / "model.safetensors")
  weights["model.extra.weight"] = np.zeros(3, np.float32)
  weights["model.layers.7.mlp.up_proj.weight"] = np.zeros((2, 2), np.float32)
  del weights["model.norm.weight"]
  save_file(weights, folder / "model.safetensors")
  arguments = ["convert", str(folder), str(tmp_path / "jax"), "--to", "jax"]
  assert cli.main(arguments) == 1
  said = capsys.readouterr().err
  for name in ("model.extra.weight", "layers.7.mlp.up", "final_norm/scale"):
    assert name in said
  assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(hidden_size="32"), "not a size"),
    (dict(hidden_size=-32), "not a size"),
    (dict(num_hidden_layers=10**30), "not a size"),
    (dict(num_hidden_layers=10**9), "only"),
    (dict(num_hidden_layers=3), "parameters that nothing fills"),
    (dict(num_hidden_layers=1), "beyond the model's number of layers"),
    (dict(hidden_act="gelu"), "hidden_act"),
    (dict(attention_bias=True), r"0\.self_attn\.q_proj\.bias"),
    (dict(mlp_bias=True), r"1\.mlp\.gate_proj\.bias"),
    (dict(rope_scaling=dict(type="linear", factor=2)), "rope_scaling"),
    (dict(rope_parameters=dict(rope_type="llama3")), "rope_type"),
    (dict(model_type="lama"), "Did you mean 'llama'"),
    (dict(model_type=None), "--family"),
    (dict(vocab_size=54), "does not become"),
    (dict(tie_word_embeddings="no"), "not true or false"),
    (dict(rms_norm_eps=float("nan")), "not a number above 0"),
    (dict(rope_parameters=dict(rope_theta="x")), "not a number above 0"),
  ],
)
def test_settings_that_do_not_fit(folder, tmp_path, changes, message):
  edit(folder, **changes)
  with pytest.raises(ValueError, match=message):
    convert(folder, tmp_path / "jax", to="jax")
  assert not (tmp_path / "jax").exists()


def test_damaged_files(folder, tmp_path):
  target = tmp_path / "jax"
  weights = (folder / "model.safetensors").read_bytes()
  for content in (b"", weights[:100], b"\xff" * 200, weights[:-1]):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="no safetensors file"):
      convert(folder, target, to="jax")
  (folder / "model.safetensors").write_bytes(weights)
  for content in ("[]", "{", "\x00", "[" * 100_000):
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
      convert(folder, target, to="jax")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize(
  "content",
  [
    "[]",
    "{}",
    '{"weight_map": []}',
    '{"weight_map": {"a": 1}}',
    '{"weight_map": {"a": "../x.safetensors"}}',
    '{"weight_map": {"a": "/etc/passwd"}}',
    '{"weight_map": {"a": "absent.safetensors"}}',
    '{"weight_map": {"a": "model.safetensors"}}',
  ],
)
def test_hostile_index(folder, tmp_path, content):
  (folder / "model.safetensors.index.json").write_text(content)
  with pytest.raises(ValueError, match="index"):
    convert(folder, tmp_path / "jax", to="jax")


def test_nothing_is_overwritten(folder, tmp_path):
  (tmp_path / "jax").mkdir()
  (tmp_path / "jax" / "mine").write_text("precious")
  with pytest.raises(ValueError, match="there already"):
    convert(folder, tmp_path / "jax", to="jax")
  assert (tmp_path / "jax" / "mine").read_text() == "precious"


def test_our_folder_must_fit_its_settings(folder, tmp_path):
  convert(folder, tmp_path / "jax", to="jax")
  weights = load_file(tmp_path / "jax" / "model.safetensors")
  weights["lm/new"] = weights.pop("final_norm/scale")
  save_file(weights, tmp_path / "jax" / "model.safetensors")
  with pytest.raises(ValueError, match="final_norm/scale: missing") as error:
    convert(tmp_path / "jax", tmp_path / "back", to="hf")
  assert "lm/new: unknown" in str(error.value)
  with pytest.raises(ValueError, match="no directory that"):
    convert(folder, tmp_path / "back", to="hf")


def test_tokenizer_files_go_along_and_links_do_not(folder, tmp_path, caplog):
  (folder / "tokenizer.json").write_text("{}")
  (folder / "vocab.json").symlink_to("/etc/hostname")
  convert(folder, tmp_path / "jax", to="jax")
  assert (tmp_path / "jax" / "tokenizer.json").read_text() == "{}"
  assert not (tmp_path / "jax" / "vocab.json").exists()
  assert "vocab.json is a link" in caplog.text
