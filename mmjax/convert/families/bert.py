"""Names of BERT's weights in Hugging Face's `BertModel`."""

import re

from mmjax.convert.families import parts
from mmjax.convert.rules import Rule, prefixed

# Numbers that are no weights, and heads that `Bert` has not.
BUFFERS = re.compile(r".*position_ids|cls\..*")


def bert(root: str = "") -> list[Rule]:
  """Rules for the bare model; in `BertForPreTraining` the root is `bert.`.

  The oldest files call a norm's weight and bias gamma and beta.
  """
  layer, attention = "encoder.layer.{layer}", "layers/attention"
  rules = [
    Rule("embeddings.word_embeddings.weight", "embedding/table"),
    Rule("embeddings.position_embeddings.weight", "position_table/table"),
    Rule("embeddings.token_type_embeddings.weight", "type_table/table"),
    *_norm("embeddings.LayerNorm", "norm"),
    *parts.matrix("pooler.dense", "pooler"),
    *_norm(f"{layer}.attention.output.LayerNorm", "layers/attention_norm"),
    *_norm(f"{layer}.output.LayerNorm", "layers/mlp_norm"),
    *parts.matrix(f"{layer}.intermediate.dense", "layers/mlp/up"),
    *parts.matrix(f"{layer}.output.dense", "layers/mlp/down"),
    *parts.out_of_heads(f"{layer}.attention.output.dense", f"{attention}/out"),
  ]
  for part in ("query", "key", "value"):
    name = f"{layer}.attention.self.{part}"
    rules += parts.into_heads(name, f"{attention}/{part}")
  return prefixed(rules, name=root)


def _norm(name: str, path: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", f"{path}/scale", aliases=(f"{name}.gamma",)),
    Rule(f"{name}.bias", f"{path}/bias", aliases=(f"{name}.beta",)),
  ]
