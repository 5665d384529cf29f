"""What `mmjax convert` knows of each family of weights.

A family says how to read its settings, which of our modules they describe, by
which rules names correspond, and which config.json goes with an export.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmjax.cli import (
  blip2_family,
  clip_family,
  encoder_families,
  flamingo_family,
  instructblip_family,
  llava_family,
  llava_layouts,
  nfnet_family,
  retrieval_family,
  whisper_family,
  x_instructblip_family,
)
from mmjax.cli.shapes import TOKENS, like, shapes_of
from mmjax.convert.configs import LM_CONFIGS, MODEL_TYPES, hugging_face
from mmjax.convert.families import efficientnet, flamingo, lms
from mmjax.convert.rules import Rule, Shapes
from mmjax.encoders.efficientnet import efficientnet_lite
from mmjax.lms import LMS

Fields = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
  """One kind of model.

  Attributes:
    fields: (config.json, weights) to our settings.
    shapes: settings to the shapes of our parameters, by path.
    rules: settings to rules.
    ignore: (name, settings) to whether a tensor of the source stays behind.
    config: settings to a config.json for Hugging Face; None has none.
    copies: settings to names that repeat another tensor, {copy: original}.
    module: settings to a module; None for parts of one.
    rename: a name in the source to the one that the rules know.
    one_layout: exports have the rules' own names, whatever the source had.
    part: of a PyTorch checkpoint, the dict that holds the weights.
    settings: the one that holds what a config.json would say.
    to_layout: (settings, arrays by path, layout) to those of another layout of
      names; None has one only.
  """

  fields: Callable[[Mapping[str, Any], Mapping], Fields]
  shapes: Callable[[Fields], Shapes]
  rules: Callable[[Fields], Sequence[Rule]]
  ignore: Callable[[str, Fields], bool] = lambda key, fields: False
  config: Callable[[Fields], dict] | None = None
  copies: Callable[[Fields], dict[str, str]] = lambda fields: {}
  module: Callable[[Fields], nn.Module] | None = None
  rename: Callable[[str], str] | None = None
  one_layout: bool = False
  part: str | None = None
  settings: str | None = None
  to_layout: Callable[..., tuple[Fields, Mapping[str, Any]]] | None = None


def _of_module(
  module: Callable[[Fields], nn.Module], inputs: Callable[[Fields], tuple]
) -> dict[str, Any]:
  """`module` and `shapes` of a Family; nothing is computed."""

  def shapes(fields):
    return shapes_of(module(fields), *inputs(fields))

  return {"module": module, "shapes": shapes}


def _lm(name: str) -> Family:
  _, read, _ = LM_CONFIGS[name]

  def tied(fields):
    return lms.tied(name, fields)

  def fields(config, weights):
    if not config:
      raise ValueError("There is no config.json beside the weights.")
    kind = config.get("model_type", name)
    if MODEL_TYPES.get(kind, kind) != name:
      raise ValueError(
        f"config.json is of {kind!r}, not {name}, and may compute otherwise "
        "under the same names. Where it does not, change its model_type."
      )
    return read(config)

  return Family(
    fields=fields,
    **_of_module(lambda fields: LMS[name](**fields), lambda fields: TOKENS),
    rules=lambda fields: lms.LM_RULES[name](tied(fields)),
    ignore=lambda key, fields: lms.is_buffer(key),
    config=functools.partial(hugging_face, name),
    copies=lambda fields: (
      dict.fromkeys(lms.HEADS[name], lms.EMBEDDINGS[name])
      if tied(fields)
      else {}
    ),
    rename=_of_whole_opt if name == "opt" else None,
  )


def _of_whole_opt(name: str) -> str:
  """Some of OPT's files were saved without the head, and without its root."""
  return re.sub(r"^decoder\.", "model.decoder.", name)


def _unwrapped(name: str) -> str:
  """Training files of open_clip and ULIP carry DDP's prefix."""
  return name.removeprefix("module.")


def _efficientnet_fields(config, weights) -> Fields:
  head = "_fc.weight"
  return dict(classes=weights.shape(head)[0] if head in weights else 0)


