"""OPT (arXiv 2205.01068): learned positions, layer norm, ReLU, biases.

Sizes differ in two ways: the 350M model normalises after each residual sum,
has no final norm and a narrower embedding table.
"""

import functools
from typing import Unpack

import flax.linen as nn

from mmjax.layers.attention import SelfAttention
from mmjax.layers.linear import Dtype
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.lms.decoder import Decoder, Shell, decoder


def _size(width, num_layers, num_heads, **more):
  return dict(
    vocab_size=50272,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    hidden=4 * width,
    **more,
  )


SIZES = {
  "125m": _size(768, 12, 12),
  "350m": _size(1024, 24, 16, embed_width=512, pre_norm=False),
  "1.3b": _size(2048, 24, 32),
  "2.7b": _size(2560, 32, 32),
  "6.7b": _size(4096, 32, 32),
  "13b": _size(5120, 40, 40),
}


class OptLayer(nn.Module):
  """Attention and feed-forward, normed before or after the residual sum."""

  num_heads: int
  head_dim: int
  hidden: int
  pre_norm: bool = True
  activation: str = "relu"
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x, context, cache, between):
    attention_norm = LayerNorm(axis="embed", name="attention_norm")
    mlp_norm = LayerNorm(axis="embed", name="mlp_norm")
    attention = SelfAttention(
      self.num_heads,
      self.head_dim,
      qkv_bias=True,
      out_bias=True,
      dtype=self.dtype,
      name="attention",
    )
    mlp = MLP(
      self.hidden, self.activation, use_bias=True, dtype=self.dtype, name="mlp"
    )
    y, cache = attention(
      attention_norm(x) if self.pre_norm else x, context, cache
    )
    x = x + y if self.pre_norm else attention_norm(x + y)
    if between is not None:
      x = between(x)
    if self.pre_norm:
      return x + mlp(mlp_norm(x)), cache
    return mlp_norm(x + mlp(x)), cache


def opt(
  *,
  vocab_size: int,
  width: int,
  num_layers: int,
  num_heads: int,
  hidden: int,
  pre_norm: bool = True,
  activation: str = "relu",
  embed_width: int | None = None,
  max_positions: int = 2048,
  tie_embeddings: bool = True,
  **shell: Unpack[Shell],
) -> Decoder:
  """An OPT decoder; `shell` goes to `Decoder`."""
  options = dict(hidden=hidden, pre_norm=pre_norm, activation=activation)
  return decoder(
    functools.partial(OptLayer, **options),
    vocab_size=vocab_size,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    norm=functools.partial(LayerNorm, axis="embed") if pre_norm else None,
    tie_embeddings=tie_embeddings,
    embed_width=embed_width,
    max_positions=max_positions,
    position_offset=2,
    **shell,
  )
