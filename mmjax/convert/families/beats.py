"""Names of BEATs' weights, and its settings, in the published checkpoints.

A checkpoint holds the settings (`cfg`) beside the weights (`model`).
"""

import re
from collections.abc import Mapping
from typing import Any

from mmjax.config import nearest
from mmjax.convert.families import parts
from mmjax.convert.rules import Rule

# What files hold beyond the encoder, and what is left there: the classifier of
# the fine-tuned ones, and the embeddings of labels of the pretraining.
HEADS = re.compile(r"predictor\..*|label_embs.*")
# Theirs to ours.
_FIELDS = {
  "input_patch_size": "patch",
  "embed_dim": "patch_width",
  "conv_bias": "patch_bias",
  "encoder_layers": "num_layers",
  "encoder_embed_dim": "width",
  "encoder_ffn_embed_dim": "hidden",
  "encoder_attention_heads": "num_heads",
  "deep_norm": "deep_norm",
  "conv_pos": "conv_size",
  "conv_pos_groups": "conv_groups",
  "num_buckets": "num_buckets",
  "max_distance": "max_distance",
  "gru_rel_pos": "gated",
}
_ACTIVATIONS = {
  "gelu": "gelu",
  "gelu_accurate": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "linear": "linear",
  "relu": "relu",
}
# No published encoder has them otherwise, and neither do we.
_FIXED = {"layer_norm_first": False, "relative_position_embedding": True}
# Of training, and of the heads that stay in the file.
_UNUSED = {
  "activation_dropout",
  "attention_dropout",
  "dropout",
  "dropout_input",
  "encoder_layerdrop",
  "finetuned_model",
  "layer_wise_gradient_decay_ratio",
  "predictor_class",
  "predictor_dropout",
}


def settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
  """A checkpoint's `cfg` as keyword arguments of encoders/beats.py's BEATs.

  Raises:
    ValueError: for a setting that is missing, that we do not know, or that our
      module has not.
  """
  known = {*_FIELDS, "activation_fn", *_FIXED}
  for key in cfg:
    if key not in known | _UNUSED:
      raise ValueError(f"BEATs' cfg has {key!r}. {nearest(key, known)}")
  if missing := sorted(known - cfg.keys()):
    raise ValueError(f"BEATs' cfg lacks {missing}; take the checkpoint's own.")
  for key, value in _FIXED.items():
    if cfg[key] != value:
      raise ValueError(
        f"BEATs' cfg has {key}={cfg[key]!r}; only {value} is supported."
      )
  if cfg["activation_fn"] not in _ACTIVATIONS:
    raise ValueError(
      f"BEATs' cfg has activation_fn={cfg['activation_fn']!r}; expected one of "
      f"{sorted(_ACTIVATIONS)}."
    )
  fields = {ours: cfg[theirs] for theirs, ours in _FIELDS.items()}
  return fields | {"activation": _ACTIVATIONS[cfg["activation_fn"]]}


def cfg(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `settings`, without what only training reads."""
  names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
  names["gelu_tanh"] = "gelu_accurate"
  made = {theirs: fields[ours] for theirs, ours in _FIELDS.items()}
  return _FIXED | made | {"activation_fn": names[fields["activation"]]}


def beats(num_layers: int) -> list[Rule]:
  """Rules for an encoder of so many layers.

  Each layer's names hold the one table of relative positions: copies must be
  equal, and all are written back.
  """
  layer, attention = "encoder.layers.{layer}", "layers/attention"
  table = f"{layer}.self_attn.relative_attention_bias.weight"
  first, *others = (table.replace("{layer}", str(i)) for i in range(num_layers))
  gate = f"{layer}.self_attn"
  rules = [
    Rule("patch_embedding.weight", "patch/kernel", "E C h w -> h w C E"),
    Rule("patch_embedding.bias", "patch/bias"),
    *parts.norm("layer_norm", "patch_norm"),
    *parts.matrix("post_extract_proj", "projection"),
    Rule(
      "encoder.pos_conv.0.weight_v", "position_conv/kernel", "E I L -> L I E"
    ),
    Rule("encoder.pos_conv.0.weight_g", "position_conv/gain", "() () L -> L"),
    Rule("encoder.pos_conv.0.bias", "position_conv/bias"),
    *parts.norm("encoder.layer_norm", "norm"),
    Rule(first, "relative_bias", aliases=tuple(others), repeated=True),
    Rule(f"{gate}.grep_a", "layers/gate/scale", "() N () () -> N"),
    *parts.matrix(f"{gate}.grep_linear", "layers/gate/linear"),
    *parts.norm(f"{layer}.self_attn_layer_norm", "layers/attention_norm"),
    *parts.norm(f"{layer}.final_layer_norm", "layers/mlp_norm"),
    *parts.matrix(f"{layer}.fc1", "layers/mlp/up"),
    *parts.matrix(f"{layer}.fc2", "layers/mlp/down"),
    *parts.out_of_heads(f"{gate}.out_proj", f"{attention}/out"),
  ]
  for theirs, ours in zip("qkv", ("query", "key", "value")):
    rules += parts.into_heads(f"{gate}.{theirs}_proj", f"{attention}/{ours}")
  return rules
