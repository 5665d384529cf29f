"""Hugging Face's config.json of language models, and our fields, both ways.

A setting that our modules do not have is an error: it would change what the
model computes without a word.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

Config = Mapping[str, Any]
_LOG = logging.getLogger(__name__)

# Of two names for one function the last is the one that we write.
_ACTIVATIONS = {
  "gelu_python": "gelu",
  "gelu": "gelu",
  "gelu_fast": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",
  "quick_gelu": "quick_gelu",
  "linear": "linear",
  "relu": "relu",
  "swish": "silu",
  "silu": "silu",
}


def only(config: Config, **wanted: Any) -> None:
  """Settings that must have one value, where they are set at all."""
  for key, value in wanted.items():
    if config.get(key, value) != value:
      raise ValueError(
        f"config.json has {key}={config[key]!r}; only {value!r} is supported."
      )


def size(config: Config, key: str) -> int:
  """A whole number of one or more."""
  value = config.get(key)
  if type(value) is not int or not 0 < value < 1 << 31:
    raise ValueError(f"config.json has {key}={value!r}, not a size.")
  return value


def flag(config: Config, key: str, default: bool) -> bool:
  """True or false; a number is neither."""
  value = config.get(key, default)
  if not isinstance(value, bool):
    raise ValueError(f"config.json has {key}={value!r}, not true or false.")
  return value


def number(config: Config, key: str, default: float) -> float:
  """A positive number; JSON's NaN and Infinity are none."""
  value = config.get(key, default)
  if type(value) not in (int, float) or not 0 < value < math.inf:
    raise ValueError(f"config.json has {key}={value!r}, not a number above 0.")
  return value


def _optional(config: Config, key: str) -> float | None:
  """A positive number, or None."""
  return None if config.get(key) is None else number(config, key, 0.0)


def _rope(config: Config) -> dict[str, Any]:
  """Rotary settings, in the place of transformers 5 or of those before."""
  rope = config.get("rope_parameters") or {}
  # "type" is the older name of "rope_type".
  only(rope, rope_type="default", type="default")
  only(config, rope_scaling=None)
  return dict(rope)


def _common(config: Config) -> dict[str, Any]:
  fields = dict(
    vocab_size=size(config, "vocab_size"),
    width=size(config, "hidden_size"),
    num_layers=size(config, "num_hidden_layers"),
    num_heads=size(config, "num_attention_heads"),
  )
  if fields["width"] % fields["num_heads"] and "head_dim" not in config:
    raise ValueError(
      f"config.json: {fields['num_heads']} heads do not part a hidden_size of "
      f"{fields['width']}."
    )
  return fields


def _from_llama(c: Config) -> dict[str, Any]:
  only(c, hidden_act="silu")
  fields = _common(c)
  rope, heads = _rope(c), fields["num_heads"]
  return fields | dict(
    hidden=size(c, "intermediate_size"),
    num_kv_heads=c.get("num_key_value_heads") or heads,
    head_dim=c.get("head_dim") or fields["width"] // heads,
    rope_base=float(number({**c, **rope}, "rope_theta", 10000.0)),
    norm_eps=number(c, "rms_norm_eps", 1e-6),
    attention_bias=flag(c, "attention_bias", False),
    mlp_bias=flag(c, "mlp_bias", False),
    tie_embeddings=flag(c, "tie_word_embeddings", False),
  )


def _to_llama(f: Config) -> dict[str, Any]:
  base = f.get("rope_base", 10000.0)
  return _hidden(f) | dict(
    intermediate_size=f["hidden"],
    num_key_value_heads=f.get("num_kv_heads") or f["num_heads"],
    head_dim=f.get("head_dim") or f["width"] // f["num_heads"],
    rope_theta=base,
    rope_parameters=dict(rope_type="default", rope_theta=base),
    rms_norm_eps=f.get("norm_eps", 1e-6),
    attention_bias=f.get("attention_bias", False),
    mlp_bias=f.get("mlp_bias", False),
    tie_word_embeddings=f.get("tie_embeddings", False),
    hidden_act="silu",
  )


