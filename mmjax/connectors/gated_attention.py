"""Flamingo's gated cross-attention block (arXiv 2204.14198, Figure 5).

  y += tanh(a) * attention(y, media);  y += tanh(b) * mlp(y)

with a = b = 0 at first, so that a frozen language model starts unchanged.
Open code differs from the paper in details; each is a field. With the
defaults this is the paper; `OPEN_FLAMINGO` and `IDEFICS` list what the others
(open_flamingo `src/helpers.py`, transformers `models/idefics`) do.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.config import lookup
from mmjax.layers.linear import Dtype, into_heads, out_of_heads
from mmjax.layers.media_attention import attend_media
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm, RMSNorm
from mmjax.typing import Array, Float, Int

OPEN_FLAMINGO = dict(
  num_heads=8, head_dim=64, norm_media=False, activation="gelu"
)
IDEFICS = dict(
  norm="rms",
  norm_media=False,
  qk_norm=True,
  activation="silu",
  gated_mlp=True,
)
NORMS: dict[str, Callable[..., nn.Module]] = {
  "layer": LayerNorm,
  "rms": RMSNorm,
}


class MediaAttention(nn.Module):
  """Queries from text, keys and values from media latents.

  Attributes:
    width, media_width: D of the text, E of the media.
    num_heads, head_dim: N, H.
    norm: of the text, `layer` or `rms`.
    norm_media: norms what keys and values are made from, too.
    qk_norm: norms each head of queries and keys (IDEFICS).
    previous: lets a token see all media up to its own.
    dtype: of the computation.
  """

  width: int
  media_width: int
  num_heads: int
  head_dim: int
  norm: str = "layer"
  norm_media: bool = True
  qk_norm: bool = False
  previous: bool = False
  dtype: Dtype | None = None

  def setup(self):
    heads = (self.num_heads, self.head_dim)
    self.text_norm = lookup(NORMS, self.norm, "norm")(axis="embed")
    if self.norm_media:
      self.media_norm = lookup(NORMS, self.norm, "norm")(axis="embed")
    if self.qk_norm:
      self.query_norm, self.key_norm = RMSNorm(), RMSNorm()
    self.query = into_heads(self.width, *heads, dtype=self.dtype)
    self.key = into_heads(self.media_width, *heads, dtype=self.dtype)
    self.value = into_heads(self.media_width, *heads, dtype=self.dtype)
    self.out = out_of_heads(*heads, self.width, dtype=self.dtype)

  def keys_values(
    self, media: Float[Array, "B M Q E"]
  ) -> tuple[Float[Array, "B M Q N H"], Float[Array, "B M Q N H"]]:
    """What decoding keeps of the media."""
    if self.norm_media:
      media = self.media_norm(media)
    key = self.key(media)
    return self.key_norm(key) if self.qk_norm else key, self.value(media)

  def __call__(
    self,
    x: Float[Array, "B L D"],
    keys_values: tuple[Array, Array],
    index: Int[Array, "B L"] | None,
  ) -> Float[Array, "B L D"]:
    query = self.query(self.text_norm(x))
    if self.qk_norm:
      query = self.query_norm(query)
    key, value = keys_values
    out = attend_media(query, key, value, index, previous=self.previous)
    return self.out(out)


class GatedCrossAttention(nn.Module):
  """The block: attention to media and a feed-forward, each behind a gate.

  Attributes:
    width, media_width, num_heads, head_dim: D, E, N, H.
    hidden: F; None is 4 D, 0 leaves the feed-forward out (the vanilla
      cross-attention of the paper's ablation).
    activation, gated_mlp: of the feed-forward.
    gate: `scalar`, `vector` (one a channel, IDEFICS) or `none` (ungated).
    gate_init: alpha at the start. The paper's 0 leaves a pretrained language
      model as it was; one that is trained from scratch needs no such care.
    norm, norm_media, qk_norm, previous: see MediaAttention.
    dtype: of the computation.
  """

  width: int
  media_width: int
  num_heads: int
  head_dim: int
  hidden: int | None = None
  activation: str = "squared_relu"
  gated_mlp: bool = False
  gate: str = "scalar"
  gate_init: float = 0.0
  norm: str = "layer"
  norm_media: bool = True
  qk_norm: bool = False
  previous: bool = False
  dtype: Dtype | None = None

  def setup(self):
    sizes = {"scalar": 1, "vector": self.width, "none": 0}
    lookup(sizes, self.gate, "gate")
    self.attention = MediaAttention(
      self.width,
      self.media_width,
      self.num_heads,
      self.head_dim,
      self.norm,
      self.norm_media,
      self.qk_norm,
      self.previous,
      self.dtype,
    )
    hidden = 4 * self.width if self.hidden is None else self.hidden
    if hidden:
      self.mlp_norm = lookup(NORMS, self.norm, "norm")(axis="embed")
      self.mlp = MLP(
        hidden, self.activation, gated=self.gated_mlp, dtype=self.dtype
      )
    start = initializers.constant(self.gate_init)
    init = nn.with_logical_partitioning(start, (None,))
    if self.gate != "none":
      shape = (sizes[self.gate],)
      self.attention_gate = self.param("attention_gate", init, shape)
      if hidden:
        self.mlp_gate = self.param("mlp_gate", init, shape)

  def keys_values(self, media: Float[Array, "B M Q E"]):
    """See MediaAttention."""
    return self.attention.keys_values(media)

  def attended(self, x, keys_values, index) -> Float[Array, "B L D"]:
    """The attention's output before its gate."""
    return self.attention(x, keys_values, index)

  def from_media(self, x, media, index) -> Float[Array, "B L D"]:
    """The block over media latents, [B M Q E]."""
    return self(x, self.keys_values(media), index)

  def __call__(
    self,
    x: Float[Array, "B L D"],
    keys_values: tuple[Array, Array],
    index: Int[Array, "B L"] | None,
  ) -> Float[Array, "B L D"]:
    y = self.attended(x, keys_values, index)
    x += self._gated(y, "attention_gate")
    if self.hidden == 0:
      return x
    return x + self._gated(self.mlp(self.mlp_norm(x)), "mlp_gate")

  def _gated(self, y: Array, name: str) -> Array:
    if self.gate == "none":
      return y
    return y * jnp.tanh(getattr(self, name)).astype(y.dtype)


def layers_before(num_layers: int, every: int, first: int) -> tuple[int, ...]:
  """The layers a block runs before: first, first + every, ...

  Flamingo begins with layer 0; OpenFlamingo with layer `every - 1`.
  """
  return tuple(range(first, num_layers, every))


def gates(params) -> dict[str, jax.Array]:
  """tanh of all gates of stacked blocks: name to [blocks] (means of vectors).

  The paper's Figure 6 shows their absolute values over training.
  """
  return {
    name: jnp.tanh(params[name]).mean(axis=-1)
    for name in ("attention_gate", "mlp_gate")
    if name in params
  }
