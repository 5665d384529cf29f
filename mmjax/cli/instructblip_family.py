"""BLIP-2 and InstructBLIP for `mmjax convert`, Hugging Face's and LAVIS'.

Settings are those of systems/x_instructblip.py's parts (`lm`, `encoders` and
`media`), with the `layout` of the source and the id of the places of media.
Hugging Face's folders are whole. LAVIS' files hold what was trained, and some
the tower; the language model is a folder of its own there.

Hugging Face's models have one eps for the tower's norms and for the norm behind
it, published as 1e-6; LAVIS has 1e-5 for the last. Ours is a field of the
connector, and what a layout cannot say is warned of.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.cli import lavis_settings
from mmjax.cli.shapes import TOKENS, like, shapes_of
from mmjax.config import build, lookup
from mmjax.connectors import CONNECTORS
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
from mmjax.convert.families import eva, instructblip, lms, qformer
from mmjax.convert.families.instructblip import ENCODER, PROJECTIONS
from mmjax.convert.rules import Rule
from mmjax.encoders import ENCODERS
from mmjax.lms import LMS

Fields = dict[str, Any]
_LOG = logging.getLogger(__name__)
HUGGING_FACE, ORIGINAL = "hf", "original"
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
_WORDS = "embeddings.word_embeddings.weight"
_KEY_BIAS = f"encoders_{ENCODER}/layers/attention/key/bias"
_LAVIS_EPS = 1e-5


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings off a config.json and the tensors' names and shapes."""
  theirs = not any(key.startswith("Qformer.") for key in weights)
  return (_hugging_face if theirs else _original)(config, weights)


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


def _hugging_face(config: Mapping[str, Any], weights: Mapping) -> Fields:
  kind, instructed, _, _ = _CLASSES[_class(config)]
  lm = nested(config.get("text_config", {}), "opt")
  if lm.get("embed_width"):
    raise ValueError(
      f"The language model's embeddings are {lm['embed_width']} wide, and its "
      f"layers {lm['width']}: Hugging Face's model puts media, which have the "
      "width of the layers, among the embeddings, and mixes up their numbers."
    )
  encoder = _encoder(_VISION | config.get("vision_config", {}), weights)
  reader = _QFORMER | config.get("qformer_config", {})
  connector = dict(
    name="qformer",
    width=lm["width"],
    features_norm_eps=encoder["norm_eps"],
    qformer=_qformer(reader, weights, instructed)
    | dict(
      num_queries=size({"num_query_tokens": 32} | config, "num_query_tokens"),
      features_width=encoder["width"],
    ),
  )
  return dict(
    layout=HUGGING_FACE,
    lm=lm,
    encoders={ENCODER: encoder},
    media={kind: dict(encoder=ENCODER, connector=connector)},
    media_token=_media_token(config, kind, lm["vocab_size"]),
  )


