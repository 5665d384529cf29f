"""EVA-CLIP's tower against Hugging Face's BLIP-2, and its published size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn
from transformers import Blip2VisionConfig, Blip2VisionModel

from mmjax.convert.families import eva as family
from mmjax.convert.rules import ConversionError, load, save
from mmjax.encoders.vit import EVA, ViT, eva_vit
from mmjax.layers.norm import LayerNorm
from mmjax.tree import count

SIZES = dict(width=32, num_layers=3, num_heads=4, patch=8, image_size=24)
ROOTS = ["vision_model.", ""]


@pytest.fixture(scope="module")
def tiny():
  """The published tower at another size."""
  return eva_vit().clone(**SIZES, hidden=52)


def shapes_of(model, side=24):
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  return nn.unbox(shapes)["params"]


def drawn(like, seed=0):
  random = np.random.RandomState(seed)
  return jax.tree.map(
    lambda x: random.standard_normal(x.shape).astype(np.float32), like
  )


def reference(qkv_bias=True):
  config = Blip2VisionConfig(
    hidden_size=32,
    intermediate_size=52,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=24,
    patch_size=8,
    qkv_bias=qkv_bias,
  )
  torch.manual_seed(0)
  model = Blip2VisionModel(config).eval()
  with torch.no_grad():
    for name, p in model.named_parameters():
      p.normal_(0.0, 0.2 if p.ndim > 1 else 0.5)
      if name.endswith("qkv.bias"):
        p[32:64] = 0.0
  return model


def state_dict(model, root):
  return {f"{root}{k}": v.numpy() for k, v in model.state_dict().items()}


def close(ours, theirs):
  theirs = theirs.detach().numpy()
  assert ours.shape == theirs.shape
  return np.abs(np.asarray(ours) - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.fixture(scope="module")
def pair(tiny):
  """Hugging Face's model, and its weights as our parameters."""
  theirs = reference()
  params = load(
    state_dict(theirs, "vision_model."),
    family.hugging_face(),
    shapes_of(tiny),
    ignore=family.NORM.fullmatch,
  )
  return theirs, {"params": jax.tree.map(jnp.asarray, params)}


def images(side=24):
  return jnp.asarray(np.random.RandomState(0).randn(2, side, side, 3))


def test_tokens_of_every_layer(pair, tiny):
  theirs, params = pair
  x = torch.tensor(np.asarray(images(), np.float32)).permute(0, 3, 1, 2)
  with torch.no_grad():
    out = theirs(x, output_hidden_states=True)
  for layer in (-1, -2):
    y = jax.jit(tiny.clone(output_layer=layer).apply)(params, images())
    assert close(y, out.hidden_states[layer])
  # Theirs has the norm behind the tower in it.
  state = theirs.post_layernorm.state_dict()
  norm = {"scale": state["weight"].numpy(), "bias": state["bias"].numpy()}
  y = LayerNorm(eps=1e-6).apply({"params": norm}, tiny.apply(params, images()))
  assert close(y, out.last_hidden_state)


def test_another_image_size(pair, tiny):
  theirs, params = pair
  x = torch.tensor(np.asarray(images(40), np.float32)).permute(0, 3, 1, 2)
  with torch.no_grad():
    out = theirs.embeddings(x, interpolate_pos_encoding=True)
  assert close(tiny.apply(params, images(40), method="embed"), out)


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_hugging_faces_weights_return_bit_by_bit(tiny, root, qkv_bias):
  state = state_dict(reference(qkv_bias), root)
  rules = family.hugging_face(root)
  like = shapes_of(tiny.clone(qkv_bias=qkv_bias))
  back = save(load(state, rules, like, ignore=family.NORM.fullmatch), rules)
  kept = {k for k in state if not family.NORM.fullmatch(k)}
  assert back.keys() == kept and len(state) == len(kept) + 2
  for name in kept:
    assert back[name].tobytes() == state[name].tobytes(), name


OPTIONS = [
  {},
  dict(qkv_bias=False),
  dict(relative_positions=True, layer_scale=0.1),
  dict(shared_relative_positions=True, absolute_positions=False),
]


@pytest.mark.parametrize("root", ["visual_encoder.", ""])
@pytest.mark.parametrize("options", OPTIONS)
def test_lavis_weights_return_bit_by_bit(tiny, root, options):
  params = drawn(shapes_of(tiny.clone(**options)))
  state = save(params, family.lavis(root))
  assert all(name.startswith(root) for name in state)
  buffer = f"{root}blocks.0.attn.relative_position_index"
  again = load(
    state | {buffer: np.zeros((10, 10), np.int64)},
    family.lavis(root),
    params,
    ignore=family.BUFFERS.fullmatch,
  )
  jax.tree.map(np.testing.assert_array_equal, again, params)


