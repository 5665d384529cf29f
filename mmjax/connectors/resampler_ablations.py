"""The two resamplers that Flamingo compares the Perceiver with.

Table 3 (vi) of arXiv 2204.14198 v2 names an MLP and a Transformer of about
the Perceiver's 194M parameters and gives no shapes. Those here are chosen so
that the weights of their layers are as many as the Perceiver's, 188,743,680:

  transformer  6 layers over features and latents: 4 * 1536 * 2048 + 8 * 1536^2
  mlp          10 layers on every feature alone: 8 * 1536^2; then a learned
               weighted sum of each frame's places, averaged over frames

Both read every feature at the full width, so both are slower than the
Perceiver, as in the paper.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.connectors.perceiver import visible_keys
from mmjax.connectors.resampler import Resampler
from mmjax.layers.attention import Context, SelfAttention
from mmjax.layers.dot_product import Visibility
from mmjax.layers.linear import Dtype
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Bool, Float

COMMON = dict(width=1536, num_latents=64, max_frames=8, project_input=True)
FLAMINGO_MLP = dict(depth=10, **COMMON)
FLAMINGO_TRANSFORMER = dict(depth=6, num_heads=16, head_dim=128, **COMMON)


class MLPLayer(nn.Module):
  """x + mlp(norm(x))."""

  hidden: int
  activation: str
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    mlp = MLP(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    return x + mlp(LayerNorm(name="mlp_norm")(x))


class MLPResampler(Resampler):
  """A weighted sum of features after layers of their own, without attention.

  The number of places in a frame is fixed by the first batch: its weighted
  sums have one weight for each. Media without a visible frame become zeros.
  """

  depth: int = 10

  @nn.compact
  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Resamples each medium on its own; `mask` is False for padding."""
    x = self.inputs(features)
    layer = MLPLayer(self.mlp_width, self.activation, self.dtype, parent=None)
    params = self.param(
      "layers", stacked_init(layer, self.depth, x[:1, :1, :1])
    )

    def run(params, x):
      return layer.apply({"params": params}, x), None

    x, _ = scan_layers(run, params, x)
    places = x.shape[3]
    init = nn.with_logical_partitioning(
      initializers.normal(places**-0.5), (None, None)
    )
    mix = self.param("mix", init, (self.num_latents, places))
    frames = jnp.einsum("QP,BMTPD->BMTQD", mix.astype(x.dtype), x)
    if mask is None:
      return frames.mean(axis=2)
    weights = mask.astype(x.dtype)
    count = jnp.maximum(weights.sum(axis=2), 1)[..., None, None]
    total = jnp.einsum("BMT,BMTQD->BMQD", weights, frames)
    return total / count


class TransformerLayer(nn.Module):
  """x += attention(norm(x)); x += mlp(norm(x))."""

  num_heads: int
  head_dim: int
  hidden: int
  activation: str
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "B S D"], mask: Bool[Array, "B 1 1 S"] | None
  ) -> Float[Array, "B S D"]:
    positions = jnp.zeros(x.shape[:2], jnp.int32)
    visible = Visibility(table=mask)
    attention = SelfAttention(
      self.num_heads, self.head_dim, dtype=self.dtype, name="attention"
    )
    y = LayerNorm(name="attention_norm")(x)
    x += attention(y, Context(positions, positions, visible), None)[0]
    mlp = MLP(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    return x + mlp(LayerNorm(name="mlp_norm")(x))


class TransformerResampler(Resampler):
  """A plain Transformer over features and latents; the latents come out.

  Attributes, beyond those of every Resampler:
    num_heads, head_dim: N, H.
  """

  num_heads: int = 16
  head_dim: int = 128

  @nn.compact
  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Resamples each medium on its own; `mask` is False for padding."""
    features = self.inputs(features)
    batch, media, frames, tokens, width = features.shape
    flat = features.reshape(batch * media, frames * tokens, width)
    x = jnp.concatenate([flat, self.latents(flat)], axis=1)
    visible = visible_keys(mask, tokens, self.num_latents)
    layer = TransformerLayer(
      self.num_heads,
      self.head_dim,
      self.mlp_width,
      self.activation,
      self.dtype,
      parent=None,
    )
    params = self.param("layers", stacked_init(layer, self.depth, x[:1], None))

    def run(params, x):
      return layer.apply({"params": params}, x, visible), None

    x, _ = scan_layers(run, params, x)
    x = x[:, -self.num_latents :]
    return x.reshape(batch, media, self.num_latents, width)
