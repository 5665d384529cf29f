"""Tables of token embeddings, with room for rows that train on their own."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.layers.linear import Dtype
from mmjax.sharding import constrain
from mmjax.typing import Array, Float, Int


class Embedding(nn.Module):
  """Rows by id, and scores of all rows for a hidden state.

  New tokens of a frozen model live in a table of their own, so that only
  their rows train (the idea of IDEFICS' decoupled embedding): ids from `size`
  on are rows of `extra`. An id of no row, which on the device cannot raise,
  gives NaN and not another row.

    ids     0 .. size-1 | size .. size+extra-1 | other
    params  table       | extra                | NaN

  Attributes:
    size: rows of the main table.
    width: D.
    extra: rows of the second table.
    std: of the first draw. What is small beside the outputs of the first
      layers drowns in them, and a model trained from scratch then learns late
      to copy from its context.
    dtype: of the computation.
  """

  size: int
  width: int
  extra: int = 0
  std: float = 0.02
  dtype: Dtype | None = None

  def setup(self):
    init = initializers.normal(self.std)
    named: Any = nn.with_logical_partitioning(init, ("vocab", "embed"))
    self.table = self.param("table", named, (self.size, self.width))
    if self.extra:
      named = nn.with_logical_partitioning(init, (None, "embed"))
      self.extra_table = self.param("extra", named, (self.extra, self.width))

  def __call__(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    dtype = self.dtype or self.table.dtype
    # Rows that lie in pieces would be looked up for all tokens by everyone.
    table = constrain(jnp.asarray(self.table), "vocab")
    x = jnp.take(table, jnp.clip(ids, 0, self.size - 1), axis=0)
    x = x.astype(dtype)
    if self.extra:
      row = jnp.clip(ids - self.size, 0, self.extra - 1)
      extra = constrain(jnp.asarray(self.extra_table), None)
      new = jnp.take(extra, row, axis=0)
      x = jnp.where((ids >= self.size)[..., None], new.astype(dtype), x)
    known = (ids >= 0) & (ids < self.size + self.extra)
    return constrain(jnp.where(known[..., None], x, jnp.nan), "batch", "length")

  def logits(self, x: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """Scores of all size + extra tokens, in float32."""
    return jnp.concatenate(
      [self._scores(x, self.table)]
      + ([self._scores(x, self.extra_table)] if self.extra else []),
      axis=-1,
    )

  def _scores(self, x, table):
    scores = jnp.einsum(
      "BLD,VD->BLV",
      x,
      table.astype(x.dtype),
      preferred_element_type=jnp.float32,
    )
    return constrain(scores, "batch", "length", "vocab")
