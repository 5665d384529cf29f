"""Settings of Hugging Face's BLIP-2 and InstructBLIP, and their config.json.

Those of a whole model: `lm`, `encoders`, `media` and `media_token`; see
instructblip_family.py.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.config import lookup
from mmjax.convert.configs import (
  activation,
  flag,
  hugging_face,
  nested,
  number,
  only,
  size,
  their_activation,
)
from mmjax.convert.families.instructblip import ENCODER

Fields = dict[str, Any]
_LOG = logging.getLogger(__name__)
# Class to the kind of media, whether the Q-Former reads text, and what the
# parts of its config.json are called.
_CLASSES = {
  "Blip2ForConditionalGeneration": ("image", False, "blip-2", "blip_2"),
  "InstructBlipForConditionalGeneration": (
    "image",
    True,
    "instructblip",
    "instructblip",
  ),
  "InstructBlipVideoForConditionalGeneration": (
    "video",
    True,
    "instructblipvideo",
    "instructblipvideo",
  ),
}
# transformers leaves out of a nested config.json what is its default.
_VISION = dict(
  hidden_size=1408,
  intermediate_size=6144,
  num_hidden_layers=39,
  num_attention_heads=16,
  image_size=224,
  patch_size=14,
)
_QFORMER = dict(
  hidden_size=768,
  intermediate_size=3072,
  num_hidden_layers=12,
  num_attention_heads=12,
  max_position_embeddings=512,
  cross_attention_frequency=2,
)
_QKV_BIAS = re.compile(r"(model\.)?vision_model\..*\.self_attn\.qkv\.bias")
_WORDS = [
  f"{root}embeddings.word_embeddings.weight"
  for root in ("qformer.", "model.qformer.", "")
]


def _class(config: Mapping[str, Any]) -> str:
  """By `architectures`; by `model_type` where there are none."""
  named = config.get("architectures") or [
    name for name, c in _CLASSES.items() if c[2] == config.get("model_type")
  ]
  if not named:
    raise ValueError(
      "config.json names no architecture; expected one of "
      f"{', '.join(_CLASSES)}."
    )
  lookup(_CLASSES, named[0], "architecture of BLIP-2 or InstructBLIP")
  return named[0]


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings off a config.json and the tensors' names and shapes."""
  kind, instructed, _, _ = _CLASSES[_class(config)]
  lm = nested(config.get("text_config", {}), "opt")
  if lm.get("embed_width"):
    raise ValueError(
      f"The language model's embeddings are {lm['embed_width']} wide, and its "
      f"layers {lm['width']}: Hugging Face's model puts media, which have the "
      "width of the layers, among the embeddings, and mixes up their numbers."
    )
  tower = encoder(config, weights)
  own = config.get("qformer_config", {})
  only(own, use_qformer_text_input=False)
  connector = dict(
    name="qformer",
    width=lm["width"],
    features_norm_eps=tower["norm_eps"],
    qformer=qformer(config, weights, tower["width"], reads_text=instructed),
  )
  return dict(
    lm=lm,
    encoders={ENCODER: tower},
    media={kind: dict(encoder=ENCODER, connector=connector)},
    media_token=_media_token(config, kind, lm["vocab_size"]),
  )


