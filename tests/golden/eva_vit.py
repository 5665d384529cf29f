"""Golden component eva_vit: LAVIS' VisionTransformer and its table."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.convert.families import eva as rules
from mmjax.convert.rules import load
from mmjax.encoders.vit import ViT
from mmjax.layers.norm import LayerNorm
from tests.golden.file import Golden
from tests.golden.options import filled

# Constructor arguments of the original, and their defaults.
OPTIONS = dict(
  img_size=224,
  patch_size=16,
  in_chans=3,
  num_classes=1000,
  embed_dim=768,
  depth=12,
  num_heads=12,
  mlp_ratio=4.0,
  qkv_bias=False,
  qk_scale=None,
  drop_rate=0.0,
  attn_drop_rate=0.0,
  drop_path_rate=0.0,
  norm_eps=1e-5,
  init_values=None,
  use_abs_pos_emb=True,
  use_rel_pos_bias=False,
  use_shared_rel_pos_bias=False,
  use_mean_pooling=True,
  init_scale=0.001,
  use_checkpoint=False,
)
# Those that our module fixes.
FIXED = dict(in_chans=3, qk_scale=None)
NORM = "ln_vision."


def build(golden: Golden) -> ViT:
  """Our module; ValueError for options that it has not."""
  c = filled(golden, OPTIONS)
  if odd := {k: c[k] for k, v in FIXED.items() if c[k] != v}:
    raise ValueError(f"Our ViT has no {odd}.")
  return ViT(
    width=c["embed_dim"],
    num_layers=c["depth"],
    num_heads=c["num_heads"],
    patch=c["patch_size"],
    image_size=c["img_size"],
    hidden=int(c["embed_dim"] * c["mlp_ratio"]),
    activation="gelu",
    keep_class_token=True,
    patch_bias=True,
    qkv_bias=c["qkv_bias"],
    key_bias=False,
    absolute_positions=c["use_abs_pos_emb"],
    relative_positions=c["use_rel_pos_bias"],
    shared_relative_positions=c["use_shared_rel_pos_bias"],
    layer_scale=max(c["init_values"] or 0.0, 0.0),
    pre_norm=False,
    post_norm=False,
    norm_eps=c["norm_eps"],
  )


def shapes_of(module: ViT):
  side = module.image_size
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  return nn.unbox(shapes)["params"]


def tower(golden: Golden):
  """All blocks' outputs, and the norm behind the last."""
  module = build(golden)
  weights = dict(golden.weights)
  named = {k: weights.pop(k) for k in golden.weights if k.startswith(NORM)}
  params = load(
    weights,
    rules.lavis(root=""),
    shapes_of(module),
    ignore=rules.BUFFERS.fullmatch,
  )

  for call, inputs in golden.inputs.items():
    x = jnp.asarray(np.moveaxis(inputs["pixels"], 1, -1))
    outputs = {}
    for i in range(module.num_layers):
      part = module.clone(output_layer=i - module.num_layers)
      outputs[f"block_{i}"] = jax.jit(part.apply)({"params": params}, x)
    last = outputs["features"] = outputs[f"block_{module.num_layers - 1}"]
    if module.num_layers > 1:
      outputs["penultimate"] = outputs[f"block_{module.num_layers - 2}"]
    if named:
      scale, bias = named[f"{NORM}weight"], named[f"{NORM}bias"]
      norm = {"params": {"scale": scale, "bias": bias}}
      outputs["features_ln_vision"] = LayerNorm(eps=1e-5).apply(norm, last)
    yield call, outputs


def interpolated(golden: Golden):
  """Tables `pos_AtoB`, brought from a grid of A x A to one of B x B."""
  for call, inputs in golden.inputs.items():
    outputs = {}
    for name, table in inputs.items():
      sides = re.fullmatch(r"pos_(\d+)to(\d+)", name)
      if not sides:
        raise ValueError(f"An input is {name!r}; expected such as pos_4to6.")
      old, new = map(int, sides.groups())
      module = ViT(table.shape[-1], 1, 1, patch=1, image_size=old)
      params = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes_of(module))
      params["position_table"] = jnp.asarray(table[0])
      run = functools.partial(module.apply, method="_table")
      outputs[name] = run({"params": params}, new, new)[None]
    yield call, outputs


def check(golden: Golden):
  """Yields (call, {output name: array}); images are already normalised."""
  if golden.config.get("function") == "interpolate_pos_embed":
    return interpolated(golden)
  return tower(golden)
