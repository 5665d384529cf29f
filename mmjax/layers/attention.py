"""Self-attention as a module: projections, a cache, and what layers share."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmjax.layers.dispatch import attention
from mmjax.layers.dot_product import Visibility
from mmjax.layers.linear import Dtype, Lora, into_heads, out_of_heads
from mmjax.typing import Array, Float, Int


@struct.dataclass
class Cache:
  """Keys and values of one layer, or of a stack when a dim leads.

  Attributes:
    key, value: filled up to the decoder's `index`.
  """

  key: Float[Array, "*layers B S K H"]
  value: Float[Array, "*layers B S K H"]

  def update(self, key: Array, value: Array, index: Array) -> "Cache":
    """Writes new keys and values at `index` along S."""
    start = (0, index, 0, 0)
    return Cache(
      jax.lax.dynamic_update_slice(self.key, key.astype(self.key.dtype), start),
      jax.lax.dynamic_update_slice(
        self.value, value.astype(self.value.dtype), start
      ),
    )


@struct.dataclass
class Context:
  """What every layer of a decoder is told about its tokens.

  Attributes:
    positions: position of each token in its segment.
    key_positions: the same of all keys, cached ones included.
    visible: who sees whom.
    index: where in the cache the tokens go; None without a cache.
    path: who computes the attention, see dispatch.py.
  """

  positions: Int[Array, "B L"]
  key_positions: Int[Array, "B S"]
  visible: Visibility
  index: Int[Array, ""] | None = None
  path: str = struct.field(pytree_node=False, default="auto")


class SelfAttention(nn.Module):
  """Queries, keys and values of one sequence, projected, cached, attended.

  What differs between language models comes in as functions and constructors.

  Attributes:
    num_heads, num_kv_heads, head_dim: N, K, H.
    rotate: turns queries and keys by position, (x, positions) -> x.
    bias: (context, query) -> [B N L S], added to the scores; the query is the
      one that meets the keys, before `scale`.
    norm: constructor of a norm over all heads' features (MPT-1B), or over one
      head's (`norm_heads`).
    norm_heads: whether `norm` sees one head at a time.
    qkv_bias, out_bias: biases of the projections.
    key_bias: False leaves that of the keys out, which no softmax notices.
    clip: queries, keys and values are cut to [-clip, clip].
    scale: of the scores; None is H^-1/2.
    std: of the first draw of the four projections, see Linear.
    lora: of the four projections.
    dropout: share of the softmax's weights that are left out in training;
      nothing is where no "dropout" key is given.
    dtype: of the computation.
  """

  num_heads: int
  head_dim: int
  num_kv_heads: int | None = None
  rotate: Callable[[Array, Array], Array] | None = None
  bias: Callable[[Context, Array], Array] | None = None
  norm: Callable[..., nn.Module] | None = None
  norm_heads: bool = False
  qkv_bias: bool = False
  key_bias: bool = True
  out_bias: bool = False
  clip: float | None = None
  scale: float | None = None
  std: float | None = None
  lora: Lora | None = None
  dropout: float = 0.0
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "B L D"], context: Context, cache: Cache | None
  ) -> tuple[Float[Array, "B L D"], Cache | None]:
    query = self._project("query", x, self.num_heads, "heads")
    kv_heads = self.num_kv_heads or self.num_heads
    key = self._project("key", x, kv_heads, "kv_heads")
    value = self._project("value", x, kv_heads, "kv_heads")
    if self.norm is not None:
      query = self._normalise("query_norm", query)
      key = self._normalise("key_norm", key)
    if self.rotate is not None:
      query = self.rotate(query, context.positions)
      key = self.rotate(key, context.positions)
    if cache is not None:
      cache = cache.update(key, value, context.index)
      key = cache.key.astype(query.dtype)
      value = cache.value.astype(query.dtype)
    bias = None if self.bias is None else self.bias(context, query)
    drop = None
    if self.dropout and self.has_rng("dropout"):
      drop = nn.Dropout(self.dropout, deterministic=False)
    out = attention(
      query,
      key,
      value,
      context.visible,
      bias=bias,
      scale=self.scale,
      drop=drop,
      # Then only shapes are asked for, perhaps of a length of 1.
      path="plain" if self.is_initializing() else context.path,
    )
    out = out_of_heads(
      self.num_heads,
      self.head_dim,
      x.shape[-1],
      use_bias=self.out_bias,
      std=self.std,
      lora=self.lora,
      dtype=self.dtype,
      name="out",
    )(out)
    return out, cache

  def _project(self, name, x, heads, axis):
    y = into_heads(
      x.shape[-1],
      heads,
      self.head_dim,
      axis,
      use_bias=self.qkv_bias and (self.key_bias or name != "key"),
      std=self.std,
      lora=self.lora,
      dtype=self.dtype,
      name=name,
    )(x)
    return y if self.clip is None else jnp.clip(y, -self.clip, self.clip)

  def _normalise(self, name, x):
    if self.norm_heads:
      return self.norm(name=name)(x)
    flat = x.reshape(*x.shape[:-2], -1)
    return self.norm(name=name)(flat).reshape(x.shape)
