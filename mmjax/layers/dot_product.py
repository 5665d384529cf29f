"""Who sees whom, as data, and the plain softmax attention over it.

The plain path runs everywhere, takes every mask and bias, and is what faster
ones (dispatch.py) are compared with.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from mmjax.sharding import constrain
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
    own: the keys are those of the queries' own tokens, in the same order.
    table, in_order: what `written` made ahead.
  """

  query_segments: Int[Array, "B L"] | None = None
  key_segments: Int[Array, "B S"] | None = None
  query_positions: Int[Array, "B L"] | None = None
  key_positions: Int[Array, "B S"] | None = None
  causal: bool = struct.field(pytree_node=False, default=False)
  own: bool = struct.field(pytree_node=False, default=False)
  table: Bool[Array, "B 1 L S"] | None = None
  in_order: Bool[Array, "B"] | None = None

  @classmethod
  def among(
    cls,
    segments: Int[Array, "B L"],
    positions: Int[Array, "B L"] | None = None,
  ) -> "Visibility":
    """Of tokens that see one another; causal when there are positions."""
    causal = positions is not None
    return cls(segments, segments, positions, positions, causal, own=True)

  def written(self) -> "Visibility":
    """The same with its tables made, once for all layers of a stack.

    A table that no layer reads costs nothing: the compiler drops it.
    """
    in_order = None
    if self.own and self.causal:
      in_order = rises(self.query_segments, self.query_positions)
    return self.replace(table=self.dense(), in_order=in_order)

  def dense(self) -> Bool[Array, "B 1 L S"] | None:
    """The table of True where the query sees the key; None when it sees all."""
    if self.table is not None:
      return self.table
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
    return table if table is None else constrain(table, "batch", None, "length")

  def by_row(self, out: Float[Array, "B L N H"]) -> Float[Array, "B L N H"]:
    """What a path that takes rows' order for positions has to make of it.

    Zeros for padding, and NaN in rows whose positions do not rise.
    """
    if self.query_segments is not None:
      out = jnp.where(self.query_segments[..., None, None] > 0, out, 0)
    if not self.causal:
      return out
    in_order = self.in_order
    if in_order is None:
      in_order = rises(self.query_segments, self.query_positions)
    return jnp.where(in_order[:, None, None, None], out, jnp.nan)


def rises(
  segments: Int[Array, "B L"], positions: Int[Array, "B L"]
) -> Bool[Array, "B"]:
  """Whether positions rise along each segment of a row, padding aside.

  Then "at an earlier position of the same segment" and "earlier in the row and
  of the same segment" mean the same. Segments have to come one after the
  other with rising numbers, so that each is looked at as a whole.

    segments   1 1 0 2 2   1 1 2 2   1 2 1   1 1
    positions  0 1 0 0 1   0 1 0 1   0 0 1   1 0
    rises      yes         yes       no      no
  """
  real = segments > 0
  room = positions.max(axis=1, keepdims=True) + 1
  order = jnp.where(real, segments * room + positions, -1)
  before = jnp.pad(order, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
  return (~real | (order > jax.lax.cummax(before, axis=1))).all(axis=1)


@dataclasses.dataclass(frozen=True)
class Problem:
  """What of an attention decides who can compute it: shapes, not numbers.

  Attributes:
    batch, length, keys, heads, kv_heads, head_dim: B, L, S, N, K, H.
    dtype: of queries, keys and values.
    biased: something is added to the scores.
    dropped: some of the softmax's weights are left out by chance.
    segmented: there are segments, padding among them.
    causal, own: see Visibility.
    length_parts: devices over which the mesh in scope cuts L.
    placed: there is a mesh in scope, or one device: it is known how arrays lie.
  """

  batch: int
  length: int
  keys: int
  heads: int
  kv_heads: int
  head_dim: int
  dtype: str
  biased: bool = False
  dropped: bool = False
  segmented: bool = False
  causal: bool = False
  own: bool = False
  length_parts: int = 1
  placed: bool = True

  def __str__(self) -> str:
    heads = f"{self.heads}/{self.kv_heads}"
    return (
      f"{self.dtype} [batch {self.batch}, length {self.length}/{self.keys}, "
      f"heads {heads} of {self.head_dim}]"
    )


def attend(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B S K H"],
  value: Float[Array, "B S K H"],
  *,
  mask: Bool[Array, "B #N #L S"] | None = None,
  bias: Float[Array, "#B #N #L S"] | None = None,
  scale: float | None = None,
  drop: Callable[[Array], Array] | None = None,
) -> Float[Array, "B L N H"]:
  """Softmax attention with float32 scores; N may be a multiple of K.

  A query that may see no key gets zeros.

  Args:
    query, key, value: K heads of keys serve N / K heads of queries each.
    mask: True where a query sees a key; None is everywhere.
    bias: added to the scaled scores.
    scale: of the scores; None is H^-1/2.
    drop: what becomes of the softmax's weights in training.
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
  if drop is not None:
    weights = drop(weights)
  out = jnp.einsum("BKGLS,BSKH->BLKGH", weights.astype(value.dtype), value)
  return out.reshape(batch, length, heads, value.shape[-1])


def _by_group(table: Array, kv_heads: int, group: int) -> Array:
  """[B N L S] to [B K G L S]; a head dim of 1 stays broadcastable."""
  batch, heads, *rest = table.shape
  if heads == 1:
    return table[:, :, None]
  return table.reshape(batch, kv_heads, group, *rest)