def _encoder(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings of EVA's tower; only its weights tell of a bias of the keys."""
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


def _qformer(
  config: Mapping[str, Any], weights: Mapping, instructed: bool
) -> Fields:
  """Settings of the Q-Former; the table of words tells its own size.

  Some files have a row more than their config.json says.
  """
  only(config, hidden_act="gelu", position_embedding_type="absolute")
  only(config, use_qformer_text_input=False)
  text = dict(vocab_size=0)
  if instructed:
    names = [n for r in ("qformer.", "model.qformer.") if (n := r + _WORDS)]
    name = next((n for n in names if n in weights), None)
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


def _original(config: Mapping[str, Any], weights: Mapping) -> Fields:
  heads = {key.split(".")[0] for key in weights}
  if "t5_proj" in heads:
    raise ValueError(
      "The language model is T5 (the file has t5_proj); known: "
      f"{', '.join(PROJECTIONS)}."
    )
  projection = next((p for p in PROJECTIONS.values() if p in heads), None)
  if projection is None:
    raise ValueError(
      f"There is no {' or '.join(PROJECTIONS.values())}. The file of BLIP-2's "
      "first stage is of --family blip2."
    )
  encoders = {}
  if "visual_encoder" in heads:
    encoders[ENCODER] = dict(name="vit") | lavis_settings.eva(config, weights)
  width = weights.shape(f"{projection}.bias")[0]
  connector = dict(
    name="qformer",
    width=width,
    features_norm_eps=_LAVIS_EPS,
    qformer=lavis_settings.qformer(config, weights),
  )
  return dict(
    layout=ORIGINAL,
    lm=None,
    encoders=encoders,
    media={
      "image": dict(connector=connector, encoder=ENCODER if encoders else None)
    },
    projection=projection,
  )


def shapes(fields: Fields) -> dict[str, tuple[int, ...]]:
  """Of all paths that the source fills; see systems/x_instructblip.py."""
  found: dict[str, tuple[int, ...]] = {}
  for name, entry in fields["encoders"].items():
    side = entry["image_size"]
    made = shapes_of(build(ENCODERS, entry), like((1, side, side, 3)))
    found |= {f"encoders_{name}/{path}": shape for path, shape in made.items()}
  found |= of_connectors(fields["media"])
  if fields["lm"]:
    made = shapes_of(build(LMS, fields["lm"]), *TOKENS)
    found |= {f"lm/{path}": shape for path, shape in made.items()}
  return found


def of_connectors(media: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """Shapes of the connectors of all kinds of media."""
  found = {}
  for kind, entry in media.items():
    connector = build(CONNECTORS, entry["connector"])
    features = like((1, 1, 1, 1, connector.features_width))
    made = shapes_of(connector, features)
    found |= {
      f"connectors_{kind}/{path}": shape for path, shape in made.items()
    }
  return found


def _parts(fields: Fields) -> tuple[str, Fields, Fields | None]:
  """The kind of media, its connector and its encoder."""
  ((kind, entry),) = fields["media"].items()
  return kind, entry["connector"], fields["encoders"].get(ENCODER)


def rules(fields: Fields) -> Sequence[Rule]:
  """Of the layout; those of parts that are not there are left out."""
  kind, connector, encoder = _parts(fields)
  reader = connector["qformer"]
  depth = (reader["num_layers"], reader["cross_every"])
  if fields["layout"] == ORIGINAL:
    return instructblip.lavis(kind, *depth, fields["projection"])
  name = fields["lm"]["name"]
  return instructblip.hugging_face(
    kind,
    name,
    lms.tied(name, fields["lm"]),
    *depth,
    instructed=bool(reader["vocab_size"]),
    key_bias=encoder["key_bias"],
  )


def ignore(key: str, fields: Fields) -> bool:
  """Buffers."""
  del fields
  return any(p.fullmatch(key) for p in (eva.BUFFERS, qformer.BUFFERS)) or (
    lms.is_buffer(key)
  )


def copies(fields: Fields) -> dict[str, str]:
  """A tied head repeats the table of embeddings, under any of its names."""
  lm = fields["lm"]
  return (
    lms.nested_copies(lm["name"]) if lm and lms.tied(lm["name"], lm) else {}
  )


def to_layout(
  fields: Mapping[str, Any], arrays: Mapping[str, Any], layout: str
) -> tuple[Fields, dict[str, Any]]:
  """Settings and arrays as a layout has them.

  Raises:
    ValueError: for what the layout cannot hold.
  """
  fields, arrays = dict(fields), dict(arrays)
  _, connector, encoder = _parts(fields)
  eps = connector["features_norm_eps"]
  if layout == HUGGING_FACE:
    if fields["layout"] == ORIGINAL:
      raise ValueError(
        "Hugging Face's models are whole; LAVIS' files have no language model. "
        "Write --layout original."
      )
    _warn_of_eps(eps, encoder["norm_eps"], "Hugging Face's model")
    return fields, arrays
  _warn_of_eps(eps, _LAVIS_EPS, "LAVIS")
  if fields["layout"] == HUGGING_FACE:
    _LOG.warning("LAVIS has the language model in a folder of its own.")
    arrays = {k: x for k, x in arrays.items() if not k.startswith("lm/")}
    name = PROJECTIONS.get(fields["lm"]["name"], "llm_proj")
    fields |= dict(layout=ORIGINAL, lm=None, projection=name)
  if (bias := arrays.pop(_KEY_BIAS, None)) is not None and np.any(bias):
    raise ValueError(
      "The tower's keys have a bias with numbers up to "
      f"{np.abs(np.asarray(bias, np.float64)).max():g}; LAVIS' have none. "
      "Write --layout hf."
    )
  return fields, arrays


def _warn_of_eps(ours: float, theirs: float, who: str) -> None:
  if ours != theirs:
    _LOG.warning(
      "The norm behind the tower has the eps %g; %s takes %g.",
      ours,
      who,
      theirs,
    )


def config(fields: Fields) -> dict[str, Any]:
  """A config.json of the layout; of LAVIS', what no tensor tells."""
  kind, connector, encoder = _parts(fields)
  reader = connector["qformer"]
  if fields["layout"] == ORIGINAL:
    return lavis_settings.heads_of(encoder, reader)
  instructed = bool(reader["vocab_size"])
  architecture, (*_, name, part) = next(
    (a, c) for a, c in _CLASSES.items() if c[:2] == (kind, instructed)
  )
  lm = dict(fields["lm"])
  return {
    "model_type": name,
    "architectures": [architecture],
    "text_config": hugging_face(lm.pop("name"), lm),
    "vision_config": _vision_config(encoder, part),
    "qformer_config": _qformer_config(reader, part),
    "num_query_tokens": reader["num_queries"],
    f"{kind}_token_index": fields["media_token"],
    "use_decoder_only_language_model": True,
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
