"""What a frozen encoder makes of pictures, seen once and kept, or reduced.

Where the same pictures come again and again and the encoder does not train,
each needs to be encoded once. A table of features takes the encoder's place in
a system and gets keys in the place of pixels. `Reduced` makes the same
features of any picture.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from mmjax.layers.linear import Dtype
from mmjax.typing import Array, Float, Int, UInt8


class FeatureTable(nn.Module):
  """Keys to features; a negative key gives zeros, one beyond the table NaN.

  Attributes:
    size, tokens, width: pictures, P and E.
    dtype: of the result.
  """

  size: int
  tokens: int
  width: int
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, keys: Int[Array, "B"]) -> Float[Array, "B P E"]:
    init = nn.with_logical_partitioning(initializers.zeros, (None,) * 3)
    shape = (self.size, self.tokens, self.width)
    table = self.param("table", init, shape)
    features = table[jnp.clip(keys, 0, self.size - 1)]
    features = features.astype(self.dtype or table.dtype)
    keys = keys[:, None, None]
    features = jnp.where(keys < self.size, features, jnp.nan)
    return jnp.where(keys >= 0, features, 0)


class Reduced(nn.Module):
  """An encoder with a fixed linear map behind it; see Reduction.

  Attributes:
    encoder: images to tokens.
    width: of the result (E).
    dtype: of the result.
  """

  encoder: nn.Module
  width: int
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, images: UInt8[Array, "B h w 3"]) -> Float[Array, "B P E"]:
    x = self.encoder(images).astype(jnp.float32)
    zeros = initializers.zeros
    init = nn.with_logical_partitioning(zeros, (None,))
    mean = self.param("mean", init, (x.shape[-1],))
    init = nn.with_logical_partitioning(zeros, (None, None))
    shape = (x.shape[-1], self.width)
    components = self.param("components", init, shape)
    x = (x - mean) @ components.astype(jnp.float32)
    return x.astype(self.dtype or x.dtype)


def encode_all(
  encode: Callable[[Array], Array],
  images: UInt8[np.ndarray, "K h w 3"],
  batch: int = 64,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> Float[np.ndarray, "K P E"]:
  """Features of all pictures as float16, a batch at a time.

  Args:
    encode: a frozen encoder, [B h w 3] to [B P E].
    images: K pictures.
    batch: pictures at a time; the last batch is filled up and cut.
    progress: is told how many are done.
  """
  encode, parts = jax.jit(encode), []
  for start in range(0, len(images), batch):
    part = images[start : start + batch]
    fill = ((0, batch - len(part)), (0, 0), (0, 0), (0, 0))
    features = np.asarray(encode(np.pad(part, fill)), np.float16)
    parts.append(features[: len(part)])
    progress(start + len(part), len(images))
  return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class Reduction:
  """Principal components of features: x -> (x - mean) @ components.

  A fixed, frozen map behind an encoder: what all pictures have in common goes,
  and everything after it gets cheaper.
  """

  mean: Float[np.ndarray, "E"]
  components: Float[np.ndarray, "E D"]

  def __call__(self, features: Float[np.ndarray, "... E"]) -> np.ndarray:
    x = features.astype(np.float32) - self.mean
    return (x @ self.components).astype(np.float16)


def principal(features: Float[np.ndarray, "K P E"], width: int) -> Reduction:
  """The components of the largest variance, scaled to mean variance 1.

  Args:
    features: of the pictures to fit to.
    width: how many components (D).
  """
  flat = features.reshape(-1, features.shape[-1]).astype(np.float32)
  mean = flat.mean(axis=0)
  covariance = (flat - mean).T @ (flat - mean) / len(flat)
  variances, vectors = np.linalg.eigh(covariance)
  variances, vectors = variances[::-1][:width], vectors[:, ::-1][:, :width]
  # The sign of an eigenvector is free; fix it, so that runs agree.
  signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(width)])
  return Reduction(mean, vectors * signs / np.sqrt(variances.mean()))
