"""Golden components of Flamingo: modules of three code bases, whole models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.config import lookup
from mmjax.connectors.gated_attention import MediaAttention
from mmjax.connectors.perceiver import PerceiverResampler
from mmjax.convert.families import flamingo as rules
from mmjax.convert.rules import load
from mmjax.layers.mlp import ACTIVATIONS, MLP
from mmjax.layers.norm import LayerNorm
from tests.golden.file import Golden, Named
from tests.golden.open_flamingo import whole_model
from tests.golden.options import NEEDED, Options, filled
from tests.golden.original import OriginalBlock, attend

# Constructor arguments of the originals, and their defaults.
HEADS = dict(dim=NEEDED, dim_head=64, heads=8)
LATENTS = HEADS | dict(depth=NEEDED, num_latents=64, ff_mult=4)
IMMEDIATE = HEADS | dict(only_attend_immediate_media=True)
VISUAL = dict(dim_visual=NEEDED)
RESAMPLER = {
  "open_flamingo": LATENTS
  | dict(depth=6, max_num_media=None, max_num_frames=None),
  "flamingo_lucidrains": LATENTS | dict(num_media_embeds=4),
  "flamingo_mini": LATENTS | dict(num_time_embeds=4, act="gelu"),
}
ATTENTION = {
  "open_flamingo": IMMEDIATE | VISUAL,
  "flamingo_lucidrains": IMMEDIATE,
  "flamingo_mini": HEADS | VISUAL | dict(n_visual=64),
}
FEED_FORWARD = {"flamingo_mini": dict(act="gelu")}
BLOCK = {
  name: options | FEED_FORWARD.get(name, {}) | dict(ff_mult=4)
  for name, options in ATTENTION.items()
}


def activation(options: Options) -> str:
  named = dict(gelu="gelu", relu="relu", sqrelu="squared_relu")
  return lookup(named, options.get("act", "gelu"), "activation")


def shapes(module, *args, method=None):
  variables = jax.eval_shape(
    lambda key: module.init(key, *args, method=method), jax.random.key(0)
  )
  return nn.unbox(variables)["params"]


def perceiver(golden: Golden):
  """`PerceiverResampler` of all three code bases."""
  c = filled(golden, RESAMPLER[golden.component])
  mini = golden.component == "flamingo_mini"
  calls = {
    call: _media_of_frames(golden.component, inputs["x"])
    for call, inputs in golden.inputs.items()
  }
  weights = _wide_enough(
    golden.weights, max(x.shape[1] for x in calls.values())
  )
  module = PerceiverResampler(
    width=c["dim"],
    depth=c["depth"],
    num_heads=c["heads"],
    head_dim=c["dim_head"],
    num_latents=c["num_latents"],
    hidden=int(c["dim"] * c["ff_mult"]),
    activation=activation(c),
    max_frames=_rows(weights, "frame_embs", "time_pos_emb"),
    max_media=_rows(weights, *MEDIA_TABLES),
  )
  like = shapes(module, jnp.zeros((1, 1, 1, 1, c["dim"])))
  params = load(weights, rules.resampler(mini), like)
  for call, x in calls.items():
    y = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    yield call, {"y": y[:, 0] if mini else y}


MEDIA_TABLES = ("media_time_embs", "media_pos_emb")


def _media_of_frames(component: str, x: np.ndarray) -> np.ndarray:
  """Inputs as [B M T P D]."""
  if component == "flamingo_mini":  # [B T P D] or [B P D]: one medium's frames.
    return x.reshape(x.shape[0], 1, -1, *x.shape[-2:])
  if component == "flamingo_lucidrains":  # [B M P D] or [B P D]
    return x.reshape(x.shape[0], -1, 1, *x.shape[-2:])
  return x


def _rows(weights, *names: str) -> int:
  return next((len(weights[name]) for name in names if name in weights), 0)


def _wide_enough(weights, media: int):
  """The originals' sum spreads a table of one row over all media."""
  return {
    name: np.repeat(value, media, axis=0)
    if name in MEDIA_TABLES and len(value) == 1
    else value
    for name, value in weights.items()
  }


