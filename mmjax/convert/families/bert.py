"""Names of BERT's weights in Hugging Face's `BertModel`."""

import re

from mmjax.convert.rules import Rule, prefixed

_MATRIX = "F D -> D F"
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
    *_matrix("pooler.dense", "pooler"),
    *_norm(f"{layer}.attention.output.LayerNorm", "layers/attention_norm"),
    *_norm(f"{layer}.output.LayerNorm", "layers/mlp_norm"),
    *_matrix(f"{layer}.intermediate.dense", "layers/mlp/up"),
    *_matrix(f"{layer}.output.dense", "layers/mlp/down"),
    Rule(
      f"{layer}.attention.output.dense.weight",
      f"{attention}/out/kernel",
      "D (N H) -> N H D",
    ),
    Rule(f"{layer}.attention.output.dense.bias", f"{attention}/out/bias"),
  ]
  for part in ("query", "key", "value"):
    name, path = f"{layer}.attention.self.{part}", f"{attention}/{part}"
    rules += [
      Rule(f"{name}.weight", f"{path}/kernel", "(N H) D -> D N H"),
      Rule(f"{name}.bias", f"{path}/bias", "(N H) -> N H"),
    ]
  return prefixed(rules, name=root)


def _norm(name: str, path: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", f"{path}/scale", aliases=(f"{name}.gamma",)),
    Rule(f"{name}.bias", f"{path}/bias", aliases=(f"{name}.beta",)),
  ]


def _matrix(name: str, path: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", f"{path}/kernel", _MATRIX),
    Rule(f"{name}.bias", f"{path}/bias"),
  ]
