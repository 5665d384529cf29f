"""CLIP's vision tower for `mmjax convert`, in all three layouts."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.cli.shapes import depth, heads, like, require
from mmjax.convert.configs import activation, their_activation
from mmjax.convert.families import clip
from mmjax.convert.rules import Rule
from mmjax.encoders.vit import ViT

Fields = dict[str, Any]
_LOG = logging.getLogger(__name__)
# What names begin with: OpenAI's, IDEFICS', Hugging Face's, and those of a
# bare CLIPVisionModel since transformers 5.
_ROOTS = ("visual.", "model.vision_model.", "vision_model.", "embeddings.")
# Of each layout: patches, positions, layers, the first matrix of an MLP.
_OPENAI = (
  "conv1.weight",
  "positional_embedding",
  "transformer.resblocks",
  "mlp.c_fc.weight",
)
_HUGGING_FACE = (
  "embeddings.patch_embedding.weight",
  "embeddings.position_embedding.weight",
  "encoder.layers",
  "mlp.fc1.weight",
)


def fields(config: Mapping[str, Any], weights: Mapping) -> Fields:
  """A vision tower's settings, off its tensors' names and shapes."""
  roots = [r for r in _ROOTS if any(k.startswith(r) for k in weights)]
  if not roots:
    raise ValueError(
      f"No vision tower: expected names that start with {list(_ROOTS)}, got "
      f"such as {list(weights)[:3]}."
    )
  root = roots[0].removeprefix("embeddings.")
  openai = root == "visual."
  head = "visual.proj" if openai else "visual_projection.weight"
  settings = tower(config.get("vision_config", config), weights, root, openai)
  projection = weights.shape(head)[openai] if head in weights else 0
  return dict(root=root, projection=projection) | settings


def tower(
  config: Mapping[str, Any], weights: Mapping, root: str, openai: bool
) -> Fields:
  """Settings of a `ViT`, but for its projection.

  Args:
    config: its `num_attention_heads`, `hidden_act` and `layer_norm_eps`, where
      it has them: no tensor tells. Towers up to L/14 have heads of 64
      features, and OpenAI's have quick_gelu.
    weights: tensors by name.
    root: what the tower's names begin with.
    openai: the layout of OpenAI and open_clip; else that of Hugging Face.
  """
  patch, position, layers, up = _OPENAI if openai else _HUGGING_FACE
  wanted = {root + patch: 4, root + position: 2, f"{root}{layers}.0.{up}": 2}
  patches, positions, matrix = require(weights, wanted)
  width = patches[0]
  return dict(
    width=width,
    num_layers=depth(weights, f"{root}{layers}."),
    num_heads=_heads(_complete(config, root), width),
    patch=patches[-1],
    image_size=patches[-1] * round((positions[0] - 1) ** 0.5),
    hidden=matrix[0],
    activation=_activation(config, openai),
    norm_eps=config.get("layer_norm_eps", 1e-5),
  )


def _complete(config: Mapping[str, Any], root: str) -> Mapping[str, Any]:
  """Hugging Face leaves out of a nested config what is CLIP's default."""
  theirs = root in ("vision_model.", "")
  return {"num_attention_heads": 12, **config} if config and theirs else config


def _activation(config: Mapping[str, Any], openai: bool) -> str:
  if openai and "hidden_act" not in config:
    _LOG.warning(
      "No tensor tells the vision tower's activation: taking quick_gelu, which "
      "OpenAI's have. Most of LAION's have gelu; for those give "
      '{"vision_config": {"hidden_act": "gelu"}} as --settings FILE.'
    )
  return activation(config.get("hidden_act", "quick_gelu"))


def _heads(config: Mapping[str, Any], width: int) -> int:
  asked = '{"vision_config": {"num_attention_heads": N, "hidden_act": "gelu"}}'
  size = 64 if width <= 1024 else None
  return heads(config, width, size, asked)


def module(fields: Fields) -> ViT:
  return ViT(**{k: v for k, v in fields.items() if k != "root"})


def inputs(fields: Fields) -> tuple:
  side = fields["image_size"]
  return (like((1, side, side, 3)),)


def rules(fields: Fields) -> Sequence[Rule]:
  make = clip.openai if fields["root"] == "visual." else clip.hugging_face
  return make(fields["root"])


def ignore(key: str, fields: Fields) -> bool:
  """The text tower, and what scores pairs, are no part of the encoder."""
  ours = key.startswith(fields["root"]) or key == "visual_projection.weight"
  return not ours or bool(clip.BUFFERS.fullmatch(key))


def config(fields: Fields) -> dict[str, Any]:
  """A config.json for Hugging Face; OpenAI's layout has none."""
  if fields["root"] == "visual.":
    return {}
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
    hidden_act=their_activation(fields["activation"]),
    layer_norm_eps=fields["norm_eps"],
  )
