"""Shapes of a module's parameters by path; nothing is computed."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax import tree

# What a language model is called with: tokens, positions, segments.
_ZERO = jnp.zeros((1, 1), jnp.int32)
TOKENS = (_ZERO, _ZERO, _ZERO + 1)


def shapes_of(
  module: nn.Module, *inputs, method: str | None = None
) -> dict[str, tuple[int, ...]]:
  """Of every parameter that a call with these inputs makes."""
  like = jax.eval_shape(
    lambda key: module.init(key, *inputs, method=method), jax.random.key(0)
  )
  flat = tree.flatten(nn.unbox(like)["params"])
  return {path: tuple(x.shape) for path, x in flat.items()}
