"""Names of CLIP's vision tower in three layouts.

OpenAI's own and open_clip's are one; Hugging Face's serves IDEFICS too, whose
vision tower is named alike.
"""

import re
from collections.abc import Mapping

import numpy as np

from mmjax.convert.families import parts
from mmjax.convert.rules import Rule, load, prefixed
from mmjax.typing import Params

_MATRIX = "F D -> D F"
_PATCH = "E C h w -> h w C E"
_PARTS = ("query", "key", "value")
# Numbers that are no weights.
BUFFERS = re.compile(r".*position_ids")


def openai(root: str = "visual.") -> list[Rule]:
  """Names such as `visual.transformer.resblocks.0.ln_1.weight`."""
  layer = "transformer.resblocks.{layer}"
  attention = "layers/attention"
  kernels = tuple(f"{attention}/{part}/kernel" for part in _PARTS)
  biases = tuple(f"{attention}/{part}/bias" for part in _PARTS)
  rules = [
    Rule("class_embedding", "class_token"),
    Rule("positional_embedding", "position_table"),
    Rule("conv1.weight", "patch/kernel", _PATCH),
    Rule("conv1.bias", "patch/bias"),
    Rule("proj", "projection/kernel"),
    *parts.norm("ln_pre", "pre_norm"),
    *parts.norm("ln_post", "post_norm"),
    *parts.norm(f"{layer}.ln_1", "layers/attention_norm"),
    *parts.norm(f"{layer}.ln_2", "layers/mlp_norm"),
    Rule(f"{layer}.attn.in_proj_weight", kernels, "(X N H) D -> X D N H"),
    Rule(f"{layer}.attn.in_proj_bias", biases, "(X N H) -> X N H"),
    *parts.out_of_heads(f"{layer}.attn.out_proj", f"{attention}/out"),
    *parts.matrix(f"{layer}.mlp.c_fc", "layers/mlp/up"),
    *parts.matrix(f"{layer}.mlp.c_proj", "layers/mlp/down"),
  ]
  return prefixed(rules, name=root)


def hugging_face(root: str = "vision_model.") -> list[Rule]:
  """Names such as `vision_model.encoder.layers.0.layer_norm1.weight`.

  IDEFICS' are below `model.vision_model.`.
  """
  layer, attention = "encoder.layers.{layer}", "layers/attention"
  rules = [
    Rule("embeddings.class_embedding", "class_token"),
    Rule("embeddings.position_embedding.weight", "position_table"),
    Rule("embeddings.patch_embedding.weight", "patch/kernel", _PATCH),
    Rule("embeddings.patch_embedding.bias", "patch/bias"),
    # The name is misspelt in the original.
    *parts.norm("pre_layrnorm", "pre_norm"),
    *parts.norm("post_layernorm", "post_norm"),
    *parts.norm(f"{layer}.layer_norm1", "layers/attention_norm"),
    *parts.norm(f"{layer}.layer_norm2", "layers/mlp_norm"),
    *parts.out_of_heads(f"{layer}.self_attn.out_proj", f"{attention}/out"),
    *parts.matrix(f"{layer}.mlp.fc1", "layers/mlp/up"),
    *parts.matrix(f"{layer}.mlp.fc2", "layers/mlp/down"),
  ]
  for theirs, ours in zip("qkv", _PARTS):
    name, path = f"{layer}.self_attn.{theirs}_proj", f"{attention}/{ours}"
    rules += parts.into_heads(name, path)
  head = Rule("visual_projection.weight", "projection/kernel", _MATRIX)
  return [*prefixed(rules, name=root), head]


def load_vision(weights: Mapping[str, np.ndarray], like: Params) -> dict:
  """The vision tower out of a file of any of these layouts.

  Whatever else the file holds (the text tower) is left there, and so is a
  projection that the module has not.

  Args:
    weights: tensors by name.
    like: the parameters of a `ViT`, as arrays or shapes.

  Raises:
    ValueError: when no name is of a vision tower.
  """
  layouts = {
    "visual.": openai,
    "model.vision_model.": hugging_face,
    "vision_model.": hugging_face,
  }
  roots = [r for r in layouts if any(key.startswith(r) for key in weights)]
  if not roots:
    raise ValueError(
      f"No vision tower: expected names that start with {list(layouts)}, got "
      f"such as {list(weights)[:3]}."
    )
  root = roots[0]
  heads = {"visual.proj", "visual_projection.weight"}

  def ignore(key):
    if key in heads:
      return "projection" not in like
    return not key.startswith(root) or bool(BUFFERS.fullmatch(key))

  return load(weights, layouts[root](root), like, ignore=ignore)
