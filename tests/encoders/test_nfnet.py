"""NFNet against timm, its published sizes, and its scanned depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn

from mmjax.convert.families import nfnet as family
from mmjax.convert.rules import load, save
from mmjax.encoders.nfnet import NFNet, block_betas, nfnet
from mmjax.tree import count
from tests.timm_import import import_timm


def shapes_of(model):
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
  return nn.unbox(jax.eval_shape(model.init, jax.random.key(0), images))[
    "params"
  ]


def reference(depths, widths, stem, group, features, classes, **options):
  import_timm()
  from timm.models.nfnet import NormFreeNet, _dm_nfnet_cfg

  config = _dm_nfnet_cfg(depths=depths, channels=widths)
  torch.manual_seed(0)
  model = NormFreeNet(
    config,
    num_classes=classes,
    stem_chs=stem,
    group_size=group,
    num_features=features,
    **options,
  ).eval()
  with torch.no_grad():
    for name, p in model.named_parameters():
      if name.endswith("gain"):
        p.normal_(1.0, 0.3)
      elif name.endswith("bias"):
        p.normal_(0.0, 0.2)
  return model


# Our options and timm's, none of which DeepMind's networks set.
OURS = dict(
  alpha=0.9,
  inner=0.25,
  squeeze=0.3,
  gate_gain=1.5,
  divisor=4,
  activation="silu",
  eps=1e-2,
)
THEIRS = dict(
  alpha=0.9,
  bottle_ratio=0.25,
  attn_kwargs=dict(rd_ratio=0.3),
  attn_gain=1.5,
  ch_div=4,
  act_layer="silu",
  std_conv_eps=1e-2,
)


@pytest.mark.parametrize(
  "depths, widths, features, side, group, ours, theirs",
  [
    ((1, 2, 4, 2), (16, 32, 48, 48), 64, (64, 96), 8, {}, {}),
    ((3, 1), (24, 40), 0, (37, 50), 8, {}, {}),
    ((1, 2), (48, 80), 32, (37, 50), 16, {}, {}),
    ((2, 1), (44, 60), 0, (33, 7), None, OURS, THEIRS),
  ],
)
def test_same_maps_and_logits_as_timm(
  depths, widths, features, side, group, ours, theirs
):
  common = dict(depths=depths, widths=widths, features=features, classes=7)
  theirs = reference(**common, stem=16, group=group, **theirs)
  ours = NFNet(**common, stem=16, group=group, **ours)
  state = {k: v.numpy() for k, v in theirs.state_dict().items()}
  table = family.nfnet(depths)
  params = load(state, table, shapes_of(ours))
  images = np.random.RandomState(0).randn(2, *side, 3).astype(np.float32)
  with torch.no_grad():
    x = torch.tensor(images).permute(0, 3, 1, 2)
    grid = theirs.forward_features(x).permute(0, 2, 3, 1).numpy()
    logits = theirs(x).numpy()

  run = jax.jit(
    lambda p, x: (
      ours.apply({"params": p}, x),
      ours.apply({"params": p}, x, method="logits"),
    )
  )
  tokens, scores = run(params, images)

  grid = grid.reshape(2, -1, grid.shape[-1])
  assert np.abs(tokens - grid).max() <= 2e-5 * np.abs(grid).max()
  assert np.abs(scores - logits).max() <= 2e-5 * np.abs(logits).max()
  back = save(params, table)
  assert back.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)


@pytest.mark.parametrize(
  "variant, features, classes, expected",
  [
    ("F0", 3072, 1000, 71_489_284),
    ("F0", 3072, 0, 68_416_284),
    ("F0", 0, 0, 63_691_548),
    ("F6", 3072, 1000, 438_359_116),
    ("F6", 3072, 0, 435_286_116),
    ("F6", 0, 0, 430_561_380),
  ],
)
def test_published_counts(variant, features, classes, expected):
  assert count(shapes_of(nfnet(variant, features, classes))) == expected


@pytest.mark.parametrize("side, tokens", [(288, 81), (320, 100), (480, 225)])
def test_tokens_of_the_paper(side, tokens):
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
  model = nfnet("F6")
  out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
  assert out.shape == (1, tokens, 3072)


def test_betas():
  """The variances that the docstring lists, and the paper's F6."""
  first, second = block_betas((3, 2), 0.2)
  np.testing.assert_allclose(
    np.square(first + second), 1 / np.array([1, 1.04, 1.08, 1.12, 1.04])
  )
  f6 = block_betas((7, 14, 42, 21), 0.2)
  assert round(f6[0][1], 4) == 0.9806 and round(f6[1][0], 4) == 0.8839


def test_the_program_does_not_grow_with_depth():
  def size(depth):
    model = NFNet((depth, depth), (16, 16), stem=16, group=8, features=16)
    images = jnp.zeros((1, 32, 32, 3))
    lowered = jax.jit(model.apply).lower({"params": shapes_of(model)}, images)
    return len(lowered.as_text().splitlines())

  assert size(12) == size(3)


def test_gradients_reach_every_block():
  model = NFNet((3, 2), (16, 16), stem=16, group=8, features=16, remat="full")
  images = jnp.asarray(
    np.random.RandomState(0).randint(0, 256, (1, 32, 32, 3), np.uint8)
  )
  random = np.random.RandomState(1)
  params = jax.tree.map(
    lambda x: np.asarray(random.standard_normal(x.shape), np.float32),
    shapes_of(model),
  )
  grads = jax.jit(
    jax.grad(lambda p: jnp.square(model.apply({"params": p}, images)).sum())
  )(params)
  rows = grads["stages_0"]["rest"]["spatial_1"]["kernel"]
  assert (np.abs(rows).max(axis=(1, 2, 3, 4)) > 0).all()
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_channels_that_do_not_part_into_groups():
  model = NFNet((1,), (96,), stem=16, group=9)
  with pytest.raises(ValueError, match="48 inner channels"):
    shapes_of(model)
