"""What an OpenFlamingo checkpoint holds: resampler, blocks, embeddings.

What the original saves has no frozen language model and no vision encoder;
they are converted from their own sources. A dump of the whole model has both.
All sizes are read off the tensors, but for the number of heads, which is 8 in
every published model; a whole language model's settings are not in its
tensors and come from its config.json.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from mmjax.cli import clip_family
from mmjax.cli.shapes import TOKENS, like, shapes_of
from mmjax.connectors.gated_attention import OPEN_FLAMINGO, GatedCrossAttention
from mmjax.connectors.perceiver import PerceiverResampler
from mmjax.convert.configs import LM_CONFIGS, MODEL_TYPES, hugging_face
from mmjax.convert.families import clip, lms
from mmjax.convert.families.flamingo import open_flamingo
from mmjax.convert.families.lms import LAYER_ROOTS, LM_RULES
from mmjax.convert.rules import Rule
from mmjax.lms import LMS

_ROOT, _VISION = "lang_encoder.", "vision_encoder."


def fields(config: Mapping[str, Any], weights) -> dict[str, Any]:
  """Settings of a checkpoint.

  Args:
    config: needed for a whole model only: that of its language model, or one
      that has it as `text_config`; `vision_config` where the encoder needs it.
    weights: tensors by name.
  """
  lm = _language_model(weights)
  if "perceiver.latents" not in weights:
    raise ValueError("The checkpoint has no resampler: no 'perceiver.latents'.")
  whole = {}
  if _depth(weights, LAYER_ROOTS[lm]):
    whole["language_model"] = _lm_fields(lm, config, weights)
  if any(key.startswith(_VISION) for key in weights):
    whole["encoder"] = _encoder_fields(config, weights)
  before = _before(weights, LAYER_ROOTS[lm])
  return whole | dict(
    lm=lm,
    before=before,
    resampler=_resampler_fields(weights),
    block=_block_fields(weights, LAYER_ROOTS[lm], before[0]),
    tables={} if "language_model" in whole else _tables(weights, lm),
  )


def _resampler_fields(weights) -> dict[str, Any]:
  shape = weights.shape
  latents, vision = shape("perceiver.latents")
  layer = re.compile(r"perceiver\.layers\.(\d+)\.")
  tables = ("perceiver.frame_embs", "perceiver.media_time_embs")
  frames, media = (shape(k)[0] if k in weights else 0 for k in tables)
  return dict(
    width=vision,
    depth=len({m[1] for key in weights if (m := layer.match(key))}),
    **_heads("perceiver.layers.0.0.to_q.weight", weights),
    num_latents=latents,
    hidden=shape("perceiver.layers.0.1.1.weight")[0],
    activation="gelu",
    max_frames=frames,
    max_media=media,
  )


def _block_fields(weights, root: str, first: int) -> dict[str, Any]:
  shape = weights.shape
  names = (
    f"{_ROOT}{root}.{first}.gated_cross_attn_layer",
    f"{_ROOT}gated_cross_attn_layers.{first}",
  )
  block = next(name for name in names if f"{name}.attn_gate" in weights)
  return dict(
    width=shape(f"{block}.attn.to_q.weight")[1],
    media_width=shape("perceiver.latents")[1],
    hidden=shape(f"{block}.ff.1.weight")[0],
    **_heads(f"{block}.attn.to_q.weight", weights),
    norm_media=False,
    activation="gelu",
  )


def _heads(name: str, weights) -> dict[str, int]:
  """How the rows of a query's matrix part into heads."""
  rows, heads = weights.shape(name)[0], OPEN_FLAMINGO["num_heads"]
  if rows % heads:
    raise ValueError(
      f"{name} has {rows} rows, which do not part into {heads} heads, the "
      "number that every OpenFlamingo has."
    )
  return dict(num_heads=heads, head_dim=rows // heads)


def _tables(weights, lm: str) -> dict[str, list[int]]:
  """Of a language model that is not all there: what is, by path."""
  rules = LM_RULES[lm](lms.tied(lm, {}))
  plain = [r for r in rules if not r.stacked and r.dims is None]
  return {
    f"lm/{rule.path}": list(weights.shape(_ROOT + name))
    for rule in plain
    for name in (rule.name, *rule.aliases)
    if _ROOT + name in weights
  }


def _lm_fields(lm: str, config: Mapping[str, Any], weights) -> dict[str, Any]:
  """A whole language model's settings; the table may have been resized."""
  config = config.get("text_config", config)
  if not config:
    raise ValueError(
      f"The checkpoint holds a whole {lm} language model, whose tensors do not "
      "tell its number of heads. Put the config.json that it was published "
      "with beside the checkpoint, or name it: --settings FILE"
    )
  kind = config.get("model_type", lm)
  if MODEL_TYPES.get(kind, kind) != lm:
    raise ValueError(
      f"The checkpoint holds a {lm} language model; config.json is of {kind!r}."
    )
  _, read, _ = LM_CONFIGS[lm]
  table = _ROOT + lms.EMBEDDINGS[lm]
  if table not in weights:
    raise ValueError(f"The checkpoint has no {table}.")
  return read(config) | dict(vocab_size=weights.shape(table)[0])


def _encoder_fields(config: Mapping[str, Any], weights) -> dict[str, Any]:
  head = f"{_VISION}proj"
  projection = weights.shape(head)[1] if head in weights else 0
  vision = config.get("vision_config", {})
  settings = clip_family.tower(vision, weights, _VISION, openai=True)
  return settings | dict(projection=projection)


def _depth(weights: Mapping, root: str) -> int:
  """How many layers of the language model there are.

  What the original saves keeps the frozen layers' buffers.
  """
  pattern = re.compile(
    re.escape(_ROOT)
    + rf"(?:{re.escape(root)}\.(\d+)\.decoder_layer|"
    + r"old_decoder_blocks\.(\d+))\."
  )
  kept = [key for key in weights if not ignore(key, {})]
  return len({m[1] or m[2] for key in kept if (m := pattern.match(key))})


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
  latents = like((1, 1, 1, resampler.width))
  x, one = like((1, 1, block.width)), like((1, 1), jnp.int32)
  blocks = shapes_of(block, x, latents, one, method="from_media")
  count = len(settings["before"])
  found = _below("resampler", shapes_of(resampler, like((1, *latents.shape))))
  found |= {f"blocks/{path}": (count, *s) for path, s in blocks.items()}
  found |= {path: tuple(shape) for path, shape in settings["tables"].items()}
  if lm := settings.get("language_model"):
    found |= _below("lm", shapes_of(LMS[settings["lm"]](**lm), *TOKENS))
  if encoder := settings.get("encoder"):
    vit, inputs = clip_family.module(encoder), clip_family.inputs(encoder)
    found |= _below("encoder", shapes_of(vit, *inputs))
  return found


def _below(part: str, shapes: Mapping[str, tuple]) -> dict[str, tuple]:
  return {f"{part}/{path}": shape for path, shape in shapes.items()}


def rules(settings: Mapping[str, Any]) -> Sequence[Rule]:
  """Of the whole model; those that the checkpoint lacks are left out."""
  lm = settings["lm"]
  tied = lms.tied(lm, settings.get("language_model", {}))
  return open_flamingo(lm, tuple(settings["before"]), tied=tied)


def ignore(key: str, settings: Mapping[str, Any]) -> bool:
  """Buffers; what a language model computes anew."""
  del settings
  return any(re.fullmatch(pattern, key) for pattern in lms.BUFFERS) or bool(
    clip.BUFFERS.fullmatch(key)
  )


def copies(settings: Mapping[str, Any]) -> dict[str, str]:
  """A tied head repeats the table of embeddings."""
  lm = settings["lm"]
  if not lms.tied(lm, settings.get("language_model", {})):
    return {}
  table = _ROOT + lms.EMBEDDINGS[lm]
  return {_ROOT + head: table for head in lms.HEADS[lm]}


def config(settings: Mapping[str, Any]) -> dict[str, Any]:
  """The language model's config.json, which a whole model needs to return."""
  if "language_model" not in settings:
    return {}
  return hugging_face(settings["lm"], settings["language_model"])
