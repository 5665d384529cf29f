"""One einsum module; every projection of every system is one of these."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from mmjax.typing import Array, Params

Dtype = Any


@dataclasses.dataclass(frozen=True)
class Lora:
  """A low-rank update of a matrix (arXiv 2106.09685).

  Attributes:
    rank: of the update (R).
    alpha: its scale is alpha / rank.
    dropout: share of what it reads that is left out in training; nothing is
      where no "dropout" key is given.
  """

  rank: int
  alpha: float = 16.0
  dropout: float = 0.0

  def __post_init__(self):
    if self.rank < 1 or not 0 <= self.dropout < 1:
      raise ValueError(
        f"{self}: the rank is 1 or more, the dropout from 0 to below 1."
      )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank


class Linear(nn.Module):
  """`einsum(equation, x, kernel) + bias`, with an optional low-rank update.

  The kernel is drawn normal, by its fan-in or with a deviation that is given.

  The equation is written with an ellipsis for the leading dims and the
  kernel's dims second, for example `...D,DNH->...NH`. Dims of the kernel that
  the output does not have are contracted.

  Attributes:
    equation: two-operand einsum.
    shape: shape of the kernel.
    axes: logical name of each dim of the kernel, for sharding.
    use_bias: adds a bias over the kernel's output dims.
    variance: of the kernel's first draw, times its fan-in.
    std: deviation of that draw in place of the variance, as BERT's 0.02.
    bias_bound: the bias is drawn evenly between this and its negative.
    lora: a low-rank update; adds `lora_a` and `lora_b`.
    dtype: of the computation; None keeps that of the input.
  """

  equation: str
  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  use_bias: bool = False
  variance: float = 1.0
  std: float | None = None
  bias_bound: float = 0.0
  lora: Lora | None = None
  dtype: Dtype | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    contracted, kept = contraction(self.equation)
    init = initializers.variance_scaling(
      self.variance, "fan_in", "normal", in_axis=contracted, out_axis=kept
    )
    if self.std is not None:
      init = initializers.normal(self.std)
    kernel = self.param(
      "kernel", nn.with_logical_partitioning(init, self.axes), self.shape
    )
    dtype = self.dtype or x.dtype
    x = x.astype(dtype)
    y = jnp.einsum(self.equation, x, kernel.astype(dtype))
    if self.lora is not None:
      y += self._update(x, contracted, kept)
    if self.use_bias:
      axes = tuple(self.axes[i] for i in kept)
      shape = tuple(self.shape[i] for i in kept)
      init = nn.with_logical_partitioning(_within(self.bias_bound), axes)
      y += self.param("bias", init, shape).astype(dtype)
    return y

  def _update(self, x, contracted, kept):
    """x A B * alpha / rank; B is zero at first."""
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
      (*(self.shape[i] for i in contracted), self.lora.rank),
    )
    b = self.param(
      "lora_b",
      nn.with_logical_partitioning(
        initializers.zeros, (None, *(self.axes[i] for i in kept))
      ),
      (self.lora.rank, *(self.shape[i] for i in kept)),
    )
    if self.lora.dropout and self.has_rng("dropout"):
      x = nn.Dropout(self.lora.dropout, deterministic=False)(x)
    h = jnp.einsum(f"{left},{ins}{rank}->{between}", x, a.astype(x.dtype))
    y = jnp.einsum(f"{between},{rank}{outs}->{result}", h, b.astype(x.dtype))
    return y * self.lora.scale


def _within(bound: float) -> initializers.Initializer:
  if not bound:
    return initializers.zeros
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
    key, shape, dtype, -bound, bound
  )


def contraction(equation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Which dims of the kernel an equation contracts, and which it keeps."""
  letters, result = equation.split("->")
  kernel = letters.split(",")[1]
  contracted = tuple(i for i, c in enumerate(kernel) if c not in result)
  kept = tuple(i for i, c in enumerate(kernel) if c in result)
  return contracted, kept


def merge_lora(params: Params, scale: float) -> dict:
  """One `Linear`'s parameters with its low-rank update folded in.

  Args:
    params: `kernel`, `lora_a`, `lora_b` and perhaps `bias`, of one layer or
      with a leading dim of layers.
    scale: of the update (Lora.scale).

  Returns:
    the parameters of the same module without one, in the kernel's dtype.

  Raises:
    ValueError: for a kernel whose contracted dims do not come first.
  """
  kernel, a, b = params["kernel"], params["lora_a"], params["lora_b"]
  # Layers are counted by both.
  layers = kernel.shape[: a.ndim + b.ndim - 2 - kernel.ndim]
  ins, outs = a.shape[len(layers) : -1], b.shape[len(layers) + 1 :]
  if (*layers, *ins, *outs) != kernel.shape:
    raise ValueError(
      f"A kernel of {kernel.shape} with an update from {ins} to {outs}; "
      f"expected {(*layers, *ins, *outs)}."
    )
  rank = a.shape[-1]
  update = a.reshape(*layers, -1, rank) @ b.reshape(*layers, rank, -1)
  merged = kernel + update.reshape(kernel.shape) * scale
  bias = {"bias": params["bias"]} if "bias" in params else {}
  return {"kernel": merged.astype(kernel.dtype)} | bias


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
