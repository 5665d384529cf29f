"""ViT against Hugging Face's CLIP and open_clip, and its published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import linen as nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.idefics.configuration_idefics import (
  IdeficsVisionConfig,
)
from transformers.models.idefics.vision import IdeficsVisionTransformer

from mmjax.convert.families import clip as family
from mmjax.convert.rules import load, prefixed, save
from mmjax.encoders.vit import ViT, clip_vit
from mmjax.layers.position import interpolate_grid
from mmjax.tree import count
from tests.timm_import import import_open_clip

TINY = dict(width=32, num_layers=3, num_heads=4, patch=8, image_size=24)
SIZES = dict(
  intermediate_size=64,
  num_hidden_layers=3,
  num_attention_heads=4,
  image_size=24,
  patch_size=8,
)


def shapes_of(model):
  images = jax.ShapeDtypeStruct((1, model.patch, model.patch, 3), jnp.uint8)
  return nn.unbox(jax.eval_shape(model.init, jax.random.key(0), images))[
    "params"
  ]


def randomised(model):
  torch.manual_seed(0)
  with torch.no_grad():
    for p in model.parameters():
      p.normal_(0.0, 0.2 if p.ndim > 1 else 0.5)
  return model.eval()


def converted(model, state, rules):
  """Parameters, after the state dict came back bit by bit."""
  params = load(state, rules, shapes_of(model))
  back = save(params, rules)
  assert back.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
  return {"params": jax.tree.map(jnp.asarray, params)}


def state_dict(model, root=""):
  """As it lies in published files, whatever this version puts in front."""
  state = {}
  for name, x in model.state_dict().items():
    name = name.removeprefix("vision_model.")
    state[name if name.startswith("visual_") else root + name] = x.numpy()
  return state


@pytest.fixture(scope="module")
def images():
  return jnp.asarray(np.random.RandomState(0).randn(2, 24, 24, 3))


def channels_first(images):
  return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)


def assert_close(ours, theirs):
  theirs = theirs.detach().numpy()
  assert ours.shape == theirs.shape
  error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
  assert error <= 1e-5, error


@pytest.fixture(scope="module")
def hugging_face():
  config = CLIPVisionConfig(hidden_size=32, projection_dim=16, **SIZES)
  model = randomised(CLIPVisionModelWithProjection(config))
  ours = ViT(**TINY, hidden=64, projection=16, keep_class_token=True)
  state = state_dict(model, "vision_model.")
  return model, ours, converted(ours, state, family.hugging_face())


def test_tokens_of_every_layer(hugging_face, images):
  theirs, ours, params = hugging_face
  with torch.no_grad():
    out = theirs(channels_first(images), output_hidden_states=True)
  for layer in (-1, -2):
    model = ours.clone(output_layer=layer)
    y = jax.jit(model.apply)(params, images)
    assert_close(y, out.hidden_states[layer])
  y = ours.clone(keep_class_token=False).apply(params, images)
  assert_close(y, out.last_hidden_state[:, 1:])
  pooled = ours.apply(params, images, method="pooled")
  assert_close(pooled, out.image_embeds)


def test_another_image_size(hugging_face):
  """Positions are interpolated, also to a grid that is not square."""
  theirs, ours, params = hugging_face
  images = jnp.asarray(np.random.RandomState(1).randn(2, 40, 16, 3))
  with torch.no_grad():
    out = theirs(channels_first(images), interpolate_pos_encoding=True)
  assert_close(ours.apply(params, images), out.last_hidden_state)


@pytest.mark.parametrize("norm_tokens", [True, False])
def test_open_clip(images, norm_tokens):
  """Its tokens have the last norm; OpenFlamingo's, from an older one, not."""
  try:
    import_open_clip()
  except ModuleNotFoundError as error:
    pytest.skip(f"open_clip wants more than it is given here: {error}")
  from open_clip.transformer import QuickGELU, VisionTransformer

  theirs = randomised(
    VisionTransformer(
      24, 8, 32, 3, 4, 2.0, output_dim=16, output_tokens=True,
      act_layer=QuickGELU,
    )
  )  # fmt: skip
  if not norm_tokens:
    # What open_clip did up to 2.22: the norm sees the class token only.
    theirs.final_ln_after_pool = True
  ours = ViT(**TINY, hidden=64, projection=16, norm_tokens=norm_tokens)
  state = state_dict(theirs, "visual.")
  params = converted(ours, state, family.openai())
  with torch.no_grad():
    pooled, tokens = theirs(channels_first(images))
  assert_close(ours.apply(params, images), tokens)
  assert_close(ours.apply(params, images, method="pooled"), pooled)


