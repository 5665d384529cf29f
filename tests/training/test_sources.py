"""One's own converted weights as the beginning of a run."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.lms import LMS
from mmjax.sharding import make_mesh
from mmjax.training.sources import load_parts
from mmjax.training.state import abstract_params, init_state

VOCAB, NEW = 53, 2
TOKENS = jnp.arange(24).reshape(2, 12)
BATCH = {"tokens": TOKENS, "positions": TOKENS % 12, "ones": TOKENS * 0 + 1}


class System(nn.Module):
  """A model of one part, as a run has it."""

  lm: nn.Module

  def __call__(self, batch):
    return self.lm(batch["tokens"], batch["positions"], batch["ones"])[0]


def system(**fields):
  given = dict(width=32, num_layers=2, num_heads=4, hidden=48)
  given |= dict(num_kv_heads=2, extra_tokens=NEW)
  return System(LMS["llama"](vocab_size=VOCAB, **(given | fields)))


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
  """A model of Hugging Face and the folder of its converted weights."""
  torch.manual_seed(0)
  folder = tmp_path_factory.mktemp("llama")
  config = transformers.LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
  )
  model = transformers.AutoModelForCausalLM.from_config(config).eval()
  model.save_pretrained(folder / "hf")
  convert(folder / "hf", folder / "jax", to="jax", limit=20_000)
  assert len(list((folder / "jax").glob("*.safetensors"))) > 1
  return model, folder / "jax"


def load(module, path):
  shapes = nn.unbox(abstract_params(module, BATCH))
  init = {"lm": {"name": "converted", "path": str(path)}}
  return load_parts(init, shapes)


def test_same_logits(peer):
  model, folder = peer
  module = system()
  state, _ = init_state(
    module,
    BATCH,
    rules=[(".*/extra", True), (".*", False)],
    optimizer=lambda params: optax.sgd(0.1),
    mesh=make_mesh({"data": -1}),
    loaded=load(module, folder),
  )
  ours = jax.jit(module.apply)({"params": state.params}, BATCH)
  with torch.no_grad():
    theirs = model(torch.tensor(np.asarray(TOKENS))).logits.numpy()
  # Rows of the new tokens are drawn, and come after the vocabulary.
  extra = tree.flatten(state.trainable)
  assert {x.shape for x in extra.values()} == {(NEW, 32)}
  assert ours.shape[-1] == VOCAB + NEW
  error = np.abs(np.asarray(ours)[..., :VOCAB] - theirs).max()
  assert error <= 1e-4 * np.abs(theirs).max()


def test_only_what_is_asked_for_is_read(peer, monkeypatch):
  _, folder = peer
  read = []

  def get(self, name):
    read.append(name)
    return load_file(self._where[name])[name]

  monkeypatch.setattr("mmjax.convert.read.Safetensors.__getitem__", get)
  loaded = load(system(), folder)
  assert read == []
  assert np.asarray(loaded["lm/embedding/table"]).shape == (VOCAB, 32)
  assert read == ["embedding/table"]


def test_new_rows_that_are_there_are_taken(peer, tmp_path):
  _, folder = peer
  weights = {}
  for file in folder.glob("*.safetensors"):
    weights |= load_file(file)
  rows = np.arange(NEW * 32, dtype=np.float32).reshape(NEW, 32)
  weights["embedding/extra"] = rows.astype(ml_dtypes.bfloat16)
  save_file(weights, tmp_path / "all.safetensors")
  loaded = load(system(), tmp_path / "all.safetensors")
  assert "lm/head/extra" not in loaded
  assert np.array_equal(np.asarray(loaded["lm/embedding/extra"]), rows)


@pytest.mark.parametrize(
  "fields, said",
  [
    ({"num_layers": 3}, r"layers/mlp/up/kernel: \(2, 32, 48\).*\(3, 32, 48\)"),
    ({"tie_embeddings": True}, "head/table: not in the model"),
  ],
)
def test_another_model_is_refused(peer, fields, said):
  with pytest.raises(ValueError, match=said):
    load(system(**fields), peer[1])


def test_every_misfit_is_named(peer, tmp_path):
  with pytest.raises(ValueError, match="convert --to jax") as error:
    load(system(), peer[1].parent / "hf")  # Not converted.
  said = str(error.value)
  assert "final_norm/scale: missing" in said
  assert "embedding/table: missing" in said
  assert "model.norm.weight: not in the model" in said


def test_files_that_are_none(tmp_path):
  with pytest.raises(ValueError, match="no converted weights at .*absent"):
    load(system(), tmp_path / "absent")
  with pytest.raises(ValueError, match="holds no .safetensors"):
    load(system(), tmp_path)
  broken = tmp_path / "broken.safetensors"
  broken.write_bytes(b"\xff" * 64)
  with pytest.raises(ValueError, match="no safetensors file"):
    load(system(), broken)
