"""Names of EVA-CLIP's vision tower in LAVIS and in Hugging Face's BLIP-2.

The norm behind the tower, `ln_vision` there and `post_layernorm` here, is a
part of what reads its tokens, and no rule of these names it.
"""

import re

from mmjax.convert.families import parts
from mmjax.convert.rules import Rule, prefixed

_HEADS = "(N H) -> N H"
_QKV = "(X N H) D -> X D N H"
_PATCH = "E C h w -> h w C E"
_PARTS = ("query", "key", "value")
_ATTENTION = "layers/attention"
# Numbers that are no weights.
BUFFERS = re.compile(r".*relative_position_index")
# The norm behind the tower in Hugging Face's files.
NORM = re.compile(r"(.*\.)?post_layernorm\.(weight|bias)")


def lavis(root: str = "visual_encoder.") -> list[Rule]:
  """Names such as `visual_encoder.blocks.0.attn.q_bias`.

  Files of the tower alone have no root.
  """
  layer = "blocks.{layer}"
  table = "relative_position_bias_table"
  rules = [
    *_tokens("cls_token", "pos_embed", "patch_embed.proj"),
    *_layers(layer, "attn", "norm1", "norm2", "attn.proj"),
    Rule(f"{layer}.attn.q_bias", f"{_ATTENTION}/query/bias", _HEADS),
    Rule(f"{layer}.attn.v_bias", f"{_ATTENTION}/value/bias", _HEADS),
    Rule(f"{layer}.attn.{table}", "layers/relative_table"),
    Rule(f"rel_pos_bias.{table}", "relative_table"),
    Rule(f"{layer}.gamma_1", "layers/attention_scale"),
    Rule(f"{layer}.gamma_2", "layers/mlp_scale"),
  ]
  return prefixed(rules, name=root)


def hugging_face(
  root: str = "vision_model.", key_bias: bool = False
) -> list[Rule]:
  """Names such as `vision_model.encoder.layers.0.self_attn.qkv.bias`.

  That bias has a part for the keys, which must be zero unless the tower has a
  `key_bias`: whoever trains the tower there trains that part, too.
  """
  layer, table = "encoder.layers.{layer}", "embeddings.position_embedding"
  biases = tuple(
    f"{_ATTENTION}/{part}/bias" if key_bias or part != "key" else None
    for part in _PARTS
  )
  rules = [
    *_tokens("embeddings.class_embedding", table, "embeddings.patch_embedding"),
    *_layers(
      layer, "self_attn", "layer_norm1", "layer_norm2", "self_attn.projection"
    ),
    Rule(f"{layer}.self_attn.qkv.bias", biases, "(X N H) -> X N H"),
  ]
  return prefixed(rules, name=root)


def _tokens(token: str, table: str, patch: str) -> list[Rule]:
  return [
    Rule(token, "class_token", "() () E -> E"),
    Rule(table, "position_table", "() P E -> P E"),
    Rule(f"{patch}.weight", "patch/kernel", _PATCH),
    Rule(f"{patch}.bias", "patch/bias"),
  ]


def _layers(
  layer: str, attention: str, first: str, second: str, out: str
) -> list[Rule]:
  """What both layouts have in a layer, under one name or another."""
  kernels = tuple(f"{_ATTENTION}/{part}/kernel" for part in _PARTS)
  return [
    *parts.norm(f"{layer}.{first}", "layers/attention_norm"),
    *parts.norm(f"{layer}.{second}", "layers/mlp_norm"),
    Rule(f"{layer}.{attention}.qkv.weight", kernels, _QKV),
    *parts.out_of_heads(f"{layer}.{out}", f"{_ATTENTION}/out"),
    *parts.matrix(f"{layer}.mlp.fc1", "layers/mlp/up"),
    *parts.matrix(f"{layer}.mlp.fc2", "layers/mlp/down"),
  ]
