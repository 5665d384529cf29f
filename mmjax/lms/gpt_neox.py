"""GPT-NeoX (arXiv 2204.06745): RedPajama-INCITE, Pythia.

Rotary positions on a part of each head, biases, an untied head, and residuals
either parallel, x + attention(norm(x)) + mlp(norm'(x)), or one after the
other.
"""

import functools
from typing import Unpack

import flax.linen as nn

from mmjax.layers.attention import SelfAttention
from mmjax.layers.linear import Dtype
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import rotary
from mmjax.lms.decoder import Decoder, Shell, decoder

SIZES = {
  "incite_3b": dict(
    vocab_size=50432,
    width=2560,
    num_layers=32,
    num_heads=32,
    hidden=10240,
    rotary_fraction=1.0,
    parallel=False,
  ),
  "pythia_410m": dict(
    vocab_size=50304, width=1024, num_layers=24, num_heads=16, hidden=4096
  ),
}


class GptNeoxLayer(nn.Module):
  """Attention and feed-forward in parallel or in turn."""

  num_heads: int
  head_dim: int
  hidden: int
  rotary_fraction: float = 0.25
  rope_base: float = 10000.0
  parallel: bool = True
  norm_eps: float = 1e-5
  activation: str = "gelu"
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x, context, cache, between):
    if self.parallel and between is not None:
      raise ValueError(
        "Parallel residuals leave no place between self-attention and "
        "feed-forward. Set parallel=False or inject before layers."
      )
    norm = functools.partial(LayerNorm, self.norm_eps, axis="embed")
    turned = int(self.head_dim * self.rotary_fraction)
    y, cache = SelfAttention(
      self.num_heads,
      self.head_dim,
      rotate=functools.partial(rotary, base=self.rope_base, dims=turned),
      qkv_bias=True,
      out_bias=True,
      dtype=self.dtype,
      name="attention",
    )(norm(name="attention_norm")(x), context, cache)
    mlp = MLP(
      self.hidden, self.activation, use_bias=True, dtype=self.dtype, name="mlp"
    )
    mlp_norm = norm(name="mlp_norm")
    if self.parallel:
      return x + y + mlp(mlp_norm(x)), cache
    x += y
    if between is not None:
      x = between(x)
    return x + mlp(mlp_norm(x)), cache


def gpt_neox(
  *,
  vocab_size: int,
  width: int,
  num_layers: int,
  num_heads: int,
  hidden: int,
  rotary_fraction: float = 0.25,
  rope_base: float = 10000.0,
  parallel: bool = True,
  norm_eps: float = 1e-5,
  activation: str = "gelu",
  tie_embeddings: bool = False,
  **shell: Unpack[Shell],
) -> Decoder:
  """A GPT-NeoX decoder; `shell` goes to `Decoder`."""
  layer = functools.partial(
    GptNeoxLayer,
    hidden=hidden,
    rotary_fraction=rotary_fraction,
    rope_base=rope_base,
    parallel=parallel,
    norm_eps=norm_eps,
    activation=activation,
  )
  return decoder(
    layer,
    vocab_size=vocab_size,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    norm=functools.partial(LayerNorm, norm_eps, axis="embed"),
    tie_embeddings=tie_embeddings,
    **shell,
  )
