"""Settings of LAVIS' encoders and Q-Formers, off the tensors of its files.

How many heads there are no tensor tells. Published Q-Formers have heads of 64
features, EVA's tower heads of 88; for others `--settings FILE` gives

  {"qformer_config": {"num_attention_heads": N},
   "vision_config": {"num_attention_heads": N}}
"""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.cli.shapes import depth, heads, require
from mmjax.encoders.vit import EVA

Fields = dict[str, Any]
_ASKED = '{"%s": {"num_attention_heads": N}}'
# LAVIS' eps of EVA's norms; that of the norm behind it is torch's default.
_EVA_EPS = 1e-6


def eva(
  config: Mapping[str, Any], weights: Mapping, root: str = "visual_encoder."
) -> Fields:
  """Settings of a `ViT`, which is EVA's.

  A file of EVA's own may hold the block that LAVIS cuts off: then the tokens
  are those before it.
  """
  patches, positions, matrix = require(
    weights,
    {
      f"{root}patch_embed.proj.weight": 4,
      f"{root}pos_embed": 3,
      f"{root}blocks.0.mlp.fc1.weight": 2,
    },
  )
  layers = depth(weights, f"{root}blocks.")
  given = config.get("vision_config", {})
  return dict(
    num_layers=layers,
    num_heads=heads(given, patches[0], 88, _ASKED % "vision_config"),
    width=patches[0],
    patch=patches[-1],
    image_size=patches[-1] * round(max(positions[1] - 1, 0) ** 0.5),
    hidden=matrix[0],
    activation="gelu",
    keep_class_token=True,
    patch_bias=True,
    qkv_bias=f"{root}blocks.0.attn.q_bias" in weights,
    key_bias=False,
    pre_norm=False,
    post_norm=False,
    norm_eps=_EVA_EPS,
    output_layer=-1 - max(0, layers - EVA["g/14"]["num_layers"]),
  )


def qformer(
  config: Mapping[str, Any], weights: Mapping, root: str = ""
) -> Fields:
  """Settings of a `QFormer`.

  Args:
    config: of what no tensor tells.
    weights: tensors by name.
    root: what names begin with, such as `audio_`.
  """
  body, layer = f"{root}Qformer.bert.", f"{root}Qformer.bert.encoder.layer."
  queries, matrix, keys = require(
    weights,
    {
      f"{root}query_tokens": 3,
      f"{layer}0.intermediate_query.dense.weight": 2,
      f"{layer}0.crossattention.self.key.weight": 2,
    },
  )
  words = f"{body}embeddings.word_embeddings.weight"
  places = f"{body}embeddings.position_embeddings.weight"
  text = {}
  if words in weights:
    (rows, _), (most, _) = require(weights, {words: 2, places: 2})
    text = dict(vocab_size=rows, max_positions=most)
  layers, given = depth(weights, layer), config.get("qformer_config", {})
  return dict(
    width=queries[-1],
    num_layers=layers,
    num_heads=heads(given, queries[-1], 64, _ASKED % "qformer_config"),
    num_queries=queries[1],
    cross_every=_every(weights, layer, layers),
    hidden=matrix[0],
    features_width=keys[1],
    **(text or dict(vocab_size=0)),
  )


def _every(weights: Mapping, layer: str, layers: int) -> int:
  """Every how many layers read the features, from the first on."""
  named = re.compile(re.escape(layer) + r"(\d+)\.crossattention\.")
  reading = sorted({int(m[1]) for k in weights if (m := named.match(k))})
  every = reading[1] if len(reading) > 1 else layers
  if reading != list(range(0, layers, every)):
    raise ValueError(
      f"Of the {layers} layers of {layer} {reading} read the features; "
      "expected the first, and then every so many."
    )
  return every


def heads_of(encoder: Fields | None, reader: Fields) -> Fields:
  """What `--settings` says of them, for files that are read again."""
  told = dict(qformer_config=dict(num_attention_heads=reader["num_heads"]))
  if encoder:
    told["vision_config"] = dict(num_attention_heads=encoder["num_heads"])
  return told
