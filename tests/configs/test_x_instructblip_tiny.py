"""The small X-InstructBLIPs: their parts fit, and what trains is what is meant.

They are trained by hand; benchmarks/results has what came of it.
"""

import jax
import pytest
from flax import linen as nn

from mmjax import tree
from mmjax.cli import configs
from mmjax.data import build as data
from mmjax.systems import contrastive, x_instructblip
from mmjax.training.checks import check_media
from mmjax.training.state import trainable_mask

KINDS = {
  "tiny_image": {"image"},
  "tiny_video": {"video"},
  "tiny_audio": {"audio"},
  "tiny_3d": {"points"},
  "tiny_joint": {"image", "points"},
}


def load(name, connects="qformer"):
  path = f"configs/x_instructblip/{name}.py:{connects}"
  return configs.load(path, []).to_dict()


@pytest.fixture(scope="module", params=KINDS)
def made(request):
  config = load(request.param)
  module = x_instructblip.build(config["model"])
  (batches,) = data.abstract_batches(config["data"])
  batch = batches["questions"]
  shapes = jax.eval_shape(module.init, jax.random.key(0), batch)
  return request.param, config, module, batch, shapes["params"]


def test_media_have_as_many_places_as_tokens(made):
  name, config, module, batch, _ = made
  assert set(batch["media"]) == set(module.kinds) == KINDS[name]
  entry = data.plain(config["data"]["datasets"]["questions"])
  check_media(data.encoder(None, **data.reading(entry)), module, "x")


def test_the_language_model_and_encoders_are_frozen(made):
  _, config, _, _, params = made
  mask = trainable_mask(params, config["train"]["trainable"])
  flat = tree.flatten(mask)
  frozen = {path.split("/")[0] for path, trains in flat.items() if not trains}
  assert frozen == {p.split("/")[0] for p in flat if "connector" not in p}
  trained = {path.split("/")[0] for path, trains in flat.items() if trains}
  assert not frozen & trained
  assert any(part.startswith("connectors_") for part in trained)


@pytest.mark.parametrize("name", KINDS)
def test_documents_are_drawn_from_what_is_named(name):
  entry = load(name)["data"]["datasets"]["questions"]
  parts = entry.get("mix") or {"all": {"source": entry["source"]}}
  names = {part["source"]["name"] for part in parts.values()}
  assert names <= {"drawn_chat", "items", "item_pairs"}
  assert (entry["source"] is None) == ("mix" in entry)


def test_what_is_loaded_is_there(made):
  _, config, _, _, params = made
  paths = tree.flatten(jax.tree.map(lambda x: 0, params))
  for part in config["init"]:
    assert any(path.startswith(f"{part}/") for path in paths), part


@pytest.mark.parametrize("name", KINDS)
def test_a_projection_takes_the_place_of_the_qformer(name):
  config = load(name, "projection")
  entries = config["model"]["media"].values()
  assert {e["connector"]["name"] for e in entries} == {"pooled_projection"}
  assert not any("qformer" in part for part in config["init"])
  prompt = config["data"]["datasets"]["questions"]["prompt"]
  assert prompt["reader_length"] == 0
  x_instructblip.build(config["model"])


def test_other_connectors_are_named():
  with pytest.raises(ValueError, match="not 'mlp'"):
    load("tiny_image", "mlp")


def test_the_encoder_of_shapes_is_trained_for_the_models_that_name_it():
  """By its captions; what it is there fits where it goes."""
  config = configs.load("configs/x_instructblip/tiny_shapes.py", []).to_dict()
  module = contrastive.build(config["model"])
  assert module.kinds == ("points",)
  (batches,) = data.abstract_batches(config["data"])
  shapes = jax.eval_shape(module.init, jax.random.key(0), batches["pairs"])
  flat = tree.flatten(nn.unbox(shapes["params"]))
  mask = trainable_mask(
    nn.unbox(shapes["params"]), config["train"]["trainable"]
  )
  frozen = {
    k.split("/")[0] for k, trains in tree.flatten(mask).items() if not trains
  }
  assert frozen == set(config["init"]) == {"text"}
  for name in ("tiny_3d", "tiny_joint"):
    own = load(name)
    source = own["init"]["encoders_shapes"]
    assert source == dict(name="run", workdir="runs/tiny_shapes", part="media")
    (batches,) = data.abstract_batches(own["data"])
    made = x_instructblip.build(own["model"])
    params = jax.eval_shape(made.init, jax.random.key(0), batches["questions"])
    wanted = tree.flatten(nn.unbox(params["params"]["encoders_shapes"]))
    assert {f"media/{k}": x.shape for k, x in wanted.items()} == {
      k: x.shape for k, x in flat.items() if k.startswith("media/")
    }