FAMILIES: dict[str, Family] = {
  **{name: _lm(name) for name in LM_CONFIGS},
  "beats": Family(
    fields=encoder_families.beats_fields,
    **_of_module(encoder_families.beats_module, encoder_families.beats_inputs),
    rules=encoder_families.beats_rules,
    ignore=encoder_families.beats_ignore,
    config=encoder_families.beats_config,
    part="model",
    settings="cfg",
  ),
  "blip2_retrieval": Family(
    fields=retrieval_family.fields,
    shapes=retrieval_family.shapes,
    rules=retrieval_family.rules,
    ignore=blip2_family.ignore,
    config=retrieval_family.config,
  ),
  "blip2": Family(
    fields=blip2_family.fields,
    shapes=blip2_family.shapes,
    rules=blip2_family.rules,
    ignore=blip2_family.ignore,
    config=blip2_family.config,
    part="model",
  ),
  "clip": Family(
    fields=clip_family.fields,
    **_of_module(clip_family.module, clip_family.inputs),
    rules=clip_family.rules,
    ignore=clip_family.ignore,
    config=clip_family.config,
    rename=_unwrapped,
  ),
  "efficientnet_lite0": Family(
    fields=_efficientnet_fields,
    **_of_module(
      lambda fields: efficientnet_lite(**fields),
      lambda fields: (like((1, 224, 224, 3), jnp.uint8),),
    ),
    rules=lambda fields: efficientnet.efficientnet_lite(),
    ignore=lambda key, fields: bool(efficientnet.BUFFERS.fullmatch(key)),
  ),
  "eva": Family(
    fields=encoder_families.eva_fields,
    **_of_module(encoder_families.eva_module, encoder_families.eva_inputs),
    rules=encoder_families.eva_rules,
    ignore=encoder_families.eva_ignore,
    config=encoder_families.eva_config,
    part="model",
  ),
  "instructblip": Family(
    fields=instructblip_family.fields,
    shapes=instructblip_family.shapes,
    rules=instructblip_family.rules,
    ignore=instructblip_family.ignore,
    config=instructblip_family.config,
    copies=instructblip_family.copies,
    one_layout=True,
    part="model",
    to_layout=instructblip_family.to_layout,
  ),
  "llava": Family(
    fields=llava_family.fields,
    shapes=llava_family.shapes,
    rules=llava_family.rules,
    ignore=llava_family.ignore,
    config=llava_family.config,
    copies=llava_family.copies,
    one_layout=True,
    to_layout=llava_layouts.to_layout,
  ),
  "nfnet": Family(
    fields=nfnet_family.fields,
    **_of_module(nfnet_family.module, nfnet_family.inputs),
    rules=nfnet_family.rules,
    config=nfnet_family.config,
  ),
  "open_flamingo": Family(
    fields=flamingo_family.fields,
    shapes=flamingo_family.shapes,
    rules=flamingo_family.rules,
    ignore=flamingo_family.ignore,
    config=flamingo_family.config,
    copies=flamingo_family.copies,
    rename=flamingo.canonical,
  ),
  "ulip2": Family(
    fields=encoder_families.ulip2_fields,
    **_of_module(encoder_families.ulip2_module, encoder_families.ulip2_inputs),
    rules=encoder_families.ulip2_rules,
    ignore=encoder_families.ulip2_ignore,
    config=encoder_families.ulip2_config,
    rename=_unwrapped,
    one_layout=True,
    part="state_dict",
  ),
  "whisper": Family(
    fields=whisper_family.fields,
    **_of_module(whisper_family.module, whisper_family.inputs),
    rules=whisper_family.rules,
    ignore=whisper_family.ignore,
    config=whisper_family.config,
    one_layout=True,
  ),
  "x_instructblip": Family(
    fields=x_instructblip_family.fields,
    shapes=x_instructblip_family.shapes,
    rules=x_instructblip_family.rules,
    ignore=x_instructblip_family.ignore,
    config=x_instructblip_family.config,
    part="model",
  ),
}

# Of a config.json, where its model_type has several.
ARCHITECTURES = {retrieval_family.ARCHITECTURE: "blip2_retrieval"}


def family_of(config: Mapping[str, Any]) -> str | None:
  """The name of the family that a config.json says, if it says one."""
  names = config.get("architectures")
  first = names[0] if isinstance(names, list) and names else None
  return ARCHITECTURES.get(str(first), config.get("model_type"))
