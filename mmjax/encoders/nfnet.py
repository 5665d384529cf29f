"""NFNet: a residual image encoder without normalisation layers.

Brock et al., High-Performance Large-Scale Image Recognition Without
Normalization (arXiv 2102.06171), the F family; Flamingo's encoder is F6.

  images [B 288 288 3] -> stem /4 -> 4 stages /4 /8 /16 /32 -> 1x1 conv
    -> grid [B 9 9 3072] -> tokens [B 81 3072]

Blocks of a stage after the first are scanned. Left out of the paper's
training recipe: stochastic depth and dropout before the classifier.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from mmjax.config import lookup
from mmjax.layers.conv import (
  Images,
  StandardisedConv,
  average_pool,
  flatten_grid,
  normalise,
  round_channels,
)
from mmjax.layers.linear import Dtype, dense
from mmjax.layers.mlp import ACTIVATIONS
from mmjax.layers.stack import scan_layers, stacked_init
from mmjax.typing import Array, Float

# Brings the variance of GELU(x) back to 1 for x ~ N(0, 1).
GELU_GAIN = 1.7015043497085571
# Blocks of each stage.
DEPTHS = {f"F{n}": tuple(d * (n + 1) for d in (1, 2, 6, 3)) for n in range(7)}
WIDTHS = (256, 512, 1536, 1536)


class NFNet(nn.Module):
  """Images to a grid of tokens, to one vector, or to the classes' logits.

  Attributes:
    depths, widths: blocks and output channels of each stage.
    stem: channels of the stem.
    group: channels that mix in the 3x3 convolutions.
    features: channels of the last 1x1 convolution; 0 leaves it out.
    classes: of the classifier; 0 leaves it out.
    alpha: scale of every residual branch.
    eps: added to the variance of kernels.
    remat: what a scan of blocks keeps for the backward pass.
    mean, std: of the training's pixels on 0..1.
    dtype: of the computation; None is float32.
  """

  depths: tuple[int, ...] = DEPTHS["F0"]
  widths: tuple[int, ...] = WIDTHS
  stem: int = 128
  group: int = 128
  features: int = 3072
  classes: int = 0
  alpha: float = 0.2
  remat: str = "none"
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  dtype: Dtype | None = None

  def setup(self):
    if len(self.depths) != len(self.widths):
      raise ValueError(f"{self.depths} depths for {self.widths} widths.")
    self.stem_convs = [
      StandardisedConv(self.stem // part, 3, stride, name=f"stem_{i}")
      for i, (part, stride) in enumerate(((8, 2), (4, 1), (2, 1), (1, 2)))
    ]
    betas = block_betas(self.depths, self.alpha)
    self.stages = [
      Stage(
        betas=tuple(betas[i]),
        width=width,
        stride=2 if i else 1,
        group=self.group,
        alpha=self.alpha,
        remat=self.remat,
      )
      for i, width in enumerate(self.widths)
    ]
    if self.features:
      self.last = StandardisedConv(self.features)
    if self.classes:
      width = self.features or self.widths[-1]
      axes = (None, "vocab")
      self.classifier = dense(width, self.classes, axes, use_bias=True)

  def maps(self, images: Images) -> list[Array]:
    """What the stem, each stage and the whole network put out."""
    x = normalise(images, self.mean, self.std, self.dtype)
    for i, conv in enumerate(self.stem_convs):
      x = conv(x if i == 0 else activate(x))
    result = [x]
    for stage in self.stages:
      result.append(stage(result[-1]))
    x = self.last(result[-1]) if self.features else result[-1]
    return [*result, activate(x)]

  def __call__(self, images: Images) -> Float[Array, "B P E"]:
    x = self.maps(images)[-1]
    if self.classes and self.is_initializing():
      self.classifier(x.mean(axis=(1, 2)))
    return flatten_grid(x)

  def pooled(self, images: Images) -> Float[Array, "B E"]:
    """The mean over the grid."""
    return self.maps(images)[-1].mean(axis=(1, 2))

  def logits(self, images: Images) -> Float[Array, "B V"]:
    """Scores of the classes."""
    if not self.classes:
      raise ValueError("No classifier: build the encoder with classes=1000.")
    return self.classifier(self.pooled(images)).astype(jnp.float32)


class Stage(nn.Module):
  """Blocks of one width: one that changes the shape, and a scan of the rest.

  Attributes:
    betas: of each block.
    stride: of the first block.
    width, group, alpha: as of Block.
    remat: what the scan keeps for the backward pass.
  """

  betas: tuple[float, ...]
  width: int
  stride: int
  group: int
  alpha: float
  remat: str

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j E"]:
    common = dict(width=self.width, group=self.group, alpha=self.alpha)
    x = Block(**common, stride=self.stride, name="first")(x, self.betas[0])
    if len(self.betas) == 1:
      return x
    block = Block(**common, parent=None)
    example = jnp.zeros((1, 1, 1, self.width), x.dtype)
    init = stacked_init(block, len(self.betas) - 1, example, 1.0)
    betas = jnp.asarray(self.betas[1:], x.dtype)

    def run(xs, x):
      params, beta = xs
      return block.apply({"params": params}, x, beta), None

    xs = (self.param("rest", init), betas)
    return scan_layers(run, xs, x, remat=self.remat)[0]


class Block(nn.Module):
  """shortcut(x) + alpha * gain * gated(branch(act(x) * beta)).

  Attributes:
    width: output channels.
    group: channels that mix in the 3x3 convolutions.
    alpha: scale of the branch.
    stride: of the first 3x3 convolution.
  """

  width: int
  group: int
  alpha: float
  stride: int = 1

  @nn.compact
  def __call__(
    self, x: Float[Array, "B h w C"], beta: float | Float[Array, ""]
  ) -> Float[Array, "B i j E"]:
    inner = round_channels(self.width / 2)
    groups = max(1, inner // self.group)
    if inner % groups or inner // groups != min(inner, self.group):
      raise ValueError(
        f"{inner} inner channels do not part into groups of {self.group}."
      )
    y = activate(x) * beta
    if x.shape[-1] != self.width or self.stride > 1:
      pooled = average_pool(y, self.stride) if self.stride > 1 else y
      x = StandardisedConv(self.width, name="shortcut")(pooled)
    y = StandardisedConv(inner, name="narrow")(y)
    for i, stride in enumerate((self.stride, 1)):
      y = StandardisedConv(inner, 3, stride, groups, name=f"spatial_{i}")(
        activate(y)
      )
    y = StandardisedConv(self.width, name="widen")(activate(y))
    # The factor 2 makes up for a sigmoid that is 1/2 on average.
    y *= 2.0 * SqueezeExcite(name="gate")(y)
    zero = nn.with_logical_partitioning(initializers.zeros, ())
    gain = self.param("skip_gain", zero, ())
    return x + self.alpha * gain.astype(y.dtype) * y


class SqueezeExcite(nn.Module):
  """One factor in 0..1 for each channel, from the channels' means."""

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B 1 1 C"]:
    width = x.shape[-1]
    inner = round_channels(width / 2, at_least=0.0)
    axes = ("conv_in", "conv_out")
    x = x.mean(axis=(1, 2), keepdims=True)
    x = dense(width, inner, axes, use_bias=True, name="down")(x)
    x = nn.relu(x)
    x = dense(inner, width, axes[::-1], use_bias=True, name="up")(x)
    return nn.sigmoid(x)


def activate(x: Array) -> Array:
  return ACTIVATIONS["gelu"](x) * GELU_GAIN


def block_betas(depths: tuple[int, ...], alpha: float) -> list[list[float]]:
  """1 / the standard deviation that each block's input has at the start.

  The variance grows by alpha^2 a block; a stage's first block rescales it to
  1 on the way. For depths (3, 2) and alpha 0.2 the variances are

    1, 1.04, 1.08 | 1.12, 1.04
  """
  variance, result = 1.0, []
  for depth in depths:
    result.append([])
    for i in range(depth):
      result[-1].append(float(1.0 / np.sqrt(variance)))
      variance = (variance if i else 1.0) + alpha**2
  return result


def nfnet(
  variant: str = "F0",
  features: int = 3072,
  classes: int = 0,
  remat: str = "none",
  dtype: Dtype | None = None,
) -> NFNet:
  """A published variant, `F0` to `F6`."""
  return NFNet(
    depths=lookup(DEPTHS, variant, "NFNet"),
    features=features,
    classes=classes,
    remat=remat,
    dtype=dtype,
  )
