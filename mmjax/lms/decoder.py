"""The shell of every decoder: tokens in, hidden states, logits, a cache.

A family (llama.py, opt.py, ...) is a layer and a function that puts it into
this shell. A layer is `layer(x, context, cache, between) -> (x, cache)`;
`between` runs between its self-attention and its feed-forward.
"""

import functools
from collections.abc import Callable
from typing import Any, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import random

from mmjax.layers.attention import Cache, Context
from mmjax.layers.dot_product import Visibility
from mmjax.layers.embed import Embedding
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.stack import Injection, scan_layers, stacked_init
from mmjax.typing import Array, Bool, Float, Int, Params


@struct.dataclass
class DecoderCache:
  """All layers' keys and values, and what their places hold.

  Attributes:
    layers: keys and values, [layers, B, S, K, H].
    positions: position of the token at each place.
    segments: its segment; 0 where nothing was written yet, or padding.
    index: the next free place, one for the whole batch; more than S when
      more was written than there was room for, and hidden states are NaN.
  """

  layers: Cache
  positions: Int[Array, "B S"]
  segments: Int[Array, "B S"]
  index: Int[Array, ""]

  @property
  def overflowed(self) -> Bool[Array, ""]:
    """Whether earlier tokens were overwritten for want of room."""
    return self.index > self.positions.shape[1]

  def rows(self, indices: Int[Array, "R"]) -> "DecoderCache":
    """The cache of other rows of the batch, for beams."""
    layers = jax.tree.map(lambda x: x[:, indices], self.layers)
    return self.replace(
      layers=layers,
      positions=self.positions[indices],
      segments=self.segments[indices],
    )

  def freed(self, places: Int[Array, ""]) -> "DecoderCache":
    """The cache with its last places, which hold padding, free again."""
    return self.replace(index=self.index - places)


def positions_after(
  next_position: Int[Array, "B"], real: Bool[Array, "B L"]
) -> Int[Array, "B L"]:
  """Positions of further tokens; padding on either side takes none.

  next_position 5, real 0 1 1 0   ->   5 5 6 6
  """
  after = jnp.cumsum(real, axis=1) - 1 + next_position[:, None]
  return jnp.maximum(after, 0)


def last_real(
  x: Float[Array, "B L D"], real: Bool[Array, "B L"]
) -> Float[Array, "B 1 D"]:
  """What stands at the last token of each row that is no padding."""
  last = jnp.max(jnp.where(real, jnp.arange(real.shape[1]), 0), axis=1)
  return jnp.take_along_axis(x, last[:, None, None], axis=1)


class Shell(TypedDict, total=False):
  """Fields of a Decoder that every family hands on; see there."""

  extra_tokens: int
  embed_std: float
  remat: str
  attention: str
  dtype: Dtype | None


