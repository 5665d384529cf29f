"""What an OpenFlamingo checkpoint holds: resampler, blocks, embeddings.

The frozen language model and the vision encoder are not in it; they are
converted from their own sources. All sizes are read off the tensors, but for
the number of heads, which is 8 in every published model.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import tree
from mmjax.connectors.gated_attention import OPEN_FLAMINGO, GatedCrossAttention
from mmjax.connectors.perceiver import PerceiverResampler
from mmjax.convert.families.flamingo import open_flamingo
from mmjax.convert.families.lms import LAYER_ROOTS, LM_RULES
from mmjax.convert.rules import Rule

_ROOT = "lang_encoder."


def fields(config: Mapping[str, Any], weights) -> dict[str, Any]:
  """Settings of a checkpoint; `config` is not needed."""
  del config
  lm = _language_model(weights)
  before = _before(weights, LAYER_ROOTS[lm])
  blocks = (
    f"{_ROOT}{LAYER_ROOTS[lm]}.{before[0]}.gated_cross_attn_layer",
    f"{_ROOT}gated_cross_attn_layers.{before[0]}",
  )
  block = next(b for b in blocks if f"{b}.attn_gate" in weights)
  shape = weights.shape
  if "perceiver.latents" not in weights:
    raise ValueError("The checkpoint has no resampler: no 'perceiver.latents'.")
  latents, vision = shape("perceiver.latents")
  layer = re.compile(r"perceiver\.layers\.(\d+)\.")
  tables = ("perceiver.frame_embs", "perceiver.media_time_embs")
  frames, media = (shape(k)[0] if k in weights else 0 for k in tables)
  heads = OPEN_FLAMINGO["num_heads"]
  plain = [r for r in LM_RULES[lm](False) if not r.stacked and r.dims is None]
  return dict(
    lm=lm,
    before=before,
    resampler=dict(
      width=vision,
      depth=len({m[1] for key in weights if (m := layer.match(key))}),
      num_heads=heads,
      head_dim=shape("perceiver.layers.0.0.to_q.weight")[0] // heads,
      num_latents=latents,
      hidden=shape("perceiver.layers.0.1.1.weight")[0],
      activation="gelu",
      max_frames=frames,
      max_media=media,
    ),
    block=dict(
      width=shape(f"{block}.attn.to_q.weight")[1],
      media_width=vision,
      hidden=shape(f"{block}.ff.1.weight")[0],
      num_heads=heads,
      head_dim=shape(f"{block}.attn.to_q.weight")[0] // heads,
      norm_media=False,
      activation="gelu",
    ),
    tables={
      f"lm/{rule.path}": list(shape(_ROOT + name))
      for rule in plain
      for name in (rule.name, *rule.aliases)
      if _ROOT + name in weights
    },
  )


def _language_model(weights: Mapping) -> str:
  """The family whose names the checkpoint uses."""
  for name, root in LAYER_ROOTS.items():
    known = {_ROOT + r.name for r in LM_RULES[name](True) if not r.stacked}
    if any(k.startswith(f"{_ROOT}{root}.") or k in known for k in weights):
      return name
  raise ValueError(
    "No language model is named: expected keys such as lang_encoder."
    f"{LAYER_ROOTS['mpt']}.0.gated_cross_attn_layer.attn_gate, got such as "
    f"{list(weights)[:3]}."
  )


def _before(weights: Mapping, root: str) -> list[int]:
  """The layers before which there are blocks."""
  pattern = re.compile(
    re.escape(_ROOT)
    + rf"(?:{re.escape(root)}\.(\d+)\.gated_cross_attn_layer|"
    + r"gated_cross_attn_layers\.(\d+))\.attn_gate"
  )
  found = [m for key in weights if (m := pattern.fullmatch(key))]
  if not found:
    raise ValueError("The checkpoint has no gated blocks: no 'attn_gate'.")
  return sorted({int(m[1] or m[2]) for m in found})


def shapes(settings: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Of all paths that the checkpoint fills."""
  resampler = PerceiverResampler(**settings["resampler"])
  block = GatedCrossAttention(**settings["block"])
  width, vision = settings["block"]["width"], resampler.width
  media = jnp.zeros((1, 1, 1, vision))
  inner = _shapes(resampler, media[:, None])
  one = _shapes(
    block,
    jnp.zeros((1, 1, width)),
    media,
    jnp.ones((1, 1), jnp.int32),
    method="from_media",
  )
  count = len(settings["before"])
  return (
    {f"resampler/{path}": shape for path, shape in inner.items()}
    | {f"blocks/{path}": (count, *shape) for path, shape in one.items()}
    | {path: tuple(shape) for path, shape in settings["tables"].items()}
  )


def _shapes(module: nn.Module, *inputs, method=None):
  like = jax.eval_shape(
    lambda key: module.init(key, *inputs, method=method), jax.random.key(0)
  )
  flat = tree.flatten(nn.unbox(like)["params"])
  return {path: tuple(x.shape) for path, x in flat.items()}


def rules(settings: Mapping[str, Any]) -> Sequence[Rule]:
  """Of the whole model; those that the checkpoint lacks are left out."""
  return open_flamingo(settings["lm"], tuple(settings["before"]))
