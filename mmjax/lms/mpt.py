"""MPT (MosaicML): ALiBi instead of positions, no biases anywhere, GELU.

The 1B model (mpt-1b-redpajama-200b) also normalises queries and keys over all
heads' features.
"""

import functools
from typing import Unpack

import flax.linen as nn
import jax.numpy as jnp

from mmjax.layers.attention import Context, SelfAttention
from mmjax.layers.linear import Dtype
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import alibi_slopes
from mmjax.lms.decoder import Decoder, Shell, decoder
from mmjax.typing import Array, Float

SIZES = {
  "1b": dict(
    vocab_size=50368,
    width=2048,
    num_layers=24,
    num_heads=16,
    hidden=8192,
    qk_norm=True,
  ),
  "7b": dict(
    vocab_size=50432, width=4096, num_layers=32, num_heads=32, hidden=16384
  ),
}


def alibi(
  context: Context, query: Float[Array, "B L N H"], max_bias: float
) -> Float[Array, "B N L S"]:
  """-slope * distance between query and key."""
  slopes = jnp.asarray(alibi_slopes(query.shape[2], max_bias))[:, None, None]
  distance = (
    context.positions[:, None, :, None] - context.key_positions[:, None, None]
  )
  return -slopes * distance.astype(jnp.float32)


class MptLayer(nn.Module):
  """x += attention(norm(x)); x += mlp(norm(x)), without biases."""

  num_heads: int
  head_dim: int
  hidden: int
  qk_norm: bool = False
  clip: float | None = None
  scale: float | None = None
  max_bias: float = 8.0
  norm_eps: float = 1e-5
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x, context, cache, between):
    norm = functools.partial(
      LayerNorm, self.norm_eps, use_bias=False, axis="embed"
    )
    y, cache = SelfAttention(
      self.num_heads,
      self.head_dim,
      bias=functools.partial(alibi, max_bias=self.max_bias),
      norm=functools.partial(LayerNorm, use_bias=False)
      if self.qk_norm
      else None,
      clip=self.clip,
      scale=self.scale,
      dtype=self.dtype,
      name="attention",
    )(norm(name="attention_norm")(x), context, cache)
    x += y
    if between is not None:
      x = between(x)
    mlp = MLP(self.hidden, "gelu", dtype=self.dtype, name="mlp")
    return x + mlp(norm(name="mlp_norm")(x)), cache


def mpt(
  *,
  vocab_size: int,
  width: int,
  num_layers: int,
  num_heads: int,
  hidden: int,
  qk_norm: bool = False,
  clip: float | None = None,
  scale: float | None = None,
  max_bias: float = 8.0,
  norm_eps: float = 1e-5,
  tie_embeddings: bool = True,
  **shell: Unpack[Shell],
) -> Decoder:
  """An MPT decoder; `shell` goes to `Decoder`."""
  options = dict(
    hidden=hidden,
    qk_norm=qk_norm,
    clip=clip,
    scale=scale,
    max_bias=max_bias,
    norm_eps=norm_eps,
  )
  return decoder(
    functools.partial(MptLayer, **options),
    vocab_size=vocab_size,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    norm=functools.partial(LayerNorm, norm_eps, use_bias=False, axis="embed"),
    tie_embeddings=tie_embeddings,
    **shell,
  )