def encoder(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings of EVA's tower; only its weights tell of a bias of the keys."""
  config = _VISION | config.get("vision_config", {})
  layers, width = size(config, "num_hidden_layers"), size(config, "hidden_size")
  side, patch = size(config, "image_size"), size(config, "patch_size")
  return dict(
    name="vit",
    width=width,
    num_layers=layers,
    num_heads=size(config, "num_attention_heads"),
    patch=patch,
    image_size=side,
    hidden=size(config, "intermediate_size"),
    activation=activation(config.get("hidden_act", "gelu")),
    keep_class_token=True,
    patch_bias=True,
    qkv_bias=flag(config, "qkv_bias", True),
    key_bias=any(_key_biases(weights)),
    pre_norm=False,
    post_norm=False,
    norm_eps=number(config, "layer_norm_eps", 1e-6),
  )


def _key_biases(weights: Mapping):
  """Of every layer, whether the part of the keys is anything but zero."""
  for name in filter(_QKV_BIAS.fullmatch, weights):
    bias = np.asarray(weights[name])
    third = bias.size // 3
    yield bool(bias.reshape(-1)[third : 2 * third].any())


def qformer(
  config: Mapping[str, Any],
  weights: Mapping,
  features_width: int,
  *,
  reads_text: bool,
) -> Fields:
  """Settings of the Q-Former; the table of words tells its own size.

  Some files have a row more than their config.json says.
  """
  queries = size({"num_query_tokens": 32} | config, "num_query_tokens")
  config = _QFORMER | config.get("qformer_config", {})
  only(config, hidden_act="gelu", position_embedding_type="absolute")
  text = dict(vocab_size=0)
  if reads_text:
    name = next((name for name in _WORDS if name in weights), None)
    rows = weights.shape(name)[0] if name else size(config, "vocab_size")
    if rows != config.get("vocab_size", rows):
      _LOG.warning(
        "%s has %d rows, config.json says %s: taking those of the weights.",
        name,
        rows,
        config["vocab_size"],
      )
    positions = size(config, "max_position_embeddings")
    text = dict(vocab_size=rows, max_positions=positions)
  return dict(
    width=size(config, "hidden_size"),
    num_layers=size(config, "num_hidden_layers"),
    num_heads=size(config, "num_attention_heads"),
    cross_every=size(config, "cross_attention_frequency"),
    hidden=size(config, "intermediate_size"),
    norm_eps=number(config, "layer_norm_eps", 1e-12),
    num_queries=queries,
    features_width=features_width,
    **text,
  )


def _media_token(config: Mapping[str, Any], kind: str, rows: int) -> int | None:
  """The id at the places of media; who puts them in front has none."""
  token = config.get(f"{kind}_token_index", config.get(f"{kind}_token_id"))
  if token is None or type(token) is int and 0 <= token < rows:
    return token
  raise ValueError(
    f"config.json has {kind}_token_index={token!r}, expected a row of the "
    f"{rows} of the vocabulary."
  )


def config(fields: Fields) -> dict[str, Any]:
  """A config.json of such settings."""
  ((kind, entry),) = fields["media"].items()
  tower, reader = fields["encoders"][ENCODER], entry["connector"]["qformer"]
  instructed = bool(reader["vocab_size"])
  architecture, (*_, name, part) = next(
    (a, c) for a, c in _CLASSES.items() if c[:2] == (kind, instructed)
  )
  lm = dict(fields["lm"])
  return parts_of_config(tower, reader, part) | {
    "model_type": name,
    "architectures": [architecture],
    "text_config": hugging_face(lm.pop("name"), lm),
    f"{kind}_token_index": fields["media_token"],
    "use_decoder_only_language_model": True,
  }


def parts_of_config(tower: Fields, reader: Fields, part: str) -> dict[str, Any]:
  """What a config.json says of tower and Q-Former, of the model types PART_."""
  return {
    "vision_config": _vision_config(tower, part),
    "qformer_config": _qformer_config(reader, part),
    "num_query_tokens": reader["num_queries"],
  }


def _vision_config(encoder: Fields, part: str) -> dict[str, Any]:
  return dict(
    model_type=f"{part}_vision_model",
    hidden_size=encoder["width"],
    intermediate_size=encoder["hidden"],
    num_hidden_layers=encoder["num_layers"],
    num_attention_heads=encoder["num_heads"],
    image_size=encoder["image_size"],
    patch_size=encoder["patch"],
    hidden_act=their_activation(encoder["activation"]),
    layer_norm_eps=encoder["norm_eps"],
    qkv_bias=encoder["qkv_bias"],
  )


def _qformer_config(reader: Fields, part: str) -> dict[str, Any]:
  made = dict(
    model_type=f"{part}_qformer",
    hidden_size=reader["width"],
    intermediate_size=reader["hidden"],
    num_hidden_layers=reader["num_layers"],
    num_attention_heads=reader["num_heads"],
    cross_attention_frequency=reader["cross_every"],
    encoder_hidden_size=reader["features_width"],
    layer_norm_eps=reader["norm_eps"],
    hidden_act="gelu",
  )
  if rows := reader["vocab_size"]:
    positions = reader["max_positions"]
    made |= dict(vocab_size=rows, max_position_embeddings=positions)
  return made
