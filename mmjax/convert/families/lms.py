"""Names of language models' weights in Hugging Face state dicts.

Every function returns the rules of one family for the bare model; `prefixed`
puts them into a larger one. `tied` leaves out the output matrix.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.convert.rules import Rule

_QUERY = "(N H) D -> D N H"
_BIAS = "(N H) -> N H"
_OUT = "D (N H) -> N H D"
_MATRIX = "F D -> D F"
_FUSED = ("query", "key", "value")


def _norm(name: str, path: str, bias: bool = True) -> list[Rule]:
  rules = [Rule(f"{name}.weight", f"{path}/scale")]
  return rules + ([Rule(f"{name}.bias", f"{path}/bias")] if bias else [])


def _table(family: str, tied: bool) -> Rule:
  """The table of embeddings.

  Of a tied one a file may have the head's name alone: that of whoever drops
  the second name of a tensor (safetensors), or what is frozen (OpenFlamingo).
  """
  aliases = HEADS[family] if tied else ()
  return Rule(EMBEDDINGS[family], "embedding/table", aliases=aliases)


def _matrix(name: str, path: str, bias: bool = False) -> list[Rule]:
  rules = [Rule(f"{name}.weight", f"{path}/kernel", _MATRIX)]
  return rules + ([Rule(f"{name}.bias", f"{path}/bias")] if bias else [])


def llama(tied: bool = False) -> list[Rule]:
  """`LlamaForCausalLM`."""
  layer, ours = "model.layers.{layer}", "layers"
  rules = [
    _table("llama", tied),
    Rule("model.norm.weight", "final_norm/scale"),
    Rule(f"{layer}.input_layernorm.weight", f"{ours}/attention_norm/scale"),
    Rule(f"{layer}.post_attention_layernorm.weight", f"{ours}/mlp_norm/scale"),
    Rule(
      f"{layer}.self_attn.o_proj.weight", f"{ours}/attention/out/kernel", _OUT
    ),
    Rule(f"{layer}.self_attn.o_proj.bias", f"{ours}/attention/out/bias"),
  ]
  for name, path in (("q", "query"), ("k", "key"), ("v", "value")):
    theirs = f"{layer}.self_attn.{name}_proj"
    mine = f"{ours}/attention/{path}"
    rules.append(Rule(f"{theirs}.weight", f"{mine}/kernel", _QUERY))
    rules.append(Rule(f"{theirs}.bias", f"{mine}/bias", _BIAS))
  for name in ("gate", "up", "down"):
    rules += _matrix(f"{layer}.mlp.{name}_proj", f"{ours}/mlp/{name}", True)
  return rules + ([] if tied else [Rule("lm_head.weight", "head/table")])


def llama_gguf(tied: bool = False) -> list[Rule]:
  """LLaMA in llama.cpp's names.

  Its rotary positions turn neighbours (2i, 2i + 1) where ours turn halves, so
  the rows of queries and keys are interleaved there.
  """
  layer, ours = "blk.{layer}", "layers"
  turned = "(N h 2) D -> D N (2 h)"
  names = (
    ("attn_q", "attention/query", turned),
    ("attn_k", "attention/key", turned),
    ("attn_v", "attention/value", _QUERY),
    ("attn_output", "attention/out", _OUT),
    ("ffn_gate", "mlp/gate", _MATRIX),
    ("ffn_up", "mlp/up", _MATRIX),
    ("ffn_down", "mlp/down", _MATRIX),
  )
  return [
    Rule("token_embd.weight", "embedding/table"),
    Rule("output_norm.weight", "final_norm/scale"),
    Rule(f"{layer}.attn_norm.weight", f"{ours}/attention_norm/scale"),
    Rule(f"{layer}.ffn_norm.weight", f"{ours}/mlp_norm/scale"),
    *(
      Rule(f"{layer}.{theirs}.weight", f"{ours}/{path}/kernel", dims)
      for theirs, path, dims in names
    ),
    *([] if tied else [Rule("output.weight", "head/table")]),
  ]


def opt(tied: bool = True) -> list[Rule]:
  """`OPTForCausalLM`; all published ones are tied."""
  root, ours = "model.decoder", "layers"
  layer = f"{root}.layers.{{layer}}"
  rules = [
    _table("opt", tied),
    Rule(f"{root}.embed_positions.weight", "position_table/table"),
    *_norm(f"{root}.final_layer_norm", "final_norm"),
    *_matrix(f"{root}.project_in", "project_in"),
    *_matrix(f"{root}.project_out", "project_out"),
    *_norm(f"{layer}.self_attn_layer_norm", f"{ours}/attention_norm"),
    *_norm(f"{layer}.final_layer_norm", f"{ours}/mlp_norm"),
    *_matrix(f"{layer}.fc1", f"{ours}/mlp/up", bias=True),
    *_matrix(f"{layer}.fc2", f"{ours}/mlp/down", bias=True),
    Rule(
      f"{layer}.self_attn.out_proj.weight", f"{ours}/attention/out/kernel", _OUT
    ),
    Rule(f"{layer}.self_attn.out_proj.bias", f"{ours}/attention/out/bias"),
  ]
  for name, path in (("q", "query"), ("k", "key"), ("v", "value")):
    theirs = f"{layer}.self_attn.{name}_proj"
    mine = f"{ours}/attention/{path}"
    rules.append(Rule(f"{theirs}.weight", f"{mine}/kernel", _QUERY))
    rules.append(Rule(f"{theirs}.bias", f"{mine}/bias", _BIAS))
  return rules + ([] if tied else [Rule("lm_head.weight", "head/table")])


def mpt(tied: bool = True) -> list[Rule]:
  """`MptForCausalLM`, and the older `MosaicGPT` (mpt-1b) by its aliases."""
  layer, ours = "transformer.blocks.{layer}", "layers"
  fused = tuple(f"{ours}/attention/{name}/kernel" for name in _FUSED)

  def both(new, old, path, dims=None):
    return Rule(f"{layer}.{new}", path, dims, aliases=(f"{layer}.{old}",))

  return [
    _table("mpt", tied),
    Rule(
      "transformer.norm_f.weight",
      "final_norm/scale",
      aliases=("transformer.ln_f.weight",),
    ),
    both("norm_1.weight", "ln_1.weight", f"{ours}/attention_norm/scale"),
    both("norm_2.weight", "ln_2.weight", f"{ours}/mlp_norm/scale"),
    Rule(f"{layer}.attn.Wqkv.weight", fused, "(X N H) D -> X D N H"),
    Rule(f"{layer}.attn.out_proj.weight", f"{ours}/attention/out/kernel", _OUT),
    Rule(f"{layer}.attn.q_ln.weight", f"{ours}/attention/query_norm/scale"),
    Rule(f"{layer}.attn.k_ln.weight", f"{ours}/attention/key_norm/scale"),
    both(
      "ffn.up_proj.weight",
      "mlp.mlp_up.weight",
      f"{ours}/mlp/up/kernel",
      _MATRIX,
    ),
    both(
      "ffn.down_proj.weight",
      "mlp.mlp_down.weight",
      f"{ours}/mlp/down/kernel",
      _MATRIX,
    ),
    *([] if tied else [Rule("lm_head.weight", "head/table")]),
  ]


def gpt_neox(tied: bool = False) -> list[Rule]:
  """`GPTNeoXForCausalLM`; transformers 5 names its head `lm_head`."""
  layer, ours = "gpt_neox.layers.{layer}", "layers"
  kernels = tuple(f"{ours}/attention/{name}/kernel" for name in _FUSED)
  biases = tuple(f"{ours}/attention/{name}/bias" for name in _FUSED)
  fused = f"{layer}.attention.query_key_value"
  name, *others = HEADS["gpt_neox"]
  head = Rule(name, "head/table", aliases=tuple(others))
  return [
    _table("gpt_neox", tied),
    *_norm("gpt_neox.final_layer_norm", "final_norm"),
    *_norm(f"{layer}.input_layernorm", f"{ours}/attention_norm"),
    *_norm(f"{layer}.post_attention_layernorm", f"{ours}/mlp_norm"),
    Rule(f"{fused}.weight", kernels, "(N X H) D -> X D N H"),
    Rule(f"{fused}.bias", biases, "(N X H) -> X N H"),
    Rule(
      f"{layer}.attention.dense.weight", f"{ours}/attention/out/kernel", _OUT
    ),
    Rule(f"{layer}.attention.dense.bias", f"{ours}/attention/out/bias"),
    *_matrix(f"{layer}.mlp.dense_h_to_4h", f"{ours}/mlp/up", bias=True),
    *_matrix(f"{layer}.mlp.dense_4h_to_h", f"{ours}/mlp/down", bias=True),
    *([] if tied else [head]),
  ]


# Family to rules, and to the prefix of a layer's names.
LM_RULES: dict[str, Callable[..., Sequence[Rule]]] = {
  "llama": llama,
  "opt": opt,
  "mpt": mpt,
  "gpt_neox": gpt_neox,
}
LAYER_ROOTS = {
  "llama": "model.layers",
  "opt": "model.decoder.layers",
  "mpt": "transformer.blocks",
  "gpt_neox": "gpt_neox.layers",
}
EMBEDDINGS = {
  "llama": "model.embed_tokens.weight",
  "opt": "model.decoder.embed_tokens.weight",
  "mpt": "transformer.wte.weight",
  "gpt_neox": "gpt_neox.embed_in.weight",
}
# The output matrix; in a tied model it is the table of embeddings once more.
HEADS = {
  "llama": ("lm_head.weight",),
  "opt": ("lm_head.weight",),
  "mpt": ("lm_head.weight",),
  "gpt_neox": ("embed_out.weight", "lm_head.weight"),
}
# Names that carry no weights: buffers that are computed, tied copies.
BUFFERS = (
  r".*\.rotary_emb\.inv_freq",
  r".*\.attention\.(bias|masked_bias)",
  r".*position_ids",
)


def is_buffer(name: str) -> bool:
  """Whether a name carries no weights, wherever the model is."""
  return any(re.fullmatch(pattern, name) for pattern in BUFFERS)


def tied(family: str, fields: Mapping[str, Any]) -> bool:
  """Whether a model's head is its embedding table; OPT's and MPT's are."""
  return fields.get("tie_embeddings", family in ("opt", "mpt"))


def nested(rule: Rule) -> Rule:
  """A rule of a language model that is part of a model of Hugging Face.

  It is below `language_model.` there; in modules of transformers 5 that have a
  base of their own, that base has no root and the head none at all.
  """
  names = (rule.name, *rule.aliases)
  name, *aliases = (f"language_model.{name}" for name in names)
  flat = [_in_a_base(name) for name in names]
  return dataclasses.replace(rule, name=name, aliases=(*aliases, *flat))


def _in_a_base(name: str) -> str:
  bare = name.removeprefix("model.")
  return name if bare == name else f"model.language_model.{bare}"


def nested_copies(family: str) -> dict[str, str]:
  """Of a tied model below `language_model.`: {copy: original}."""
  table, heads = EMBEDDINGS[family], HEADS[family]
  found = {f"language_model.{h}": f"language_model.{table}" for h in heads}
  return found | dict.fromkeys(heads, _in_a_base(table))
