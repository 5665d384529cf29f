"""A table of what a frozen encoder made of every picture of a small set.

Where the same pictures come again and again and the encoder does not train,
each needs to be encoded once. The table takes the encoder's place in a system
and gets keys in the place of pixels.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from mmjax.layers.linear import Dtype
from mmjax.typing import Array, Float, Int, UInt8


class FeatureTable(nn.Module):
  """Keys to features; a negative key gives zeros.

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
    features = table[jnp.maximum(keys, 0)].astype(self.dtype or table.dtype)
    return jnp.where(keys[:, None, None] >= 0, features, 0)


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


def standardised(
  features: Float[np.ndarray, "K P E"], rows: np.ndarray
) -> Float[np.ndarray, "K P E"]:
  """Each channel to mean 0 and deviation 1 over the pictures in `rows`.

  Features of a rectified network all point the same way; without this, two
  pictures look alike to an attention until it has learned what to subtract.
  """
  chosen = features[rows].astype(np.float32)
  mean = chosen.mean(axis=(0, 1))
  deviation = chosen.std(axis=(0, 1)) + 1e-3
  result = np.empty_like(features)
  for i, one in enumerate(features):
    result[i] = (one.astype(np.float32) - mean) / deviation
  return result