def text_to_media(golden: Golden, call: str) -> np.ndarray | None:
  """The map that the originals derive from the places of image tokens."""
  inputs = golden.inputs[call]
  if "media_locations" not in inputs:
    return None
  places, length = inputs["media_locations"], inputs["x"].shape[1]
  counts = np.cumsum(places, axis=1)
  if golden.component != "open_flamingo":
    return counts[:, -length:]  # Earlier text is in flamingo-mini's cache.
  other = places.shape[1] != length
  if golden.settings(call).get("use_cached_media", other):
    return np.broadcast_to(counts[:, -1:], (len(places), length))
  return counts


def cross_attention(golden: Golden):
  """`MaskedCrossAttention` and `GatedCrossAttentionBlock`."""
  gated = golden.config["module"] == "GatedCrossAttentionBlock"
  c = filled(golden, (BLOCK if gated else ATTENTION)[golden.component])
  fields = dict(
    width=c["dim"],
    media_width=c.get("dim_visual", c["dim"]),
    num_heads=c["heads"],
    head_dim=c["dim_head"],
    norm_media=False,
    previous=not c.get("only_attend_immediate_media", True),
  )
  if gated:
    hidden = int(c["dim"] * c["ff_mult"])
    module = OriginalBlock(**fields, hidden=hidden, activation=activation(c))
    table = rules.gated_attention(mini=golden.component == "flamingo_mini")
  else:
    module, table = MediaAttention(**fields), rules.media_attention()

  def run(module, x, media, index):
    keys_values = module.keys_values(media)
    if not gated:
      return attend(module, x, keys_values, index), None
    y = module(x, keys_values, index)
    return y, module.attended(x, keys_values, index)

  compiled = jax.jit(functools.partial(module.apply, method=run))
  for call, inputs in golden.inputs.items():
    index = text_to_media(golden, call)
    args = jnp.asarray(inputs["x"]), jnp.asarray(inputs["media"])
    like = shapes(module, *args, None, method=run)
    params = {"params": load(golden.weights, table, like)}
    y, attended = compiled(params, *args, index)
    outputs = {"y": y} | ({"attn": attended} if gated else {})
    if "y_no_locations" in golden.outputs.get(call, {}):
      outputs["y_no_locations"], _ = compiled(params, *args, None)
    yield call, outputs


def feed_forward(golden: Golden):
  """`FeedForward`, with its hidden activations."""
  own = FEED_FORWARD.get(golden.component, {})
  c = filled(golden, dict(dim=NEEDED, mult=4) | own)
  mlp = MLP(int(c["dim"] * c["mult"]), activation(c))
  norm = LayerNorm()
  for call, inputs in golden.inputs.items():
    x = jnp.asarray(inputs["x"])
    like = {"mlp_norm": shapes(norm, x), "mlp": shapes(mlp, x)}
    params = load(golden.weights, rules.feed_forward(), like)
    normed = norm.apply({"params": params["mlp_norm"]}, x)
    hidden = ACTIVATIONS[mlp.activation](normed @ params["mlp"]["up"]["kernel"])
    y = mlp.apply({"params": params["mlp"]}, normed)
    yield call, {"y": y, "hidden": hidden}


MODULES = {
  "PerceiverResampler": perceiver,
  "MaskedCrossAttention": cross_attention,
  "GatedCrossAttentionBlock": cross_attention,
  "FeedForward": feed_forward,
  "Flamingo": whole_model,
}
# A name of its state dict, for files that do not say the module.
SIGNS = {
  "perceiver.latents": "Flamingo",
  "latents": "PerceiverResampler",
  "attn.to_q.weight": "GatedCrossAttentionBlock",
  "to_q.weight": "MaskedCrossAttention",
  "1.weight": "FeedForward",
}


def check(golden: Golden):
  """Yields (call, {output name: array}) for a file of these components."""
  signs = (name for key, name in SIGNS.items() if key in golden.weights)
  name = golden.config.get("module") or next(signs, None)
  run = lookup(MODULES, name, "module")
  config = Named(golden.config, module=name)
  yield from run(dataclasses.replace(golden, config=config))
