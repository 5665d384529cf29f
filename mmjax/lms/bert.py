"""BERT: an encoder of text (Devlin et al., arXiv 1810.04805).

Layers norm their sums: x = norm(x + attention(x)), then the same with the
MLP. Sizes below BERT-base are those of Turc et al. (arXiv 1908.08962).
Pretraining heads and dropout are left out.
"""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.config import lookup
from mmjax.layers.attention import Context, SelfAttention
from mmjax.layers.dot_product import Visibility
from mmjax.layers.embed import Embedding
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Float, Int

VARIANTS = {
  "tiny": dict(num_layers=2, width=128, num_heads=2),
  "mini": dict(num_layers=4, width=256, num_heads=4),
  "small": dict(num_layers=4, width=512, num_heads=8),
  "medium": dict(num_layers=8, width=512, num_heads=8),
  "base": dict(num_layers=12, width=768, num_heads=12),
  "large": dict(num_layers=24, width=1024, num_heads=16),
}


class Bert(nn.Module):
  """Tokens to one hidden state each.

  Attributes:
    width, num_layers, num_heads: D, depth and N.
    vocab_size: V.
    hidden: width of the MLPs; None is 4 D.
    max_positions: rows of the position table.
    types: rows of the token-type table.
    pooler: adds tanh(matrix(first token)), see `pooled`.
    activation: of the MLPs.
    norm_eps: of all norms.
    remat: what a scan of layers keeps for the backward pass.
    dtype: of the computation; None is float32.
  """

  width: int
  num_layers: int
  num_heads: int
  vocab_size: int = 30522
  hidden: int | None = None
  max_positions: int = 512
  types: int = 2
  pooler: bool = False
  activation: str = "gelu"
  norm_eps: float = 1e-12
  remat: str = "none"
  dtype: Dtype | None = None

  def setup(self):
    def table(rows):
      return Embedding(rows, self.width, dtype=self.dtype)

    self.embedding = table(self.vocab_size)
    self.position_table = table(self.max_positions)
    self.type_table = table(self.types)
    self.norm = LayerNorm(self.norm_eps)
    x = jnp.zeros((1, 1, self.width), self.dtype or jnp.float32)
    one = jnp.ones((1, 1), jnp.int32)
    init = stacked_init(
      self._layer(),
      self.num_layers,
      x,
      Context(one, one, Visibility(), path="plain"),
    )
    self.weights = self.param("layers", init)
    if self.pooler:
      axes = ("embed", None)
      self.pool = dense(
        self.width, self.width, axes, use_bias=True, name="pooler"
      )

  def _layer(self) -> "Layer":
    return Layer(
      num_heads=self.num_heads,
      hidden=self.hidden or 4 * self.width,
      activation=self.activation,
      norm_eps=self.norm_eps,
      dtype=self.dtype,
      parent=None,
    )

  def __call__(
    self,
    tokens: Int[Array, "B L"],
    positions: Int[Array, "B L"],
    segments: Int[Array, "B L"],
    types: Int[Array, "B L"] | None = None,
  ) -> Float[Array, "B L D"]:
    """Hidden states; those of padding (segment 0) mean nothing.

    Args:
      tokens: ids.
      positions: of each token within its segment.
      segments: only tokens of one segment see each other.
      types: which sentence of a pair each token is of; None is the first.
    """
    if types is None:
      types = jnp.zeros_like(tokens)
    x = self.embedding(tokens)
    x += self.position_table(positions) + self.type_table(types)
    visible = Visibility.among(segments).written()
    path = "plain" if self.is_initializing() else "auto"
    context = Context(positions, positions, visible, path=path)
    layer = self._layer()

    def run(params, x):
      return layer.apply({"params": params}, x, context), None

    x, _ = scan_layers(run, self.weights, self.norm(x), remat=self.remat)
    if self.pooler and self.is_initializing():
      self.pooled(x)
    return x

  def pooled(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B D"]:
    """What the original's classifiers read, from the first hidden state."""
    return jnp.tanh(self.pool(hidden[:, 0]))


class Layer(nn.Module):
  """norm(x + attention(x)), then norm(x + mlp(x)).

  Attributes:
    num_heads: N.
    hidden: width of the MLP.
    activation: of the MLP.
    norm_eps: of both norms.
    dtype: of the computation.
  """

  num_heads: int
  hidden: int
  activation: str
  norm_eps: float
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "B L D"], context: Context
  ) -> Float[Array, "B L D"]:
    if x.shape[-1] % self.num_heads:
      raise ValueError(
        f"A width of {x.shape[-1]} does not part into {self.num_heads} heads."
      )
    attention = SelfAttention(
      num_heads=self.num_heads,
      head_dim=x.shape[-1] // self.num_heads,
      qkv_bias=True,
      out_bias=True,
      dtype=self.dtype,
      name="attention",
    )
    y, _ = attention(x, context, None)
    x = LayerNorm(self.norm_eps, name="attention_norm")(x + y)
    mlp = MLP(
      self.hidden, self.activation, use_bias=True, dtype=self.dtype, name="mlp"
    )
    return LayerNorm(self.norm_eps, name="mlp_norm")(x + mlp(x))


def bert(
  variant: str = "base",
  vocab_size: int = 30522,
  pooler: bool = False,
  remat: str = "none",
  dtype: Dtype | None = None,
) -> Bert:
  """A published size, `tiny` to `large`."""
  return Bert(
    **lookup(VARIANTS, variant, "BERT"),
    vocab_size=vocab_size,
    pooler=pooler,
    remat=remat,
    dtype=dtype,
  )
