"""LLaVA for `mmjax convert`: whole models, without a tower, projectors alone.

Settings are those of systems/llava.py's parts, with the `layout` of the source
and what a conversation with the model needs to know.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.cli import clip_family
from mmjax.cli.shapes import TOKENS, like, shapes_of
from mmjax.connectors.projection import Projection
from mmjax.convert.configs import (
  LM_CONFIGS,
  NESTED,
  activation,
  hugging_face,
  nested,
  their_activation,
)
from mmjax.convert.families import clip, llava, lms
from mmjax.convert.read import Joined, Renamed
from mmjax.convert.rules import Rule
from mmjax.lms import LMS

Fields = dict[str, Any]
_LOG = logging.getLogger(__name__)
HUGGING_FACE, ORIGINAL = "hf", "original"
_ARCHITECTURES = {
  "LlavaForConditionalGeneration": HUGGING_FACE,
  "LlavaLlamaForCausalLM": ORIGINAL,
  "LlavaMptForCausalLM": ORIGINAL,
  "LlavaMPTForCausalLM": ORIGINAL,
}
_PROJECTORS = ("model.mm_projector", "transformer.mm_projector")
# The table of embeddings that comes with a projector, where rows trained.
_TABLE = "model.embed_tokens.weight"


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """Settings off a config.json and the tensors' names and shapes."""
  layout = _layout(config, weights)
  return (_hugging_face if layout == HUGGING_FACE else _original)(
    config, weights
  )


def _layout(config: Mapping[str, Any], weights: Mapping) -> str:
  """By `architectures`; `model_type` is "llava" in files of both layouts."""
  named = {_ARCHITECTURES.get(a) for a in config.get("architectures") or ()}
  found = next(iter(named - {None}), None)
  theirs = any("multi_modal_projector." in key for key in weights)
  by_names = HUGGING_FACE if theirs else ORIGINAL
  if found not in (None, by_names):
    raise ValueError(
      f"config.json is of {config['architectures'][0]}, but the names of the "
      f"weights are of the other layout, such as {list(weights)[:2]}."
    )
  return by_names


def _hugging_face(config: Mapping[str, Any], weights: Mapping) -> Fields:
  text = dict(config.get("text_config", {}))
  tied = config.get("tie_word_embeddings", False)
  text["tie_word_embeddings"] = tied or text.get("tie_word_embeddings", False)
  lm = nested(text, "llama")
  root = next((r for r in llava.TOWERS if _begins(weights, r)), None)
  if root is None:
    raise ValueError(
      f"There is no vision tower: no names begin with {llava.TOWERS[0]!r}."
    )
  vision = _vision(config.get("vision_config", {}))
  encoder = clip_family.tower(vision, weights, root, openai=False)
  names = [k for k in weights if re.search(r"projector\.linear_1\.bias$", k)]
  return dict(
    layout=HUGGING_FACE,
    features=encoder["width"],
    encoder=encoder | _features(config, encoder["num_layers"]),
    connector=dict(
      width=lm["width"],
      depth=2,
      activation=activation(config.get("projector_hidden_act", "gelu")),
      use_bias=bool(names),
    ),
    lm=lm,
    image_token=_image_token(config, lm["vocab_size"]),
    aspect="pad",
  )


def _image_token(config: Mapping[str, Any], rows: int) -> int:
  """The id at the places of an image, by the name of transformers 4 or 5."""
  default = config.get("image_token_id", NESTED["llama"]["vocab_size"])
  token = config.get("image_token_index", default)
  if type(token) is not int or not 0 <= token < rows:
    raise ValueError(
      f"config.json has the image token {token!r}, expected a row of the "
      f"{rows} of the vocabulary."
    )
  return token


def _begins(weights: Mapping, root: str) -> bool:
  return (
    any(key.startswith(f"{root}embeddings.") for key in weights) or not root
  )


def _vision(config: Mapping[str, Any]) -> Mapping[str, Any]:
  kind = config.get("model_type", "clip_vision_model")
  if kind not in ("clip_vision_model", "clip"):
    raise ValueError(f"The vision tower is {kind!r}; only CLIP's is known.")
  # CLIP's default, which a nested config.json leaves out.
  return {"num_attention_heads": 12, **config} if config else config


