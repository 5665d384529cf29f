"""Parameters of published resamplers and blocks; nothing is allocated."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from mmjax import tree
from mmjax.connectors import gated_attention, perceiver
from mmjax.connectors.gated_attention import GatedCrossAttention
from mmjax.connectors.perceiver import PerceiverResampler


def count(module, *args, **kwargs) -> int:
  like = jax.eval_shape(
    lambda key: module.init(key, *args, **kwargs), jax.random.key(0)
  )
  return tree.count(nn.unbox(like)["params"])


def block(width, media_width, **fields) -> int:
  return count(
    GatedCrossAttention(width=width, media_width=media_width, **fields),
    jnp.zeros((1, 1, width)),
    jnp.zeros((1, 1, 1, media_width)),
    jnp.ones((1, 1), jnp.int32),
    method="from_media",
  )


@pytest.mark.parametrize(
  "fields, features, expected",
  [
    (perceiver.FLAMINGO, 3072, 193_628_160),
    (dict(width=1024) | perceiver.OPEN_FLAMINGO, 1024, 63_019_008),
    (dict(width=1280) | perceiver.IDEFICS, 1280, 125_961_984),
  ],
  ids=["flamingo", "open_flamingo", "idefics"],
)
def test_resampler_ablations(fields, features, expected):
  media = jnp.zeros((1, 1, 1, 1, features))
  assert count(PerceiverResampler(**fields), media) == expected


@pytest.mark.parametrize(
  "width, blocks, one, total",
  [
    (2048, 24, 36_708_354, 881_000_496),
    (2560, 16, 56_109_058, 897_744_928),
    (4096, 8, 139_476_994, 1_115_815_952),
  ],
  ids=["3b", "4b", "9b"],
)
def test_blocks_of_open_flamingo(width, blocks, one, total):
  found = block(width, 1024, **gated_attention.OPEN_FLAMINGO)
  assert found == one and blocks * found == total


def test_blocks_of_idefics_9b():
  found = block(
    4096,
    1280,
    num_heads=32,
    head_dim=128,
    hidden=11008,
    **gated_attention.IDEFICS,
  )
  assert 8 * found == 1_434_519_568


@pytest.mark.parametrize(
  "width, blocks, billions",
  [(2048, 24, 1.2), (4096, 8, 1.6), (8192, 12, 10.0)],
  ids=["3b", "9b", "80b"],
)
def test_blocks_of_flamingo_have_twelve_squares(width, blocks, billions):
  """Table 5 of the paper fits keys and values from a D-wide input."""
  found = block(width, width, num_heads=width // 128, head_dim=128)
  assert found == pytest.approx(12 * width**2, rel=1e-3)
  digits = 0 if billions == 10 else 1
  assert round(blocks * found / 1e9, digits) == billions


@pytest.mark.parametrize(
  "field, known", [("norm", "'layer'"), ("gate", "'scalar'")]
)
def test_an_unknown_kind_names_the_nearest(field, known):
  wrong = {"norm": "layers", "gate": "scaler"}
  block = GatedCrossAttention(8, 8, 2, 4, **{field: wrong[field]})
  x = jnp.zeros((1, 1, 8))
  with pytest.raises(ValueError, match=f"Did you mean {known}"):
    jax.eval_shape(
      lambda: block.init(
        jax.random.key(0), x, x[None], None, method="from_media"
      )
    )
