"""Names of ULIP-2's PointBERT, as in ULIP's and LAVIS' files."""

import dataclasses
import re

from mmjax.convert.families import parts
from mmjax.convert.rules import Rule, prefixed

_CONV = "F D () -> D F"
_FIRST = "() () E -> E"
_QKV = "(X N H) D -> X D N H"
_PARTS = ("query", "key", "value")
# Counters that no inference reads.
BUFFERS = re.compile(r".*\.num_batches_tracked")
# Of a checkpoint of ULIP's training: SLIP's towers of images and of text, which
# the encoder of points was trained against.
OTHER_TOWERS = re.compile(
  r"(visual|transformer|token_embedding|ln_final)\..*"
  r"|positional_embedding|(image|text)_projection|logit_scale"
)
# What an encoder that gives all tokens has not.
PROJECTION = re.compile(r"(module\.)?pc_projection")


def ulip2() -> list[Rule]:
  """Names such as `point_encoder.blocks.blocks.0.attn.qkv.weight`.

  Files of ULIP's own training have `module.` before each.
  """
  layer, attention = "blocks.blocks.{layer}", "layers/attention"
  kernels = tuple(f"{attention}/{part}/kernel" for part in _PARTS)
  rules = [
    Rule("cls_token", "class_token", _FIRST),
    Rule("cls_pos", "class_position", _FIRST),
    *_convs("encoder.first_conv", "point_net/first"),
    *_convs("encoder.second_conv", "point_net/second"),
    *parts.matrix("reduce_dim", "reduce"),
    *parts.matrix("pos_embed.0", "position_up"),
    *parts.matrix("pos_embed.2", "position_down"),
    *parts.norm(f"{layer}.norm1", "layers/attention_norm"),
    *parts.norm(f"{layer}.norm2", "layers/mlp_norm"),
    Rule(f"{layer}.attn.qkv.weight", kernels, _QKV),
    *parts.out_of_heads(f"{layer}.attn.proj", f"{attention}/out"),
    *parts.matrix(f"{layer}.mlp.fc1", "layers/mlp/up"),
    *parts.matrix(f"{layer}.mlp.fc2", "layers/mlp/down"),
    *parts.norm("norm", "norm"),
  ]
  rules = prefixed(rules, name="point_encoder.")
  rules.append(Rule("pc_projection", "projection/kernel"))
  return [
    dataclasses.replace(rule, aliases=(f"module.{rule.name}",))
    for rule in rules
  ]


def _convs(name: str, path: str) -> list[Rule]:
  """Convolution, batch norm, ReLU, convolution, of a torch.nn.Sequential."""
  return [
    *parts.matrix(f"{name}.0", f"{path}_up", _CONV),
    *parts.norm(f"{name}.1", f"{path}_norm"),
    Rule(f"{name}.1.running_mean", f"{path}_norm/mean"),
    Rule(f"{name}.1.running_var", f"{path}_norm/var"),
    *parts.matrix(f"{name}.3", f"{path}_down", _CONV),
  ]
