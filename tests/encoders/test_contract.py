"""What all encoders have in common."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from mmjax.config import build
from mmjax.encoders import ENCODERS

TINY = {
  "beats": {},
  "custom_beats": dict(width=16, num_layers=2, num_heads=2, hidden=24),
  "clip_vit": dict(variant="B/32"),
  "custom_nfnet": dict(
    depths=(1, 2), widths=(16, 16), stem=8, group=8, features=16
  ),
  "custom_pointbert": dict(
    width=16,
    num_layers=2,
    num_heads=2,
    groups=8,
    group_size=4,
    group_width=8,
    projection=0,
  ),
  "efficientnet_lite": {},
  "eva_vit": {},
  "nfnet": {},
  "reduced": dict(encoder=dict(name="efficientnet_lite"), width=8),
  "ulip2": {},
  "custom_whisper": dict(width=16, num_layers=2, num_heads=2, positions=20),
  "vit": dict(width=16, num_layers=2, num_heads=2, patch=8),
  "whisper": {},
}
IMAGES = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
SOUNDS = jax.ShapeDtypeStruct((2, 2_800), jnp.float32)
POINTS = jax.ShapeDtypeStruct((2, 64, 3), jnp.float32)
# What those get that take no images, or none of this side.
MEDIA = {
  "beats": SOUNDS,
  "custom_beats": SOUNDS,
  "custom_pointbert": POINTS,
  "custom_whisper": SOUNDS,
  "eva_vit": jax.ShapeDtypeStruct((2, 56, 56, 3), jnp.uint8),
  "ulip2": POINTS,
  "whisper": SOUNDS,
}


@pytest.fixture(params=sorted(ENCODERS.keys() - {"features"}))
def named(request):
  return request.param


@pytest.fixture
def encoder(named):
  return build(ENCODERS, {"name": named} | TINY[named], dtype=jnp.bfloat16)


@pytest.fixture
def media(named):
  return MEDIA.get(named, IMAGES)


def test_media_become_tokens_of_the_wanted_dtype(encoder, media):
  """Weights stay float32, and gradients reach them through bfloat16."""
  tokens, variables = jax.eval_shape(
    encoder.init_with_output, jax.random.key(0), media
  )
  assert tokens.ndim == 3 and tokens.shape[0] == 2
  assert tokens.dtype == jnp.bfloat16
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
  grads = jax.eval_shape(
    jax.grad(lambda v, x: encoder.apply(v, x).sum().astype(jnp.float32)),
    nn.unbox(variables),
    media,
  )
  assert jax.tree.structure(grads) == jax.tree.structure(nn.unbox(variables))


def test_every_parameter_names_its_axes(encoder, media):
  variables = jax.eval_shape(encoder.init, jax.random.key(0), media)
  boxes = jax.tree.leaves(
    variables, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
  )
  assert boxes
  for box in boxes:
    assert isinstance(box, nn.LogicallyPartitioned)
    assert len(box.names) == box.value.ndim
