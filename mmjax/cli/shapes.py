"""Shapes of a module's parameters by path; nothing is computed."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mmjax import tree


def like(
  shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> jax.ShapeDtypeStruct:
  """An input that takes no memory, however large it says it is."""
  return jax.ShapeDtypeStruct(tuple(shape), dtype)


# What a language model is called with: tokens, positions, segments.
TOKENS = (like((1, 1), jnp.int32),) * 3


def shapes_of(
  module: nn.Module, *inputs: jax.ShapeDtypeStruct, method: str | None = None
) -> dict[str, tuple[int, ...]]:
  """Of every parameter that a call with these inputs makes."""

  def init(key, *inputs):
    return module.init(key, *inputs, method=method)

  made = jax.eval_shape(init, jax.random.key(0), *inputs)
  flat = tree.flatten(nn.unbox(made)["params"])
  return {path: tuple(x.shape) for path, x in flat.items()}
