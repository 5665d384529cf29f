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
from mmjax.layers.attention import Context, SelfAttention
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.mlp import MLP
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import add_frames
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Bool, Float

COMMON = dict(width=1536, num_latents=64, max_frames=8, project_input=True)
FLAMINGO_MLP = dict(depth=10, **COMMON)
FLAMINGO_TRANSFORMER = dict(depth=6, num_heads=16, head_dim=128, **COMMON)


class Inputs(nn.Module):
  """Features at the resampler's width, with what tells frames apart."""

  width: int
  project_input: bool
  max_frames: int
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self, features: Float[Array, "B M T P E"]
  ) -> Float[Array, "B M T P D"]:
    if self.project_input:
      features = dense(
        features.shape[-1],
        self.width,
        (None, "embed"),
        dtype=self.dtype,
        name="project",
      )(features)
    if features.shape[-1] != self.width:
      raise ValueError(
        f"Features are {features.shape[-1]} wide, the resampler {self.width}. "
        "Set project_input=True, or width to that of the encoder."
      )
    if not self.max_frames:
      return features
    axes = (None, "embed")
    init = nn.with_logical_partitioning(initializers.normal(0.02), axes)
    table = self.param("frames", init, (self.max_frames, self.width))
    return add_frames(features, table)


class MLPLayer(nn.Module):
  """x + mlp(norm(x))."""

  hidden: int
  activation: str
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    mlp = MLP(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    return x + mlp(LayerNorm(name="mlp_norm")(x))


class MLPResampler(nn.Module):
  """Features of media to `num_latents` tokens a medium, without attention.

  The number of places in a frame is fixed by the first batch: its weighted
  sums have one weight for each. Media without a visible frame become zeros.

  Attributes:
    width: D; that of the features as well unless `project_input`.
    depth: layers.
    num_latents: Q.
    hidden: F; None is 4 D.
    activation: of the layers.
    project_input: a linear layer brings features of any width to D.
    max_frames: rows of the time table; 0 for none.
    dtype: of the computation.
  """

  width: int
  depth: int = 10
  num_latents: int = 64
  hidden: int | None = None
  activation: str = "squared_relu"
  project_input: bool = False
  max_frames: int = 0
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Resamples each medium on its own; `mask` is False for padding."""
    x = Inputs(
      self.width, self.project_input, self.max_frames, self.dtype, name="inputs"
    )(features)
    layer = MLPLayer(
      self.hidden or 4 * self.width, self.activation, self.dtype, parent=None
    )
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
    attention = SelfAttention(
      self.num_heads, self.head_dim, dtype=self.dtype, name="attention"
    )
    y = LayerNorm(name="attention_norm")(x)
    x += attention(y, Context(positions, positions, mask), None)[0]
    mlp = MLP(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    return x + mlp(LayerNorm(name="mlp_norm")(x))


class TransformerResampler(nn.Module):
  """A plain Transformer over features and latents; the latents come out.

  Attributes:
    width: D; that of the features as well unless `project_input`.
    depth, num_heads, head_dim: layers, N, H.
    num_latents: Q.
    hidden: F; None is 4 D.
    activation: of the feed-forward.
    project_input: a linear layer brings features of any width to D.
    max_frames: rows of the time table; 0 for none.
    dtype: of the computation.
  """

  width: int
  depth: int = 6
  num_heads: int = 16
  head_dim: int = 128
  num_latents: int = 64
  hidden: int | None = None
  activation: str = "squared_relu"
  project_input: bool = False
  max_frames: int = 0
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self,
    features: Float[Array, "B M T P E"],
    mask: Bool[Array, "B M T"] | None = None,
  ) -> Float[Array, "B M Q D"]:
    """Resamples each medium on its own; `mask` is False for padding."""
    features = Inputs(
      self.width, self.project_input, self.max_frames, self.dtype, name="inputs"
    )(features)
    batch, media, frames, tokens, width = features.shape
    flat = features.reshape(batch * media, frames * tokens, width)
    axes = (None, "embed")
    init = nn.with_logical_partitioning(initializers.normal(1.0), axes)
    latents = self.param("latents", init, (self.num_latents, width))
    own = (batch * media, self.num_latents)
    x = jnp.broadcast_to(latents.astype(flat.dtype), (*own, width))
    x = jnp.concatenate([flat, x], axis=1)
    visible = visible_keys(mask, tokens, self.num_latents)
    layer = TransformerLayer(
      self.num_heads,
      self.head_dim,
      self.hidden or 4 * self.width,
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
