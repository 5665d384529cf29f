"""LLaMA (arXiv 2302.13971) and its kin: Vicuna, Alpaca, SmolLM2.

RMSNorm before attention and feed-forward, rotary positions, SwiGLU, grouped
keys and values where `num_kv_heads` says so. No published one of these has
biases; some that are built like them do.
"""

import functools
from collections.abc import Mapping
from typing import Any, Unpack

import flax.linen as nn

from mmjax.config import call
from mmjax.layers.attention import SelfAttention
from mmjax.layers.linear import Dtype, Lora
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import RMSNorm
from mmjax.layers.position import rotary
from mmjax.lms.decoder import Decoder, Shell, decoder

SIZES = {
  "7b": dict(
    vocab_size=32000, width=4096, num_layers=32, num_heads=32, hidden=11008
  ),
  "13b": dict(
    vocab_size=32000, width=5120, num_layers=40, num_heads=40, hidden=13824
  ),
  "65b": dict(
    vocab_size=32000, width=8192, num_layers=80, num_heads=64, hidden=22016
  ),
  "smollm2_135m": dict(
    vocab_size=49152,
    width=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    hidden=1536,
    rope_base=100000.0,
    norm_eps=1e-5,
    tie_embeddings=True,
  ),
}


class LlamaLayer(nn.Module):
  """x += attention(norm(x)); x += mlp(norm(x))."""

  num_heads: int
  num_kv_heads: int
  head_dim: int
  hidden: int
  rope_base: float = 10000.0
  norm_eps: float = 1e-6
  attention_bias: bool = False
  mlp_bias: bool = False
  lora: Lora | None = None
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x, context, cache, between):
    norm = functools.partial(RMSNorm, self.norm_eps, "embed")
    y, cache = SelfAttention(
      self.num_heads,
      self.head_dim,
      self.num_kv_heads,
      rotate=functools.partial(rotary, base=self.rope_base),
      qkv_bias=self.attention_bias,
      out_bias=self.attention_bias,
      lora=self.lora,
      dtype=self.dtype,
      name="attention",
    )(norm(name="attention_norm")(x), context, cache)
    x += y
    if between is not None:
      x = between(x)
    mlp = MLP(
      self.hidden,
      "silu",
      gated=True,
      use_bias=self.mlp_bias,
      lora=self.lora,
      dtype=self.dtype,
      name="mlp",
    )
    return x + mlp(norm(name="mlp_norm")(x)), cache


def llama(
  *,
  vocab_size: int,
  width: int,
  num_layers: int,
  num_heads: int,
  hidden: int,
  num_kv_heads: int | None = None,
  head_dim: int | None = None,
  rope_base: float = 10000.0,
  norm_eps: float = 1e-6,
  attention_bias: bool = False,
  mlp_bias: bool = False,
  lora: Mapping[str, Any] | None = None,
  tie_embeddings: bool = False,
  **shell: Unpack[Shell],
) -> Decoder:
  """A LLaMA-style decoder; `shell` goes to `Decoder`.

  `lora` has the fields of layers/linear.py's Lora, for all matrices of the
  layers.
  """
  layer = functools.partial(
    LlamaLayer,
    num_kv_heads=num_kv_heads or num_heads,
    hidden=hidden,
    rope_base=rope_base,
    norm_eps=norm_eps,
    attention_bias=attention_bias,
    mlp_bias=mlp_bias,
    lora=None if lora is None else call(Lora, lora),
  )
  return decoder(
    layer,
    vocab_size=vocab_size,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    head_dim=head_dim,
    norm=functools.partial(RMSNorm, norm_eps, "embed"),
    tie_embeddings=tie_embeddings,
    **shell,
  )