def _from_opt(c: Config) -> dict[str, Any]:
  only(
    c,
    enable_bias=True,
    layer_norm_elementwise_affine=True,
    _remove_final_layer_norm=False,
  )
  fields = _common(c)
  narrow = c.get("word_embed_proj_dim") or fields["width"]
  return fields | dict(
    hidden=size(c, "ffn_dim"),
    pre_norm=flag(c, "do_layer_norm_before", True),
    activation=activation(c.get("activation_function", "relu")),
    max_positions=size(c, "max_position_embeddings"),
    tie_embeddings=flag(c, "tie_word_embeddings", True),
    embed_width=None if narrow == fields["width"] else narrow,
  )


def _to_opt(f: Config) -> dict[str, Any]:
  return _hidden(f) | dict(
    ffn_dim=f["hidden"],
    do_layer_norm_before=f.get("pre_norm", True),
    activation_function=their_activation(f.get("activation", "relu")),
    max_position_embeddings=f.get("max_positions", 2048),
    word_embed_proj_dim=f.get("embed_width") or f["width"],
    tie_word_embeddings=f.get("tie_embeddings", True),
  )


# MosaicGPT's settings of attention, and what MPT calls them.
_MOSAIC = {
  "alibi": "alibi",
  "alibi_bias_max": "alibi_bias_max",
  "attn_clip_qkv": "clip_qkv",
  "attn_qk_ln": "qk_ln",
  "prefix_lm": "prefix_lm",
  "softmax_scale": "softmax_scale",
}


def _from_mpt(c: Config) -> dict[str, Any]:
  # Hugging Face leaves out what is its default.
  attention = {"alibi": True} | (c.get("attn_config") or {})
  if c.get("model_type") == "mosaic_gpt":
    attention = {new: c[old] for old, new in _MOSAIC.items() if old in c}
    ratio = c.get("mlp_ratio", 4)
    c = dict(c) | dict(expansion_ratio=ratio)
  _check_mpt(c, attention)
  width, ratio = size(c, "d_model"), number(c, "expansion_ratio", 4)
  return dict(
    vocab_size=size(c, "vocab_size"),
    width=width,
    num_layers=size(c, "n_layers"),
    num_heads=size(c, "n_heads"),
    hidden=round(width * ratio),
    qk_norm=flag(attention, "qk_ln", False),
    clip=_optional(attention, "clip_qkv"),
    scale=_optional(attention, "softmax_scale"),
    max_bias=float(number(attention, "alibi_bias_max", 8)),
    norm_eps=number(c, "layer_norm_epsilon", 1e-5),
    tie_embeddings=flag(c, "tie_word_embeddings", True),
  )


def _check_mpt(c: Config, attention: Config) -> None:
  """Settings that change the numbers, and that our module has not."""
  only(c, no_bias=True, logit_scale=None, embedding_fraction=1.0)
  only(attention, alibi=True, prefix_lm=False, sliding_window_size=-1)
  if not attention.get("alibi"):
    raise ValueError("config.json: only MPT with attn_config.alibi is known.")
  if "layernorm" not in str(c.get("norm_type", "layernorm")):
    raise ValueError(
      f"config.json has norm_type={c['norm_type']!r}; only layer norms are "
      "supported."
    )
  if (largest := attention.get("alibi_bias_max", 8)) != 8:
    _LOG.warning(
      "alibi_bias_max is %s: MosaicML's own code follows it, as ours does; "
      "transformers' MptForCausalLM takes 8 without a word.",
      largest,
    )


def _to_mpt(f: Config) -> dict[str, Any]:
  if f.get("qk_norm"):
    _LOG.warning(
      "transformers' MptForCausalLM has no norms of queries and keys, and "
      "leaves them out without an error; load this with the model's own code."
    )
  return dict(
    vocab_size=f["vocab_size"],
    d_model=f["width"],
    n_layers=f["num_layers"],
    n_heads=f["num_heads"],
    expansion_ratio=_whole(f["hidden"] / f["width"]),
    no_bias=True,
    layer_norm_epsilon=f.get("norm_eps", 1e-5),
    tie_word_embeddings=f.get("tie_embeddings", True),
    attn_config=dict(
      alibi=True,
      alibi_bias_max=_whole(f.get("max_bias", 8)),
      clip_qkv=f.get("clip"),
      softmax_scale=f.get("scale"),
      qk_ln=f.get("qk_norm", False),
    ),
  )


