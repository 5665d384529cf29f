"""Layer norm and RMS norm, computed in float32."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.typing import Array


class LayerNorm(nn.Module):
  """(x - mean) / sqrt(var + eps) * scale + bias over the last dim.

  Attributes:
    eps: added to the variance.
    use_bias: False leaves the bias out (MPT).
    axis: logical name of the normalised dim.
  """

  eps: float = 1e-5
  use_bias: bool = True
  axis: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = x.astype(jnp.float32)
    y -= jnp.mean(y, axis=-1, keepdims=True)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    y *= _vector(self, "scale", initializers.ones, x)
    if self.use_bias:
      y += _vector(self, "bias", initializers.zeros, x)
    return y.astype(x.dtype)


class RMSNorm(nn.Module):
  """x / sqrt(mean(x^2) + eps) * scale over the last dim (LLaMA, Gopher)."""

  eps: float = 1e-6
  axis: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = x.astype(jnp.float32)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    return (y * _vector(self, "scale", initializers.ones, x)).astype(x.dtype)


def _vector(module: Any, name: str, init, x: Array) -> Array:
  init = nn.with_logical_partitioning(init, (module.axis,))
  return module.param(name, init, (x.shape[-1],)).astype(jnp.float32)
