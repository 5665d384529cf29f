"""Convolutions over images [B height width C] with "SAME" padding.

Padding is TensorFlow's: an output side is ceil(side / stride), and an odd
number of padded rows puts the larger half at the end. A sequence [B L C] is
an image of one row.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers

from mmjax.layers.linear import Dtype
from mmjax.sharding import on_rows
from mmjax.typing import Array, Float, UInt8

# Pixels as bytes, or floats that are normalised already.
Images: TypeAlias = UInt8[Array, "B h w 3"] | Float[Array, "B h w 3"]
# Logical names of a kernel [height width in out].
KERNEL_AXES = (None, None, "conv_in", "conv_out")
_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
  """A convolution, plain or grouped.

  Attributes:
    features: output channels.
    size: side of the kernel.
    stride: between outputs.
    groups: channels are cut into so many groups that do not mix.
    padding: "SAME" or "VALID".
    use_bias: adds one value an output channel.
    dtype: of the computation; None keeps that of the input.
  """

  features: int
  size: int = 1
  stride: int = 1
  groups: int = 1
  padding: str = "SAME"
  use_bias: bool = False
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j E"]:
    dtype = self.dtype or x.dtype
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    init: Any = initializers.variance_scaling(1.0, "fan_in", "normal")
    init = nn.with_logical_partitioning(init, KERNEL_AXES)
    kernel = self.param("kernel", init, shape)
    x = convolve(
      x.astype(dtype),
      kernel.astype(dtype),
      stride=self.stride,
      groups=self.groups,
      padding=self.padding,
    )
    if self.use_bias:
      x += channel_vector(
        self, "bias", initializers.zeros, self.features, dtype
      )
    return x


class DepthwiseConv(nn.Module):
  """A convolution of every channel on its own; the kernel is [size size C]."""

  size: int
  stride: int = 1
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j C"]:
    dtype = self.dtype or x.dtype
    init: Any = initializers.normal(1.0 / self.size)
    init = nn.with_logical_partitioning(init, (None, None, "conv_out"))
    shape = (self.size, self.size, x.shape[-1])
    kernel = self.param("kernel", init, shape)
    return convolve_depthwise(
      x.astype(dtype), kernel.astype(dtype), stride=self.stride
    )


class StandardisedConv(nn.Module):
  """A convolution whose kernel is scaled and standardised on the way.

  Every output channel's weights get mean 0 and variance 1 / fan-in, times a
  learned gain (Brock et al., arXiv 2101.08692).

  Attributes:
    features, size, stride, groups, dtype: as of Conv.
    eps: added to the variance.
  """

  features: int
  size: int = 1
  stride: int = 1
  groups: int = 1
  eps: float = 1e-5
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j E"]:
    dtype = self.dtype or x.dtype
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    init: Any = initializers.variance_scaling(1.0, "fan_in", "normal")
    init = nn.with_logical_partitioning(init, KERNEL_AXES)
    kernel = self.param("kernel", init, shape).astype(jnp.float32)
    gain = channel_vector(self, "gain", initializers.ones, self.features)
    bias = channel_vector(self, "bias", initializers.zeros, self.features)
    kernel = standardise(kernel, self.eps) * gain
    x = convolve(
      x.astype(dtype),
      kernel.astype(dtype),
      stride=self.stride,
      groups=self.groups,
    )
    return x + bias.astype(dtype)


class SequenceConv(nn.Module):
  """A convolution along a sequence, half a kernel of zeros at both ends.

  Attributes:
    features: output channels.
    size: of the kernel, odd.
    stride: between outputs; there are ceil(L / stride) of them.
    dtype: of the computation; None keeps that of the input.
  """

  features: int
  size: int
  stride: int = 1
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Float[Array, "B L C"]) -> Float[Array, "B P E"]:
    dtype = self.dtype or x.dtype
    init: Any = initializers.variance_scaling(1.0, "fan_in", "normal")
    init = nn.with_logical_partitioning(init, KERNEL_AXES[1:])
    shape = (self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", init, shape)
    y = convolve(
      x[:, None].astype(dtype),
      kernel[None].astype(dtype),
      stride=self.stride,
      padding=((0, 0), (self.size // 2, self.size // 2)),
    )[:, 0]
    return y + channel_vector(
      self, "bias", initializers.zeros, self.features, dtype
    )


class PositionConv(nn.Module):
  """Positions of a sequence as a grouped convolution over it, then GELU.

  From wav2vec 2.0 (arXiv 2006.11477), with its weight normalisation: each tap
  of the kernel is `gain * kernel / |kernel|`, over all channels together. Both
  are parameters, as in published weights; folded they could not be handed
  back. A kernel of even size looks one place further back than ahead.

  Attributes:
    size: of the kernel.
    groups: channels are cut into so many groups that do not mix.
    dtype: of the computation; None keeps that of the input.
  """

  size: int
  groups: int
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Float[Array, "B L E"]) -> Float[Array, "B L E"]:
    dtype, width = self.dtype or x.dtype, x.shape[-1]
    if width % self.groups:
      raise ValueError(
        f"{width} channels do not part into {self.groups} groups."
      )
    init: Any = initializers.normal((4 / (self.size * width)) ** 0.5)
    init = nn.with_logical_partitioning(init, KERNEL_AXES[1:])
    shape = (self.size, width // self.groups, width)
    kernel = self.param("kernel", init, shape).astype(jnp.float32)
    norm = jnp.sqrt(jnp.square(kernel).sum(axis=(1, 2)))
    init = nn.with_logical_partitioning(lambda key: norm, (None,))
    gain = self.param("gain", init).astype(jnp.float32)
    kernel *= (gain / norm)[:, None, None]
    y = convolve(
      x[:, None].astype(dtype),
      kernel[None].astype(dtype),
      groups=self.groups,
      padding=((0, 0), (self.size // 2, (self.size - 1) // 2)),
    )[:, 0]
    y += channel_vector(self, "bias", initializers.zeros, width, dtype)
    return jax.nn.gelu(y, approximate=False)


class FrozenBatchNorm(nn.Module):
  """Batch norm with the statistics of its training: an affine of a channel.

  Attributes:
    eps: added to the variance.
  """

  eps: float = 1e-3

  @nn.compact
  def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... C"]:
    vector, width = channel_vector, x.shape[-1]
    scale = vector(self, "scale", initializers.ones, width)
    bias = vector(self, "bias", initializers.zeros, width)
    mean = vector(self, "mean", initializers.zeros, width)
    var = vector(self, "var", initializers.ones, width)
    scale *= lax.rsqrt(var + self.eps)
    bias -= mean * scale
    return x * scale.astype(x.dtype) + bias.astype(x.dtype)


def convolve(
  x: Float[Array, "B h w C"],
  kernel: Float[Array, "a b I E"],
  *,
  stride: int = 1,
  groups: int = 1,
  padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Float[Array, "B i j E"]:
  """Cross-correlation; a kernel of one pixel is a matrix product.

  Args:
    x: images.
    kernel: the same for all of them.
    stride: between outputs.
    groups: channels are cut into so many groups that do not mix.
    padding: "SAME", "VALID", or (before, after) of height and width.
  """

  def run(x, kernel):
    if kernel.shape[:2] == (1, 1) and groups == 1:
      x = x[:, ::stride, ::stride]
      return jnp.einsum("BhwC,CE->BhwE", x, kernel[0, 0])
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      padding,
      dimension_numbers=_LAYOUT,
      feature_group_count=groups,
    )

  return on_rows(run, x, kernel)


def convolve_depthwise(
  x: Float[Array, "B h w C"], kernel: Float[Array, "a b C"], *, stride: int = 1
) -> Float[Array, "B i j C"]:
  """Every channel with its own kernel, as a sum of shifted products.

  XLA fuses the sum into one loop; on CPU it takes a tenth of the time of a
  grouped `lax` convolution or less.
  """
  rows, columns = (
    _same(side, size, stride) for side, size in zip(x.shape[1:3], kernel.shape)
  )
  # The barrier keeps the padding out of the loop, where it would be a branch.
  x = lax.optimization_barrier(
    jnp.pad(x, ((0, 0), rows[1], columns[1], (0, 0)))
  )
  result = 0.0
  for i in range(kernel.shape[0]):
    for j in range(kernel.shape[1]):
      shifted = x[
        :,
        i : i + stride * (rows[0] - 1) + 1 : stride,
        j : j + stride * (columns[0] - 1) + 1 : stride,
      ]
      result += shifted * kernel[i, j]
  return result


def average_pool(
  x: Float[Array, "B h w C"], size: int
) -> Float[Array, "B i j C"]:
  """Means of size x size tiles; a tile over the edge averages what it holds."""
  window = (1, size, size, 1)
  total = lax.reduce_window(x, 0.0, lax.add, window, window, "SAME")
  ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
  count = lax.reduce_window(ones, 0.0, lax.add, window, window, "SAME")
  return total / count


def standardise(
  kernel: Float[Array, "a b I E"], eps: float
) -> Float[Array, "a b I E"]:
  """Mean 0 and variance 1 / fan-in over each output channel."""
  fan = kernel.size // kernel.shape[-1]
  mean = jnp.mean(kernel, axis=(0, 1, 2))
  var = jnp.var(kernel, axis=(0, 1, 2))
  return (kernel - mean) * lax.rsqrt((var + eps) * fan)


def round_channels(
  wanted: float, *, at_least: float = 0.9, divisor: int = 8
) -> int:
  """The nearest multiple of `divisor` that is `at_least` of the wanted."""
  result = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
  return result + divisor if result < at_least * wanted else result


def channel_vector(
  module: nn.Module, name: str, init, width: int, dtype: Dtype = jnp.float32
) -> Float[Array, "C"]:
  """A parameter with one value a channel."""
  init = nn.with_logical_partitioning(init, ("conv_out",))
  return module.param(name, init, (width,)).astype(dtype)


def _same(side: int, size: int, stride: int) -> tuple[int, tuple[int, int]]:
  """Output side and (low, high) padding of "SAME"."""
  out = -(-side // stride)
  missing = max((out - 1) * stride + size - side, 0)
  return out, (missing // 2, missing - missing // 2)


def normalise(
  images: Array,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  dtype: Dtype | None = None,
) -> Float[Array, "B h w 3"]:
  """Bytes to (x / 255 - mean) / std; floats are taken as normalised already.

  Args:
    images: [B height width 3], uint8 or floating.
    mean, std: of the channels, on the scale 0..1.
    dtype: of the result; None is float32 for bytes and keeps that of floats.

  Raises:
    ValueError: for another dtype or shape.
  """
  if images.ndim != 4 or images.shape[-1] != len(mean):
    raise ValueError(
      f"Images of shape {images.shape}: expected [B height width {len(mean)}]."
    )
  if jnp.issubdtype(images.dtype, jnp.floating):
    return images.astype(dtype or images.dtype)
  if images.dtype != jnp.uint8:
    raise ValueError(
      f"Images of dtype {images.dtype}: expected uint8 pixels, or floats that "
      "are normalised already."
    )
  scale = 1.0 / (255.0 * jnp.asarray(std, jnp.float32))
  shift = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
  x = images.astype(jnp.float32) * scale - shift
  return x.astype(dtype or jnp.float32)


def flatten_grid(x: Float[Array, "B h w E"]) -> Float[Array, "B P E"]:
  """Grid to tokens, row by row."""
  return jax.lax.collapse(x, 1, 3)
