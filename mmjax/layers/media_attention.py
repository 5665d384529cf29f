"""Cross-attention in which a token reads the one medium it may see.

`index` is data: index[b, l] is the number of the medium that token l of row b
sees, 1..M, or 0 for none (then the output is zero). Numbers beyond M see
nothing as well; the PyTorch code lets such tokens see everything.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from mmjax.layers.dot_product import attend
from mmjax.sharding import axes_of, parts_of
from mmjax.typing import Array, Bool, Float, Int

# Tokens that are served together. A tile belongs to one medium; small tiles
# waste little on the borders, large ones gather keys less often.
TILE = 32


def attend_media(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B M Q N H"],
  value: Float[Array, "B M Q N H"],
  index: Int[Array, "B L"] | None,
  *,
  previous: bool = False,
) -> Float[Array, "B L N H"]:
  """Attention of every token over the medium that `index` names.

  Keys are gathered, so cost and memory grow with L * Q and not with
  L * M * Q. The tokens that see one medium must be neighbours, as they are in
  any document; a map with more than M such runs gives NaN where it is out of
  room, never a wrong number.

  Args:
    query: of the text.
    key, value: Q latents of each of M media.
    index: the medium each token sees; None lets all tokens see all media.
    previous: a token sees its medium and all before it (an ablation of
      Flamingo, arXiv 2204.14198 v2, Table 10 ii); costs L * M * Q.
  """
  if parts_of("length", query.shape[1]) > 1:
    return _attend_parts(query, key, value, index, previous)
  return _attend(query, key, value, index, previous)


def _attend_parts(query, key, value, index, previous):
  """Every device serves its own part of the text; all have the media."""
  batch, length, heads = query.shape[:3]
  rows, places, by_head = (
    axes_of(name, size) or None
    for name, size in (("batch", batch), ("length", length), ("heads", heads))
  )
  text = P(rows, places, by_head, None)
  media = P(rows, None, None, by_head, None)

  def run(query, key, value, index):
    return _attend(query, key, value, index, previous)

  return jax.shard_map(
    run,
    in_specs=(text, media, media, None if index is None else P(rows, places)),
    out_specs=text,
  )(query, key, value, index)


def _attend(query, key, value, index, previous):
  length, media = query.shape[1], key.shape[1]
  if index is None:
    return attend(query, _joined(key), _joined(value))
  seen = (index >= 1) & (index <= media)
  if previous:
    return _attend_previous(query, key, value, jnp.where(seen, index, 0))
  if media == 1:
    out = attend(query, _joined(key), _joined(value))
  elif length == 1:
    row = jnp.clip(index - 1, 0, media - 1)
    out = attend(query, _pick(key, row)[:, 0], _pick(value, row)[:, 0])
  else:
    out = _attend_tiles(query, key, value, jnp.where(seen, index, 0))
  return jnp.where(seen[..., None, None], out, 0)


def _joined(x: Float[Array, "B M Q N H"]) -> Float[Array, "B S N H"]:
  return x.reshape(x.shape[0], -1, *x.shape[3:])


def _pick(x: Array, rows: Int[Array, "B R"]) -> Array:
  """x[b, rows[b, r]] for every b and r."""
  rows = rows.reshape(*rows.shape, *(1,) * (x.ndim - 2))
  return jnp.take_along_axis(x, rows, axis=1)


def _attend_previous(query, key, value, index):
  media, latents = key.shape[1:3]
  number = jnp.repeat(jnp.arange(1, media + 1), latents)
  mask = number <= index[..., None]
  return attend(query, _joined(key), _joined(value), mask=mask[:, None])


def _attend_tiles(query, key, value, index):
  """Cuts the text at media borders and every TILE tokens, and serves tiles.

  index   0 1 1 1 2 2 2 2        TILE = 4
  tile    . 0 0 0 1 1 1 1        tile 0 reads block 0 and medium 1,
  block   0 0 0 0 1 1 1 1        tile 1 reads block 1 and medium 2
  """
  batch, length, heads, size = query.shape
  media = key.shape[1]
  tile = min(TILE, length)
  pad = -length % tile
  blocks = (length + pad) // tile
  query = jnp.pad(query, ((0, 0), (0, pad), (0, 0), (0, 0)))
  capacity = media + blocks - 1
  first, mine = tiles(index, tile, capacity)

  block = jnp.minimum(first, length - 1) // tile
  number = _pick(index, jnp.minimum(first, length - 1))
  q = _pick(query.reshape(batch, blocks, tile, heads, size), block)
  k = _pick(key, jnp.maximum(number - 1, 0))
  v = _pick(value, jnp.maximum(number - 1, 0))
  flat = (batch * capacity,)
  out = attend(
    q.reshape(*flat, *q.shape[2:]),
    k.reshape(*flat, *k.shape[2:]),
    v.reshape(*flat, *v.shape[2:]),
  ).reshape(batch, capacity * tile, heads, -1)

  room = (mine < capacity)[..., None, None]
  place = jnp.clip(mine, 0, capacity - 1) * tile + jnp.arange(length) % tile
  return jnp.where(room, _pick(out, place), jnp.nan)


def tiles(
  index: Int[Array, "B L"], tile: int, capacity: int
) -> tuple[Int[Array, "B R"], Int[Array, "B L"]]:
  """First token of each tile (L where unused), and the tile of each token."""
  length = index.shape[1]
  at = jnp.arange(length)
  before = jnp.pad(index, ((0, 0), (1, 0)))[:, :-1]
  starts: Bool[Array, "B L"] = (index > 0) & (
    (index != before) | (at % tile == 0)
  )
  mine = jnp.cumsum(starts, axis=1) - 1
  ordered = jnp.sort(jnp.where(starts, at, length), axis=1)
  first = lax.slice_in_dim(
    jnp.pad(ordered, ((0, 0), (0, capacity)), constant_values=length),
    0,
    capacity,
    axis=1,
  )
  return first, mine
