"""Golden component nfnet: timm's NormFreeNet in DeepMind's configuration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.convert.families import nfnet as rules
from mmjax.convert.rules import load
from mmjax.encoders.nfnet import NFNet
from mmjax.layers.conv import round_channels
from tests.golden.file import Golden
from tests.golden.options import NEEDED, filled

# Options of timm's NfCfg and their defaults.
OPTIONS = dict(
  depths=NEEDED,
  channels=NEEDED,
  alpha=0.2,
  stem_type="3x3",
  stem_chs=None,
  group_size=None,
  attn_layer=None,
  attn_kwargs=None,
  attn_gain=2.0,
  width_factor=1.0,
  bottle_ratio=0.5,
  num_features=0,
  ch_div=8,
  reg=False,
  extra_conv=False,
  gamma_in_act=False,
  same_padding=False,
  std_conv_eps=1e-5,
  skipinit=False,
  zero_init_fc=False,
  act_layer="silu",
)
# Those that our module fixes, as DeepMind's networks have them.
FIXED = dict(
  stem_type="deep_quad",
  attn_layer="se",
  extra_conv=True,
  gamma_in_act=True,
  same_padding=True,
  skipinit=True,
  reg=False,
)
# timm's default of squeeze-excite.
RATIO = 1.0 / 16


def build(golden: Golden) -> NFNet:
  """Our module; ValueError for options that it has not."""
  c = filled(golden, OPTIONS)
  odd = {k: c[k] for k, v in FIXED.items() if c[k] != v}
  gate = dict(c["attn_kwargs"] or {})
  squeeze = gate.pop("rd_ratio", RATIO)
  if gate:
    odd["attn_kwargs"] = gate
  if len(c["depths"]) > 4:
    odd["depths"] = c["depths"]  # timm dilates where the stride exceeds 32.
  if odd:
    raise ValueError(f"Our NFNet has no {odd}.")

  def rounded(channels: int) -> int:
    return round_channels(channels * c["width_factor"], divisor=c["ch_div"])

  return NFNet(
    depths=tuple(c["depths"]),
    widths=tuple(map(rounded, c["channels"])),
    stem=rounded(c["stem_chs"] or c["channels"][0]),
    group=c["group_size"],
    features=rounded(c["num_features"]) if c["num_features"] else 0,
    classes=golden.config.get("num_classes", 0),
    alpha=c["alpha"],
    inner=c["bottle_ratio"],
    squeeze=squeeze,
    gate_gain=c["attn_gain"],
    divisor=c["ch_div"],
    activation=c["act_layer"],
    eps=c["std_conv_eps"],
  )


def check(golden: Golden):
  """Yields (call, {output name: array}); images are already normalised."""
  module = build(golden)
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
    outputs = {k: jnp.moveaxis(v, -1, 1) for k, v in outputs.items()}
    outputs["pooled"] = module.pooled(x)
    return outputs | ({"logits": module.logits(x)} if module.classes else {})

  compiled = jax.jit(functools.partial(module.apply, method=run))
  for call, inputs in golden.inputs.items():
    x = jnp.asarray(np.moveaxis(inputs["x"], 1, -1))
    yield call, compiled({"params": params}, x)
