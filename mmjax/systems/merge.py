"""Media tokens in the sequence of a language model: arrays in, arrays out.

The data code has left `Q` places for each medium; a place names its medium.

  index   0  1  1  1  0  2  2  2  0     one row, two media of Q = 3 tokens
  rows    .  0  1  2  .  3  4  5  .     of the media's tokens, one after the
  x       a  m0 m1 m2 b  n0 n1 n2 c     other: the merged sequence
"""

import jax.numpy as jnp
from jax import lax

from mmjax.typing import Array, Bool, Float, Int


def rows_of(
  index: Int[Array, "B L"], tokens: int
) -> tuple[Int[Array, "B L"], Bool[Array, "B L"]]:
  """Which token of the media each place is.

  A medium's places follow one another; how many it has in a row before a
  place says which of its tokens belongs there.

  index    0 1 1 1 0     1 1 1 1      1 1 0 2 2 2     Q = 3
  rows     . 0 1 2 .     0 1 2 x      0 x . 3 4 5     x: no token

  Args:
    index: the medium that a place stands for, from 1; 0 is text.
    tokens: of a medium (Q).

  Returns:
    rows of the media's tokens laid end to end, 0 for text; and whether a
    place has one. Places beyond a medium's last token have none, nor has the
    last of too few: a part of a medium is not what anyone meant.
  """
  at = jnp.arange(index.shape[1])
  before = jnp.pad(index[:, :-1], ((0, 0), (1, 0)))
  after = jnp.pad(index[:, 1:], ((0, 0), (0, 1)))
  starts = jnp.where(index != before, at, 0)
  since = at - lax.cummax(starts, axis=1)
  ends = (index != after) & (since < tokens - 1)
  there = (index > 0) & (since < tokens) & ~ends
  return jnp.where(there, (index - 1) * tokens + since, 0), there


def merge(
  x: Float[Array, "B L D"],
  media: Float[Array, "B M Q D"],
  index: Int[Array, "B L"],
) -> Float[Array, "B L D"]:
  """The text's embeddings with media in their places.

  A place that names a medium but finds no token there is NaN: the data code
  and the model disagree on how many tokens a medium has.
  """
  batch, count, tokens, width = media.shape
  if count == 0:
    return jnp.where((index > 0)[..., None], jnp.nan, x)
  rows, there = rows_of(index, tokens)
  there &= index <= count
  flat = media.reshape(batch, count * tokens, width).astype(x.dtype)
  found = jnp.take_along_axis(flat, rows[..., None], axis=1, mode="clip")
  found = jnp.where(there[..., None], found, jnp.nan)
  return jnp.where((index > 0)[..., None], found, x)