def _features(config: Mapping[str, Any], depth: int) -> dict[str, Any]:
  """Which layer's tokens are read, and which of them."""
  layer = config.get("vision_feature_layer", -2)
  if type(layer) is not int or not -depth <= layer <= depth or layer == 0:
    raise ValueError(
      f"vision_feature_layer is {layer!r}; expected one layer of {depth}, "
      "counted from 1 or from -1."
    )
  chosen = config.get("vision_feature_select_strategy", "default")
  if chosen not in ("default", "full"):
    raise ValueError(f"vision_feature_select_strategy is {chosen!r}.")
  return dict(
    output_layer=layer if layer < 0 else layer - depth - 1,
    keep_class_token=chosen == "full",
  )


def _original(config: Mapping[str, Any], weights: Mapping) -> Fields:
  found = [p for p in _PROJECTORS if any(k.startswith(p) for k in weights)]
  if not found:
    raise ValueError(
      "There is no projector: expected names such as "
      f"{_PROJECTORS[0]}.0.weight, got such as {list(weights)[:3]}."
    )
  lm = "mpt" if found[0].startswith("transformer.") else "llama"
  connector, features = _original_connector(found[0], config, weights)
  made = dict(
    layout=ORIGINAL,
    features=features,
    encoder=None,
    connector=connector,
    lm=None,
    family=lm,
    image_token=None,
    aspect=config.get("image_aspect_ratio", "square"),
  )
  chosen = config.get("mm_vision_select_feature", "patch")
  vision = dict(
    vision_feature_layer=config.get("mm_vision_select_layer", -2),
    vision_feature_select_strategy="full"
    if chosen == "cls_patch"
    else "default",
  )
  root = llava.original_tower(lm)
  if _begins(weights, root):
    settings = config.get("vision_config", {})
    encoder = clip_family.tower(settings, weights, root, openai=False)
    made["encoder"] = encoder | _features(vision, encoder["num_layers"])
  if any(".layers.0." in k or ".blocks.0." in k for k in _language(weights)):
    read = LM_CONFIGS[lm][1](config)
    rows = weights.shape(lms.EMBEDDINGS[lm])[0]
    made["lm"] = dict(name=lm) | read | dict(vocab_size=rows)
  elif _TABLE in weights:
    made["table"] = list(weights.shape(_TABLE))
  return made


def _language(weights: Mapping) -> list[str]:
  return [k for k in weights if "vision_tower" not in k]


def _original_connector(
  root: str, config: Mapping[str, Any], weights: Mapping
) -> tuple[dict[str, Any], int]:
  """Settings of the projector, and the width of what it reads."""
  layers = [
    k for k in weights if re.match(re.escape(root) + r"\.\d+\.weight", k)
  ]
  depth = len(layers) or 1
  last = f"{root}.{2 * (depth - 1)}.weight" if layers else f"{root}.weight"
  if last not in weights:
    raise ValueError(f"The projector has no {last}; it has {sorted(layers)}.")
  kind = config.get("mm_projector_type")
  known = "linear" if depth == 1 else f"mlp{depth}x_gelu"
  if kind not in (None, known):
    raise ValueError(
      f"config.json has mm_projector_type={kind!r}, but the projector has "
      f"{depth} linear layers, which is {known!r}."
    )
  first = f"{root}.0.weight" if layers else last
  if first not in weights:
    raise ValueError(f"The projector has no {first}; it has {sorted(layers)}.")
  width, features = weights.shape(last)[0], weights.shape(first)[1]
  settings = dict(width=width, depth=depth, activation="gelu", use_bias=True)
  return settings, features


def with_tower(weights: Mapping, tower: Mapping) -> Mapping:
  """The original's weights with a CLIP where it has its vision tower.

  Args:
    weights: of the original, without a tower.
    tower: of a CLIPModel or CLIPVisionModel of Hugging Face.
  """
  root = "vision_model."
  if not any(key.startswith(root) for key in tower):
    root = ""
  if not _begins(tower, root):
    raise ValueError(
      "The tower is no CLIP of Hugging Face: expected names such as "
      f"vision_model.embeddings.class_embedding, got such as {list(tower)[:3]}."
    )
  if any("vision_tower." in key for key in weights):
    raise ValueError("The checkpoint has a vision tower; leave out --tower.")
  mpt = any(key.startswith("transformer.") for key in weights)
  place = llava.original_tower("mpt" if mpt else "llama")

  def rename(key: str) -> str | None:
    inside = key.startswith(root) and "visual_projection" not in key
    return place + key.removeprefix(root) if inside else None

  return Joined(weights, Renamed(tower, rename))


