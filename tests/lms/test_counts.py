"""Parameters of the published sizes; nothing is allocated."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from mmjax import tree
from mmjax.lms import LMS
from mmjax.lms.chinchilla import SIZES as CHINCHILLA
from mmjax.lms.gpt_neox import SIZES as GPT_NEOX
from mmjax.lms.llama import SIZES as LLAMA
from mmjax.lms.mpt import SIZES as MPT
from mmjax.lms.opt import SIZES as OPT

SIZES = {"gpt_neox": GPT_NEOX, "llama": LLAMA, "mpt": MPT, "opt": OPT}
# Of Hugging Face's modules with the published configs.
COUNTS = {
  ("llama", "7b"): 6_738_415_616,
  ("llama", "13b"): 13_015_864_320,
  ("llama", "65b"): 65_285_660_672,
  ("llama", "smollm2_135m"): 134_515_008,
  ("opt", "125m"): 125_239_296,
  ("opt", "350m"): 331_196_416,
  ("opt", "1.3b"): 1_315_758_080,
  ("opt", "2.7b"): 2_651_596_800,
  ("opt", "6.7b"): 6_658_473_984,
  ("opt", "13b"): 12_853_473_280,
  ("gpt_neox", "pythia_410m"): 405_334_016,
  ("gpt_neox", "incite_3b"): 2_775_864_320,
  ("mpt", "7b"): 6_649_286_656,
}


def count(name: str, fields: dict) -> int:
  module = LMS[name](**fields)
  one = jnp.ones((1, 1), jnp.int32)
  like = jax.eval_shape(module.init, jax.random.key(0), one, one, one)
  return tree.count(nn.unbox(like)["params"])


@pytest.mark.parametrize("name, size", COUNTS)
def test_published_sizes(name, size):
  assert count(name, SIZES[name][size]) == COUNTS[name, size]


@pytest.mark.parametrize(
  "size, layers", [("1.4b", 24), ("7b", 40), ("7b_table5", 32), ("70b", 80)]
)
def test_chinchilla_has_thirteen_squares_a_layer(size, layers):
  """Flamingo's own counts (Table 5) leave norms and biases out."""
  fields = CHINCHILLA[size]
  width = fields["width"]
  squares = 13 * layers * width**2 + 32000 * width
  assert count("chinchilla", fields) == pytest.approx(squares, rel=2e-4)
  # What is beyond: two norms and the biases u and v a layer, a last norm.
  assert count("chinchilla", fields) - squares <= (4 * layers + 1) * width


def test_heads_that_do_not_part_the_width():
  with pytest.raises(ValueError, match="width of 100 .* 12 heads"):
    LMS["opt"](vocab_size=8, width=100, num_layers=1, num_heads=12, hidden=8)
