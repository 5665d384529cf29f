"""A layer of an encoder: norms come before attention and MLP."""

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.layers.attention import Context, SelfAttention
from mmjax.layers.dot_product import Visibility
from mmjax.layers.linear import Dtype
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import grid_distances, num_grid_distances
from mmjax.typing import Array, Float


class PreNormLayer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); every token sees all.

  Attributes:
    num_heads: N.
    hidden: width of the MLP.
    activation: of the MLP.
    qkv_bias: biases of queries, keys and values.
    key_bias: False leaves that of the keys out.
    grid: (height, width) of the tokens behind a class token, for which the
      layer has a table of relative positions; None is no table.
    layer_scale: first value of a factor a channel, for what attention and MLP
      add to x; 0 leaves the factors out.
    norm_eps: of both norms.
    path: who computes the attention.
    dtype: of the computation.
  """

  num_heads: int
  hidden: int
  activation: str
  qkv_bias: bool
  norm_eps: float
  key_bias: bool = True
  grid: tuple[int, int] | None = None
  layer_scale: float = 0.0
  path: str = "auto"
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B L E"],
    bias: Float[Array, "1 N L L"] | None = None,
  ) -> Float[Array, "B L E"]:
    """Runs the layer.

    Args:
      x: tokens.
      bias: added to the scaled scores, beside the layer's own.
    """
    if x.shape[-1] % self.num_heads:
      raise ValueError(
        f"A width of {x.shape[-1]} does not part into {self.num_heads} heads."
      )
    if self.grid is not None:
      own = relative_bias(self, self.grid, self.num_heads)
      bias = own if bias is None else bias + own
    attention = SelfAttention(
      num_heads=self.num_heads,
      head_dim=x.shape[-1] // self.num_heads,
      bias=None if bias is None else lambda *_: bias,
      qkv_bias=self.qkv_bias,
      key_bias=self.key_bias,
      out_bias=True,
      dtype=self.dtype,
      name="attention",
    )
    positions = jnp.zeros(x.shape[:2], jnp.int32)
    context = Context(positions, positions, Visibility(), path=self.path)
    y = LayerNorm(self.norm_eps, name="attention_norm")(x)
    y, _ = attention(y, context, None)
    x += self._scaled("attention_scale", y)
    y = LayerNorm(self.norm_eps, name="mlp_norm")(x)
    y = MLP(
      self.hidden,
      self.activation,
      use_bias=True,
      dtype=self.dtype,
      name="mlp",
    )(y)
    return x + self._scaled("mlp_scale", y)

  def _scaled(self, name: str, y: Array) -> Array:
    if not self.layer_scale:
      return y
    init = initializers.constant(self.layer_scale)
    init = nn.with_logical_partitioning(init, ("embed",))
    return y * self.param(name, init, y.shape[-1:]).astype(y.dtype)


def relative_bias(
  module: nn.Module, grid: tuple[int, int], num_heads: int
) -> Float[Array, "1 N L L"]:
  """A module's `relative_table`, looked up for each pair of tokens.

  Args:
    module: gets the parameter, a row for each distance within a grid.
    grid: (height, width); the class token comes first.
    num_heads: N.
  """
  init = nn.with_logical_partitioning(
    initializers.normal(0.02), (None, "heads")
  )
  shape = (num_grid_distances(*grid), num_heads)
  table = module.param("relative_table", init, shape).astype(jnp.float32)
  return jnp.moveaxis(table[grid_distances(*grid)], -1, 0)[None]
