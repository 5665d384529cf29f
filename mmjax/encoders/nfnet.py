"""NFNet: a residual image encoder without normalisation layers.

Brock et al., High-Performance Large-Scale Image Recognition Without
Normalization (arXiv 2102.06171), the F family; Flamingo's encoder is F6.

  images [B 288 288 3] -> stem /4 -> 4 stages /4 /8 /16 /32 -> 1x1 conv
    -> grid [B 9 9 3072] -> tokens [B 81 3072]

Blocks of a stage after the first are scanned. Left out of the paper's
training recipe: stochastic depth and dropout before the classifier.
"""

import functools
from collections.abc import Callable

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

# Brings the variance of activation(x) back to 1 for x ~ N(0, 1).
GAINS = {
  "gelu": 1.7015043497085571,
  "relu": 1.7139588594436646,
  "silu": 1.7881293296813965,
}
# Blocks of each stage.
DEPTHS = {f"F{n}": tuple(d * (n + 1) for d in (1, 2, 6, 3)) for n in range(7)}
WIDTHS = (256, 512, 1536, 1536)


class NFNet(nn.Module):
  """Images to a grid of tokens, to one vector, or to the classes' logits.

  Attributes:
    depths, widths: blocks and output channels of each stage.
    stem: channels of the stem.
    group: channels that mix in the 3x3 convolutions; None is all.
    features: channels of the last 1x1 convolution; 0 leaves it out.
    classes: of the classifier; 0 leaves it out.
    alpha: scale of every residual branch.
    inner, squeeze: channels inside a block and inside its squeeze-excite, as
      parts of its width.
    gate_gain: makes up for a squeeze-excite that halves on average.
    divisor: of the number of channels inside a block.
    activation: a name of GAINS.
    eps: added to the variance of kernels.
    remat: what a scan of blocks keeps for the backward pass.
    mean, std: of the training's pixels on 0..1.
    dtype: of the computation; None is float32.
  """

  depths: tuple[int, ...] = DEPTHS["F0"]
  widths: tuple[int, ...] = WIDTHS
  stem: int = 128
  group: int | None = 128
  features: int = 3072
  classes: int = 0
  alpha: float = 0.2
  inner: float = 0.5
  squeeze: float = 0.5
  gate_gain: float = 2.0
  divisor: int = 8
  activation: str = "gelu"
  eps: float = 1e-5
  remat: str = "none"
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  std: tuple[float, ...] = (0.229, 0.224, 0.225)
  dtype: Dtype | None = None

  def setup(self):
    if len(self.depths) != len(self.widths):
      raise ValueError(f"{self.depths} depths for {self.widths} widths.")
    lookup(GAINS, self.activation, "activation of NFNet")
    conv = functools.partial(StandardisedConv, eps=self.eps)
    self.stem_convs = [
      conv(self.stem // part, 3, stride, name=f"stem_{i}")
      for i, (part, stride) in enumerate(((8, 2), (4, 1), (2, 1), (1, 2)))
    ]
    betas = block_betas(self.depths, self.alpha)
    self.stages = [
      Stage(
        block=functools.partial(
          Block,
          width=width,
          inner=self._inner(width),
          group=self.group,
          squeeze=round_channels(width * self.squeeze, at_least=0.0),
          gate_gain=self.gate_gain,
          alpha=self.alpha,
          activation=self.activation,
          eps=self.eps,
        ),
        betas=tuple(betas[i]),
        stride=2 if i else 1,
        remat=self.remat,
      )
      for i, width in enumerate(self.widths)
    ]
    if self.features:
      self.last = conv(self.features)
    if self.classes:
      width = self.features or self.widths[-1]
      axes = (None, "vocab")
      self.classifier = dense(width, self.classes, axes, use_bias=True)

  def _inner(self, width: int) -> int:
    """Channels inside a block, cut to whole groups as in timm."""
    inner = round_channels(width * self.inner, divisor=self.divisor)
    if self.group and inner > self.group and self.group % self.divisor == 0:
      inner -= inner % self.group
    return inner

  def maps(self, images: Images) -> list[Array]:
    """What the stem, each stage and the whole network put out."""
    x = normalise(images, self.mean, self.std, self.dtype)
    for i, conv in enumerate(self.stem_convs):
      x = conv(x if i == 0 else activate(x, self.activation))
    result = [x]
    for stage in self.stages:
      result.append(stage(result[-1]))
    x = self.last(result[-1]) if self.features else result[-1]
    return [*result, activate(x, self.activation)]

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
    block: constructor of a Block.
    betas: of each block.
    stride: of the first block.
    remat: what the scan keeps for the backward pass.
  """

  block: Callable[..., nn.Module]
  betas: tuple[float, ...]
  stride: int
  remat: str

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j E"]:
    x = self.block(stride=self.stride, name="first")(x, self.betas[0])
    if len(self.betas) == 1:
      return x
    block = self.block(parent=None)
    example = jnp.zeros((1, 1, 1, x.shape[-1]), x.dtype)
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
    width, inner: channels of the output and of the 3x3 convolutions.
    group: channels that mix in those; None is all.
    squeeze, gate_gain: channels of the squeeze-excite, a factor behind it.
    alpha: scale of the branch.
    activation: a name of GAINS.
    eps: added to the variance of kernels.
    stride: of the first 3x3 convolution.
  """

  width: int
  inner: int
  group: int | None
  squeeze: int
  gate_gain: float
  alpha: float
  activation: str
  eps: float
  stride: int = 1

  @nn.compact
  def __call__(
    self, x: Float[Array, "B h w C"], beta: float | Float[Array, ""]
  ) -> Float[Array, "B i j E"]:
    groups = max(1, self.inner // self.group) if self.group else 1
    if self.inner % groups:
      raise ValueError(
        f"{self.inner} inner channels do not part into groups of {self.group}."
      )
    conv = functools.partial(StandardisedConv, eps=self.eps)
    act = functools.partial(activate, name=self.activation)
    y = act(x) * beta
    if x.shape[-1] != self.width or self.stride > 1:
      pooled = average_pool(y, self.stride) if self.stride > 1 else y
      x = conv(self.width, name="shortcut")(pooled)
    y = conv(self.inner, name="narrow")(y)
    for i, stride in enumerate((self.stride, 1)):
      y = conv(self.inner, 3, stride, groups, name=f"spatial_{i}")(act(y))
    y = conv(self.width, name="widen")(act(y))
    y *= self.gate_gain * SqueezeExcite(self.squeeze, name="gate")(y)
    zero = nn.with_logical_partitioning(initializers.zeros, ())
    gain = self.param("skip_gain", zero, ())
    return x + self.alpha * gain.astype(y.dtype) * y


class SqueezeExcite(nn.Module):
  """One factor in 0..1 for each channel, from the channels' means.

  Attributes:
    inner: channels between its two layers.
  """

  inner: int

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B 1 1 C"]:
    width = x.shape[-1]
    axes = ("conv_in", "conv_out")
    x = x.mean(axis=(1, 2), keepdims=True)
    x = dense(width, self.inner, axes, use_bias=True, name="down")(x)
    x = nn.relu(x)
    x = dense(self.inner, width, axes[::-1], use_bias=True, name="up")(x)
    return nn.sigmoid(x)


def activate(x: Array, name: str = "gelu") -> Array:
  return ACTIVATIONS[name](x) * GAINS[name]


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