def test_idefics(images):
  config = IdeficsVisionConfig(embed_dim=32, **SIZES)
  theirs = randomised(IdeficsVisionTransformer(config))
  ours = ViT(**TINY, hidden=64, activation="gelu", keep_class_token=True)
  root = "model.vision_model."
  state = state_dict(theirs, root)
  params = converted(ours, state, family.hugging_face(root))
  with torch.no_grad():
    out = theirs(channels_first(images)).last_hidden_state
  assert_close(ours.apply(params, images), out)


@pytest.mark.parametrize("projection", [0, 16])
@pytest.mark.parametrize("root", ["visual.", "vision_model."])
def test_the_tower_of_a_whole_clip(root, projection):
  """Text tower, temperature and buffers stay in the file."""
  like = shapes_of(ViT(**TINY, hidden=64, projection=projection))
  whole = shapes_of(ViT(**TINY, hidden=64, projection=16))
  random = np.random.RandomState(0)
  whole = jax.tree.map(lambda x: random.standard_normal(x.shape), whole)
  layout = family.openai if root == "visual." else family.hugging_face
  state = save(whole, layout(root))
  for name in ("logit_scale", "text_projection", "text_model.x.weight"):
    state[name] = np.zeros(1)
  state["vision_model.embeddings.position_ids"] = np.arange(4)
  params = family.load_vision(state, like)
  assert jax.tree.structure(params) == jax.tree.structure(like)
  np.testing.assert_allclose(
    params["layers"]["mlp"]["up"]["kernel"],
    whole["layers"]["mlp"]["up"]["kernel"],
    rtol=1e-6,
  )


def test_a_file_without_a_tower_is_named():
  with pytest.raises(ValueError, match="No vision tower"):
    family.load_vision({"text.weight": np.zeros(1)}, {})


def test_a_tower_inside_a_model(images):
  """The same rules serve a path below another one."""
  theirs = randomised(
    IdeficsVisionTransformer(IdeficsVisionConfig(embed_dim=32, **SIZES))
  )
  like = {"encoder": shapes_of(ViT(**TINY, hidden=64))}
  rules = prefixed(family.hugging_face(), path="encoder/")
  state = state_dict(theirs, "vision_model.")
  assert save(load(state, rules, like), rules).keys() == state.keys()


@pytest.mark.parametrize(
  "variant, projection, expected",
  [
    ("L/14", 0, 303_179_776),
    ("L/14", 768, 303_966_208),
    ("H/14", 0, 630_766_080),
  ],
)
def test_published_counts(variant, projection, expected):
  model = clip_vit(variant, projection=projection)
  assert count(shapes_of(model)) == expected


@pytest.mark.parametrize("size", [(2, 9), (5, 5), (3, 1), (13, 4)])
def test_bicubic_is_pytorchs(size):
  grid = np.random.RandomState(0).randn(5, 4, 3).astype(np.float32)
  expected = F.interpolate(
    torch.tensor(grid).permute(2, 0, 1)[None], size, mode="bicubic"
  )
  ours = interpolate_grid(jnp.asarray(grid), *size)
  np.testing.assert_allclose(
    ours, expected[0].permute(1, 2, 0).numpy(), atol=2e-6
  )


def test_bytes_are_normalised():
  model = ViT(**TINY)
  images = np.random.RandomState(0).randint(0, 256, (1, 24, 24, 3), np.uint8)
  random = np.random.RandomState(1)
  params = jax.tree.map(
    lambda x: jnp.asarray(random.standard_normal(x.shape)), shapes_of(model)
  )
  floats = (images / 255 - np.array(model.mean)) / np.array(model.std)
  np.testing.assert_allclose(
    model.apply({"params": params}, jnp.asarray(images), method="embed"),
    model.apply({"params": params}, jnp.asarray(floats), method="embed"),
    atol=1e-4,
  )


@pytest.mark.parametrize(
  "options, side, message",
  [
    (dict(output_layer=0), 24, "output_layer 0 of 3"),
    (dict(output_layer=-4), 24, "output_layer -4 of 3"),
    (dict(norm_tokens=True, post_norm=False), 24, "post_norm=True"),
    ({}, 25, "25 x 25 do not part into patches of 8"),
  ],
)
def test_what_does_not_fit_is_named(options, side, message):
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
  model = ViT(**TINY, **options)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), images)