def test_lavis_names_and_shapes(tiny):
  """Those of the notes on the released file, at this size."""
  state = save(drawn(shapes_of(tiny)), family.lavis())
  expected = {
    "cls_token": (1, 1, 32),
    "pos_embed": (1, 10, 32),
    "patch_embed.proj.weight": (32, 3, 8, 8),
    "patch_embed.proj.bias": (32,),
    "blocks.2.norm1.weight": (32,),
    "blocks.2.attn.qkv.weight": (96, 32),
    "blocks.2.attn.q_bias": (32,),
    "blocks.2.attn.v_bias": (32,),
    "blocks.2.attn.proj.weight": (32, 32),
    "blocks.2.mlp.fc1.weight": (52, 32),
    "blocks.2.mlp.fc2.weight": (32, 52),
  }
  assert len(state) == 4 + 3 * 13
  for name, shape in expected.items():
    assert state[f"visual_encoder.{name}"].shape == shape, name


def test_from_one_layout_to_the_other(pair):
  """q, 0 and v are the thirds of Hugging Face's bias."""
  theirs, params = pair
  lavis = save(nn.unbox(params)["params"], family.lavis())
  bias = theirs.encoder.layers[1].self_attn.qkv.bias.detach().numpy()
  names = [f"visual_encoder.blocks.1.attn.{part}_bias" for part in "qv"]
  q, v = (np.asarray(lavis[name]) for name in names)
  np.testing.assert_array_equal(np.concatenate([q, 0 * q, v]), bias)


@pytest.mark.parametrize("value", [1e-6, np.nan])
def test_a_bias_of_the_keys_is_refused(tiny, value):
  state = state_dict(reference(), "vision_model.")
  name = "vision_model.encoder.layers.1.self_attn.qkv.bias"
  state[name] = state[name].copy()
  state[name][40] = value
  with pytest.raises(ConversionError, match="layers.1.self_attn.qkv.bias has"):
    load(
      state,
      family.hugging_face(),
      shapes_of(tiny),
      ignore=family.NORM.fullmatch,
    )


@pytest.mark.parametrize("layout", [family.lavis, family.hugging_face])
def test_a_model_with_a_bias_of_the_keys_is_not_written(tiny, layout):
  params = drawn(shapes_of(tiny.clone(key_bias=True)))
  with pytest.raises(ConversionError, match="layers/attention/key/bias"):
    save(params, layout())


def test_published_count():
  model = eva_vit()
  shapes = shapes_of(model, side=224)
  assert count(shapes) == 985_894_528
  assert count(shapes["layers"]) == 39 * 25_248_768
  tokens = jax.eval_shape(
    model.apply,
    {"params": shapes},
    jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.uint8),
  )
  assert tokens.shape == (2, 257, 1408)
  assert eva_vit("g/14", image_size=364).image_size == 364
  assert EVA.keys() == {"g/14"}


def test_tables_of_distances_add_up(tiny):
  """One shared table does what the same table in every layer does."""
  common = dict(absolute_positions=False)
  own = tiny.clone(relative_positions=True, **common)
  params = drawn(shapes_of(own))
  table = params["layers"]["relative_table"]
  table[:] = table[0]
  y = own.apply({"params": params}, images())
  layers = {k: v for k, v in params["layers"].items() if k != "relative_table"}
  moved = params | dict(layers=layers, relative_table=table[0])
  shared = tiny.clone(shared_relative_positions=True, **common)
  np.testing.assert_allclose(
    y, shared.apply({"params": moved}, images()), rtol=1e-5, atol=1e-5
  )
  both = shared.clone(relative_positions=True)
  halves = params | dict(relative_table=table[0] / 2)
  halves["layers"] = layers | dict(relative_table=table / 2)
  np.testing.assert_allclose(
    y, both.apply({"params": halves}, images()), rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize(
  "options, side, message",
  [
    (dict(relative_positions=True), 32, "relative positions are for 24 x 24"),
    (dict(shared_relative_positions=True), 16, "for 24 x 24"),
    (dict(relative_positions=True, class_token=False), 24, "class_token=True"),
  ],
)
def test_what_does_not_fit_is_named(options, side, message):
  with pytest.raises(ValueError, match=message):
    shapes_of(ViT(**SIZES, **options), side)


def test_an_unknown_variant_is_named():
  with pytest.raises(ValueError, match="Unknown EVA 'g14'"):
    eva_vit("g14")
