"""PointBERT: a transformer over groups of points, as ULIP-2 has it.

Yu et al. (arXiv 2111.14819) in the form of ULIP-2 (arXiv 2305.08275), whose
3D encoder LAVIS' X-InstructBLIP uses; for frozen use, so that batch norms hold
the statistics of their training.

  points [B 8192 3] -> 512 groups of 32 neighbours -> mini-PointNet [B 512 256]
    -> [B 1 + 512 384] with a class token -> layers, each of which is given the
    positions of the groups again -> norm
    -> class token and maximum over the groups [B 768] -> vector [B 1 512]

Without the projection come the tokens [B 513 384] before they are pooled. That
is ours and not of the papers: one vector leaves whoever attends to it nothing
to choose from.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.config import lookup
from mmjax.layers.conv import FrozenBatchNorm
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.norm import LayerNorm
from mmjax.layers.points import group_points, unit_sphere
from mmjax.layers.pre_norm import PreNormLayer
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Float, Int

_SMALL = initializers.normal(0.02)
# Of PyTorch's BatchNorm1d, and inner widths that the original fixes.
_EPS = 1e-5
_FIRST, _SECOND, _POSITION = (128, 256), 512, 128
# Published encoders, by what they were trained on.
ULIP2 = {
  "8k-xyz": dict(
    width=384,
    num_layers=12,
    num_heads=6,
    groups=512,
    group_size=32,
    group_width=256,
    projection=512,
  ),
}


class PointBERT(nn.Module):
  """Points to one vector, or to tokens.

  Attributes:
    width, num_layers, num_heads: E, depth and N.
    groups: how many a cloud is cut into.
    group_size: points of a group; groups overlap.
    group_width: of what the mini-PointNet makes of a group.
    projection: width of the vector; 0 gives the tokens.
    normalise: brings every cloud to the unit sphere; False is for points that
      are to be taken as they are.
    remat: what a scan of layers keeps for the backward pass.
    attention: who computes it: `auto`, or a path of layers/dispatch.py.
    dtype: of the computation; None is float32. Points are grouped in float32.
  """

  width: int
  num_layers: int
  num_heads: int
  groups: int
  group_size: int
  group_width: int
  projection: int = 512
  normalise: bool = True
  remat: str = "none"
  attention: str = "auto"
  dtype: Dtype | None = None

  def setup(self):
    self.point_net = PointNet(self.group_width, self.dtype)
    self.reduce = _linear(self.group_width, self.width, self.dtype)
    self.position_up = _linear(3, _POSITION, self.dtype)
    self.position_down = _linear(_POSITION, self.width, self.dtype)
    init = nn.with_logical_partitioning(_SMALL, ("embed",))
    self.first = self.param("class_token", init, (self.width,))
    self.first_position = self.param("class_position", init, (self.width,))
    example = jnp.zeros((1, 1, self.width), self.dtype or jnp.float32)
    init = stacked_init(self._layer(), self.num_layers, example)
    self.weights = self.param("layers", init)
    self.norm = LayerNorm()
    if self.projection:
      self.project = dense(
        2 * self.width, self.projection, ("embed", None), name="projection"
      )

  def _layer(self) -> PreNormLayer:
    return PreNormLayer(
      num_heads=self.num_heads,
      hidden=4 * self.width,
      activation="gelu",
      qkv_bias=False,
      norm_eps=1e-5,
      path="plain" if self.is_initializing() else self.attention,
      dtype=self.dtype,
      parent=None,
    )

  def __call__(
    self,
    points: Float[Array, "B points 3"],
    start: Int[Array, "B"] | None = None,
    key: Array | None = None,
  ) -> Float[Array, "B P E"]:
    """One vector a cloud (P = 1), or class token and groups (P = 1 + groups).

    Args:
      points: coordinates; at least `group_size` of them.
      start, key: see layers.points.farthest_points.

    Raises:
      ValueError: for other shapes than that.
    """
    x = self.tokens(points, start, key)
    if not self.projection:
      return x
    return self.project(pool(x))[:, None]

  def tokens(
    self,
    points: Float[Array, "B points 3"],
    start: Int[Array, "B"] | None = None,
    key: Array | None = None,
  ) -> Float[Array, "B L E"]:
    """The normed output of the last layer: class token, then groups."""
    x, positions = self.embed(points, start, key)
    return self.norm(self.run(x, positions, self.num_layers))

  def embed(
    self,
    points: Float[Array, "B points 3"],
    start: Int[Array, "B"] | None = None,
    key: Array | None = None,
  ) -> tuple[Float[Array, "B L E"], Float[Array, "B L E"]]:
    """What the first layer gets, and the positions that all layers add."""
    if points.ndim != 3 or points.shape[-1] != 3:
      raise ValueError(
        f"Points of shape {points.shape}: expected [B points 3]."
      )
    points = points.astype(jnp.float32)
    if self.normalise:
      points = unit_sphere(points)
    found = group_points(points, self.groups, self.group_size, start, key)
    dtype = self.dtype or jnp.float32
    gelu = ACTIVATIONS["gelu"]
    x = self.reduce(self.point_net(found.offsets.astype(dtype)))
    positions = gelu(self.position_up(found.centres.astype(dtype)))
    positions = self.position_down(positions)
    return _behind(self.first, x), _behind(self.first_position, positions)

  def run(
    self,
    x: Float[Array, "B L E"],
    positions: Float[Array, "B L E"],
    depth: int,
  ) -> Float[Array, "B L E"]:
    """The first `depth` layers."""
    layer = self._layer()

    def run(params, x):
      return layer.apply({"params": params}, x + positions), None

    weights = jax.tree.map(lambda w: w[:depth], self.weights)
    return scan_layers(run, weights, x, remat=self.remat)[0]


class PointNet(nn.Module):
  """A group of points to one vector, in any order of them (1612.00593).

  Attributes:
    width: of the vector (E).
    dtype: of the computation.
  """

  width: int
  dtype: Dtype | None = None

  @nn.compact
  def __call__(
    self, points: Float[Array, "B groups size 3"]
  ) -> Float[Array, "B groups E"]:
    inner, outer = _FIRST
    x = self._convs("first", points, inner, outer)
    whole = jnp.broadcast_to(x.max(axis=-2, keepdims=True), x.shape)
    x = jnp.concatenate([whole, x], axis=-1)
    return self._convs("second", x, _SECOND, self.width).max(axis=-2)

  def _convs(self, name, x, inner, outer):
    """Two convolutions of one point each, a norm and a ReLU between."""
    x = _linear(x.shape[-1], inner, self.dtype, f"{name}_up")(x)
    x = jax.nn.relu(FrozenBatchNorm(_EPS, name=f"{name}_norm")(x))
    return _linear(inner, outer, self.dtype, f"{name}_down")(x)


def _linear(
  features_in: int, features_out: int, dtype, name: str | None = None
):
  axes = ("conv_in", "conv_out")
  return dense(
    features_in, features_out, axes, use_bias=True, dtype=dtype, name=name
  )


def _behind(first: Float[Array, "E"], x: Float[Array, "B P E"]) -> Array:
  """[B 1 + P E]: one vector, the same for all rows, and then x."""
  first = jnp.broadcast_to(first.astype(x.dtype), (x.shape[0], 1, len(first)))
  return jnp.concatenate([first, x], axis=1)


def pool(tokens: Float[Array, "B L E"]) -> Float[Array, "B both"]:
  """The class token beside the largest of the others in each channel."""
  return jnp.concatenate([tokens[:, 0], tokens[:, 1:].max(axis=1)], axis=-1)


def ulip2(
  variant: str = "8k-xyz",
  pooled: bool = True,
  remat: str = "none",
  attention: str = "auto",
  dtype: Dtype | None = None,
) -> PointBERT:
  """The 3D encoder of a published ULIP-2, a name of `ULIP2`.

  Args:
    variant: which.
    pooled: one vector [B 1 512], as in X-InstructBLIP; False is our variant
      with all tokens [B 513 384].
    remat, attention, dtype: see PointBERT.
  """
  sizes = dict(lookup(ULIP2, variant, "ULIP-2"))
  if not pooled:
    sizes["projection"] = 0
  return PointBERT(**sizes, remat=remat, attention=attention, dtype=dtype)
