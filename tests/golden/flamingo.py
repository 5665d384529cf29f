"""Golden components of Flamingo: modules of three code bases, whole models."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.connectors.gated_attention import GatedCrossAttention, MediaAttention
from mmjax.connectors.perceiver import PerceiverResampler
from mmjax.convert.families import flamingo as rules
from mmjax.convert.rules import load
from mmjax.layers.mlp import ACTIVATIONS, MLP
from mmjax.layers.norm import LayerNorm
from tests.golden.file import Golden

HEADS = dict(heads=8, dim_head=64)


def activation(golden: Golden) -> str:
  return "squared_relu" if golden.constructor.get("act") == "sqrelu" else "gelu"


def shapes(module, *args, method=None):
  variables = jax.eval_shape(
    lambda key: module.init(key, *args, method=method), jax.random.key(0)
  )
  return nn.unbox(variables)["params"]


def perceiver(golden: Golden):
  """`PerceiverResampler` of all three code bases."""
  c = HEADS | golden.constructor
  mini = golden.component == "flamingo_mini"
  module = PerceiverResampler(
    width=c["dim"],
    depth=c.get("depth", 6),
    num_heads=c["heads"],
    head_dim=c["dim_head"],
    num_latents=c.get("num_latents", 64),
    hidden=c["dim"] * c.get("ff_mult", 4),
    activation=activation(golden),
    max_frames=c.get("num_time_embeds" if mini else "max_num_frames") or 0,
    max_media=c.get("max_num_media") or c.get("num_media_embeds") or 0,
  )
  like = shapes(module, jnp.zeros((1, 1, 1, 1, c["dim"])))
  params = load(golden.weights, rules.resampler(mini), like)
  for call, inputs in golden.inputs.items():
    x = inputs["x"]
    if mini:  # [B T P D] or [B P D]: frames of one medium.
      x = x.reshape(x.shape[0], 1, -1, *x.shape[-2:])
    elif golden.component == "flamingo_lucidrains":  # [B M P D] or [B P D]
      x = x.reshape(x.shape[0], -1, 1, *x.shape[-2:])
    y = jax.jit(module.apply)({"params": params}, jnp.asarray(x))
    yield call, {"y": y[:, 0] if mini else y}


def text_to_media(inputs, cached: bool) -> np.ndarray | None:
  """The map that the originals derive from the places of image tokens."""
  if "media_locations" not in inputs:
    return None
  places = inputs["media_locations"]
  if cached:
    count = places.sum(axis=1, keepdims=True)
    return np.broadcast_to(count, inputs["x"].shape[:2])
  return np.cumsum(places, axis=1)


def cross_attention(golden: Golden):
  """`MaskedCrossAttention` and `GatedCrossAttentionBlock`."""
  c = HEADS | golden.constructor
  gated = golden.module == "GatedCrossAttentionBlock"
  fields = dict(
    width=c["dim"],
    media_width=c.get("dim_visual", c["dim"]),
    num_heads=c["heads"],
    head_dim=c["dim_head"],
    norm_media=False,
    previous=not c.get("only_attend_immediate_media", True),
  )
  if gated:
    hidden = c["dim"] * c.get("ff_mult", 4)
    module = GatedCrossAttention(
      **fields, hidden=hidden, activation=activation(golden)
    )
    table = rules.gated_attention(mini=golden.component == "flamingo_mini")
  else:
    module, table = MediaAttention(**fields), rules.media_attention()

  def run(module, x, media, index):
    keys_values = module.keys_values(media)
    y = module(x, keys_values, index)
    return y, module.attended(x, keys_values, index) if gated else y

  calls = golden.inputs
  if golden.component == "flamingo_lucidrains":
    calls = {"": calls[""]}
  for call, inputs in calls.items():
    settings = golden.config.get("calls", {})
    settings = settings.get(call) or next(iter(settings.values()), {})
    index = text_to_media(inputs, settings.get("use_cached_media", False))
    args = jnp.asarray(inputs["x"]), jnp.asarray(inputs["media"])
    given = index if index is not None else np.zeros(args[0].shape[:2], int)
    like = shapes(module, *args, given, method=run)
    params = {"params": load(golden.weights, table, like)}

    compiled = jax.jit(functools.partial(module.apply, method=run))
    y, attended = compiled(params, *args, index)
    outputs = {"y": y} | ({"attn": attended} if gated else {})
    if "y_no_locations" in golden.outputs[call]:
      outputs["y_no_locations"], _ = compiled(params, *args, None)
    yield call, outputs


def feed_forward(golden: Golden):
  """`FeedForward` of flamingo-mini, with its hidden activations."""
  c = golden.constructor
  mlp = MLP(c["dim"] * c.get("mult", 4), activation(golden))
  norm = LayerNorm()
  for call, inputs in golden.inputs.items():
    x = jnp.asarray(inputs["x"])
    like = {"mlp_norm": shapes(norm, x), "mlp": shapes(mlp, x)}
    params = load(golden.weights, rules.feed_forward(), like)
    normed = norm.apply({"params": params["mlp_norm"]}, x)
    hidden = ACTIVATIONS[mlp.activation](normed @ params["mlp"]["up"]["kernel"])
    y = mlp.apply({"params": params["mlp"]}, normed)
    yield call, {"y": y, "hidden": hidden}


def check(golden: Golden):
  """Yields (call, {output name: array}) for a file of these components."""
  from tests.golden.open_flamingo import whole_model

  modules = {
    "PerceiverResampler": perceiver,
    "MaskedCrossAttention": cross_attention,
    "GatedCrossAttentionBlock": cross_attention,
    "FeedForward": feed_forward,
    "Flamingo": whole_model,
  }
  name = golden.config.get("module") or _module_by_weights(golden)
  if name not in modules:
    raise ValueError(f"{golden.path}: no check for module {name!r}.")
  yield from modules[name](golden)


def _module_by_weights(golden: Golden) -> str:
  """The module of a file that does not say it (weights by seed)."""
  keys = golden.weights.keys()
  if "latents" in keys:
    return "PerceiverResampler"
  if any(re.match(r"(attn_gate|alpha_attn)$", k) for k in keys):
    return "GatedCrossAttentionBlock"
  return "MaskedCrossAttention"
