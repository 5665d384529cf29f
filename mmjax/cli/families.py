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
import jax
import jax.numpy as jnp

from mmjax import tree
from mmjax.cli import flamingo_family
from mmjax.convert.configs import LM_CONFIGS, hugging_face
from mmjax.convert.families import clip, efficientnet, flamingo, lms
from mmjax.convert.rules import Rule, Shapes
from mmjax.encoders.efficientnet import efficientnet_lite
from mmjax.encoders.vit import ViT
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
  """

  fields: Callable[[Mapping[str, Any], Mapping], Fields]
  shapes: Callable[[Fields], Shapes]
  rules: Callable[[Fields], Sequence[Rule]]
  ignore: Callable[[str, Fields], bool] = lambda key, fields: False
  config: Callable[[Fields], dict] | None = None
  copies: Callable[[Fields], dict[str, str]] = lambda fields: {}
  module: Callable[[Fields], nn.Module] | None = None
  rename: Callable[[str], str] | None = None


def _of_module(
  module: Callable[[Fields], nn.Module], inputs: Callable[[Fields], tuple]
) -> dict[str, Any]:
  """`module` and `shapes` of a Family; nothing is computed."""

  def shapes(fields):
    like = jax.eval_shape(
      module(fields).init, jax.random.key(0), *inputs(fields)
    )
    flat = tree.flatten(nn.unbox(like)["params"])
    return {path: tuple(x.shape) for path, x in flat.items()}

  return {"module": module, "shapes": shapes}


_TOKENS = (jnp.zeros((1, 1), jnp.int32),) * 2 + (jnp.ones((1, 1), jnp.int32),)
_EMBEDDINGS = {
  "llama": "model.embed_tokens.weight",
  "opt": "model.decoder.embed_tokens.weight",
  "mpt": "transformer.wte.weight",
  "gpt_neox": "gpt_neox.embed_in.weight",
}


def _lm(name: str) -> Family:
  _, read, _ = LM_CONFIGS[name]
  buffers = re.compile("|".join(lms.BUFFERS))

  def tied(fields):
    # OPT and MPT are always tied.
    return fields.get("tie_embeddings", name in ("opt", "mpt"))

  def fields(config, weights):
    if not config:
      raise ValueError("There is no config.json beside the weights.")
    return read(config)

  return Family(
    fields=fields,
    **_of_module(lambda fields: LMS[name](**fields), lambda fields: _TOKENS),
    rules=lambda fields: lms.LM_RULES[name](tied(fields)),
    ignore=lambda key, fields: bool(buffers.fullmatch(key)),
    config=functools.partial(hugging_face, name),
    copies=lambda fields: (
      {"lm_head.weight": _EMBEDDINGS[name]} if tied(fields) else {}
    ),
  )


# What the names of a vision tower begin with: OpenAI's, IDEFICS', Hugging
# Face's, and those of a bare CLIPVisionModel since transformers 5.
_ROOTS = ("visual.", "model.vision_model.", "vision_model.", "embeddings.")


def _clip_fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """A vision tower's settings, off its tensors' shapes.

  Every published CLIP has heads of 64 features, but ViT-H and larger ones,
  whose config.json says so.
  """
  roots = [r for r in _ROOTS if any(k.startswith(r) for k in weights)]
  if not roots:
    raise ValueError(
      f"No vision tower: expected names that start with {list(_ROOTS)}, got "
      f"such as {list(weights)[:3]}."
    )
  root = roots[0].removeprefix("embeddings.")
  openai = root == "visual."
  names = (
    ("conv1.weight", "positional_embedding", "transformer.resblocks")
    if openai
    else (
      "embeddings.patch_embedding.weight",
      "embeddings.position_embedding.weight",
      "encoder.layers",
    )
  )
  patches, positions = (weights.shape(root + name) for name in names[:2])
  found = re.compile(re.escape(f"{root}{names[2]}.") + r"(\d+)\.")
  layers = {m[1] for key in weights if (m := found.match(key))}
  hidden = "mlp.c_fc.weight" if openai else "mlp.fc1.weight"
  vision = config.get("vision_config", config)
  width = patches[0]
  head = "visual.proj" if openai else "visual_projection.weight"
  return dict(
    root=root,
    width=width,
    num_layers=len(layers),
    num_heads=vision.get("num_attention_heads", width // 64),
    patch=patches[-1],
    image_size=patches[-1] * round((positions[0] - 1) ** 0.5),
    hidden=weights.shape(f"{root}{names[2]}.0.{hidden}")[0],
    projection=weights.shape(head)[openai] if head in weights else 0,
    activation=vision.get("hidden_act", "quick_gelu"),
  )


def _vit(fields: Fields) -> ViT:
  return ViT(**{k: v for k, v in fields.items() if k != "root"})


def _picture(fields: Fields) -> tuple:
  side = fields["image_size"]
  return (jnp.zeros((1, side, side, 3)),)


def _clip_config(fields: Fields) -> dict[str, Any]:
  return dict(
    model_type="clip_vision_model",
    architectures=[
      "CLIPVisionModelWithProjection"
      if fields["projection"]
      else "CLIPVisionModel"
    ],
    hidden_size=fields["width"],
    intermediate_size=fields["hidden"],
    num_hidden_layers=fields["num_layers"],
    num_attention_heads=fields["num_heads"],
    patch_size=fields["patch"],
    image_size=fields["image_size"],
    projection_dim=fields["projection"] or fields["width"],
    hidden_act=fields["activation"],
  )


def _clip_rules(fields: Fields) -> Sequence[Rule]:
  make = clip.openai if fields["root"] == "visual." else clip.hugging_face
  return make(fields["root"])


def _clip_ignore(key: str, fields: Fields) -> bool:
  """The text tower, and what scores pairs, are no part of the encoder."""
  ours = key.startswith(fields["root"]) or key == "visual_projection.weight"
  return not ours or bool(clip.BUFFERS.fullmatch(key))


def _efficientnet_fields(config, weights) -> Fields:
  head = "_fc.weight"
  return dict(classes=weights.shape(head)[0] if head in weights else 0)


FAMILIES: dict[str, Family] = {
  **{name: _lm(name) for name in LM_CONFIGS},
  "clip": Family(
    fields=_clip_fields,
    **_of_module(_vit, _picture),
    rules=_clip_rules,
    ignore=_clip_ignore,
    config=_clip_config,
  ),
  "efficientnet_lite0": Family(
    fields=_efficientnet_fields,
    **_of_module(
      lambda fields: efficientnet_lite(**fields),
      lambda fields: (jnp.zeros((1, 224, 224, 3), jnp.uint8),),
    ),
    rules=lambda fields: efficientnet.efficientnet_lite(),
    ignore=lambda key, fields: bool(efficientnet.BUFFERS.fullmatch(key)),
  ),
  "open_flamingo": Family(
    fields=flamingo_family.fields,
    shapes=flamingo_family.shapes,
    rules=flamingo_family.rules,
    rename=flamingo.canonical,
  ),
}
