"""Perceiver resampler (arXiv 2204.14198, section 2.1 and Figure 4).

Learned latents read the features of one image or video through a few layers
of attention; whatever its size, a medium becomes `num_latents` tokens. Keys
and values come from the features and the latents together.

The paper and open code differ; the defaults are the paper's. `OPEN_FLAMINGO`
(also lucidrains/flamingo-pytorch) and `IDEFICS` list what the others do.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from mmjax.connectors.resampler import Resampler
from mmjax.layers.dot_product import attend
from mmjax.layers.linear import Dtype, into_heads, out_of_heads
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.sharding import constrain
from mmjax.typing import Array, Bool, Float

# Table 4 of the paper (v2). Only heads of 128 (v1) give its count of 194M,
# together with a projection from NFNet's 3072 features.
FLAMINGO = dict(
  width=1536,
  depth=6,
  num_heads=16,
  head_dim=128,
  num_latents=64,
  max_frames=8,
  project_input=True,
  final_norm=False,
)
OPEN_FLAMINGO = dict(
  depth=6, num_heads=8, head_dim=64, num_latents=64, activation="gelu"
)
IDEFICS = dict(
  depth=6,
  num_heads=16,
  head_dim=96,
  num_latents=64,
  activation="relu",
  qk_norm=True,
)


class PerceiverLayer(nn.Module):
  """x += attention(x, [features, x]); x += mlp(x)."""

  num_heads: int
  head_dim: int
  hidden: int
  activation: str
  qk_norm: bool = False
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B Q D"],
    features: Float[Array, "B S D"],
    mask: Bool[Array, "B 1 1 S"] | None,
  ) -> Float[Array, "B Q D"]:
    width = x.shape[-1]
    heads = (self.num_heads, self.head_dim)
    project = functools.partial(into_heads, width, *heads, dtype=self.dtype)
    latents = LayerNorm(name="latents_norm")(x)
    features = LayerNorm(name="media_norm")(features)
    both = jnp.concatenate([features, latents], axis=1)
    query = project(name="query")(latents)
    key, value = project(name="key")(both), project(name="value")(both)
    if self.qk_norm:
      query = LayerNorm(name="query_norm")(query)
      key = LayerNorm(name="key_norm")(key)
    out = out_of_heads(*heads, width, dtype=self.dtype, name="out")
    x += out(attend(query, key, value, mask=mask))
    mlp = MLP(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    return x + mlp(LayerNorm(name="mlp_norm")(x))


def visible_keys(
  mask: Bool[Array, "B M T"] | None, tokens: int, latents: int
) -> Bool[Array, "R 1 1 S"] | None:
  """A row for each medium: the tokens of its frames, then its latents.

  mask 1 0, 2 tokens a frame, 3 latents   ->   1 1 0 0 1 1 1
  """
  if mask is None:
    return None
  mask = jnp.repeat(mask.reshape(-1, mask.shape[2]), tokens, axis=1)
  own = jnp.ones((mask.shape[0], latents), bool)
  return jnp.concatenate([mask, own], axis=1)[:, None, None]


class PerceiverResampler(Resampler):
  """Features of media to `num_latents` tokens a medium.

  Attributes, beyond those of every Resampler:
    num_heads, head_dim: N, H.
    max_media: rows of a table added by a medium's place among the media; 0
      for none. A misreading of the paper in open code, there to load it.
    qk_norm: norms each head of queries and keys (IDEFICS).
    final_norm: norms the output.
  """

  num_heads: int = 16
  head_dim: int = 128
  max_media: int = 0
  qk_norm: bool = False
  final_norm: bool = True

  @nn.compact
  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Resamples each medium on its own.

    Args:
      features: P tokens of T frames of M media.
      mask: False for frames that are padding; nothing reads them.
    """
    features = self._numbered(self.inputs(features))
    batch, media, frames, tokens, width = features.shape
    flat = features.reshape(batch * media, frames * tokens, width)
    flat = constrain(flat, "batch")
    x = self.latents(flat)
    visible = visible_keys(mask, tokens, self.num_latents)
    layer = PerceiverLayer(
      self.num_heads,
      self.head_dim,
      self.mlp_width,
      self.activation,
      self.qk_norm,
      self.dtype,
      parent=None,
    )
    init = stacked_init(layer, self.depth, x[:1], flat[:1], None)
    params = self.param("layers", init)

    def run(params, x):
      return layer.apply({"params": params}, x, flat, visible), None

    x, _ = scan_layers(run, params, x)
    if self.final_norm:
      x = LayerNorm(name="norm")(x)
    return x.reshape(batch, media, self.num_latents, self.width)

  def _numbered(self, features):
    """Adds what tells media apart, for code that does."""
    if not self.max_media:
      return features
    media = features.shape[1]
    if media > self.max_media:
      raise ValueError(
        f"{media} media for a table of {self.max_media}. Set max_media=0 or "
        "give fewer."
      )
    table = self.table("media", self.max_media)
    return features + table[:media, None, None].astype(features.dtype)
