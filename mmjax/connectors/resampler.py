"""What every resampler begins with: features with times, and fresh latents."""

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.layers.linear import Dtype, dense
from mmjax.layers.position import add_frames
from mmjax.typing import Array, Float


class Resampler(nn.Module):
  """Features of media to `num_latents` tokens a medium, each on its own.

  Attributes:
    width: D, of latents and output; that of the features as well unless
      `project_input`.
    depth: layers.
    num_latents: Q.
    hidden: F; None is 4 D.
    activation: of the feed-forward.
    project_input: a linear layer brings features of any width to D.
    max_frames: rows of the time table; 0 for none. Fewer frames use the first
      rows, more frames interpolate the table.
    dtype: of the computation.
  """

  width: int
  depth: int = 6
  num_latents: int = 64
  hidden: int | None = None
  activation: str = "squared_relu"
  project_input: bool = False
  max_frames: int = 0
  dtype: Dtype | None = None

  def inputs(
    self, features: Float[Array, "B M T P E"]
  ) -> Float[Array, "B M T P D"]:
    """Features at the resampler's width, with what tells frames apart."""
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
    return add_frames(features, self.table("frames", self.max_frames))

  def latents(self, flat: Float[Array, "R S D"]) -> Float[Array, "R Q D"]:
    """The learned latents, once for each row of features."""
    x = self.table("latents", self.num_latents, stddev=1.0)
    return jnp.broadcast_to(x, (flat.shape[0], *x.shape)).astype(flat.dtype)

  def table(
    self, name: str, rows: int, stddev: float = 0.02
  ) -> Float[Array, "R D"]:
    """A learned table of vectors of the resampler's width."""
    init = nn.with_logical_partitioning(
      initializers.normal(stddev), (None, "embed")
    )
    return self.param(name, init, (rows, self.width))

  @property
  def mlp_width(self) -> int:
    """F."""
    return self.hidden or 4 * self.width