class LayerStack(nn.Module):
  """Layers of one kind over embeddings, with masks, positions and a cache.

  Attributes:
    layer: constructor of a layer.
    num_layers, width: depth and D.
    num_kv_heads, head_dim: of the cache.
    remat: what a scan of layers keeps for the backward pass.
    attention: who computes it, see layers/dispatch.py.
    dtype: of the computation.
  """

  layer: Callable[..., nn.Module]
  num_layers: int
  width: int
  num_kv_heads: int
  head_dim: int
  remat: str = "none"
  attention: str = "auto"
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B L D"],
    positions: Int[Array, "B L"],
    segments: Int[Array, "B L"],
    *,
    cache: DecoderCache | None = None,
    injection: Injection | None = None,
    between: Callable[[Params, Array], Array] | None = None,
    between_xs: Params | None = None,
    dropout: Array | None = None,
  ) -> tuple[Float[Array, "B L D"], DecoderCache | None]:
    """Runs all layers; `injection` runs between layers.

    Args:
      x: token embeddings, or anything of that shape.
      positions: of each token within its segment, rising along it.
      segments: 0 is padding; only tokens of one segment see each other.
      cache: earlier tokens; the new ones are written behind them.
      injection: what to run before some layers.
      between: (row of between_xs, x) -> x, run inside each layer between
        self-attention and feed-forward.
      between_xs: arrays with a leading dim of layers.
      dropout: key of what is left out by chance; each layer draws its own.

    Returns:
      hidden states, and the cache with the new tokens. When they did not fit
      the cache, the states are NaN from then on.

    Raises:
      ValueError: for more tokens than a whole cache holds.
    """
    context, cache = self._context(positions, segments, cache)
    layer = self.layer(parent=None)

    def run(xs, x):
      params, layer_cache, own, key = xs
      hook = None if between is None else lambda y: between(own, y)
      return layer.apply(
        {"params": params},
        x,
        context,
        layer_cache,
        hook,
        rngs=None if key is None else {"dropout": key},
      )

    layers = None if cache is None else cache.layers
    keys = None if dropout is None else random.split(dropout, self.num_layers)
    xs = (self._weights(layer), layers, between_xs, keys)
    x, layers = scan_layers(
      run,
      xs,
      x,
      injection=injection,
      remat=self.remat,
      dims=("batch", "length"),
    )
    if cache is not None:
      cache = cache.replace(layers=layers, index=cache.index + x.shape[1])
      # The write clamps to the end and overwrites. How much is taken is known
      # on the device only, so the answer says it, at no wait for the host.
      x = jnp.where(cache.overflowed, jnp.nan, x)
    return x, cache

  def _weights(self, layer: nn.Module) -> dict[str, Any]:
    """One parameter per child of a layer, so that paths stay short."""
    if not self.is_initializing():
      # `self.param` would trace a layer's init again for every child.
      return nn.unbox(dict(self.variables["params"]))
    one = jnp.ones((1, 1), jnp.int32)
    context = Context(one, one, Visibility(), path="plain")
    x = jnp.zeros((1, 1, self.width), self.dtype or jnp.float32)
    init = stacked_init(layer, self.num_layers, x, context, None, None)
    names = jax.eval_shape(init, jax.random.key(0))
    return {
      name: self.param(name, lambda key, name=name: init(key)[name])
      for name in names
    }

  def _context(self, positions, segments, cache):
    visible = Visibility.among(segments, positions)
    key_positions, index = positions, None
    if cache is not None:
      length, room = positions.shape[1], cache.positions.shape[1]
      if length > room:
        raise ValueError(
          f"{length} tokens for a cache with room for {room}. Start the state "
          "with the size of the prompt and all that is to follow."
        )
      index = cache.index
      write = jax.lax.dynamic_update_slice_in_dim
      cache = cache.replace(
        positions=write(cache.positions, positions, index, 1),
        segments=write(cache.segments, segments, index, 1),
      )
      key_positions = cache.positions
      visible = Visibility(
        segments, cache.segments, positions, key_positions, causal=True
      )
    visible = visible.written()
    path = "plain" if self.is_initializing() else self.attention
    return Context(positions, key_positions, visible, index, path), cache

  def empty_cache(self, batch: int, size: int) -> DecoderCache:
    """A cache with room for `size` tokens a row."""
    shape = (self.num_layers, batch, size, self.num_kv_heads, self.head_dim)
    zeros = jnp.zeros(shape, self.dtype or jnp.float32)
    blank = jnp.zeros((batch, size), jnp.int32)
    return DecoderCache(
      Cache(zeros, zeros), blank, blank, jnp.zeros((), jnp.int32)
    )