def shapes(fields: Fields) -> dict[str, tuple[int, ...]]:
  """Of all paths that the source fills."""
  found: dict[str, tuple[int, ...]] = {}
  if encoder := fields["encoder"]:
    module = clip_family.module(encoder)
    made = shapes_of(module, *clip_family.inputs(encoder))
    found |= {f"encoder/{path}": shape for path, shape in made.items()}
  connector = Projection(**fields["connector"])
  made = shapes_of(connector, like((1, 1, 1, 1, fields["features"])))
  found |= {f"connector/{path}": shape for path, shape in made.items()}
  if fields["lm"]:
    lm = dict(fields["lm"])
    made = shapes_of(LMS[lm.pop("name")](**lm), *TOKENS)
    found |= {f"lm/{path}": shape for path, shape in made.items()}
  elif "table" in fields:
    found["lm/embedding/table"] = tuple(fields["table"])
  return found


def rules(fields: Fields) -> Sequence[Rule]:
  """Of the layout; those of parts that are not there are left out."""
  name = _family(fields)
  tied = lms.tied(name, fields["lm"] or {})
  if fields["layout"] == HUGGING_FACE:
    return llava.hugging_face(name, tied)
  return llava.original(name, tied, fields["connector"]["depth"])


def _family(fields: Fields) -> str:
  return fields["lm"]["name"] if fields["lm"] else fields["family"]


def ignore(key: str, fields: Fields) -> bool:
  """Buffers, and a vision tower's head."""
  del fields
  return lms.is_buffer(key) or bool(clip.BUFFERS.fullmatch(key))


def copies(fields: Fields) -> dict[str, str]:
  """A tied head repeats the table of embeddings, under any of its names."""
  name = _family(fields)
  if not fields["lm"] or not lms.tied(name, fields["lm"]):
    return {}
  if fields["layout"] == ORIGINAL:
    return dict.fromkeys(lms.HEADS[name], lms.EMBEDDINGS[name])
  return lms.nested_copies(name)


def config(fields: Fields) -> dict[str, Any]:
  """A config.json of the layout; a projector alone has none."""
  if not fields["lm"]:
    return {}
  if fields["layout"] == ORIGINAL:
    return _original_config(fields)
  lm = dict(fields["lm"])
  encoder = fields["encoder"]
  side = encoder["image_size"] // encoder["patch"]
  return dict(
    model_type="llava",
    architectures=["LlavaForConditionalGeneration"],
    text_config=hugging_face(lm.pop("name"), lm),
    vision_config=clip_family.config(encoder | dict(root="", projection=0)),
    projector_hidden_act=their_activation(fields["connector"]["activation"]),
    multimodal_projector_bias=fields["connector"]["use_bias"],
    vision_feature_layer=encoder["output_layer"],
    vision_feature_select_strategy=_strategy(encoder, "full", "default"),
    image_token_index=fields["image_token"],
    image_seq_length=side**2 + encoder["keep_class_token"],
    tie_word_embeddings=lms.tied(_family(fields), lm),
  )


def _strategy(encoder: Fields, with_class: str, without: str) -> str:
  return with_class if encoder["keep_class_token"] else without


def _original_config(fields: Fields) -> dict[str, Any]:
  lm, depth = dict(fields["lm"]), fields["connector"]["depth"]
  name = lm.pop("name")
  made = hugging_face(name, lm) | dict(
    model_type=f"llava_{name}",
    architectures=[f"Llava{name.capitalize()}ForCausalLM"],
    use_mm_proj=True,
    mm_hidden_size=fields["features"],
    mm_projector_type="linear" if depth == 1 else f"mlp{depth}x_gelu",
    mm_use_im_start_end=False,
    mm_use_im_patch_token=False,
    image_aspect_ratio=fields["aspect"],
  )
  if encoder := fields["encoder"]:
    made |= dict(
      mm_vision_select_layer=encoder["output_layer"],
      mm_vision_select_feature=_strategy(encoder, "cls_patch", "patch"),
    )
  return made
