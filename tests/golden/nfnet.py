"""Golden component nfnet: timm's NormFreeNet in DeepMind's configuration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.convert.families import nfnet as rules
from mmjax.convert.rules import load
from mmjax.encoders.nfnet import NFNet
from tests.golden.file import Golden

# Options of NormFreeNet that our module fixes.
FIXED = dict(
  stem_type="deep_quad",
  bottle_ratio=0.5,
  width_factor=1.0,
  ch_div=8,
  act_layer="gelu",
  attn_layer="se",
  attn_gain=2.0,
  attn_kwargs={"rd_ratio": 0.5},
  extra_conv=True,
  gamma_in_act=True,
  same_padding=True,
  skipinit=True,
  reg=False,
  std_conv_eps=1e-5,
)


def check(golden: Golden):
  """Yields (call, {output name: array}); images are already normalised."""
  c = FIXED | golden.constructor
  if odd := {k: c[k] for k, v in FIXED.items() if c[k] != v}:
    raise ValueError(f"{golden.path}: our NFNet has no {odd}.")
  module = NFNet(
    depths=tuple(c["depths"]),
    widths=tuple(c["channels"]),
    stem=c.get("stem_chs") or c["channels"][0],
    group=c["group_size"],
    features=c["num_features"],
    classes=golden.config.get("num_classes", 0),
    alpha=c["alpha"],
  )
  images = jnp.zeros((1, 32, 32, 3))
  like = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), images))
  # A single number was written with one dim; timm's own has none.
  weights = {
    key: value.reshape(()) if key.endswith("skipinit_gain") else value
    for key, value in golden.weights.items()
  }
  params = load(weights, rules.nfnet(module.depths), like["params"])

  def run(module, x):
    maps = module.maps(x)
    features = maps[-1]
    outputs = {"stem": maps[0], "features": features}
    outputs |= {f"stage{i}": x for i, x in enumerate(maps[1:-1])}
    outputs = {k: np.moveaxis(v, -1, 1) for k, v in outputs.items()}
    outputs["pooled"] = module.pooled(x)
    return outputs | ({"logits": module.logits(x)} if module.classes else {})

  for call, inputs in golden.inputs.items():
    x = jnp.asarray(np.moveaxis(inputs["x"], 1, -1))
    compiled = jax.jit(functools.partial(module.apply, method=run))
    yield call, compiled({"params": params}, x)
