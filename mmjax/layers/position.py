"""Positions: rotary, ALiBi, sinusoids, buckets, interpolation of tables."""

import math

import jax.numpy as jnp
import numpy as np

from mmjax.typing import Array, Float, Int


def rotary(
  x: Float[Array, "B L N H"],
  positions: Int[Array, "B L"],
  *,
  base: float = 10000.0,
  dims: int | None = None,
) -> Float[Array, "B L N H"]:
  """Rotates pairs (i, i + dims/2) of each head by position * base^(-2i/dims).

  The half-split pairing of GPT-NeoX and of LLaMA in Hugging Face's layout
  (arXiv 2104.09864).

  Args:
    x: queries or keys.
    positions: position of each token.
    base: theta of the frequencies.
    dims: how many of the leading dims of a head turn; None is all.
  """
  dims = dims or x.shape[-1]
  turned, rest = x[..., :dims], x[..., dims:]
  frequency = base ** (-jnp.arange(0, dims, 2, dtype=jnp.float32) / dims)
  angle = positions[..., None, None].astype(jnp.float32) * frequency
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  a, b = jnp.split(turned.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return jnp.concatenate([turned.astype(x.dtype), rest], axis=-1)


def alibi_slopes(num_heads: int, max_bias: float = 8.0) -> np.ndarray:
  """Slope of each head (arXiv 2108.12409): 2^(-max_bias i / N), i = 1..N.

  For N that is no power of two, MPT takes the slopes of the next power and
  from them first every second one, then the others.
  """
  power = 2 ** math.ceil(math.log2(num_heads))
  slopes = 2.0 ** (-max_bias * np.arange(1, power + 1) / power)
  if power != num_heads:
    slopes = np.concatenate([slopes[1::2], slopes[::2]])[:num_heads]
  return slopes.astype(np.float32)


def relative_buckets(
  distance: Int[np.ndarray, "..."], num_buckets: int, max_distance: int
) -> Int[np.ndarray, "..."]:
  """The row of T5's table of relative positions (arXiv 1910.10683) of each.

  Half of the rows are for keys after the query. Half of a half are for one
  distance each, the rest for logarithmic steps up to `max_distance`; whatever
  is further shares the last. With 16 rows for distances up to 20:

    key - query  -20 .. -14 | -13 .. -9 | -8 .. -6 | -5 -4 -3 -2 -1 0 1  2
    row           7           6           5           4  4  3  2  1 0 9 10

  Args:
    distance: key minus query.
    num_buckets: rows of the table.
    max_distance: from where on there are no steps.

  Raises:
    ValueError: for a table that has no place for both kinds of rows.
  """
  half = num_buckets // 2
  exact = half // 2
  if exact < 1 or max_distance <= exact:
    raise ValueError(
      f"A table of {num_buckets} rows for distances up to {max_distance}: "
      f"expected 4 rows or more, and a distance above {exact}."
    )
  size = np.abs(distance)
  # In float32 step by step, as rows were chosen in training: where a step
  # ends on a whole number, another order of operations takes the other row.
  ratio = np.maximum(size, exact).astype(np.float32) / np.float32(exact)
  step = np.log(ratio.astype(np.float64)).astype(np.float32)
  step /= np.float32(math.log(max_distance / exact))
  step *= np.float32(half - exact)
  far = np.minimum(exact + step.astype(np.int32), half - 1)
  row = np.where(size < exact, size, far) + np.where(distance > 0, half, 0)
  return row.astype(np.int32)


def sinusoids(
  positions: Array, width: int, base: float = 10000.0
) -> Float[Array, "... D"]:
  """Transformer-XL's table: all sines, then all cosines (arXiv 1901.02860)."""
  frequency = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
  angle = positions[..., None].astype(jnp.float32) * frequency
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def interpolate(table: Float[Array, "T D"], length: int) -> Array:
  """A table of `T` positions brought to `length` ones, linearly.

  The first and last entries stay where they are (align corners), as a table
  learnt on 8 frames serves 30 (Flamingo, arXiv 2204.14198 v2, B.1.2).
  """
  size = table.shape[0]
  if length == size:
    return table
  at = jnp.linspace(0.0, size - 1.0, length)
  low = jnp.clip(jnp.floor(at).astype(jnp.int32), 0, max(size - 2, 0))
  high = jnp.minimum(low + 1, size - 1)
  part = (at - low)[:, None].astype(table.dtype)
  return table[low] * (1 - part) + table[high] * part


def add_frames(
  features: Float[Array, "B M T P D"], table: Float[Array, "R D"]
) -> Float[Array, "B M T P D"]:
  """Adds to every frame its row; more frames than rows interpolate them."""
  frames = features.shape[2]
  if frames > table.shape[0]:
    table = interpolate(table, frames)
  return features + table[:frames, None].astype(features.dtype)


def interpolate_grid(
  grid: Float[Array, "h w E"], height: int, width: int
) -> Float[Array, "i j E"]:
  """A grid of positions brought to another size by bicubic convolution.

  As PyTorch's `interpolate` does it: kernel parameter -0.75, pixel centres at
  halves, edges repeated, no smoothing when it shrinks.
  """
  rows = jnp.asarray(_bicubic(grid.shape[0], height), grid.dtype)
  columns = jnp.asarray(_bicubic(grid.shape[1], width), grid.dtype)
  return jnp.einsum("ih,jw,hwE->ijE", rows, columns, grid)


def _bicubic(size: int, length: int) -> np.ndarray:
  """[length, size] weights of `size` samples for `length` new ones."""
  a = -0.75
  at = (np.arange(length) + 0.5) * (size / length) - 0.5
  low = np.floor(at).astype(int)
  result = np.zeros((length, size))
  for tap in range(-1, 3):
    d = np.abs(at - low - tap)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    weight = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    np.add.at(
      result, (np.arange(length), np.clip(low + tap, 0, size - 1)), weight
    )
  return result


def num_grid_distances(height: int, width: int) -> int:
  """How many rows a table for `grid_distances` has."""
  return (2 * height - 1) * (2 * width - 1) + 3


def grid_distances(height: int, width: int) -> Int[np.ndarray, "L L"]:
  """Which row of a table tells how a query lies to a key (BEiT, 2106.08254).

  Tokens are a class token and then a grid, row by row. A query that lies `i`
  rows below and `j` columns right of its key reads row
  (i + height - 1) (2 width - 1) + j + width - 1. The last three rows are for
  the class token: as query of the grid, as its key, and with itself. A grid
  of 1 x 2, whose table has 6 rows:

              class  left  right
    class       5      3     3
    left        4      1     0
    right       4      2     1
  """
  rows, columns = np.divmod(np.arange(height * width), width)
  down = rows[:, None] - rows + height - 1
  right = columns[:, None] - columns + width - 1
  last = num_grid_distances(height, width) - 1
  result = np.full((1 + height * width,) * 2, last)
  result[0, 1:], result[1:, 0] = last - 2, last - 1
  result[1:, 1:] = down * (2 * width - 1) + right
  return result


def fold_positions(mask: Int[Array, "B L"]) -> Int[Array, "B L"]:
  """Positions that count only the places where `mask` is set, from 0.

  mask       0 0 1 1 1 0
  positions  0 0 0 1 2 2
  """
  return jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=-1) - 1, 0)


def relative_shift(
  scores: Float[Array, "B N L P"],
  distance: Int[Array, "B L S"],
) -> Float[Array, "B N L S"]:
  """scores[b, n, l, distance[b, l, s]]: a score for each relative position.

  Distances out of the table are clipped; a causal mask hides them.
  """
  distance = jnp.clip(distance, 0, scores.shape[-1] - 1)
  return jnp.take_along_axis(scores, distance[:, None], axis=-1)
