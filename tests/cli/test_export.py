"""A run's checkpoint under OpenFlamingo's names."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file

from configs.flamingo.demo import get_config
from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.convert.families.flamingo import open_flamingo
from mmjax.convert.rules import load
from mmjax.systems import blip2, flamingo
from tests.cli.runs import leave
from tests.cli.test_export_x_instructblip import QFORMER


def make(folder, extra=0):
  """A run's directory as training leaves it, its module and parameters.

  With `extra` tokens, all else of the language model is frozen.
  """
  config = get_config()
  config.model.lm.extra_tokens = extra
  config.model.lm.update(vocab_size=50, width=32, num_layers=3, hidden=48)
  config.model.resampler.update(width=16, head_dim=8, hidden=32)
  config.model.encoder = None
  config.model.xattn.update(hidden=64, num_heads=2, head_dim=8)
  module = flamingo.build(config.model)
  media = dict(
    features=jnp.zeros((1, 1, 1, 2, 16)),
    mask=jnp.ones((1, 1, 1), bool),
    index=jnp.ones((1, 3), jnp.int32),
  )
  ones = jnp.ones((1, 3), jnp.int32)
  batch = dict(
    tokens=ones, positions=ones, segments=ones, media=dict(image=media)
  )
  params = nn.unbox(module.init(jax.random.key(0), batch))["params"]
  folder.mkdir()
  config.init = {}
  trained = params
  if extra:
    flat = tree.flatten(params["lm"])
    own = {k: np.asarray(v) for k, v in flat.items() if "extra" not in k}
    save_file(own, folder / "lm.safetensors")
    config.init.lm = dict(name="converted", path=str(folder / "lm.safetensors"))
    rows = {"embedding": {"extra": params["lm"]["embedding"]["extra"]}}
    trained = params | {"lm": rows}
  leave(folder, config.to_dict(), trained)
  return folder, module, params


@pytest.fixture
def run(tmp_path):
  return make(tmp_path / "run")


def test_new_rows_of_a_frozen_table_go_with_it(tmp_path):
  """OpenFlamingo has both in one; the rest of a frozen model stays behind."""
  folder, _, params = make(tmp_path / "run", extra=2)
  convert(folder, tmp_path / "out", to="hf")
  state = load_file(tmp_path / "out" / "model.safetensors")
  language = [k for k in state if k.startswith("lang_encoder.model.embed")]
  assert language == ["lang_encoder.model.embed_tokens.weight"]
  table = params["lm"]["embedding"]
  np.testing.assert_array_equal(
    state[language[0]], np.concatenate([table["table"], table["extra"]])
  )
  assert not any("self_attn" in k for k in state)
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | {"init": {}}))
  with pytest.raises(ValueError, match="lm/embedding/table .* no source"):
    convert(folder, tmp_path / "again", to="hf")


def test_a_run_is_exported_and_reads_back(run, tmp_path):
  folder, module, params = run
  convert(folder, tmp_path / "out", to="hf")
  state = load_file(tmp_path / "out" / "model.safetensors")
  assert "lang_encoder.model.embed_tokens.weight" in state
  assert "perceiver.latents" in state
  rules = open_flamingo("llama", module.before, tied=True)
  back = load(state, rules, params)
  jax.tree.map(np.testing.assert_array_equal, back, jax.device_get(params))


def test_other_systems_say_so(run, tmp_path):
  folder, *_ = run
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(config | {"system": "none"}))
  with pytest.raises(ValueError, match="Unknown system to export"):
    convert(folder, tmp_path / "out", to="hf")
  assert not (tmp_path / "out").exists()


def test_first_stage_of_blip2_leaves_in_the_names_of_lavis(tmp_path):
  fields = dict(qformer=QFORMER["qformer"], joint_width=4)
  module = blip2.build(fields)
  ones = jnp.ones((1, 3), jnp.int32)
  media = dict(
    features=jnp.zeros((1, 1, 1, 2, 12)), mask=jnp.ones((1, 1, 1), bool)
  )
  batch = dict(tokens=ones, segments=ones, media=dict(image=media))
  params = nn.unbox(module.init(jax.random.key(0), batch))["params"]
  folder = tmp_path / "run"
  folder.mkdir()
  leave(folder, dict(system="blip2", model=fields), params)
  with pytest.raises(ValueError, match="--family is for a folder"):
    convert(folder, tmp_path / "out", to="hf", family="blip2")
  convert(folder, tmp_path / "out", to="hf")
  names = load_file(tmp_path / "out" / "model.safetensors").keys()
  assert {"temp", "query_tokens", "ln_vision.bias", "itm_head.bias"} <= names
  convert(tmp_path / "out", tmp_path / "back", to="jax", family="blip2")
  back = load_file(tmp_path / "back" / "model.safetensors")
  flat = tree.flatten(params)
  assert back.keys() == flat.keys()
  for path, value in flat.items():
    assert back[path].tobytes() == np.asarray(value).tobytes(), path
