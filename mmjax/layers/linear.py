"""One einsum module; every projection of every system is one of these."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.typing import Array, Params

Dtype = Any


class Linear(nn.Module):
  """`einsum(equation, x, kernel) + bias`, with an optional low-rank update.

  The kernel is drawn fan-in normal.

  The equation is written with an ellipsis for the leading dims and the
  kernel's dims second, for example `...D,DNH->...NH`. Dims of the kernel that
  the output does not have are contracted.

  Attributes:
    equation: two-operand einsum.
    shape: shape of the kernel.
    axes: logical name of each dim of the kernel, for sharding.
    use_bias: adds a bias over the kernel's output dims.
    variance: of the kernel's first draw, times its fan-in.
    rank: rank of a LoRA update, 0 for none; adds `lora_a` and `lora_b`.
    alpha: scale of the update is alpha / rank.
    dtype: of the computation; None keeps that of the input.
  """

  equation: str
  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  use_bias: bool = False
  variance: float = 1.0
  rank: int = 0
  alpha: float = 16.0
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    contracted, kept = contraction(self.equation)
    init = initializers.variance_scaling(
      self.variance, "fan_in", "normal", in_axis=contracted, out_axis=kept
    )
    kernel = self.param(
      "kernel", nn.with_logical_partitioning(init, self.axes), self.shape
    )
    dtype = self.dtype or x.dtype
    x = x.astype(dtype)
    y = jnp.einsum(self.equation, x, kernel.astype(dtype))
    if self.rank:
      y += self._update(x, contracted, kept)
    if self.use_bias:
      axes = tuple(self.axes[i] for i in kept)
      shape = tuple(self.shape[i] for i in kept)
      zeros = nn.with_logical_partitioning(initializers.zeros, axes)
      y += self.param("bias", zeros, shape).astype(dtype)
    return y

  def _update(self, x, contracted, kept):
    """LoRA (arXiv 2106.09685): x A B * alpha / rank, B is zero at first."""
    letters, result = self.equation.split("->")
    left, right = letters.split(",")
    ins = "".join(right[i] for i in contracted)
    outs = "".join(right[i] for i in kept)
    rank = next(c for c in "Rrzy" if c not in self.equation)
    between = result.replace(outs, rank)
    a = self.param(
      "lora_a",
      nn.with_logical_partitioning(
        initializers.variance_scaling(
          1.0 / 3.0, "fan_in", "uniform", in_axis=tuple(range(len(ins)))
        ),
        (*(self.axes[i] for i in contracted), None),
      ),
      (*(self.shape[i] for i in contracted), self.rank),
    )
    b = self.param(
      "lora_b",
      nn.with_logical_partitioning(
        initializers.zeros, (None, *(self.axes[i] for i in kept))
      ),
      (self.rank, *(self.shape[i] for i in kept)),
    )
    h = jnp.einsum(f"{left},{ins}{rank}->{between}", x, a.astype(x.dtype))
    y = jnp.einsum(f"{between},{rank}{outs}->{result}", h, b.astype(x.dtype))
    return y * (self.alpha / self.rank)


def contraction(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Which dims of the kernel an equation contracts, and which it keeps."""
  letters, result = equation.split("->")
  kernel = letters.split(",")[1]
  contracted = tuple(i for i, c in enumerate(kernel) if c not in result)
  kept = tuple(i for i, c in enumerate(kernel) if c in result)
  return contracted, kept


def merge_lora(params: Params, equation: str, alpha: float = 16.0) -> dict:
  """One `Linear`'s parameters with its low-rank update folded in.

  Args:
    params: `kernel`, `lora_a`, `lora_b` and perhaps `bias`, all unstacked.
    equation: the module's equation.
    alpha: the module's alpha.

  Returns:
    the parameters of the same module with rank 0, in the kernel's dtype.
  """
  a, b = params["lora_a"], params["lora_b"]
  contracted, kept = contraction(equation)
  update = jnp.tensordot(a, b, axes=1) * (alpha / a.shape[-1])
  update = jnp.transpose(
    update, jnp.argsort(jnp.array(contracted + kept)).tolist()
  )
  kernel = params["kernel"]
  merged = {"kernel": (kernel + update).astype(kernel.dtype)}
  return merged | ({"bias": params["bias"]} if "bias" in params else {})


def dense(
  features_in: int,
  features_out: int,
  axes: tuple[str | None, str | None] = (None, None),
  **kwargs,
) -> Linear:
  """A plain matrix, `...D,DF->...F`."""
  return Linear("...D,DF->...F", (features_in, features_out), axes, **kwargs)


def into_heads(
  width: int, heads: int, size: int, axis: str = "heads", **kwargs
) -> Linear:
  """From a hidden state to what each head reads; `axis` names the heads."""
  axes = ("embed", axis, "head_dim")
  return Linear("...D,DNH->...NH", (width, heads, size), axes, **kwargs)


def out_of_heads(heads: int, size: int, width: int, **kwargs) -> Linear:
  """From what all heads found to a hidden state."""
  axes = ("heads", "head_dim", "embed")
  return Linear("...NH,NHD->...D", (heads, size, width), axes, **kwargs)
