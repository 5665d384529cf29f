"""Dot-product attention, its mask, its cache, and the module around it."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from mmjax.layers.linear import Dtype, into_heads, out_of_heads
from mmjax.typing import Array, Bool, Float, Int

# Finite, so that a query that may see nothing gives no NaN.
NEGATIVE = -1e30


@struct.dataclass
class Visibility:
  """Which keys a query may see, as data; `dense` writes it out.

  A query sees the keys of its own segment, and when `causal` those at its own
  position or before. Segment 0 is padding: nobody sees it. For packed
  documents of lengths 2 and 3, causal:

    segments   1 1 2 2 2        1 . . . .
    positions  0 1 0 1 2        1 1 . . .
                                . . 1 . .
                                . . 1 1 .
                                . . 1 1 1

  Attributes:
    query_segments, key_segments: None when all is one segment.
    query_positions, key_positions: needed when causal.
    causal: hides later positions.
  """

  query_segments: Int[Array, "B L"] | None = None
  key_segments: Int[Array, "B S"] | None = None
  query_positions: Int[Array, "B L"] | None = None
  key_positions: Int[Array, "B S"] | None = None
  causal: bool = struct.field(pytree_node=False, default=False)

  def dense(self) -> Bool[Array, "B 1 L S"] | None:
    """The table of True where the query sees the key; None when it sees all."""
    table = None
    if self.query_segments is not None:
      query = self.query_segments[:, None, :, None]
      key = self.key_segments[:, None, None, :]
      table = (query == key) & (key > 0)
    if self.causal:
      past = (
        self.key_positions[:, None, None, :]
        <= self.query_positions[:, None, :, None]
      )
      table = past if table is None else table & past
    return table


def attend(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B S K H"],
  value: Float[Array, "B S K H"],
  *,
  mask: Bool[Array, "B #N #L S"] | None = None,
  bias: Float[Array, "#B #N #L S"] | None = None,
  scale: float | None = None,
) -> Float[Array, "B L N H"]:
  """Softmax attention with float32 scores; N may be a multiple of K.

  A query that may see no key gets zeros.

  Args:
    query, key, value: K heads of keys serve N / K heads of queries each.
    mask: True where a query sees a key; None is everywhere.
    bias: added to the scaled scores.
    scale: of the scores; None is H^-1/2.
  """
  batch, length, heads, size = query.shape
  kv_heads = key.shape[2]
  if heads % kv_heads:
    raise ValueError(f"{heads} query heads do not share {kv_heads} key heads.")
  grouped = query.reshape(batch, length, kv_heads, heads // kv_heads, size)
  scores = jnp.einsum(
    "BLKGH,BSKH->BKGLS",
    grouped,
    key,
    preferred_element_type=jnp.float32,
  ) * (size**-0.5 if scale is None else scale)
  if bias is not None:
    scores += _by_group(bias, kv_heads, heads // kv_heads)
  if mask is not None:
    mask = _by_group(mask, kv_heads, heads // kv_heads)
    scores = jnp.where(mask, scores, NEGATIVE)
  weights = jax.nn.softmax(scores, axis=-1)
  if mask is not None:
    weights = jnp.where(mask.any(axis=-1, keepdims=True), weights, 0.0)
  out = jnp.einsum("BKGLS,BSKH->BLKGH", weights.astype(value.dtype), value)
  return out.reshape(batch, length, heads, value.shape[-1])


def _by_group(table: Array, kv_heads: int, group: int) -> Array:
  """[B N L S] to [B K G L S]; a head dim of 1 stays broadcastable."""
  batch, heads, *rest = table.shape
  if heads == 1:
    return table[:, :, None]
  return table.reshape(batch, kv_heads, group, *rest)


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
    mask: who sees whom.
    index: where in the cache the tokens go; None without a cache.
  """

  positions: Int[Array, "B L"]
  key_positions: Int[Array, "B S"]
  mask: Bool[Array, "B 1 L S"] | None
  index: Int[Array, ""] | None = None


class SelfAttention(nn.Module):
  """Queries, keys and values of one sequence, projected, cached, attended.

  What differs between language models comes in as functions and constructors.

  Attributes:
    num_heads, num_kv_heads, head_dim: N, K, H.
    rotate: turns queries and keys by position, (x, positions) -> x.
    bias: (context) -> [B N L S], added to the scores.
    norm: constructor of a norm over all heads' features (MPT-1B), or over one
      head's (`norm_heads`).
    norm_heads: whether `norm` sees one head at a time.
    qkv_bias, out_bias: biases of the projections.
    clip: queries, keys and values are cut to [-clip, clip].
    scale: of the scores; None is H^-1/2.
    rank: LoRA rank of the four projections.
    dtype: of the computation.
  """

  num_heads: int
  head_dim: int
  num_kv_heads: int | None = None
  rotate: Callable[[Array, Array], Array] | None = None
  bias: Callable[[Context], Array] | None = None
  norm: Callable[..., nn.Module] | None = None
  norm_heads: bool = False
  qkv_bias: bool = False
  out_bias: bool = False
  clip: float | None = None
  scale: float | None = None
  rank: int = 0
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
    bias = None if self.bias is None else self.bias(context)
    out = attend(
      query, key, value, mask=context.mask, bias=bias, scale=self.scale
    )
    out = out_of_heads(
      self.num_heads,
      self.head_dim,
      x.shape[-1],
      use_bias=self.out_bias,
      rank=self.rank,
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
      use_bias=self.qkv_bias,
      rank=self.rank,
      dtype=self.dtype,
      name=name,
    )(x)
    return y if self.clip is None else jnp.clip(y, -self.clip, self.clip)

  def _normalise(self, name, x):
    if self.norm_heads:
      return self.norm(name=name)(x)
    flat = x.reshape(*x.shape[:-2], -1)
    return self.norm(name=name)(flat).reshape(x.shape)
