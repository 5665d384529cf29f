"""A Q-Former that begins as a BERT, as BLIP-2's does.

Li et al. (arXiv 2301.12597, 3.1; LAVIS' `Blip2Base.init_Qformer` and
`Blip2Qformer`): embeddings, attention and the text's MLPs are BERT's, the
queries' MLPs are copies of the text's, and what reads features is drawn. Its
table of token types has no place in a Q-Former.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax import tree
from mmjax.convert.families import qformer as family
from mmjax.convert.read import Safetensors
from mmjax.convert.rules import load

_DRAWN = re.compile(r"cross/.*|queries")
_LEFT_OUT = re.compile(
  r"(pooler|cls)\..*|.*token_type_embeddings\.weight|embeddings\.position_ids"
)
_TWINS = re.compile(r"(intermediate|output)\.(dense|LayerNorm)\.")
_WORDS = "embeddings.word_embeddings.weight"
# Of BERT's own first draw.
_STD = 0.02
# What the oldest files call a norm's weight and bias.
_OLD = {"gamma": "weight", "beta": "bias"}


def bert_qformer(shapes: Mapping[str, Any], path: str) -> dict[str, np.ndarray]:
  """What a Q-Former takes over of a BERT of its size; the rest is drawn.

  Args:
    shapes: of the Q-Former.
    path: a BERT in Hugging Face's names, such as bert-base-uncased: a
      safetensors file, or a folder of them.

  Raises:
    ValueError: for weights of another size.
  """
  given = Safetensors(path)
  return begin({name: given[name] for name in given}, shapes)


def begin(
  weights: Mapping[str, np.ndarray], shapes: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """A Q-Former's weights out of a BERT's.

  Args:
    weights: by Hugging Face's names, those of `BertModel` or with a root.
    shapes: of the Q-Former; rows of its vocabulary behind BERT's, [DEC]'s in
      BLIP-2, are drawn.
  """
  weights = {_name(name): value for name, value in weights.items()}
  for name in list(weights):
    # "attention.output" is no MLP.
    if "attention" not in name and _TWINS.search(name):
      weights[_TWINS.sub(r"\1_query.\2.", name)] = weights[name]
  missing = shapes["embedding/table"].shape[0] - len(weights.get(_WORDS, ()))
  if _WORDS in weights and missing > 0:
    width = weights[_WORDS].shape[1]
    rows = np.random.default_rng(0).normal(0, _STD, (missing, width))
    weights[_WORDS] = np.concatenate([weights[_WORDS], rows])
  own = {k: x for k, x in shapes.items() if not _DRAWN.fullmatch(k)}
  depth = shapes["layers/attention_norm/scale"].shape[0]
  rules = [
    rule for rule in family.lavis(depth) if "crossattention" not in rule.name
  ]
  ignored = _LEFT_OUT.fullmatch
  found = load(
    weights, rules, tree.unflatten(own), ignore=lambda name: bool(ignored(name))
  )
  return tree.flatten(found)


def _name(name: str) -> str:
  *parents, last = name.removeprefix("bert.").split(".")
  return ".".join([*parents, _OLD.get(last, last)])