def _from_gpt_neox(c: Config) -> dict[str, Any]:
  only(c, attention_bias=True)
  rope = _rope(c)
  base = number(c, "rotary_emb_base", 10000.0)
  part = number(c, "rotary_pct", 0.25)
  return _common(c) | dict(
    hidden=size(c, "intermediate_size"),
    rotary_fraction=number(rope, "partial_rotary_factor", part),
    rope_base=float(number(rope, "rope_theta", base)),
    parallel=flag(c, "use_parallel_residual", True),
    norm_eps=number(c, "layer_norm_eps", 1e-5),
    activation=activation(c.get("hidden_act", "gelu")),
    tie_embeddings=flag(c, "tie_word_embeddings", False),
  )


def _to_gpt_neox(f: Config) -> dict[str, Any]:
  base, part = f.get("rope_base", 10000.0), f.get("rotary_fraction", 0.25)
  return _hidden(f) | dict(
    intermediate_size=f["hidden"],
    rotary_pct=part,
    rotary_emb_base=base,
    rope_parameters=dict(
      rope_type="default", rope_theta=base, partial_rotary_factor=part
    ),
    use_parallel_residual=f.get("parallel", True),
    layer_norm_eps=f.get("norm_eps", 1e-5),
    hidden_act=their_activation(f.get("activation", "gelu")),
    tie_word_embeddings=f.get("tie_embeddings", False),
  )


def _whole(value: float) -> int | float:
  """The same number, without a point where it needs none."""
  return int(value) if value == int(value) else value


def _hidden(f: Config) -> dict[str, Any]:
  return dict(
    vocab_size=f["vocab_size"],
    hidden_size=f["width"],
    num_hidden_layers=f["num_layers"],
    num_attention_heads=f["num_heads"],
  )


def activation(theirs: str) -> str:
  """Our name of a `hidden_act`."""
  if theirs not in _ACTIVATIONS:
    raise ValueError(
      f"config.json asks for the activation {theirs!r}; known: "
      f"{list(_ACTIVATIONS)}."
    )
  return _ACTIVATIONS[theirs]


def their_activation(ours: str) -> str:
  """The inverse of `activation`."""
  named = {name: theirs for theirs, name in _ACTIVATIONS.items()}
  if ours not in named:
    raise ValueError(f"The activation {ours!r} is none of {list(named)}.")
  return named[ours]


# Family to (architecture, from config.json to our fields, and back).
Both = tuple[str, Callable[[Config], dict], Callable[[Config], dict]]
LM_CONFIGS: dict[str, Both] = {
  "llama": ("LlamaForCausalLM", _from_llama, _to_llama),
  "opt": ("OPTForCausalLM", _from_opt, _to_opt),
  "mpt": ("MptForCausalLM", _from_mpt, _to_mpt),
  "gpt_neox": ("GPTNeoXForCausalLM", _from_gpt_neox, _to_gpt_neox),
}

# What transformers leaves out of a config.json that is part of another.
NESTED: dict[str, Config] = {
  "llama": dict(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    vocab_size=32000,
  ),
  "opt": dict(
    hidden_size=768,
    ffn_dim=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=2048,
    vocab_size=50272,
  ),
}


def nested(config: Config, default: str) -> dict[str, Any]:
  """Our fields, and the `name`, of a language model within another model.

  Args:
    config: its part of the config.json.
    default: family of one that has no `model_type`.

  Raises:
    ValueError: for a family that we do not have.
  """
  name = str(config.get("model_type", default))
  name = MODEL_TYPES.get(name, name)
  if name not in LM_CONFIGS:
    raise ValueError(
      f"The language model is {name!r}; known: {', '.join(LM_CONFIGS)}."
    )
  return dict(name=name) | LM_CONFIGS[name][1](NESTED.get(name, {}) | config)


# Other names in the model_type of a config.json.
MODEL_TYPES = {
  "blip-2": "instructblip",
  "instructblipvideo": "instructblip",
  "mosaic_gpt": "mpt",
  "clip_vision_model": "clip",
  "llava_llama": "llava",
  "llava_mpt": "llava",
}


def hugging_face(family: str, fields: Config) -> dict[str, Any]:
  """A config.json from which `from_pretrained` builds the same model."""
  architecture, _, back = LM_CONFIGS[family]
  return {"model_type": family, "architectures": [architecture]} | back(fields)
