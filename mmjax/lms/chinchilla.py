"""Chinchilla (arXiv 2203.15556) in the shape of Gopher (arXiv 2112.11446).

RMSNorm, GELU feed-forward of width 4D, tied embeddings, and the relative
positions of Transformer-XL (arXiv 1901.02860): a score has a content part
(q + u) k and a position part (q + v) W r(i - j) with sinusoids r, so a layer
has 13 D^2 weights. Neither paper prints the details; weights were never
released, so nothing here can be compared with an original.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.layers.attention import Cache, Context
from mmjax.layers.dispatch import attention
from mmjax.layers.linear import Dtype, into_heads, out_of_heads
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import RMSNorm
from mmjax.layers.position import relative_shift, sinusoids
from mmjax.lms.decoder import Decoder, Shell, decoder


def _size(width, num_layers):
  return dict(
    vocab_size=32000,
    width=width,
    num_layers=num_layers,
    num_heads=width // 128,
  )


# The language models of Flamingo (arXiv 2204.14198 v2, Table 4). Its Table 5
# counts 7.1B for Flamingo-9B, which is 32 layers, not the 40 of Table 4.
SIZES = {
  "1.4b": _size(2048, 24),
  "7b": _size(4096, 40),
  "7b_table5": _size(4096, 32),
  "70b": _size(8192, 80),
}


class RelativeAttention(nn.Module):
  """Causal self-attention with Transformer-XL's relative positions."""

  num_heads: int
  head_dim: int
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x, context: Context, cache: Cache | None):
    width = x.shape[-1]
    heads = (self.num_heads, self.head_dim)
    project = functools.partial(into_heads, width, *heads, dtype=self.dtype)
    query, key = project(name="query")(x), project(name="key")(x)
    value = project(name="value")(x)
    if cache is not None:
      cache = cache.update(key, value, context.index)
      key = cache.key.astype(query.dtype)
      value = cache.value.astype(query.dtype)
    reach = jnp.arange(key.shape[1])
    relative = project(name="position")(
      sinusoids(reach, width).astype(query.dtype)
    )
    scale = self.head_dim**-0.5
    position = jnp.einsum(
      "BLNH,SNH->BNLS",
      query + self._bias("position_bias", query),
      relative,
      preferred_element_type=jnp.float32,
    )
    distance = context.positions[:, :, None] - context.key_positions[:, None, :]
    out = attention(
      query + self._bias("content_bias", query),
      key,
      value,
      context.visible,
      bias=relative_shift(position, distance) * scale,
      scale=scale,
      path=context.path,
    )
    join = out_of_heads(*heads, width, dtype=self.dtype, name="out")
    return join(out), cache

  def _bias(self, name, like):
    init = nn.with_logical_partitioning(
      initializers.zeros, ("heads", "head_dim")
    )
    shape = (self.num_heads, self.head_dim)
    return self.param(name, init, shape).astype(like.dtype)


class ChinchillaLayer(nn.Module):
  """x += attention(norm(x)); x += mlp(norm(x))."""

  num_heads: int
  head_dim: int
  hidden: int
  norm_eps: float = 1e-6
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x, context, cache, between):
    norm = functools.partial(RMSNorm, self.norm_eps, "embed")
    attention = RelativeAttention(
      self.num_heads, self.head_dim, self.dtype, name="attention"
    )
    y, cache = attention(norm(name="attention_norm")(x), context, cache)
    x += y
    if between is not None:
      x = between(x)
    mlp = MLP(self.hidden, "gelu", dtype=self.dtype, name="mlp")
    return x + mlp(norm(name="mlp_norm")(x)), cache


def chinchilla(
  *,
  vocab_size: int,
  width: int,
  num_layers: int,
  num_heads: int,
  hidden: int | None = None,
  norm_eps: float = 1e-6,
  **shell: Unpack[Shell],
) -> Decoder:
  """A Chinchilla decoder with a tied head; `shell` goes to `Decoder`."""
  options = dict(hidden=hidden or 4 * width, norm_eps=norm_eps)
  return decoder(
    functools.partial(ChinchillaLayer, **options),
    vocab_size=vocab_size,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    norm=functools.partial(RMSNorm, norm_eps, "embed"),
    tie_embeddings=True,
    **shell,
  )
