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
from mmjax.connectors.qformer import QFormer
from mmjax.lms import LMS
from mmjax.sharding import make_mesh
from mmjax.training.checks import check_tokens
from mmjax.training.sources import load_parts
from mmjax.training.state import abstract_params, init_state
from tests.text.words import words

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

  def part(self, name, index):
    read.append(name)
    return load_file(self._where[name])[name][index]

  monkeypatch.setattr("mmjax.convert.read.Safetensors.part", part)
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


def test_a_padded_vocabulary_is_cut_where_that_is_asked_for(peer):
  module = System(
    LMS["llama"](
      vocab_size=VOCAB - 3,
      width=32,
      num_layers=2,
      num_heads=4,
      hidden=48,
      num_kv_heads=2,
      extra_tokens=NEW,
    )
  )
  shapes = nn.unbox(abstract_params(module, BATCH))
  source = {"name": "converted", "path": str(peer[1])}
  with pytest.raises(ValueError, match=r"embedding/table: \(53, 32\)"):
    load_parts({"lm": source}, shapes)
  loaded = load_parts({"lm": source | {"cut_vocabulary": True}}, shapes)
  whole = load(system(), peer[1])
  for name in ("lm/embedding/table", "lm/head/table"):
    expected = np.asarray(whole[name])[:-3]
    np.testing.assert_array_equal(np.asarray(loaded[name]), expected)
    assert loaded[name].shape == expected.shape
  with pytest.raises(ValueError, match=r"not hold .*\n.*embedding/table"):
    # Rows that are missing are not made up.
    more = nn.unbox(abstract_params(system(extra_tokens=0), BATCH))
    more["lm"]["embedding"]["table"] = jnp.zeros((VOCAB + 1, 32))
    load_parts({"lm": source | {"cut_vocabulary": True}}, more)


def test_names_that_a_part_does_without(peer):
  shapes = nn.unbox(abstract_params(system(), BATCH))
  source = {"name": "converted", "path": str(peer[1])}
  with pytest.raises(ValueError, match="final_norm/scale: missing"):
    load_parts({"lm": source | {"leave_out": "final_norm/.*"}}, shapes)
  del shapes["lm"]["final_norm"]
  loaded = load_parts({"lm": source | {"leave_out": "final_norm/.*"}}, shapes)
  assert len(loaded) == len(load(system(), peer[1])) - 1


def test_a_part_of_the_weights_stays_as_drawn(peer):
  shapes = nn.unbox(abstract_params(system(), BATCH))
  source = {"name": "converted", "path": str(peer[1])}
  pattern = "layers/attention/.*|final_norm/.*"
  loaded = load_parts({"lm": source | {"drawn": pattern}}, shapes)
  left = load(system(), peer[1]).keys() - loaded.keys()
  assert {path.split("/")[1] for path in left} == {"layers", "final_norm"}
  assert all("attention/" in path or "final_norm" in path for path in left)
  with pytest.raises(ValueError, match="'atention', which no name"):
    load_parts({"lm": source | {"drawn": "atention"}}, shapes)


def test_a_qformer_begins_as_a_bert(tmp_path):
  sizes = dict(vocab_size=20, num_hidden_layers=2, hidden_size=16)
  config = transformers.BertConfig(
    **sizes, num_attention_heads=2, intermediate_size=24
  )
  config.max_position_embeddings = 10
  torch.manual_seed(0)
  peer = transformers.BertForPreTraining(config)
  peer.save_pretrained(tmp_path)
  module = QFormer(
    *(12, 16, 2, 2), hidden=24, vocab_size=21, max_positions=10, num_queries=3
  )
  init = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 12)))
  shapes = {"qformer": nn.unbox(init)["params"]}
  source = {"name": "bert_qformer", "path": str(tmp_path)}
  found = load_parts({"qformer": source}, shapes)
  drawn = tree.flatten(shapes).keys() - found.keys()
  assert {path.split("/")[1] for path in drawn} == {"cross", "queries"}
  theirs = peer.bert.state_dict()
  table = found["qformer/embedding/table"]
  words = theirs["embeddings.word_embeddings.weight"].numpy()
  np.testing.assert_array_equal(table[:20], words)
  assert 0 < np.abs(table[20]).max() < 0.1
  for name in ("text", "query"):
    kernel = found[f"qformer/layers/{name}_mlp/up/kernel"]
    expected = theirs["encoder.layer.1.intermediate.dense.weight"].numpy().T
    np.testing.assert_array_equal(kernel[1], expected)


@pytest.mark.parametrize(
  "rows, new, added, said",
  [
    (60, 0, ["<x>"], None),
    (12, 1, ["<x>"], None),
    (11, 1, ["<x>"], "has 13 tokens, the language model 11 rows"),
    (20, 1, ["<x>"], "new tokens begin at 12, .* rows for them at 20"),
    (20, 1, [], None),
  ],
)
def test_every_new_token_has_its_row(rows, new, added, said):
  tokenizer = words(added=added, specials=False)
  assert tokenizer.base_size == 12
  sizes = dict(width=8, num_layers=1, num_heads=2, hidden=8)
  lm = LMS["llama"](vocab_size=rows, extra_tokens=new, **sizes)
  if said is None:
    check_tokens(tokenizer, System(lm))
  else:
    with pytest.raises(ValueError, match=said):
      check_tokens(tokenizer, System(lm))