class Decoder(nn.Module):
  """A causal language model around one kind of layer.

  Attributes:
    vocab_size, width, num_layers: V, D and the depth.
    layer: constructor of a layer.
    norm: constructor of the final norm; None for none.
    num_heads, num_kv_heads, head_dim: N, K, H of a layer.
    extra_tokens: rows for new tokens, in tables of their own.
    tie_embeddings: the output matrix is the embedding table.
    embed_width: width of the table when it is not D (OPT-350M).
    embed_std: of the tables' first draw.
    max_positions: rows of a learned position table; 0 for none.
    position_offset: first row of that table that is used (2 in OPT).
    remat: what a scan of layers keeps for the backward pass.
    attention: who computes it where there is no cache: `auto`, or a path of
      layers/dispatch.py.
    dtype: of the computation.
  """

  vocab_size: int
  width: int
  num_layers: int
  layer: Callable[..., nn.Module]
  num_heads: int
  num_kv_heads: int
  head_dim: int
  norm: Callable[..., nn.Module] | None = None
  extra_tokens: int = 0
  tie_embeddings: bool = False
  embed_width: int | None = None
  embed_std: float = 0.02
  max_positions: int = 0
  position_offset: int = 0
  remat: str = "none"
  attention: str = "auto"
  dtype: Dtype | None = None

  def setup(self):
    embed_width = self.embed_width or self.width
    table = dict(extra=self.extra_tokens, std=self.embed_std, dtype=self.dtype)
    self.embedding = Embedding(self.vocab_size, embed_width, **table)
    if not self.tie_embeddings:
      self.head = Embedding(self.vocab_size, embed_width, **table)
    if self.max_positions:
      self.position_table = Embedding(
        self.max_positions + self.position_offset, self.width, dtype=self.dtype
      )
    if embed_width != self.width:
      axes = (None, "embed")
      self.project_in = dense(
        embed_width, self.width, axes, dtype=self.dtype, name="project_in"
      )
      self.project_out = dense(
        self.width,
        embed_width,
        axes[::-1],
        dtype=self.dtype,
        name="project_out",
      )
    if self.norm is not None:
      self.final_norm = self.norm(name="final_norm")
    self.layers = stack_like(self, self.num_layers)

  def embed(
    self, tokens: Int[Array, "B L"], positions: Int[Array, "B L"]
  ) -> Float[Array, "B L D"]:
    """What the first layer reads of text."""
    return self.positioned(self.words(tokens), positions)

  def words(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """Token embeddings, without positions."""
    x = self.embedding(tokens)
    if (self.embed_width or self.width) != self.width:
      x = self.project_in(x)
    return x

  def positioned(
    self, x: Float[Array, "B L D"], positions: Int[Array, "B L"]
  ) -> Float[Array, "B L D"]:
    """Embeddings with learned positions, where the family has them."""
    if self.max_positions:
      x += self.position_table(positions + self.position_offset)
    return x

  def hidden(
    self,
    x: Float[Array, "B L D"],
    positions: Int[Array, "B L"],
    segments: Int[Array, "B L"],
    **kwargs,
  ) -> tuple[Float[Array, "B L D"], DecoderCache | None]:
    """All layers over embeddings, before the final norm; see LayerStack."""
    return self.layers(x, positions, segments, **kwargs)

  def logits(self, x: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
    """Final norm and scores of every token, in float32."""
    if self.norm is not None:
      x = self.final_norm(x)
    if (self.embed_width or self.width) != self.width:
      x = self.project_out(x)
    head = self.embedding if self.tie_embeddings else self.head
    return head.logits(x)

  def __call__(
    self,
    tokens: Int[Array, "B L"],
    positions: Int[Array, "B L"],
    segments: Int[Array, "B L"],
    cache: DecoderCache | None = None,
  ) -> tuple[Float[Array, "B L V"], DecoderCache | None]:
    """The plain language model."""
    x = self.embed(tokens, positions)
    x, cache = self.hidden(x, positions, segments, cache=cache)
    return self.logits(x), cache

  def empty_cache(self, batch: int, size: int) -> DecoderCache:
    """See LayerStack."""
    return self.layers.empty_cache(batch, size)


def decoder(
  layer: Callable[..., nn.Module],
  *,
  width: int,
  num_heads: int,
  head_dim: int | None = None,
  num_kv_heads: int | None = None,
  **fields,
) -> Decoder:
  """A Decoder of a family: heads share the width, all have keys of their own.

  Args:
    layer: constructor of a layer, which takes `num_heads`, `head_dim` and
      `dtype`.
    width, num_heads: D, N.
    head_dim: H; None is D / N.
    num_kv_heads: K; None is N.
    **fields: further ones of Decoder.
  """
  if head_dim is None and width % num_heads:
    raise ValueError(
      f"A width of {width} does not part into {num_heads} heads. Change one, "
      "or give head_dim where the family takes it."
    )
  head_dim = head_dim or width // num_heads
  heads = dict(num_heads=num_heads, head_dim=head_dim)
  return Decoder(
    width=width,
    layer=functools.partial(layer, dtype=fields.get("dtype"), **heads),
    num_kv_heads=num_kv_heads or num_heads,
    **heads,
    **fields,
  )


def stack_like(lm: Decoder, num_layers: int) -> LayerStack:
  """Layers of a model's kind: its own, or more on top of it (grafting)."""
  return LayerStack(
    lm.layer,
    num_layers,
    lm.width,
    lm.num_kv_heads,
    lm.head_dim,
    lm.remat,
    lm.attention,
    lm.dtype,
  )
