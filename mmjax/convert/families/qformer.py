"""Names of a Q-Former in LAVIS and in Hugging Face's BLIP-2 and InstructBLIP.

Theirs are BERT's; layers that read features have a `crossattention` beside
their `attention`, and queries have MLPs of their own beside the text's.
"""

import dataclasses
import re

from mmjax.convert.families import parts
from mmjax.convert.rules import Rule, prefixed

# Numbers that are no weights.
BUFFERS = re.compile(r"(.*\.)?embeddings\.position_ids")


def lavis(num_layers: int, cross_every: int = 2) -> list[Rule]:
  """Below `Qformer.bert.`; the queries are a tensor of their own."""
  return _body(
    num_layers, cross_every, "self", "embeddings.LayerNorm", "embeddings."
  )


def hugging_face(
  num_layers: int, cross_every: int = 2, *, instructed: bool
) -> list[Rule]:
  """Below `qformer.`.

  Args:
    num_layers: of the model.
    cross_every: `cross_attention_frequency` there.
    instructed: InstructBLIP's names; BLIP-2 has a norm at another place and
      its embeddings outside, see `blip2_embeddings`.
  """
  norm = "embeddings.layernorm" if instructed else "layernorm"
  root = "embeddings." if instructed else None
  return _body(num_layers, cross_every, "attention", norm, root)


def blip2_embeddings() -> list[Rule]:
  """Of Hugging Face's BLIP-2 with text, at the top: `embeddings.`."""
  return _embeddings("embeddings.")


def queries(name: str = "query_tokens") -> Rule:
  """The learned queries, which have a first dim of one there."""
  return Rule(name, "queries", "() Q D -> Q D")


def _body(num_layers, cross_every, inner, norm, embeddings) -> list[Rule]:
  layer = "encoder.layer.{layer}."
  reading = tuple(range(0, num_layers, cross_every))
  cross = [
    *_attention("crossattention", inner, ""),
    *parts.norm("crossattention.output.LayerNorm", "norm"),
  ]
  rules = [
    *parts.norm(norm, "norm"),
    *([] if embeddings is None else _embeddings(embeddings)),
    *prefixed(_layer(inner), layer, "layers/"),
  ]
  return rules + [
    dataclasses.replace(rule, numbers=reading)
    for rule in prefixed(cross, layer, "cross/")
  ]


def _embeddings(root: str) -> list[Rule]:
  return [
    Rule(f"{root}word_embeddings.weight", "embedding/table"),
    Rule(f"{root}position_embeddings.weight", "position_table/table"),
  ]


def _layer(inner: str) -> list[Rule]:
  return [
    *_attention("attention", inner, "attention/"),
    *parts.norm("attention.output.LayerNorm", "attention_norm"),
    *_mlp("", "text_mlp"),
    *_mlp("_query", "query_mlp"),
  ]


def _attention(name: str, inner: str, path: str) -> list[Rule]:
  rules = parts.out_of_heads(f"{name}.output.dense", f"{path}out")
  for part in ("query", "key", "value"):
    rules += parts.into_heads(f"{name}.{inner}.{part}", f"{path}{part}")
  return rules


def _mlp(suffix: str, path: str) -> list[Rule]:
  return [
    *parts.matrix(f"intermediate{suffix}.dense", f"{path}/up"),
    *parts.matrix(f"output{suffix}.dense", f"{path}/down"),
    *parts.norm(f"output{suffix}.LayerNorm", f"{path}_norm"),
  ]
