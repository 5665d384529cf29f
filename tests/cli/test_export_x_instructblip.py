"""Connectors of a run as LAVIS' file, which comes back bit by bit."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file

from mmjax import tree
from mmjax.cli.convert import convert
from mmjax.config import build
from mmjax.connectors import CONNECTORS
from tests.cli.runs import leave

QFORMER = dict(
  name="qformer",
  width=16,
  qformer=dict(
    features_width=12,
    width=8,
    num_layers=2,
    num_heads=2,
    num_queries=3,
    vocab_size=14,
    max_positions=8,
  ),
)
PROJECTION = dict(
  name="pooled_projection",
  width=16,
  inner=8,
  features_width=10,
  num_queries=3,
)
MEDIA = {
  "points": dict(connector=QFORMER, encoder="shapes"),
  "audio": dict(connector=PROJECTION),
}


def connectors(media=None):
  """Parameters of all connectors, drawn."""
  made = {}
  for kind, entry in (media or MEDIA).items():
    module = build(CONNECTORS, entry["connector"])
    features = np.zeros((1, 1, 1, 2, module.features_width), np.float32)
    text = (
      ()
      if entry["connector"] is PROJECTION
      else (None, np.ones((1, 1, 4), int))
    )
    params = module.init(jax.random.key(0), features, *text)["params"]
    made[f"connectors_{kind}"] = jax.device_get(nn.unbox(params))
  return made


def run(folder, trained, media=None):
  folder.mkdir()
  model = dict(media=media or MEDIA, lm={}, encoders={})
  leave(folder, dict(system="x_instructblip", model=model), trained)
  return folder


def test_a_file_of_lavis_that_reads_back(tmp_path, caplog):
  own = connectors()
  trained = own | {"encoders_shapes": {"w": np.ones(3, np.float32)}}
  convert(run(tmp_path / "run", trained), tmp_path / "out", to="hf")
  assert "['encoders_shapes'] trained, too" in caplog.text
  state = load_file(tmp_path / "out" / "model.safetensors")
  heads = ("pc_Qformer.", "pc_query_tokens", "pc_llm_proj.", "pc_ln.")
  heads += ("audio_projection.", "audio_llm_proj.", "audio_ln.")
  assert all(any(k.startswith(h) for k in state) for h in heads)
  assert all(k.startswith(heads) for k in state)
  convert(
    tmp_path / "out", tmp_path / "back", to="jax", family="x_instructblip"
  )
  back = load_file(tmp_path / "back" / "model.safetensors")
  flat = tree.flatten(own)
  assert back.keys() == flat.keys()
  for path, value in flat.items():
    assert back[path].tobytes() == np.asarray(value).tobytes(), path


def test_what_lavis_has_not_is_refused(tmp_path):
  part = connectors()
  del part["connectors_points"]["project"]
  with pytest.raises(ValueError, match="has not trained connectors_points/pro"):
    convert(run(tmp_path / "part", part), tmp_path / "out", to="hf")
  other = {"smell": dict(connector=PROJECTION)}
  with pytest.raises(ValueError, match="Unknown kind of media of LAVIS"):
    convert(run(tmp_path / "kind", {}, other), tmp_path / "out", to="hf")
  other = {"audio": dict(connector=dict(name="perceiver"))}
  with pytest.raises(ValueError, match="Unknown connector of LAVIS"):
    convert(run(tmp_path / "name", {}, other), tmp_path / "out", to="hf")
  assert not (tmp_path / "out").exists()
