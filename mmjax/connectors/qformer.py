"""The Q-Former: BLIP-2 (arXiv 2301.12597), InstructBLIP (arXiv 2305.06500).

A BERT whose sequence is learned queries and, behind them, text:

  queries [Q D], text [L] -> one norm over both -> layers -> [B Q + L D]

  layer   x = norm(x + attention(x))                     queries and text
          q = norm(q + cross_attention(q, features))     every second layer
          q = norm(q + query_mlp(q)),  t = norm(t + text_mlp(t))

Only queries read the features. Text has positions of its own, queries have
none. What queries and text see of one another is a table, one for each use:

  together    the query embeddings know the instruction (InstructBLIP), or
              what the text says is compared with the image (BLIP-2, ITM)
  apart       two towers (ITC)
  captioning  text sees the queries and the text before it (ITG)

In training, dropout is BERT's: behind the first norm, of every attention's
weights, and of what attention and MLPs add.

LAVIS adds -10,000 where ours is hidden: the same unless a row sees nothing.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.config import lookup
from mmjax.connectors.qformer_layers import CrossAttention, Layer
from mmjax.layers.attention import Context
from mmjax.layers.dot_product import Visibility
from mmjax.layers.embed import Embedding
from mmjax.layers.linear import Dtype
from mmjax.layers.norm import LayerNorm
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Bool, Float, Int, Params

# BERT's 30,522 tokens and [DEC], which begins a caption.
VOCABULARY = 30523


class QFormer(nn.Module):
  """Features of media to one hidden state a query, and one a text token.

  Attributes:
    features_width: of the features that are read (E).
    width, num_layers, num_heads: D, depth and N.
    num_queries: Q.
    cross_every: layers 0, this, twice this, ... read the features.
    hidden: width of the MLPs; None is 4 D.
    vocab_size: of the text; 0 leaves out all that is for text.
    max_positions: rows of the position table.
    activation: of the MLPs.
    norm_eps: of all norms.
    std: of the first draw of all matrices, BERT's.
    dropout: share of hidden states and of attention weights that is left out
      in training; nothing is where no "dropout" key is given.
    remat: what a scan of layers keeps for the backward pass.
    dtype: of the computation; None is float32.
  """

  features_width: int
  width: int = 768
  num_layers: int = 12
  num_heads: int = 12
  num_queries: int = 32
  cross_every: int = 2
  hidden: int | None = None
  vocab_size: int = VOCABULARY
  max_positions: int = 512
  activation: str = "gelu"
  norm_eps: float = 1e-12
  std: float = 0.02
  dropout: float = 0.0
  remat: str = "none"
  dtype: Dtype | None = None

  def setup(self):
    if self.cross_every < 1 or self.num_queries < 1:
      raise ValueError(
        f"cross_every is {self.cross_every} and num_queries "
        f"{self.num_queries}: expected 1 or more."
      )
    if not 0 <= self.dropout < 1:
      raise ValueError(
        f"dropout is {self.dropout}; expected a share from 0 to below 1."
      )
    init = nn.with_logical_partitioning(
      initializers.normal(0.02), (None, "embed")
    )
    self.queries = self.param("queries", init, (self.num_queries, self.width))
    if self.vocab_size:
      self.embedding = Embedding(self.vocab_size, self.width, dtype=self.dtype)
      self.position_table = Embedding(
        self.max_positions, self.width, dtype=self.dtype
      )
    self.norm = LayerNorm(self.norm_eps)
    x = jnp.zeros((1, self.num_queries, self.width), self.dtype or jnp.float32)
    features = jnp.zeros((1, 1, self.features_width), x.dtype)
    reading = -(-self.num_layers // self.cross_every)
    layer, cross = self._layer(), self._cross()
    self.layers = self.param(
      "layers", stacked_init(layer, self.num_layers, x, None, lambda x: x)
    )
    self.cross = self.param(
      "cross", stacked_init(cross, reading, x, features, None)
    )

  def _layer(self) -> "Layer":
    return Layer(
      num_heads=self.num_heads,
      num_queries=self.num_queries,
      hidden=self.hidden or 4 * self.width,
      with_text=bool(self.vocab_size),
      activation=self.activation,
      norm_eps=self.norm_eps,
      std=self.std,
      dropout=self.dropout,
      dtype=self.dtype,
      parent=None,
    )

  def _cross(self) -> "CrossAttention":
    return CrossAttention(
      *(self.num_heads, self.norm_eps, self.std, self.dropout),
      dtype=self.dtype,
      parent=None,
    )

  def __call__(
    self,
    features: Float[Array, "B S E"],
    mask: Bool[Array, "B S"] | None = None,
    text: Int[Array, "B L"] | None = None,
    table: Bool[Array, "B 1 X X"] | None = None,
    positions: Int[Array, "B L"] | None = None,
  ) -> Float[Array, "B X D"]:
    """Hidden states of the Q queries and, behind them, of the text.

    Args:
      features: of one medium a row.
      mask: False for features that are padding.
      text: ids; None is no text.
      table: who sees whom among queries and text, see `visible`; None lets
        all see all.
      positions: of the text tokens; None is 0, 1, ...
    """
    x = self.embed(features.shape[0], text, positions)
    visible = None if mask is None else mask[:, None, None, :]
    return self.run(x, table, features, visible)

  def read(
    self, text: Int[Array, "B L"], table: Bool[Array, "B 1 L L"] | None = None
  ) -> Float[Array, "B L D"]:
    """Hidden states of text alone, without queries and features."""
    x = self._begin(self._text(text, None))
    return self.run(x, table)

  def embed(
    self,
    batch: int,
    text: Int[Array, "B L"] | None,
    positions: Int[Array, "B L"] | None = None,
  ) -> Float[Array, "B X D"]:
    """What the first layer gets."""
    x = jnp.broadcast_to(self.queries, (batch, *self.queries.shape))
    x = x.astype(self.dtype or x.dtype)
    if self.vocab_size and (text is not None or self.is_initializing()):
      given = jnp.zeros((batch, 1), jnp.int32) if text is None else text
      words = self._text(given, positions)
      x = x if text is None else jnp.concatenate([x, words], axis=1)
    elif text is not None:
      raise ValueError(
        "This Q-Former reads no text (vocab_size=0), but there is some. Leave "
        "the instruction out, or give it a vocabulary."
      )
    return self._begin(x)

  def _begin(self, x: Float[Array, "B X D"]) -> Float[Array, "B X D"]:
    """The norm and the dropout before the first layer."""
    x, key = self.norm(x), self._key()
    if key is None:
      return x
    drop = nn.Dropout(self.dropout, deterministic=False, parent=None)
    return drop.apply({}, x, rng=key)

  def _key(self) -> Array | None:
    """A new key of what is left out by chance; None where nothing is."""
    if not self.dropout or not self.has_rng("dropout"):
      return None
    return self.make_rng("dropout")

  def _text(self, text, positions):
    length = text.shape[1]
    if positions is None:
      if length > self.max_positions:
        raise ValueError(
          f"The text has {length} tokens, the position table "
          f"{self.max_positions} rows. Cut the text."
        )
      positions = jnp.broadcast_to(jnp.arange(length), text.shape)
    return self.embedding(text) + self.position_table(positions)

  def run(
    self,
    x: Float[Array, "B X D"],
    table: Bool[Array, "B 1 X X"] | None,
    features: Float[Array, "B S E"] | None = None,
    visible: Bool[Array, "B 1 1 S"] | None = None,
  ) -> Float[Array, "B X D"]:
    """All layers; without features `x` is text alone."""
    layer, cross = self._layer(), self._cross()
    positions = jnp.zeros(x.shape[:2], jnp.int32)
    context = Context(positions, positions, Visibility(table=table))

    def one(own, x, reading=None):
      def read(queries):
        if reading is None:
          return queries
        weights, rngs = _given(reading)
        return cross.apply(weights, queries, features, visible, rngs=rngs)

      weights, rngs = _given(own)
      alone = features is None
      return layer.apply(weights, x, context, read, alone=alone, rngs=rngs)

    def group(weights, x):
      own, reading = weights
      reading = None if features is None else reading
      for i in range(jax.tree.leaves(own)[0].shape[0]):
        x = one(_at(own, i), x, None if i else reading)
      return x, None

    layers, reading = self._with_keys()
    whole = self.num_layers // self.cross_every
    end = whole * self.cross_every
    shape = (whole, self.cross_every)
    groups = jax.tree.map(
      lambda w: w[:end].reshape(*shape, *w.shape[1:]), layers
    )
    xs = groups, jax.tree.map(lambda w: w[:whole], reading)
    x, _ = scan_layers(group, xs, x, remat=self.remat)
    if end < self.num_layers:
      rest = jax.tree.map(lambda w: w[end:], layers)
      x, _ = group((rest, _at(reading, whole)), x)
    return x

  def _with_keys(self) -> list[tuple[Params, Array | None]]:
    """Weights of layers and of what reads, and a key of dropout for each."""
    stacks, key = (self.layers, self.cross), self._key()
    keys = (None, None) if key is None else jax.random.split(key)
    return [
      (stack, None if k is None else jax.random.split(k, _depth(stack)))
      for stack, k in zip(stacks, keys)
    ]


def _depth(stack: Params) -> int:
  return jax.tree.leaves(stack)[0].shape[0]


def _given(own: tuple[Params, Array | None]) -> tuple[Params, Params]:
  """Variables and keys to apply a layer with."""
  weights, key = own
  return {"params": weights}, {} if key is None else {"dropout": key}


def _at(params: Params, i: int) -> Params:
  return jax.tree.map(lambda w: w[i], params)


def visible(
  how: str, num_queries: int, text: Bool[Array, "B L"]
) -> Bool[Array, "B 1 X X"]:
  """Who sees whom among queries and text; padding is seen by nobody.

    together    apart       captioning
    1 1 1 1     1 1 . .     1 1 . .      two queries,
    1 1 1 1     1 1 . .     1 1 . .      then two tokens;
    1 1 1 1     . . 1 1     1 1 1 .      a row sees its columns
    1 1 1 1     . . 1 1     1 1 1 1

  Args:
    how: a name of SEES.
    num_queries: Q.
    text: False for padding.
  """
  (forward, back), causal = lookup(SEES, how, "way to see")
  length = text.shape[1]
  is_text = jnp.arange(num_queries + length) >= num_queries
  at = jnp.arange(num_queries + length)
  row, column = is_text[:, None], is_text[None, :]
  table = (row == column) | (~row & column & forward) | (row & ~column & back)
  if causal:
    table &= ~(row & column) | (at[:, None] >= at[None, :])
  there = jnp.pad(text, ((0, 0), (num_queries, 0)), constant_values=True)
  return (table[None] & there[:, None, :])[:, None]


# Name to (queries see text, text sees queries), and whether text is causal.
SEES = {
  "together": ((True, True), False),
  "apart": ((False, False), False),
  "captioning": ((False, True), True),
}
