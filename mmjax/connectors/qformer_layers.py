"""The Q-Former's layers: attention with an MLP for queries and one for text.

x = norm(x + attention(x))                     queries and text
q = norm(q + cross_attention(q, features))     every second layer
q = norm(q + query_mlp(q)),  t = norm(t + text_mlp(t))
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers.attention import Context, SelfAttention
from mmjax.layers.dot_product import Visibility, attend
from mmjax.layers.linear import Dtype, into_heads, out_of_heads
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.sharding import constrain
from mmjax.typing import Array, Bool, Float


class Layer(nn.Module):
  """Attention among queries and text, then an MLP for each of the two.

  Attributes:
    num_heads: N.
    num_queries: Q.
    hidden: width of the MLPs.
    with_text: there is an MLP for text.
    activation: of the MLPs.
    norm_eps: of all norms.
    std: see QFormer.
    dropout: see QFormer.
    dtype: of the computation.
  """

  num_heads: int
  num_queries: int
  hidden: int
  with_text: bool
  activation: str
  norm_eps: float
  std: float | None = None
  dropout: float = 0.0
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B X D"],
    context: Context | None,
    read: Callable[[Array], Array],
    alone: bool = False,
  ) -> Float[Array, "B X D"]:
    """One layer.

    Args:
      x: queries and text.
      context: of the attention among them; None lets all see all.
      read: what queries do with the features.
      alone: there is text only.
    """
    if x.shape[-1] % self.num_heads:
      raise ValueError(
        f"A width of {x.shape[-1]} does not part into {self.num_heads} heads."
      )
    if context is None:
      positions = jnp.zeros(x.shape[:2], jnp.int32)
      context = Context(positions, positions, Visibility())
    attention = SelfAttention(
      num_heads=self.num_heads,
      head_dim=x.shape[-1] // self.num_heads,
      qkv_bias=True,
      out_bias=True,
      std=self.std,
      dropout=self.dropout,
      dtype=self.dtype,
      name="attention",
    )
    y, _ = attention(x, context, None)
    x = self._norm("attention_norm")(x + self._drop(y))
    count = 0 if alone else self.num_queries
    queries, text = x[:, :count], x[:, count:]
    if not alone:
      queries = self._mlp("query_mlp", read(queries))
    if self.with_text and (text.shape[1] or self.is_initializing()):
      text = self._mlp("text_mlp", text)
    return jnp.concatenate([queries, text], axis=1)

  def _mlp(self, name, x):
    mlp = MLP(
      self.hidden,
      self.activation,
      use_bias=True,
      std=self.std,
      dtype=self.dtype,
      name=name,
    )
    return self._norm(f"{name}_norm")(x + self._drop(mlp(x)))

  def _drop(self, x):
    return nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(
      x
    )

  def _norm(self, name):
    return LayerNorm(self.norm_eps, name=name)


class CrossAttention(nn.Module):
  """norm(x + attention(x, features)), features of a width of their own.

  Attributes:
    num_heads: N.
    norm_eps: of the norm.
    std, dropout: see QFormer.
    dtype: of the computation.
  """

  num_heads: int
  norm_eps: float
  std: float | None = None
  dropout: float = 0.0
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B Q D"],
    features: Float[Array, "B S E"],
    mask: Bool[Array, "B 1 1 S"] | None,
  ) -> Float[Array, "B Q D"]:
    width = x.shape[-1]
    heads = (self.num_heads, width // self.num_heads)
    common = dict(use_bias=True, std=self.std, dtype=self.dtype)
    features = constrain(features, "batch")
    query = into_heads(width, *heads, name="query", **common)(x)
    key, value = (
      into_heads(features.shape[-1], *heads, name=name, **common)(features)
      for name in ("key", "value")
    )
    out = out_of_heads(*heads, width, name="out", **common)
    drop = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))
    y = out(attend(query, key, value, mask=mask, drop=drop))
    return LayerNorm(self.norm_eps, name="norm")(x + drop(y))
