"""EfficientNet-Lite: a small convolutional image encoder.

Tan and Le, EfficientNet (arXiv 1905.11946), in the Lite variant of
tensorflow/tpu: no squeeze-and-excite, ReLU6, and a stem and head of fixed
width. For frozen use: batch norms hold the statistics of their training.

  images [B 224 224 3] -> stem /2 -> 16 inverted bottlenecks /16 -> 1x1 conv
    -> grid [B 7 7 1280] -> tokens [B 49 1280]
"""

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp

from mmjax.config import lookup
from mmjax.layers.conv import (
  Conv,
  DepthwiseConv,
  FrozenBatchNorm,
  Images,
  flatten_grid,
  normalise,
  round_channels,
)
from mmjax.layers.linear import Dtype, dense
from mmjax.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Stage:
  """Blocks of one width.

  Attributes:
    blocks: how many.
    width: their output channels.
    size: of the depthwise kernel.
    stride: of the first block.
    expand: inner width over input width.
  """

  blocks: int
  width: int
  size: int
  stride: int
  expand: int = 6


STAGES = (
  Stage(1, 16, 3, 1, expand=1),
  Stage(2, 24, 3, 2),
  Stage(2, 40, 5, 2),
  Stage(3, 80, 3, 2),
  Stage(3, 112, 5, 1),
  Stage(4, 192, 5, 2),
  Stage(1, 320, 3, 1),
)
STEM, HEAD = 32, 1280
# Factors of width and depth, and the side of the images in training.
VARIANTS = {
  "lite0": (1.0, 1.0, 224),
  "lite1": (1.0, 1.1, 240),
  "lite2": (1.1, 1.2, 260),
  "lite3": (1.2, 1.4, 280),
  "lite4": (1.4, 1.8, 300),
}


class EfficientNetLite(nn.Module):
  """Images to a grid of tokens, to one vector, or to ImageNet's logits.

  Attributes:
    width_factor, depth_factor: scale the widths and the numbers of blocks.
    classes: of the classifier; 0 leaves it out.
    mean, std: of the training's pixels on 0..1, that is (x - 127) / 128.
    dtype: of the computation; None is float32.
  """

  width_factor: float = 1.0
  depth_factor: float = 1.0
  classes: int = 0
  mean: tuple[float, ...] = (127 / 255,) * 3
  std: tuple[float, ...] = (128 / 255,) * 3
  dtype: Dtype | None = None

  def setup(self):
    self.stem = _ConvNorm(STEM, size=3, stride=2)
    self.blocks = [
      Bottleneck(stage.width, stage.size, stage.stride, stage.expand)
      for stage in scaled(self.width_factor, self.depth_factor)
    ]
    self.head = _ConvNorm(HEAD)
    if self.classes:
      axes = (None, "vocab")
      self.classifier = dense(HEAD, self.classes, axes, use_bias=True)

  def grid(self, images: Images) -> Float[Array, "B i j E"]:
    """The last feature map; sides are those of the images over 32."""
    x = normalise(images, self.mean, self.std, self.dtype)
    x = relu6(self.stem(x))
    for block in self.blocks:
      x = block(x)
    return relu6(self.head(x))

  def __call__(self, images: Images) -> Float[Array, "B P E"]:
    x = self.grid(images)
    if self.classes and self.is_initializing():
      self.classifier(x.mean(axis=(1, 2)))
    return flatten_grid(x)

  def pooled(self, images: Images) -> Float[Array, "B E"]:
    """The mean over the grid."""
    return self.grid(images).mean(axis=(1, 2))

  def logits(self, images: Images) -> Float[Array, "B V"]:
    """Scores of the classes."""
    if not self.classes:
      raise ValueError("No classifier: build the encoder with classes=1000.")
    return self.classifier(self.pooled(images)).astype(jnp.float32)


class Bottleneck(nn.Module):
  """Widen, filter every channel, narrow; added to the input if it can be."""

  width: int
  size: int
  stride: int
  expand: int

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j E"]:
    y, width = x, x.shape[-1]
    if self.expand > 1:
      y = relu6(_ConvNorm(width * self.expand, name="expand")(y))
    y = DepthwiseConv(self.size, self.stride, name="depthwise")(y)
    y = relu6(FrozenBatchNorm(name="depthwise_norm")(y))
    y = _ConvNorm(self.width, name="project")(y)
    return x + y if self.stride == 1 and width == self.width else y


class _ConvNorm(nn.Module):
  features: int
  size: int = 1
  stride: int = 1

  @nn.compact
  def __call__(self, x):
    x = Conv(self.features, self.size, self.stride, name="conv")(x)
    return FrozenBatchNorm(name="norm")(x)


def relu6(x: Array) -> Array:
  return jnp.clip(x, 0.0, 6.0)


def scaled(width_factor: float, depth_factor: float) -> list[Stage]:
  """All blocks as stages of one block, widths and depths scaled.

  The depth of the first and last stage is kept (the Lite variants' rule).
  """

  result = []
  for i, stage in enumerate(STAGES):
    kept = i in (0, len(STAGES) - 1)
    blocks = stage.blocks if kept else math.ceil(depth_factor * stage.blocks)
    for j in range(blocks):
      stride = 1 if j else stage.stride
      result.append(
        dataclasses.replace(
          stage,
          blocks=1,
          width=round_channels(stage.width * width_factor),
          stride=stride,
        )
      )
  return result


def efficientnet_lite(
  variant: str = "lite0", classes: int = 0, dtype: Dtype | None = None
) -> EfficientNetLite:
  """A published variant, `lite0` to `lite4`."""
  width, depth, _ = lookup(VARIANTS, variant, "EfficientNet-Lite")
  return EfficientNetLite(
    width_factor=width, depth_factor=depth, classes=classes, dtype=dtype
  )
